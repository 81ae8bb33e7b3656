//! Unwanted attachments: their removal, and the report of those that stay.

use std::time::Duration;

use affix::api::{ConditionType, TargetState, find_condition};
use affix_testbed::hostile::{Deletion, Fault, HostileRegistry, Image, Matcher, Op, Quirks};
use serde_json::{Value, json};

use crate::cost::chain;
use crate::resource::{MARK, Resource, mark, note};

/// Quirks of a registry without the referrers API that deletes manifests.
fn fallback() -> Quirks {
    Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    }
}

async fn registry_and_image(quirks: Quirks, platforms: usize) -> (HostileRegistry, Image) {
    let registry = HostileRegistry::builder()
        .quirks(quirks)
        .start()
        .await
        .unwrap();
    let platforms: Vec<String> = (0..platforms)
        .map(|nth| format!("linux/arm/v{nth}"))
        .collect();
    let image = registry
        .image("team/app", "v1")
        .platforms(platforms.iter().map(String::as_str))
        .push();
    (registry, image)
}

/// Returns two versions of each kind of content: a note, and a mark, on which readers act.
fn versions(registry: &HostileRegistry, image: &Image) -> [[Value; 2]; 2] {
    let reference = registry.reference(&image.pinned());
    [
        ["one", "two"].map(|text| note(&reference, text)),
        ["2026-01-01", "2027-01-01"].map(|date| mark(&reference, date, "Report")),
    ]
}

#[tokio::test]
async fn after_a_changed_spec_old_attachments_are_removed_once_status_has_the_new() {
    const ROUND_TRIP: Duration = Duration::from_millis(500);
    const TARGETS: usize = 13;
    for quirks in [Quirks::default(), fallback()] {
        let (registry, image) = registry_and_image(quirks, TARGETS - 1).await;
        let [[one, two], _] = versions(&registry, &image);
        let mut resource = Resource::new(one);
        resource.ready().await;
        registry.clear();
        registry.fault(Matcher::on(Op::ManifestDelete), Fault::Delay(ROUND_TRIP));
        resource.change(two);
        resource.ready().await;
        let deleted = registry.requests_that(&Matcher::on(Op::ManifestDelete));
        assert_eq!(deleted.len(), TARGETS, "{}", registry.transcript());
        assert!(
            chain(&deleted, ROUND_TRIP) < TARGETS / 2,
            "{} one after the other:\n{}",
            chain(&deleted, ROUND_TRIP),
            registry.transcript()
        );
        assert!(
            resource.status.leftovers.is_empty(),
            "{:#?}",
            resource.status.leftovers
        );

        let saved = resource.saved.as_ref().unwrap();
        assert_eq!(
            saved.attached.as_deref(),
            Some("13/13"),
            "status is saved before the first removal"
        );
        assert_eq!(saved.leftovers.len(), TARGETS, "{:#?}", saved.leftovers);
        let reconciling = find_condition(&saved.conditions, ConditionType::Reconciling).unwrap();
        assert_eq!(reconciling.message, "removing what is no longer wanted");
    }
}

#[tokio::test]
async fn a_time_out_during_removals_is_reported_and_retried() {
    for quirks in [Quirks::default(), fallback()] {
        let (registry, image) = registry_and_image(quirks, 1).await;
        let reference = registry.reference(&image.name());
        let spec = |text: &str| {
            let mut spec = note(&reference, text);
            spec["timeout"] = json!("6s");
            spec
        };
        let mut resource = Resource::new(spec("one"));
        resource.ready().await;
        let fault = registry.fault(
            Matcher::on(Op::ManifestDelete),
            Fault::Delay(Duration::from_secs(3600)),
        );
        for text in ["two", "three"] {
            resource.change(spec(text));
            let outcome = resource.pass().await;
            let (reason, message) = resource.verdict();
            assert_eq!(reason, "RegistryUnavailable", "{message}");
            assert!(
                message.contains("spec.timeout was over before") && outcome.is_hurried(),
                "{message}"
            );
            assert!(
                resource
                    .status
                    .targets
                    .iter()
                    .all(|row| row.state == TargetState::Attached),
                "{:#?}",
                resource.status.targets
            );
        }
        // Each target has two removals, and the deadline passes before the second.
        assert_eq!(resource.status.leftovers.len(), 4);
        for leftover in &resource.status.leftovers {
            let message = leftover.message.as_deref().unwrap();
            assert!(
                message.contains("spec.timeout was over before"),
                "{message}"
            );
        }
        fault.lift();
        resource.ready().await;
        assert!(
            resource.status.leftovers.is_empty(),
            "{:#?}",
            resource.status.leftovers
        );
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            1
        );
    }
}

