//! End of life as readers see it, and specs that change: the newest mark is the resource's own, and only what it made goes.

use std::time::Duration;

use affix::api::{Origin, Reason};
use affix_testbed::images::Pushed;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::controller::Controller;
use crate::images::{END_OF_LIFE, LIFECYCLE, attached, attachment, mark, push, registries, with};
use crate::namespace::{Namespace, PATIENCE, message, ready};

fn dated(image: &Pushed, date: &str, more: Value) -> Value {
    let end_of_life = with(json!({"date": date, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE}), more);
    with(mark(&image.pinned()), json!({"endOfLife": end_of_life}))
}

async fn on(registry: &Registry, digest: &str) -> Vec<String> {
    attached(registry, "team/app", digest).await
}

/// Asks a resource to look until it is in conflict. A mark that outranks another of the same second is made one second later than
/// that, and until then it is one from the future, which readers ignore.
async fn conflict(namespace: &Namespace, name: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    for nth in 0.. {
        namespace.request(name, &format!("look {nth}")).await;
        let object = namespace.get(name).await;
        if ready(&object).is_some_and(|(_, reason)| reason == Reason::Conflict.as_str()) {
            return message(&object);
        }
        assert!(Instant::now() < deadline, "{name} is not in conflict: {:#?}", object.status);
        sleep(Duration::from_millis(250)).await;
    }
    String::new()
}

#[tokio::test]
async fn each_change_of_a_spec_leaves_the_new_and_nothing_of_the_old_that_the_resource_made() {
    let namespace = Namespace::new("changes").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (amd64, arm64) = (image.digest_of("linux/amd64").unwrap(), image.digest_of("linux/arm64").unwrap());
        let name = format!("app-{nth}");
        let both = json!({"targets": {"platforms": ["linux/amd64", "linux/arm64"]}});
        let changes = [
            with(dated(&image, "2027-01-01", json!({})), both.clone()),
            // A new date, then back to an earlier one.
            with(dated(&image, "2028-01-01", json!({})), both.clone()),
            with(dated(&image, "2026-06-01", json!({})), both.clone()),
            // Another annotation, and another type.
            with(dated(&image, "2026-06-01", json!({"annotations": {"com.example.why": "a flaw"}})), both.clone()),
            with(dated(&image, "2026-06-01", json!({"artifactType": "application/vnd.example.lifecycle"})), both),
            // Fewer platforms.
            dated(&image, "2026-06-01", json!({"artifactType": "application/vnd.example.lifecycle"})),
        ];
        for (step, spec) in changes.into_iter().enumerate() {
            namespace.apply(&name, spec).await;
            let status = namespace.ready(&name).await;
            assert!(status.leftovers.is_empty(), "step {step}: {status:#?}");
            for subject in [image.digest(), amd64] {
                assert_eq!(on(registry, subject).await, [attachment(&status.targets, subject)], "step {step}");
            }
            let expected = usize::from(step < 5);
            assert_eq!(on(registry, arm64).await.len(), expected, "step {step}");
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn two_resources_that_disagree_come_to_rest_and_the_one_that_may_outrank_does_so_once() {
    let namespace = Namespace::new("disagree").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (one, other) = (format!("one-{nth}"), format!("other-{nth}"));
        namespace.apply(&one, dated(&image, "2027-01-01", json!({}))).await;
        let first = namespace.ready(&one).await;
        namespace.apply(&other, dated(&image, "2028-01-01", json!({}))).await;
        let second = namespace.ready(&other).await;
        let message = conflict(&namespace, &one).await;
        assert!(message.contains("2028-01-01"), "{one} yields, and says to what: {message}");
        let both: Vec<String> = [&first, &second].map(|status| attachment(&status.targets, image.digest()).to_owned()).into();
        let sorted = |mut digests: Vec<String>| {
            digests.sort();
            digests
        };
        assert_eq!(sorted(on(registry, image.digest()).await), sorted(both));

        namespace.apply(&one, dated(&image, "2027-01-01", json!({"onConflict": "Supersede"}))).await;
        let outranked = namespace.ready(&one).await;
        assert!(outranked.targets.iter().filter(|row| row.attachment.is_some()).all(|row| row.origin == Some(Origin::Made)));
        conflict(&namespace, &other).await;
        namespace.request(&one, "again").await;
        assert_eq!(namespace.ready(&one).await.targets, outranked.targets, "once for a generation");
        // One mark of each resource: what the first made before is gone.
        assert_eq!(on(registry, image.digest()).await.len(), 2);
    }
    namespace.check_rules().await;
    drop(controller);
}
