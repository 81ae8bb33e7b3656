//! Bad input: exit code 2, all errors at once, and no request to a registry.

use serde_json::json;

use super::fixture::{Fixture, code, mark, resource};

#[tokio::test]
async fn bad_input_is_refused_before_the_first_request() {
    let fixture = Fixture::new().await;
    let mut misspelt = mark(&fixture.image.pinned());
    misspelt["spec"]["imgae"] = json!("x");
    let good = fixture.file("good.json", &mark(&fixture.image.pinned()).to_string());
    let bad = fixture.file(
        "bad.json",
        &format!(
            "{}\n{misspelt}",
            resource("other", json!({"image": "nginx:1.29", "interval": "5"}))
        ),
    );
    let before = fixture.registry.mark().unwrap();
    for command in ["attach", "plan"] {
        let ran = fixture.affix(&[command, "-f", &good, "-f", &bad], "").await;
        assert_eq!(code(&ran), 2, "{}{}", ran.out, ran.err);
        assert!(ran.out.is_empty(), "{}", ran.out);
        assert!(
            ran.err.contains(&format!(
                "error: {bad}, document 2: spec.imgae: there is no such field"
            )),
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains(&format!("error: {bad}, document 1: ")),
            "{}",
            ran.err
        );
    }
    for (args, text, message) in [
        (vec!["attach"], "", "--filename <FILE>"),
        (
            vec!["attach", "-f", "/nowhere.yaml"],
            "",
            "/nowhere.yaml: No such file",
        ),
        (
            vec!["attach", "-f", "-"],
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n",
            "no ImageAttachment found in the files of -f",
        ),
        (vec!["pin", "-f", "-"], "a: [", "stdin: "),
        (vec!["tree", "nginx"], "", "names no registry"),
        (vec!["tree", "r.example.com/\u{1b}[2J:v1"], "", "\\u{1b}"),
    ] {
        let ran = fixture.affix(&args, text).await;
        assert_eq!(code(&ran), 2, "{args:?} {}{}", ran.out, ran.err);
        assert!(
            ran.err.contains(message) && !ran.err.contains('\u{1b}'),
            "{args:?} {}",
            ran.err
        );
    }
    assert!(fixture.registry.requests_since(before).unwrap().is_empty());
}

#[tokio::test]
async fn help_has_examples_and_crd_prints_the_crd() {
    let fixture = Fixture::new().await;
    for command in ["attach", "plan", "tree", "pin", "crd", "controller"] {
        let help = fixture
            .affix(&[command, "--help"], "")
            .await
            .stdout()
            .unwrap();
        assert!(
            help.contains("Examples:") && help.contains(&format!("affix {command}")),
            "{help}"
        );
    }
    let crd = fixture.affix(&["crd"], "").await.stdout().unwrap();
    assert_eq!(crd, affix::api::crds_yaml());
}

#[tokio::test]
async fn version_and_completion_scripts_are_printed() {
    let fixture = Fixture::new().await;
    let version = fixture.affix(&["version", "-o", "json"], "").await;
    let version: serde_json::Value = version.json().unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        version.as_object().unwrap().contains_key("commit"),
        "{version}"
    );
    let text = fixture.affix(&["version"], "").await.stdout().unwrap();
    assert!(
        text.contains(env!("CARGO_PKG_VERSION")) && text.contains("date: "),
        "{text}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = fixture
            .affix(&["completion", shell], "")
            .await
            .stdout()
            .unwrap();
        assert!(
            script.contains("end-of-life") && script.contains("in-place"),
            "{shell}"
        );
    }
    assert_eq!(code(&fixture.affix(&["completion", "tcsh"], "").await), 2);
}
