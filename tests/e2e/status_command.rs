//! `affix status` against a running operator.

use affix::api::Reason;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::run::{Ran, Run};
use serde_json::{Value, json};

use crate::sets::{Sets, notes, release};
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
async fn the_status_of_a_set_has_its_tables_and_its_children() {
    let namespace = Namespace::new("set-status").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    for tag in ["v1.0.0", "v1.1.0", "v1.2.0"] {
        release(&registry, tag);
    }
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("other", note(&registry.reference("team/app:v1.0.0")))
        .await;
    namespace.ready("other").await;
    let lifecycle = |most: usize| {
        json!({
            "lifecycle": {"keep": {"minors": 1}, "gracePeriod": "720h", "settle": "0s", "maxNewMarks": most},
            "template": {"spec": {"insecure": true, "endOfLife": {}}},
        })
    };
    let spec = with(notes(&registry, json!({})), lifecycle(2));
    sets.apply("releases", spec).await;
    sets.ready("releases", "2/2").await;
    let shown = status(&namespace, &["releases", "-n", &namespace.name]).await;
    let text = shown.stdout().unwrap();
    let repository = registry.reference("team/app");
    let heading = format!("{}/releases  set\n", namespace.name);
    assert!(text.starts_with(&heading), "{text}");
    // The words of the lines, since the widths follow from the port.
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "REPOSITORY CYCLE NEWEST TAGS STATE DATE".to_owned(),
        format!("{repository} 1.2 v1.2.0 1 Alive"),
        "REPOSITORY TAGS SELECTED READY WHY".to_owned(),
        format!("{repository} 3 3 2/2"),
        "Ready: 2 ImageAttachments are ready".to_owned(),
        "3 resources: 3 ready, 0 not ready, 0 suspended".to_owned(),
    ] {
        assert!(lines.contains(&line), "{line}\n{text}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&format!("{repository} 1.1 v1.1.0 1 EndOfLife 20"))),
        "{text}"
    );
    assert!(
        text.contains("linux/amd64") && !text.contains("/other "),
        "{text}"
    );

    let spec = with(notes(&registry, json!({})), lifecycle(0));
    sets.apply("waiting", spec).await;
    let message = sets.refused("waiting", Reason::TooManyMarks).await;
    let all = status(&namespace, &["-n", &namespace.name]).await;
    assert_eq!(all.status.code(), Some(1), "{all:?}");
    assert!(
        all.out.contains(&format!("  TooManyMarks: {message}"))
            && all
                .out
                .ends_with("5 resources: 4 ready, 1 not ready, 0 suspended\n"),
        "{}",
        all.out
    );
    let json = status(&namespace, &["-n", &namespace.name, "-o", "json"]).await;
    let list: Value = serde_json::from_str(&json.out).unwrap();
    let kinds = list["items"].as_array().unwrap().iter();
    let of_sets = kinds.filter(|item| item["kind"] == "ImageAttachmentSet");
    assert_eq!(of_sets.count(), 2, "{list:#}");
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
