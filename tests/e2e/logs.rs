//! The operator's log as a collector reads it.

use std::collections::BTreeSet;
use std::time::Duration;

use affix::api::{Reason, TargetStatus};
use affix_testbed::certificates::Authority;
use affix_testbed::hostile::HostileRegistry;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::{Namespace, PATIENCE};

/// All lines, each of which must be one JSON object.
fn lines(log: &str) -> Vec<Value> {
    let read = |line: &str| {
        serde_json::from_str::<Value>(line)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    };
    log.lines().map(read).collect()
}

/// The names of a line's fields, sorted.
fn fields(line: &Value) -> Vec<String> {
    let mut fields: Vec<String> = line
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    fields.sort();
    fields
}

/// Those of the line that docs/metrics.md shows.
fn documented() -> Vec<String> {
    let page = include_str!("../../docs/metrics.md");
    let line = page.lines().find(|line| line.starts_with('{')).unwrap();
    fields(&serde_json::from_str(line).unwrap())
}

#[tokio::test]
async fn away_from_a_terminal_each_line_is_json_and_each_finished_reconcile_is_one_line() {
    let debug = ["--log-level", "debug"];
    let namespace = Namespace::new("logs").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let controller = Controller::start_logging(&namespace, &debug, &[]).await;
    namespace
        .apply("good", note(&registry.reference(&image.name())))
        .await;
    namespace.ready("good").await;
    namespace.request("good", "again").await;
    namespace
        .apply("bad", note(&registry.reference("team/app:absent")))
        .await;
    namespace.refused("bad", Reason::NotFound).await;
    let deadline = Instant::now() + PATIENCE;
    let reconciled = loop {
        let reconciled: Vec<Value> = lines(&controller.log())
            .into_iter()
            .filter(|line| line["message"] == "reconciled")
            .collect();
        let of = |name: &str| {
            reconciled
                .iter()
                .filter(|line| line["name"] == name)
                .count()
        };
        if of("good") >= 2 && of("bad") >= 1 {
            break reconciled;
        }
        assert!(Instant::now() < deadline, "{}", controller.log());
        sleep(std::time::Duration::from_millis(50)).await;
    };
    for line in &reconciled {
        let is_right = line["namespace"] == *namespace.name
            && line["level"] == "DEBUG"
            && line["timestamp"].is_string()
            && line["requests"]
                .as_u64()
                .is_some_and(|requests| requests > 0)
            && line["duration_ms"].is_u64()
            && if line["name"] == "good" {
                line["reason"] == "Attached" && line["targets"] == "3/3"
            } else {
                line["reason"] == "NotFound"
            };
        assert!(is_right, "{line}");
        assert_eq!(
            fields(line)
                .into_iter()
                .filter(|field| field != "span" && field != "spans")
                .collect::<Vec<_>>(),
            documented(),
            "what docs/metrics.md shows, and no more: {line}"
        );
    }
    // Two passes, two lines: the first one, and the one that was asked for.
    assert_eq!(
        reconciled
            .iter()
            .filter(|line| line["name"] == "good")
            .count(),
        2,
        "{reconciled:?}"
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_resource_that_fails_is_one_warning_for_each_cause() {
    let namespace = Namespace::new("warnings").await;
    let registry = HostileRegistry::start().await.unwrap();
    let (absent, good) = (
        registry.reference("team/app:absent"),
        registry.reference(&host(&registry, "v1").name()),
    );
    let flags = ["--min-retry-delay", "50ms", "--max-retry-delay", "200ms"];
    let controller = Controller::start_logging(&namespace, &flags, &[]).await;
    namespace.apply("app", note(&absent)).await;
    let first = namespace.refused("app", Reason::NotFound).await;
    // Several retries.
    let asked = |registry: &HostileRegistry| registry.requests().len();
    registry.clear();
    let deadline = Instant::now() + PATIENCE;
    while asked(&registry) < 5 {
        assert!(Instant::now() < deadline, "{}", registry.transcript());
        sleep(std::time::Duration::from_millis(20)).await;
    }
    let platforms = json!({"targets": {"platforms": ["linux/s390x"]}});
    namespace.apply("app", with(note(&good), platforms)).await;
    let second = namespace.refused("app", Reason::NoMatchingPlatform).await;
    namespace
        .apply("planned", with(note(&good), json!({"dryRun": true})))
        .await;
    namespace.refused("planned", Reason::Planned).await;
    let (.., log) = controller.terminate().await;
    let warned: Vec<Value> = lines(&log)
        .into_iter()
        .filter(|line| line["level"] == "WARN")
        .map(|line| {
            json!([
                line["namespace"],
                line["name"],
                line["image"],
                line["reason"],
                line["message"]
            ])
        })
        .collect();
    assert_eq!(
        warned,
        [
            json!([namespace.name, "app", absent, "NotFound", first]),
            json!([namespace.name, "app", good, "NoMatchingPlatform", second]),
        ],
        "{log}"
    );
}

/// The lines of the audit trail: resource, action, subject, digest, format, and the first word of the signer.
fn trail(log: &str) -> BTreeSet<[String; 6]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_trail = |line: &Value| text(&line["message"]).starts_with("attachment ");
    let trail = lines(log).into_iter().filter(is_trail);
    trail
        .map(|line| {
            assert_eq!(line["level"], "INFO", "{line}");
            for field in ["namespace", "image", "artifactType"] {
                assert!(!text(&line[field]).is_empty(), "{field}: {line}");
            }
            let signer = text(&line["signer"]);
            let [action, signer] = [text(&line["message"]), signer]
                .map(|text| text.split(' ').next_back().unwrap_or_default().to_owned());
            let rest = ["name", "subject", "digest", "format"].map(|field| text(&line[field]));
            let [name, subject, digest, format] = rest;
            [name, action, subject, digest, format, signer]
        })
        .collect()
}

#[tokio::test]
async fn the_info_lines_say_what_was_signed_adopted_restored_and_removed() {
    let namespace = Namespace::new("trail").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let key = Authority::new()
        .unwrap()
        .signer_for(Duration::from_hours(24 * 300))
        .unwrap();
    namespace.tls("key", &key).await;
    let controller = Controller::start_logging(&namespace, &[], &[]).await;
    let signed = json!({"image": reference, "insecure": true, "deletionPolicy": "Delete",
        "signature": {"notation": {"keySecretRef": {"name": "key"}}}});
    namespace.apply("signed", signed).await;
    let signatures = namespace.ready("signed").await.targets;
    namespace.apply("first", note(&reference)).await;
    let notes = namespace.ready("first").await.targets;
    namespace.apply("second", note(&reference)).await;
    namespace.ready("second").await;
    // One is lost.
    let lost = notes[0].attachment.clone().unwrap();
    assert!(registry.store().delete_manifest("team/app", &lost));
    namespace.request("first", "look").await;
    namespace.ready("first").await;
    namespace.delete("signed").await;
    namespace.gone("signed").await;
    let (.., log) = controller.terminate().await;

    let signer = {
        let leaf = lines(&log)
            .into_iter()
            .find_map(|line| Some(line["signer"].as_str()?.to_owned()))
            .unwrap();
        let (secret, id) = leaf.split_once(' ').unwrap();
        assert!(secret == "key" && id.starts_with("sha256:"), "{leaf}");
        id.to_owned()
    };
    let mut expected = BTreeSet::new();
    let mut expect =
        |name: &str, action: &str, format: &str, signer: &str, targets: &[TargetStatus]| {
            let attached = targets
                .iter()
                .filter_map(|target| Some((&target.digest, target.attachment.as_ref()?)));
            expected.extend(attached.map(|(subject, digest)| {
                [name, action, subject, digest, format, signer].map(str::to_owned)
            }));
        };
    expect("signed", "made", "Notation", &signer, &signatures);
    expect("signed", "removed", "Notation", "", &signatures);
    expect("first", "made", "Referrer", "", &notes);
    expect("first", "restored", "Referrer", "", &notes[..1]);
    expect("second", "adopted", "Referrer", "", &notes);
    assert_eq!(trail(&log), expected, "{log}");
}

#[tokio::test]
async fn levels_and_rust_log_choose_what_is_logged() {
    let namespace = Namespace::new("levels").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    namespace
        .apply("good", note(&registry.reference(&image.name())))
        .await;
    for (flags, env, debug, info) in [
        (vec!["--log-level", "debug"], vec![], true, true),
        (vec!["--log-level", "error"], vec![], false, false),
        (
            vec!["--log-level", "debug"],
            vec![("RUST_LOG", "warn")],
            false,
            false,
        ),
        (vec![], vec![("RUST_LOG", "info,affix=debug")], true, true),
        (vec![], vec![("RUST_LOG", "=,=")], false, true),
    ] {
        let controller = Controller::start_logging(&namespace, &flags, &env).await;
        // A terminated operator has written all that it had to say.
        namespace
            .request("good", &format!("{flags:?}{env:?}"))
            .await;
        let (.., log) = controller.terminate().await;
        let lines = lines(&log);
        let levels: Vec<Value> = lines.iter().map(|line| line["level"].clone()).collect();
        // A request is told with the resource that it is for.
        let answered = lines
            .iter()
            .filter(|line| line["message"] == "received response")
            .inspect(|line| {
                assert_eq!(
                    line["spans"][0]["resource"],
                    format!("{}/good", namespace.name),
                    "{line}"
                );
            });
        assert_eq!(answered.count() > 0, debug, "{flags:?} {env:?}\n{log}");
        assert_eq!(
            (
                levels.contains(&"DEBUG".into()),
                levels.contains(&"INFO".into())
            ),
            (debug, info),
            "{flags:?} {env:?}\n{log}"
        );
        assert_eq!(
            log.contains("is not a valid filter"),
            env == [("RUST_LOG", "=,=")],
            "{log}"
        );
    }
    namespace.check_rules().await;
}
