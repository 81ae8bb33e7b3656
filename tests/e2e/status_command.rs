//! `affix status` against a running operator.

use affix::api::Reason;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::run::{Ran, Run};
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::Namespace;

async fn status(namespace: &Namespace, args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let run = Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(["status"].iter().chain(args).copied())
        .env("KUBECONFIG", namespace.plane.kubeconfig())
        .env("HOME", home.path());
    run.output().await.unwrap()
}

#[tokio::test]
async fn status_shows_targets_and_conditions_and_its_exit_code_says_if_all_is_well() {
    let namespace = Namespace::new("status").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    let none = status(&namespace, &["-n", &namespace.name]).await;
    assert_eq!(none.stdout().unwrap(), "no ImageAttachments\n");

    namespace.apply("good", note(&reference)).await;
    namespace.ready("good").await;
    let held = with(note(&reference), json!({"suspend": true}));
    namespace.apply("held", held).await;
    namespace.suspended("held").await;
    let planned = with(note(&reference), json!({"dryRun": true}));
    namespace.apply("planned", planned).await;
    namespace.refused("planned", Reason::Planned).await;
    let text = status(&namespace, &["-n", &namespace.name])
        .await
        .stdout()
        .unwrap();
    let good = format!(
        "{}/good  {}",
        namespace.name,
        registry.reference(&image.pinned())
    );
    assert!(
        text.contains(&good)
            && text.contains("TARGET")
            && text.contains("linux/amd64")
            && text.contains("this resource created it")
            && text.contains("  Ready: ")
            && text.contains("suspended; the conditions are those of the last pass")
            && text.ends_with("3 resources: 1 ready, 1 not ready, 1 suspended\n"),
        "{text}"
    );

    let absent = note(&registry.reference("team/app:absent"));
    namespace.apply("bad", absent).await;
    let message = namespace.refused("bad", Reason::NotFound).await;
    let failed = status(&namespace, &["bad", "-n", &namespace.name]).await;
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let printed = failed.out.clone();
    assert!(
        printed.contains(&format!("  NotFound: {message}")),
        "{printed}"
    );

    let json = status(&namespace, &["-n", &namespace.name, "-o", "json"]).await;
    let list: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 4, "{list:#}");
    let unknown = status(&namespace, &["absent", "-n", &namespace.name]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(unknown.err.contains("404"), "{unknown:?}");
}

#[tokio::test]
async fn the_table_of_kubectl_fits_120_columns_and_shows_what_is_suspended() {
    let namespace = Namespace::new("columns").await;
    let _controller = Controller::start(&namespace).await;
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = "registry.example.com/team/app:v1.12.3";
    let spec = with(note(&format!("{image}@{digest}")), json!({"suspend": true}));
    namespace.apply("app-v1.12.3-signed", spec).await;
    namespace.suspended("app-v1.12.3-signed").await;
    let get = ["get", "ia", "--namespace", &namespace.name];
    let table = namespace
        .plane
        .kubectl(get)
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        words,
        [
            "NAME",
            "IMAGE",
            "ATTACHED",
            "READY",
            "SUSPENDED",
            "STATUS",
            "AGE"
        ],
        "{table}"
    );
    assert!(
        lines.iter().all(|line| line.len() <= 120)
            && lines[1].contains(&format!(" {image} "))
            && lines[1].contains(" Unknown ")
            && lines[1].contains(" true "),
        "{table}"
    );
}