#[tokio::test]
async fn a_transient_failure_of_a_removal_is_not_ready_and_retried() {
    for nth in 0..2 {
        let (registry, image) = registry_and_image(Quirks::default(), 1).await;
        let [old, new] = versions(&registry, &image)[nth].clone();
        let mut resource = Resource::new(old);
        resource.ready().await;
        let fault = registry.fault(Matcher::on(Op::ManifestDelete), Fault::status(503));
        resource.change(new);
        resource.later(60);
        let outcome = resource.pass().await;
        let (reason, message) = resource.verdict();
        assert_eq!(reason, "RegistryUnavailable", "{message}");
        assert!(
            message.contains("HTTP 503") && outcome.is_hurried(),
            "{message}"
        );
        let reconciling = find_condition(&resource.status.conditions, ConditionType::Reconciling)
            .map(|condition| condition.reason.as_str());
        assert_eq!(reconciling, Some("ProgressingWithRetry"));
        fault.lift();
        resource.look().await;
        assert_eq!(resource.verdict().0, "Attached", "{:#?}", resource.status);
        assert!(resource.status.leftovers.is_empty());
    }
}

fn undeletable() -> Quirks {
    Quirks {
        deletion: Deletion::Disabled,
        ..Quirks::default()
    }
}

#[tokio::test]
async fn a_refused_removal_of_an_attachment_that_readers_ignore_does_not_prevent_ready() {
    // A note, and a mark that the new mark outranks.
    for nth in 0..2 {
        let (registry, image) = registry_and_image(undeletable(), 1).await;
        let [old, new] = versions(&registry, &image)[nth].clone();
        let mut resource = Resource::new(old);
        resource.ready().await;
        resource.change(new);
        resource.later(60);
        for _ in 0..2 {
            resource.ready().await;
            let left = &resource.status.leftovers;
            assert!(
                !left.is_empty()
                    && left
                        .iter()
                        .all(|left| left.reason.as_deref() == Some("RemovalRefused")),
                "{left:#?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refused_removal_prevents_ready_while_the_old_mark_counts_or_until_accepted() {
    // The marks of the platforms are the newest there; so is a mark of another type.
    for (scope, kind, count) in [("Index", MARK, 2), ("All", "application/vnd.demo.other", 3)] {
        let (registry, image) = registry_and_image(undeletable(), 2).await;
        let reference = registry.reference(&image.pinned());
        let spec = |scope: &str, kind: &str| {
            let mut spec = mark(&reference, "2026-01-01", "Report");
            spec["targets"] = json!({"scope": scope});
            spec["endOfLife"]["artifactType"] = json!(kind);
            spec
        };
        let changed = spec(scope, kind);
        let mut resource = Resource::new(spec("All", MARK));
        resource.ready().await;
        resource.change(changed);
        resource.later(60);
        for pass in 0..2 {
            let outcome = resource.pass().await;
            let (reason, message) = resource.verdict();
            assert_eq!(reason, "RemovalRefused", "pass {pass}: {message}");
            assert!(!outcome.is_hurried(), "a refusal is not transient");
            assert!(
                find_condition(&resource.status.conditions, ConditionType::Reconciling).is_none(),
                "{:#?}",
                resource.status
            );
            assert_eq!(resource.status.leftovers.len(), count);
            for leftover in &resource.status.leftovers {
                let name = &leftover.attachment["sha256:".len()..][..12];
                assert!(message.contains(name), "{name}: {message}");
            }
            assert!(
                message.contains("affix.dev/accept-leftovers: \"2\""),
                "{message}"
            );
        }
        resource.accepts_leftovers = true;
        resource.ready().await;
        assert_eq!(resource.status.leftovers.len(), count);
        resource.look().await;
        assert_eq!(resource.verdict().0, "Attached");
    }
}
