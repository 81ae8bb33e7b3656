//! End of life as readers see it, and specs that change: the newest mark is the resource's own, and only what it made goes.

use std::time::Duration;

use affix::api::{ConditionType, Origin, Reason};
use affix_testbed::hostile::{Matcher, Op, Stage};
use affix_testbed::images::Pushed;
use affix_testbed::registry::Registry;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::controller::Controller;
use crate::support::images::{
    END_OF_LIFE, LIFECYCLE, attached, attachment, host, listed, mark, push, registries, scriptable,
    with,
};
use crate::support::namespace::{Namespace, is_ready, says};

fn dated(image: &Pushed, date: &str, more: Value) -> Value {
    let end_of_life = with(
        json!({"date": date, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE}),
        more,
    );
    with(mark(&image.pinned()), json!({"endOfLife": end_of_life}))
}

async fn on(registry: &Registry, digest: &str) -> Vec<String> {
    attached(registry, "team/app", digest).await
}

/// Asks a resource to look once, and waits until it is in conflict. A mark that outranks another of the same second is made one second
/// later than that, and until then it is one from the future, which readers ignore: affix looks again by itself.
pub(crate) async fn conflict(namespace: &Namespace, name: &str) -> String {
    namespace.request(name, "look").await;
    namespace.refused(name, Reason::Conflict).await
}

