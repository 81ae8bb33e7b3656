//! Several operators on the same resources: one leads, the others stand by, and shards do not touch each other's.

use std::time::Duration;

use affix::api::{ImageAttachment, Origin};
use affix_testbed::hostile::{HostileRegistry, Matcher, Op, Stage};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{attachment, host, listed, manifests, note, scriptable, with};
use crate::support::namespace::{Namespace, PATIENCE, is_ready};

/// The name of the Lease where no flag says otherwise.
const LEASE: &str = "affix-controller";
/// Short times, for tests that wait for a Lease to end.
pub(crate) const SHORT: [&str; 6] = [
    "--leader-election-lease-duration",
    "3s",
    "--leader-election-renew-deadline",
    "2s",
    "--leader-election-retry-period",
    "500ms",
];

/// Long ones, for tests in which a Lease is given and not left to end.
const LONG: [&str; 6] = [
    "--leader-election-lease-duration",
    "1h",
    "--leader-election-renew-deadline",
    "50m",
    "--leader-election-retry-period",
    "500ms",
];

/// Starts a replica.
async fn replica(namespace: &Namespace, flags: &[&str]) -> Controller {
    let flags = [
        &[
            "--leader-elect",
            "--leader-election-namespace",
            &namespace.name,
        ],
        flags,
    ]
    .concat();
    Controller::start_with(namespace, &flags).await
}

/// Who holds the Lease; empty: nobody.
async fn holder(namespace: &Namespace) -> String {
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let lease = leases.get_opt(LEASE).await.unwrap();
    lease
        .and_then(|lease| lease.spec?.holder_identity)
        .unwrap_or_default()
}

