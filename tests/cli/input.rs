//! Bad input: exit code 2, everything that is wrong at once, and nothing asked of a registry.

use serde_json::json;

use super::desk::{Desk, code, mark, resource};

#[tokio::test]
async fn bad_input_ends_with_2_names_file_document_and_field_and_asks_no_registry() {
    let desk = Desk::new().await;
    let mut misspelt = mark(&desk.image.pinned());
    misspelt["spec"]["imgae"] = json!("x");
    let good = desk.file("good.json", &mark(&desk.image.pinned()).to_string());
    let bad = desk.file(
        "bad.json",
        &format!(
            "{}\n{misspelt}",
            resource("other", json!({"image": "nginx:1.29", "interval": "5"}))
        ),
    );
    let before = desk.registry.mark().unwrap();
    for command in ["attach", "plan"] {
        let ran = desk.affix(&[command, "-f", &good, "-f", &bad], "").await;
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
    for (args, text, said) in [
        (vec!["attach"], "", "--filename <FILE>"),
        (
            vec!["attach", "-f", "/nowhere.yaml"],
            "",
            "/nowhere.yaml: No such file",
        ),
        (
            vec!["attach", "-f", "-"],
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n",
            "there is no ImageAttachment in what -f names",
        ),
        (vec!["pin", "-f", "-"], "a: [", "stdin: "),
        (vec!["tree", "nginx"], "", "names no registry"),
        (vec!["tree", "r.example.com/\u{1b}[2J:v1"], "", "\\u{1b}"),
    ] {
        let ran = desk.affix(&args, text).await;
        assert_eq!(code(&ran), 2, "{args:?} {}{}", ran.out, ran.err);
        assert!(
            ran.err.contains(said) && !ran.err.contains('\u{1b}'),
            "{args:?} {}",
            ran.err
        );
    }
    assert!(desk.registry.requests_since(before).unwrap().is_empty());
}

#[tokio::test]
async fn help_teaches_by_examples_and_crd_prints_the_definition() {
    let desk = Desk::new().await;
    for command in ["attach", "plan", "tree", "pin", "crd", "controller"] {
        let help = desk.affix(&[command, "--help"], "").await.stdout().unwrap();
        assert!(
            help.contains("Examples:") && help.contains(&format!("affix {command}")),
            "{help}"
        );
    }
    let crd = desk.affix(&["crd"], "").await.stdout().unwrap();
    assert_eq!(crd, affix::api::crd_yaml());
}