#[tokio::test]
async fn a_changed_spec_leaves_the_new_mark_and_none_of_its_own_old_ones() {
    let namespace = Namespace::new("changes").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (amd64, arm64) = (
            image.digest_of("linux/amd64").unwrap(),
            image.digest_of("linux/arm64").unwrap(),
        );
        let name = format!("app-{nth}");
        let both = json!({"targets": {"platforms": ["linux/amd64", "linux/arm64"]}});
        let changes = [
            with(dated(&image, "2027-01-01", json!({})), both.clone()),
            // A new date, then back to an earlier one.
            with(dated(&image, "2028-01-01", json!({})), both.clone()),
            with(dated(&image, "2026-06-01", json!({})), both.clone()),
            // Another annotation, and another type.
            with(
                dated(
                    &image,
                    "2026-06-01",
                    json!({"annotations": {"com.example.why": "a flaw"}}),
                ),
                both.clone(),
            ),
            with(
                dated(
                    &image,
                    "2026-06-01",
                    json!({"artifactType": "application/vnd.example.lifecycle"}),
                ),
                both,
            ),
            // Fewer platforms.
            dated(
                &image,
                "2026-06-01",
                json!({"artifactType": "application/vnd.example.lifecycle"}),
            ),
        ];
        for (step, spec) in changes.into_iter().enumerate() {
            namespace.apply(&name, spec).await;
            let status = namespace.ready(&name).await;
            assert!(status.leftovers.is_empty(), "step {step}: {status:#?}");
            for subject in [image.digest(), amd64] {
                assert_eq!(
                    on(registry, subject).await,
                    [attachment(&status.targets, subject)],
                    "step {step}"
                );
            }
            let expected = usize::from(step < 5);
            assert_eq!(on(registry, arm64).await.len(), expected, "step {step}");
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn two_resources_that_disagree_come_to_rest_and_supersede_once() {
    let namespace = Namespace::new("disagree").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (one, other) = (format!("one-{nth}"), format!("other-{nth}"));
        namespace
            .apply(&one, dated(&image, "2027-01-01", json!({})))
            .await;
        let first = namespace.ready(&one).await;
        namespace
            .apply(&other, dated(&image, "2028-01-01", json!({})))
            .await;
        let second = namespace.ready(&other).await;
        let message = conflict(&namespace, &one).await;
        assert!(
            message.contains("2028-01-01"),
            "{one} yields, and says to what: {message}"
        );
        let both: Vec<String> = [&first, &second]
            .map(|status| attachment(&status.targets, image.digest()).to_owned())
            .into();
        let sorted = |mut digests: Vec<String>| {
            digests.sort();
            digests
        };
        assert_eq!(sorted(on(registry, image.digest()).await), sorted(both));

        namespace
            .apply(
                &one,
                dated(&image, "2027-01-01", json!({"onConflict": "Supersede"})),
            )
            .await;
        let outranked = namespace.ready(&one).await;
        assert!(
            outranked
                .targets
                .iter()
                .filter(|row| row.attachment.is_some())
                .all(|row| row.origin == Some(Origin::Made))
        );
        conflict(&namespace, &other).await;
        namespace.request(&one, "again").await;
        assert_eq!(
            namespace.ready(&one).await.targets,
            outranked.targets,
            "once for a generation"
        );
        // One mark of each resource: what the first made before is gone.
        assert_eq!(on(registry, image.digest()).await.len(), 2);
    }
    namespace.check_rules().await;
    drop(controller);
}

/// A mark of somebody else, as of `from_now` seconds.
fn foreign(image: &Pushed, date: &str, from_now: i64) -> Value {
    let created = Timestamp::now()
        .checked_add(SignedDuration::from_secs(from_now))
        .unwrap();
    let annotations = json!({END_OF_LIFE: date, "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    json!({
        "image": image.pinned(), "insecure": true, "targets": {"platforms": ["linux/amd64"]},
        "artifact": {"artifactType": LIFECYCLE, "annotations": annotations},
    })
}

#[tokio::test]
async fn a_future_mark_is_reported_and_counts_at_its_time_also_after_a_restart() {
    let namespace = Namespace::new("future").await;
    let mut controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        for restarts in [false, true] {
            let image = push(registry, "team/app", &format!("v{}", u8::from(restarts))).await;
            let (ours, theirs) = (
                format!("ours-{nth}-{restarts}"),
                format!("theirs-{nth}-{restarts}"),
            );
            namespace
                .apply(&ours, dated(&image, "2027-01-01", json!({})))
                .await;
            namespace.ready(&ours).await;
            namespace
                .apply(&theirs, foreign(&image, "2028-01-01", 6))
                .await;
            namespace.ready(&theirs).await;
            namespace.request(&ours, "look").await;
            let object = namespace.get(&ours).await;
            let said = says(object.status.as_ref().unwrap(), ConditionType::Resolved);
            assert!(
                is_ready(&object) && said.contains("claims to be made in the future"),
                "{said}"
            );
            if restarts {
                controller.kill().await;
                controller = Controller::start(&namespace).await;
            }
            // The interval is ten minutes and the next verification six hours away.
            let told = namespace.refused(&ours, Reason::Conflict).await;
            assert!(told.contains("2028-01-01"), "{told}");
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn two_clusters_that_make_equal_marks_at_once_converge_on_the_earlier() {
    // Each has an operator of its own, which sees nothing of the other's resources.
    let clusters = [
        Namespace::new("cluster").await,
        Namespace::new("cluster").await,
    ];
    let controllers = [
        Controller::start(&clusters[0]).await,
        Controller::start(&clusters[1]).await,
    ];
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let image = host(registry, "v1");
        let name = format!("mark-{nth}");
        let spec = with(
            mark(&registry.reference(&image.pinned())),
            json!({"targets": {"scope": "Index"}}),
        );
        // Both have seen that nothing is there when the first one writes.
        let mut hold = registry.hold(
            Stage::Before,
            Matcher::on(Op::ManifestPut).with_subject().nth(1),
        );
        clusters[0].apply(&name, spec.clone()).await;
        hold.reached().await.unwrap();
        let earlier = clusters[0].status(&name).await.targets[0]
            .attachment
            .clone()
            .unwrap();
        sleep(Duration::from_millis(1100)).await;
        clusters[1].apply(&name, spec).await;
        let later = attachment(&clusters[1].ready(&name).await.targets, &image.digest).to_owned();
        hold.release();
        clusters[0].ready(&name).await;
        let mut found = listed(registry, &image.digest);
        found.sort();
        let mut expected = vec![earlier.clone(), later.clone()];
        expected.sort();
        assert_eq!(found, expected, "{}", registry.transcript());

        for cluster in [&clusters[1], &clusters[0]] {
            cluster.request(&name, "verify").await;
            assert_eq!(
                attachment(&cluster.ready(&name).await.targets, &image.digest),
                earlier
            );
        }
        assert_eq!(
            listed(registry, &image.digest),
            [earlier],
            "{}",
            registry.transcript()
        );
        let origins = [&clusters[0], &clusters[1]].map(|cluster| cluster.status(&name));
        let origins = futures::future::join_all(origins)
            .await
            .into_iter()
            .map(|status| status.targets[0].origin)
            .collect::<Vec<_>>();
        assert_eq!(origins, [Some(Origin::Made), Some(Origin::Adopted)]);
    }
    for cluster in &clusters {
        cluster.check_rules().await;
    }
    drop(controllers);
}