/// Waits until somebody holds the Lease that `is` right; answers with who, and how long that took.
pub(crate) async fn held(namespace: &Namespace, is: impl Fn(&str) -> bool) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let holder = holder(namespace).await;
        if !holder.is_empty() && is(&holder) {
            return (holder, began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "the lease is with {holder:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until what stands by says so.
async fn stands_by(controller: &Controller) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, text) = controller.health("/readyz").await;
        if status == 200 && text.contains("standing by") {
            return;
        }
        assert!(Instant::now() < deadline, "{status} {text}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_replica_stands_by_ready_and_goes_on_as_soon_as_the_leader_is_told_to_end() {
    let namespace = Namespace::new("handover").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let mut leader = replica(&namespace, &LONG).await;
    let (first, _) = held(&namespace, |_| true).await;
    let standby = replica(&namespace, &LONG).await;
    stands_by(&standby).await;
    let (_, text) = standby.health("/readyz").await;
    assert!(
        text.starts_with("ok\n") && text.contains(&first) && text.contains(LEASE),
        "{text}"
    );
    let metric = |is: u8| format!("leader_election_master_status{{name=\"{LEASE}\"}} {is}");
    assert!(
        leader.metrics().await.contains(&metric(1)),
        "{}",
        leader.metrics().await
    );
    assert!(
        standby.metrics().await.contains(&metric(0)),
        "{}",
        standby.metrics().await
    );

    namespace
        .apply("one", note(&registry.reference(&image.name())))
        .await;
    namespace.ready("one").await;
    leader.says("reconciled").await;
    assert!(!standby.log().contains("reconciled"));

    // The Lease lasts an hour: whoever has it before that was given it.
    let ((status, log), _) = tokio::join!(
        leader.terminate(),
        held(&namespace, |holder| holder != first)
    );
    assert!(status.success(), "{status}\n{log}");
    namespace
        .apply(
            "two",
            note(&registry.reference(&host(&registry, "v2").name())),
        )
        .await;
    namespace.ready("two").await;
    assert!(standby.metrics().await.contains(&metric(1)));
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_when_its_lease_has_ended() {
    let namespace = Namespace::new("dies").await;
    let registry = HostileRegistry::start().await.unwrap();
    let leader = replica(&namespace, &[]).await;
    let (first, _) = held(&namespace, |_| true).await;
    let standby = replica(&namespace, &[]).await;
    stands_by(&standby).await;
    leader.kill().await;
    assert_eq!(
        holder(&namespace).await,
        first,
        "nobody takes a lease that may still be used"
    );
    held(&namespace, |holder| holder != first).await;
    namespace
        .apply(
            "one",
            note(&registry.reference(&host(&registry, "v1").name())),
        )
        .await;
    namespace.ready("one").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_leader_that_was_paused_in_the_middle_of_a_pass_writes_nothing_when_it_wakes() {
    let put = || Matcher::on(Op::ManifestPut);
    for (nth, (is_api, stage, moment)) in [
        (true, Stage::Before, Matcher::on(Op::ReferrersList)),
        (true, Stage::After, Matcher::on(Op::UploadStart)),
        (true, Stage::Before, put()),
        (false, Stage::Before, put().fallback_tag()),
    ]
    .into_iter()
    .enumerate()
    {
        let [api, fallback] = scriptable().await;
        let registry = if is_api { api } else { fallback };
        let namespace = Namespace::new("paused").await;
        let image = host(&registry, "v1");
        let mut hold = registry.hold(stage, moment.nth(1));
        let mut leader = replica(&namespace, &SHORT).await;
        let (first, _) = held(&namespace, |_| true).await;
        let standby = replica(&namespace, &SHORT).await;
        stands_by(&standby).await;
        namespace
            .apply("one", note(&registry.reference(&image.name())))
            .await;
        hold.reached().await.unwrap();
        leader.pause();
        held(&namespace, |holder| holder != first).await;
        // What the paused leader waits for has come by the time it wakes.
        hold.release();
        namespace.ready("one").await;
        let version = namespace.get("one").await.metadata.resource_version;
        let before = registry.requests().len();

        leader.resume();
        leader.says("lost the lease").await;
        sleep(Duration::from_secs(1)).await;
        let written: Vec<_> = registry
            .requests()
            .into_iter()
            .skip(before)
            .filter(|request| request.op.is_write())
            .collect();
        assert!(
            written.is_empty(),
            "{nth}: {written:#?}\n{}",
            registry.transcript()
        );
        assert_eq!(
            namespace.get("one").await.metadata.resource_version,
            version,
            "{nth}: status was written"
        );
        for subject in manifests(&image) {
            assert_eq!(
                listed(&registry, subject).len(),
                1,
                "{nth}\n{}",
                registry.transcript()
            );
        }

        // It takes part again: when the other one goes, it leads.
        let (second, _) = held(&namespace, |_| true).await;
        standby.kill().await;
        held(&namespace, |holder| holder != second).await;
        namespace
            .apply(
                "two",
                note(&registry.reference(&host(&registry, "v2").name())),
            )
            .await;
        namespace.ready("two").await;
        namespace.check_rules().await;
    }
}

/// Applies a resource that the shard of this number works on.
async fn apply_to_shard(namespace: &Namespace, name: &str, nth: u8, spec: Value) {
    namespace
        .apply_object(json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
            "metadata": {"name": name, "labels": {"sharding.affix.dev/key": nth.to_string()}}, "spec": spec,
        }))
        .await;
}

#[tokio::test]
async fn a_new_owner_of_another_shard_keeps_attachments_received_during_its_pass() {
    let namespace = Namespace::new("heirs").await;
    let shard = |nth: u8| format!("sharding.affix.dev/key={nth}");
    let (one, two) = (shard(1), shard(2));
    let makers = Controller::start_with(&namespace, &["--watch-label-selector", &one]).await;
    let heirs = Controller::start_with(&namespace, &["--watch-label-selector", &two]).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        for settled in [true, false] {
            let image = host(registry, &format!("v{nth}-{settled}"));
            let spec = with(
                note(&registry.reference(&image.name())),
                json!({"deletionPolicy": "Delete"}),
            );
            let (maker, heir) = (
                format!("maker-{nth}-{settled}"),
                format!("heir-{nth}-{settled}"),
            );
            apply_to_shard(&namespace, &maker, 1, spec.clone()).await;
            let made = namespace.ready(&maker).await;
            if settled {
                apply_to_shard(&namespace, &heir, 2, spec.clone()).await;
                let adopted = namespace.ready(&heir).await;
                assert!(
                    adopted
                        .targets
                        .iter()
                        .all(|row| row.origin == Some(Origin::Adopted)),
                    "{adopted:#?}"
                );
            }
            // The heir has read its status when its pass waits for the registry: a look at the listings, or its very first pass.
            let reads = Matcher::on(Op::ReferrersList)
                .or(Op::ManifestGet)
                .repository("team/app")
                .nth(1);
            let mut hold = registry.hold(Stage::Before, reads);
            if settled {
                namespace.ask(&heir, "now").await;
            } else {
                apply_to_shard(&namespace, &heir, 2, spec).await;
            }
            hold.reached().await.unwrap();
            namespace.delete(&maker).await;
            hold.release();
            let is_done = |object: &ImageAttachment| {
                let handled = object
                    .status
                    .as_ref()
                    .and_then(|status| status.last_handled_reconcile_at.as_deref());
                is_ready(object) && (!settled || handled == Some("now"))
            };
            let status = namespace
                .wait(&heir, "done with its pass", is_done)
                .await
                .status
                .unwrap();
            for subject in manifests(&image) {
                assert_eq!(
                    listed(registry, subject),
                    [attachment(&made.targets, subject)],
                    "{}",
                    registry.transcript()
                );
                let row = status
                    .targets
                    .iter()
                    .find(|row| row.digest == subject)
                    .unwrap();
                assert_eq!(
                    (row.attachment.as_deref(), row.origin),
                    (Some(attachment(&made.targets, subject)), Some(Origin::Made))
                );
            }
            namespace.delete(&heir).await;
            for subject in manifests(&image) {
                assert!(
                    listed(registry, subject).is_empty(),
                    "nobody owned it\n{}",
                    registry.transcript()
                );
            }
        }
    }
    namespace.check_rules().await;
    drop((makers, heirs));
}

#[tokio::test]
async fn shards_work_side_by_side_on_their_own_resources_only() {
    let namespace = Namespace::new("shards").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let shard = |nth: u8| format!("sharding.affix.dev/key={nth}");
    let (one, two) = (shard(1), shard(2));
    let mut first = replica(&namespace, &["--watch-label-selector", &one]).await;
    let mut second = replica(&namespace, &["--watch-label-selector", &two]).await;
    for nth in [1, 2] {
        apply_to_shard(&namespace, &format!("of-{nth}"), nth, note(&image)).await;
    }
    namespace.apply("of-nobody", note(&image)).await;
    for name in ["of-1", "of-2"] {
        namespace.ready(name).await;
    }
    first.says("name=\"of-1\"").await;
    second.says("name=\"of-2\"").await;
    let worked = |log: &str| {
        ["of-1", "of-2", "of-nobody"].map(|name| log.contains(&format!("name=\"{name}\"")))
    };
    assert_eq!(
        worked(&first.log()),
        [true, false, false],
        "{}",
        first.log()
    );
    assert_eq!(
        worked(&second.log()),
        [false, true, false],
        "{}",
        second.log()
    );
    assert!(namespace.status("of-nobody").await.conditions.is_empty());
    // Each leads under a Lease of its own.
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let names: Vec<String> = leases
        .list(&kube::api::ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|lease| lease.metadata.name)
        .collect();
    assert!(
        names.len() == 2 && names.iter().all(|name| name.starts_with(LEASE)),
        "{names:?}"
    );
}
