//! An API server that goes down and comes back.

use std::time::Duration;

use affix::api::crd_yaml;
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::tools::Tools;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{host, note};
use crate::support::namespace::PATIENCE;

/// The longest time from the return of the API server until a new resource is Ready.
const RECOVERY: Duration = Duration::from_secs(5);

/// Applies objects, as soon as the API server takes them.
async fn apply(plane: &ControlPlane, objects: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = plane.kubectl_with(["apply", "--server-side", "-f", "-"], objects);
        match ran.await.unwrap().stdout() {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn resource(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    .to_string()
}

async fn wait_for(plane: &ControlPlane, condition: &str, object: &str) {
    let condition = format!("--for=condition={condition}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let args = ["wait", &condition, "--timeout=60s", object];
        match plane.kubectl(args).await.unwrap().stdout() {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
    }
}

/// The downtimes in seconds.
const DOWNTIMES: [u64; 3] = [5, 20, 60];

#[tokio::test]
async fn a_new_resource_is_ready_soon_after_the_api_server_is_back() {
    let tools = Tools::core().await.unwrap();
    let mut plane = ControlPlane::start(&tools).await.unwrap();
    apply(&plane, &crd_yaml()).await;
    wait_for(&plane, "Established", "crd/imageattachments.affix.dev").await;
    let registry = HostileRegistry::start().await.unwrap();
    let spec = note(&registry.reference(&host(&registry, "v1").name()));
    let kubeconfig = plane.kubeconfig();
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let election = ["--leader-elect", "--leader-election-namespace", "default"];
    let controller = Controller::start_on(&tools, "default", &election, &env).await;
    apply(&plane, &resource("first", &spec)).await;
    wait_for(&plane, "Ready", "ia/first").await;

    for seconds in DOWNTIMES {
        plane.stop().await.unwrap();
        sleep(Duration::from_secs(seconds)).await;
        plane.start_again().await.unwrap();
        let back = Instant::now();
        let name = format!("after-{seconds}");
        apply(&plane, &resource(&name, &spec)).await;
        wait_for(&plane, "Ready", &format!("ia/{name}")).await;
        let took = back.elapsed();
        println!(
            "down for {seconds} s: a new resource was Ready {:.1} s after the return",
            took.as_secs_f64()
        );
        assert!(
            took < RECOVERY * load(),
            "down for {seconds} s: {took:?}\n{}",
            controller.log()
        );
    }
    // The outage is logged once, not at each attempt.
    let log = controller.log();
    let warned = log
        .matches("watch of imageattachments failed; retrying")
        .count();
    assert!(warned <= 4 * DOWNTIMES.len(), "{warned} lines\n{log}");
}

/// How much slower than an idle machine this one may be. The former back-off took 8 s to 85 s on an idle one.
const fn load() -> u32 {
    3
}
