//! T35 and T36: the worst tenant beside an innocent one, with figures.
//!
//! `AFFIX_SOAK` says for how many seconds the load lasts.

use std::time::Duration;

use affix::api::Reason;
use affix_testbed::certificates::Authority;
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher};
use affix_testbed::http_client;
use futures::{StreamExt as _, stream};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::{Namespace, PATIENCE};

/// How long the short form lasts.
const SHORT_FORM: Duration = Duration::from_mins(1);
/// How late the innocent tenant may be on a machine that has much else to do. Without fair turns it waits for minutes.
const LATEST: Duration = Duration::from_secs(20);
/// Hosts that send a byte every eight seconds.
const SLOW_HOSTS: usize = 150;
/// Resources of the worst tenant.
const MANY: usize = 600;
/// Resources of two more namespaces of that tenant.
const MORE: usize = 150;

/// How long the load lasts.
fn duration() -> Duration {
    let soak = std::env::var("AFFIX_SOAK").ok();
    let seconds = soak.map(|seconds| seconds.parse().expect("AFFIX_SOAK is a number of seconds"));
    seconds.map_or(SHORT_FORM, Duration::from_secs)
}

/// Registries that send a byte of any answer every eight seconds.
async fn slow_hosts() -> Vec<HostileRegistry> {
    let start = |_| async {
        let registry = HostileRegistry::start().await.unwrap();
        let drip = Fault::Slow(1, Duration::from_secs(8));
        registry.fault(Matcher::any(), drip);
        registry
    };
    stream::iter(0..SLOW_HOSTS)
        .map(start)
        .buffer_unordered(8)
        .collect()
        .await
}

