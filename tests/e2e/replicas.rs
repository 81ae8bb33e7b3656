//! Several operators on the same resources: one leads, the others stand by, and shards do not touch each other's.

use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Matcher, Op, Stage};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::controller::Controller;
use crate::images::{host, note};
use crate::namespace::{Namespace, PATIENCE};

/// The name of the Lease where no flag says otherwise.
const LEASE: &str = "affix-controller";
/// Short times, for tests that wait for a Lease to end.
pub(crate) const SHORT: [&str; 6] =
    ["--leader-election-lease-duration", "3s", "--leader-election-renew-deadline", "2s", "--leader-election-retry-period", "500ms"];

/// Starts a replica.
async fn replica(namespace: &Namespace, flags: &[&str]) -> Controller {
    let flags = [&["--leader-elect", "--leader-election-namespace", &namespace.name], flags].concat();
    Controller::start_with(namespace, &flags).await
}

/// Who holds the Lease; empty: nobody.
async fn holder(namespace: &Namespace) -> String {
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let lease = leases.get_opt(LEASE).await.unwrap();
    lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
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
    let mut leader = replica(&namespace, &[]).await;
    let (first, _) = held(&namespace, |_| true).await;
    let standby = replica(&namespace, &[]).await;
    stands_by(&standby).await;
    let (_, text) = standby.health("/readyz").await;
    assert!(text.starts_with("ok\n") && text.contains(&first) && text.contains(LEASE), "{text}");
    let metric = |is: u8| format!("leader_election_master_status{{name=\"{LEASE}\"}} {is}");
    assert!(leader.metrics().await.contains(&metric(1)), "{}", leader.metrics().await);
    assert!(standby.metrics().await.contains(&metric(0)), "{}", standby.metrics().await);

    namespace.apply("one", note(&registry.reference(&image.name()))).await;
    namespace.ready("one").await;
    leader.says("reconciled").await;
    assert!(!standby.log().contains("reconciled"));

    let began = Instant::now();
    let ((status, ..), _) = tokio::join!(leader.terminate(), held(&namespace, |holder| holder != first));
    // The Lease lasts 15 s: whoever has it before that was given it.
    let took = began.elapsed();
    assert!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
    namespace.apply("two", note(&registry.reference(&host(&registry, "v2").name()))).await;
    namespace.ready("two").await;
    assert!(standby.metrics().await.contains(&metric(1)));
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_when_its_lease_has_ended() {
    let namespace = Namespace::new("dies").await;
    let registry = HostileRegistry::start().await.unwrap();
    let leader = replica(&namespace, &SHORT).await;
    let (first, _) = held(&namespace, |_| true).await;
    let standby = replica(&namespace, &SHORT).await;
    stands_by(&standby).await;
    leader.kill().await;
    assert_eq!(holder(&namespace).await, first, "nobody takes a lease that may still be used");
    held(&namespace, |holder| holder != first).await;
    namespace.apply("one", note(&registry.reference(&host(&registry, "v1").name()))).await;
    namespace.ready("one").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_leader_that_was_paused_in_the_middle_of_a_pass_writes_nothing_when_it_wakes() {
    for (moment, stage) in [(Op::ReferrersList, Stage::Before), (Op::UploadStart, Stage::After), (Op::ManifestPut, Stage::Before)] {
        let namespace = Namespace::new("paused").await;
        let registry = HostileRegistry::start().await.unwrap();
        let image = host(&registry, "v1");
        let mut hold = registry.hold(stage, Matcher::on(moment).nth(1));
        let mut leader = replica(&namespace, &SHORT).await;
        let (first, _) = held(&namespace, |_| true).await;
        let standby = replica(&namespace, &SHORT).await;
        stands_by(&standby).await;
        namespace.apply("one", note(&registry.reference(&image.name()))).await;
        hold.reached().await.unwrap();
        leader.pause();
        held(&namespace, |holder| holder != first).await;
        // What the paused leader waits for has come by the time it wakes.
        hold.release();
        namespace.ready("one").await;
        let version = namespace.get("one").await.metadata.resource_version;
        let before = registry.requests().len();

        leader.resume();
        leader.says("leads no longer").await;
        sleep(Duration::from_secs(1)).await;
        let written: Vec<_> = registry.requests().into_iter().skip(before).filter(|request| request.op.is_write()).collect();
        assert!(written.is_empty(), "{moment:?}: {written:#?}\n{}", registry.transcript());
        assert_eq!(namespace.get("one").await.metadata.resource_version, version, "{moment:?}: status was written");
        for subject in std::iter::once(&image.digest).chain(image.children.iter().map(|child| &child.digest)) {
            assert_eq!(registry.store().referrers("team/app", subject).len(), 1, "{moment:?}\n{}", registry.transcript());
        }

        // It takes part again: when the other one goes, it leads.
        let (second, _) = held(&namespace, |_| true).await;
        standby.kill().await;
        held(&namespace, |holder| holder != second).await;
        namespace.apply("two", note(&registry.reference(&host(&registry, "v2").name()))).await;
        namespace.ready("two").await;
        namespace.check_rules().await;
    }
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
        namespace
            .apply_object(json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
                "metadata": {"name": format!("of-{nth}"), "labels": {"sharding.affix.dev/key": nth.to_string()}}, "spec": note(&image),
            }))
            .await;
    }
    namespace.apply("of-nobody", note(&image)).await;
    for name in ["of-1", "of-2"] {
        namespace.ready(name).await;
    }
    first.says("name=\"of-1\"").await;
    second.says("name=\"of-2\"").await;
    let worked = |log: &str| ["of-1", "of-2", "of-nobody"].map(|name| log.contains(&format!("name=\"{name}\"")));
    assert_eq!(worked(&first.log()), [true, false, false], "{}", first.log());
    assert_eq!(worked(&second.log()), [false, true, false], "{}", second.log());
    assert!(namespace.status("of-nobody").await.conditions.is_empty());
    // Each leads under a Lease of its own.
    let leases: Api<Lease> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let names: Vec<String> =
        leases.list(&kube::api::ListParams::default()).await.unwrap().into_iter().filter_map(|lease| lease.metadata.name).collect();
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with(LEASE)), "{names:?}");
}