/// Applies resources whose passes may take ten minutes.
async fn flood(namespace: &Namespace, hosts: &[HostileRegistry], count: usize) {
    let applied = stream::iter(0..count).map(|nth| async move {
        let image = hosts[nth % hosts.len()].reference("team/app:v1");
        let long = json!({"timeout": "10m", "deletionPolicy": "Delete"});
        let name = format!("slow-{nth}");
        namespace.apply(&name, with(note(&image), long)).await;
    });
    applied.buffer_unordered(8).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_slow_hosts_of_one_tenant_delay_no_other_tenant() {
    let innocent = Namespace::new("t35-innocent").await;
    let hostile = [
        Namespace::new("t35-hostile").await,
        Namespace::new("t35-hostile").await,
        Namespace::new("t35-hostile").await,
    ];
    let hosts = slow_hosts().await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let watched: Vec<&str> = hostile.iter().map(|space| space.name.as_str()).collect();
    let flags = ["--watch-namespaces", &watched.join(",")];
    let controller = Controller::start_with(&innocent, &flags).await;
    innocent.apply("before", note(&image)).await;
    innocent.ready("before").await;
    let started = controller.memory().resident();

    tokio::join!(
        flood(&hostile[0], &hosts, MANY),
        flood(&hostile[1], &hosts, MORE),
        flood(&hostile[2], &hosts, MORE),
    );
    let asked = || {
        let asked = |host: &&HostileRegistry| !host.requests().is_empty();
        hosts.iter().filter(asked).count()
    };
    let deadline = Instant::now() + PATIENCE;
    while asked() < 48 {
        assert!(Instant::now() < deadline, "only {} slow hosts", asked());
        sleep(Duration::from_millis(100)).await;
    }

    let end = Instant::now() + duration();
    let mut delays = Vec::new();
    while Instant::now() < end {
        let name = format!("new-{}", delays.len());
        let began = Instant::now();
        innocent
            .apply(
                &name,
                with(note(&image), json!({"deletionPolicy": "Delete"})),
            )
            .await;
        innocent.ready(&name).await;
        innocent.delete(&name).await;
        delays.push(began.elapsed());
        sleep(Duration::from_secs(1)).await;
    }
    delays.sort();
    let (median, latest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    let memory = controller.memory();
    println!(
        "{} resources on {SLOW_HOSTS} slow hosts, {} of them asked: {} resources of another namespace were Ready and deleted after \
         {median:?} (median), {latest:?} (latest); the controller has {} KiB, {started} KiB before, {} KiB at most",
        MANY + 2 * MORE,
        asked(),
        delays.len(),
        memory.resident(),
        memory.peak(),
    );
    assert!(latest < LATEST, "{latest:?}");
    assert!(memory.peak() < CONTROLLER_LIMIT, "{} KiB", memory.peak());
}

/// The memory limits of the chart, in KiB.
const CONTROLLER_LIMIT: u64 = 512 << 10;
const WEBHOOK_LIMIT: u64 = 256 << 10;
/// How long the API server may take to list the hoard to a debug build.
const LIST: Duration = Duration::from_mins(10);
/// Resources of the largest size that the API server accepts, in the short form and for `AFFIX_SOAK`.
const LARGE: [usize; 2] = [150, 400];
/// One in four resources before this one is reconciled.
const ACTIVE: usize = 1_200;
/// Resources in all, in the short form and for `AFFIX_SOAK`.
const CROWD: [usize; 2] = [600, 10_000];

/// Creates hostile resources, the large ones first. Some are reconciled, the rest is suspended.
async fn hoard(namespace: &Namespace, large: usize, count: usize, image: &str) {
    let text = "x".repeat(1_300_000 / 2);
    let (text, small) = (&text, &"y".repeat(3_000));
    let created = stream::iter(0..count).map(|nth| async move {
        let content = if nth < large { text } else { small };
        let files = json!([{"name": "a", "value": content}, {"name": "b", "value": content}]);
        let spec = json!({
            "image": image, "insecure": true, "suspend": nth % 4 != 0 || nth > ACTIVE, "interval": "1s", "targets": {"scope": "Index"},
            "artifact": {"artifactType": format!("application/vnd.demo.hoard{nth}"), "annotations": {"nth": nth.to_string()}, "files": files},
        });
        let object = json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": format!("hoard-{nth:05}")}, "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        namespace.attachments().create(&PostParams::default(), &object).await.unwrap();
    });
    created.buffer_unordered(4).collect::<Vec<()>>().await;
}

/// Calls the webhook with an invalid resource of the namespace, and returns the message of the refusal.
async fn review(client: &reqwest::Client, address: &str, namespace: &Namespace) -> String {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid", "kind": {"group": "affix.dev", "version": "v1alpha1", "kind": "ImageAttachment"},
            "resource": {"group": "affix.dev", "version": "v1alpha1", "resource": "imageattachments"},
            "name": "invalid", "namespace": namespace.name, "operation": "CREATE", "userInfo": {},
            "object": {
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "invalid"},
                "spec": note("registry.example.com/Team/app:v1"),
            },
        },
    });
    let url = format!("https://{address}/validate-imageattachment");
    let answer = client.post(url).body(review.to_string()).send();
    let answer: Value = answer.await.unwrap().json().await.unwrap();
    answer["response"]["status"]["message"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fills the shared control plane, which takes minutes in a debug build"]
async fn t36_a_hoard_of_large_resources_fits_into_the_limits_of_the_chart() {
    let soak = std::env::var_os("AFFIX_SOAK").is_some();
    let [large, crowd] = [LARGE, CROWD].map(|forms| forms[usize::from(soak)]);
    let (hostile, innocent) = (
        Namespace::new("t36-hostile").await,
        Namespace::new("t36-innocent").await,
    );
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    hoard(&hostile, large, crowd, &image).await;

    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    authority.server(dir.path()).unwrap();
    let flags = ["--watch-namespaces", &hostile.name];
    let (controller, (webhook, address)) = tokio::join!(
        Controller::start_with(&innocent, &flags),
        Controller::start_webhook(&innocent, dir.path()),
    );
    let deadline = Instant::now() + LIST;
    while controller.health("/readyz").await.0 != 200 {
        assert!(Instant::now() < deadline, "the controller is not ready");
        sleep(Duration::from_millis(100)).await;
    }
    let peaks = || [&controller, &webhook].map(|process| process.memory().peak());
    let start = peaks();
    let client = http_client::multiplexing(authority.pem()).unwrap();
    let end = Instant::now() + duration();
    let (mut delays, mut reviews) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let name = format!("new-{}", delays.len());
        let began = Instant::now();
        innocent.apply(&name, note(&image)).await;
        innocent.ready(&name).await;
        innocent.delete(&name).await;
        delays.push(began.elapsed());
        let began = Instant::now();
        let verdict = review(&client, &address, &innocent).await;
        assert!(verdict.contains("is malformed"), "{verdict}");
        reviews.push(began.elapsed());
        sleep(Duration::from_secs(1)).await;
    }
    delays.sort();
    reviews.sort();
    let rest = [&controller, &webhook].map(|process| process.memory().resident());
    let most = peaks();
    println!(
        "{crowd} hostile resources, {large} of them of 1.3 MB: KiB of controller and webhook: {start:?} at the start, {rest:?} at rest, \
         {most:?} at most; {} resources of another namespace were Ready and deleted after {:?} (median), {:?} (latest), and reviewed in \
         {:?} (median), {:?} (latest)",
        delays.len(),
        delays[delays.len() / 2],
        delays[delays.len() - 1],
        reviews[reviews.len() / 2],
        reviews[reviews.len() - 1],
    );
    assert!(
        most[0] < CONTROLLER_LIMIT && most[1] < WEBHOOK_LIMIT,
        "{most:?}"
    );
    // The shared control plane has other tests.
    let all = (DeleteParams::default(), ListParams::default());
    hostile
        .attachments()
        .delete_collection(&all.0, &all.1)
        .await
        .unwrap();
}

#[tokio::test]
async fn t36_a_resource_above_the_quota_of_its_namespace_says_so() {
    let namespace = Namespace::new("t36-quota").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let flags = ["--max-resources-per-namespace", "2", "--min-interval", "1s"];
    let _controller = Controller::start_with(&namespace, &flags).await;
    for name in ["first", "second"] {
        namespace.apply(name, note(&image)).await;
        namespace.ready(name).await;
    }
    // Creation times have whole seconds.
    sleep(Duration::from_millis(1100)).await;
    namespace
        .apply("third", with(note(&image), json!({"interval": "1s"})))
        .await;
    let message = namespace.refused("third", Reason::LimitExceeded).await;
    assert!(
        message.contains("--max-resources-per-namespace"),
        "{message}"
    );
    namespace.request("first", "again").await;
    namespace.ready("first").await;
    namespace.delete("first").await;
    namespace.ready("third").await;
    namespace.check_rules().await;
}
