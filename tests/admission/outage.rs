//! Warnings before an outage: changes after which pods would be refused.

use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use crate::support::marked_images::{ENDED, admitted, mark, push, refused, webhook};
use crate::support::namespace::{TestNamespace, output, wait_for};

const REFUSED: &str = "its pods will be refused here";

fn workload(kind: &str, version: &str, image: &str, more: Value) -> Value {
    let labels = json!({"app": kind.to_lowercase()});
    let mut spec = json!({
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}},
    });
    if kind == "ReplicationController" {
        spec["selector"] = labels;
    }
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "old"}, "spec": spec})
}

/// Runs kubectl, with a count that differs each time, until the look-up was in time. Returns the output.
async fn warned(namespace: &TestNamespace, args: impl Fn(u32) -> Vec<String>) -> String {
    let (mut text, mut count) = (String::new(), 1);
    wait_for("a complete check", async || {
        count += 1;
        let args = args(count);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        text = output(namespace.kubectl(&args).await).unwrap();
        !text.contains("not checked")
    })
    .await;
    text
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_restart_a_changed_template_and_a_scale_up_warn_that_pods_will_be_refused() {
    let namespace = TestNamespace::new("outage", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let old = push(&registry, "old").await;
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let image = old.tagged();
    // The workloads are older than the enforcement.
    for (kind, version, more) in [
        ("Deployment", "apps/v1", json!({"replicas": 1})),
        ("StatefulSet", "apps/v1", json!({"serviceName": "old"})),
        ("DaemonSet", "apps/v1", json!({})),
        ("ReplicaSet", "apps/v1", json!({"replicas": 0})),
        ("ReplicationController", "v1", json!({"replicas": 1})),
    ] {
        let object = workload(kind, version, &image, more);
        namespace.apply(&object).await.unwrap();
    }
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}});
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "old"}, "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": job}}});
    namespace.apply(&cron).await.unwrap();
    let _webhook = webhook(&namespace, &registry, &[]).await;
    refused(&namespace, &image, json!({})).await;

    let expected = format!("Warning: image {image} {ENDED}: {REFUSED}");
    for kind in ["deployment", "statefulset", "daemonset"] {
        for verb in ["rollout restart", "set env A=COUNT"] {
            let text = warned(&namespace, |count| {
                let verb = verb.replace("COUNT", &count.to_string());
                let (verb, rest) = verb.split_once(" A=").unwrap_or((&verb, ""));
                let rest = if rest.is_empty() {
                    String::new()
                } else {
                    format!("A={rest}")
                };
                // `rollout restart` writes the second of the clock.
                if rest.is_empty() {
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
                words(&format!("{verb} {kind}/old {rest}"))
            })
            .await;
            assert!(text.contains(&expected), "{verb} {kind}: {text}");
        }
    }
    for kind in ["deployment", "statefulset", "replicaset", "rc"] {
        let scale = |count: u32| words(&format!("scale {kind}/old --replicas={}", count + 1));
        let text = warned(&namespace, scale).await;
        assert!(text.contains(&expected), "scale {kind}: {text}");
        let name = format!("{kind}/old");
        let down = ["scale", &name, "--replicas=0"];
        let text = output(namespace.kubectl(&down).await).unwrap();
        assert!(!text.contains("Warning"), "scale down {kind}: {text}");
    }
    let resumed = [
        "patch",
        "cronjob/old",
        "--patch",
        r#"{"spec":{"suspend":false}}"#,
    ];
    let text = output(namespace.kubectl(&resumed).await).unwrap();
    assert!(text.contains(&expected), "{text}");
    // Neither changes a pod.
    for change in [
        &["annotate", "deployment/old", "a=b"][..],
        &[
            "patch",
            "deployment/old",
            "--patch",
            r#"{"spec":{"revisionHistoryLimit":3}}"#,
        ],
        &[
            "patch",
            "cronjob/old",
            "--patch",
            r#"{"spec":{"suspend":true}}"#,
        ],
    ] {
        let text = output(namespace.kubectl(change).await).unwrap();
        assert!(!text.contains("Warning"), "{change:?}: {text}");
    }
}

#[tokio::test]
async fn labelling_a_namespace_warns_of_its_pods_and_of_an_unknown_value() {
    let namespace = TestNamespace::new("labelled", json!({})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    mark(&peer, &old.pinned(), "2025-03-20").await;
    for (name, image) in [("a", &good), ("b", &old), ("c", &old)] {
        let pod = TestNamespace::pod(name, &image.tagged(), json!({}));
        namespace.apply(&pod).await.unwrap();
    }
    let _webhook = webhook(&namespace, &registry, &[]).await;
    let label = async |value: &str| {
        let mut text = String::new();
        wait_for("a complete check", async || {
            // A repeated value changes nothing.
            for value in ["audit", value] {
                let label = format!("affix.dev/end-of-life={value}");
                let args = ["label", "--overwrite", "namespace", &namespace.name, &label];
                text = output(namespace.kubectl(&args).await).unwrap();
            }
            !text.contains("not checked")
        })
        .await;
        text
    };
    let found = format!("Warning: image {} {ENDED}", old.tagged());
    let text = label("enforce").await;
    assert!(
        text.contains("Warning: 2 of 3 pods in this namespace run images past their end of life: new pods like them will be refused here")
            && text.contains(&found)
            && !text.contains(&good.tagged()),
        "{text}"
    );
    let text = label("warn").await;
    assert!(
        text.contains("2 of 3 pods in this namespace run images past their end of life\n")
            && text.contains(&found),
        "{text}"
    );
    assert!(!label("audit").await.contains("Warning"));
    let text = label("enforced").await;
    assert!(
        text.contains("Warning: affix.dev/end-of-life: \"enforced\" is unknown and counts as \"warn\": use warn, audit or enforce")
            && text.contains(&found),
        "{text}"
    );
    let text = admitted(&namespace, &old.tagged(), json!({})).await;
    assert!(
        text.contains(&found),
        "an unknown value counts as warn: {text}"
    );
    let resolve = [
        "label",
        "namespace",
        &namespace.name,
        "affix.dev/resolve-digests=true",
    ];
    let text = output(namespace.kubectl(&resolve).await).unwrap();
    assert!(
        text.contains(
            "Warning: affix.dev/resolve-digests: \"true\" is unknown, so tags stay: use enabled"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn in_the_grace_period_an_enforcing_namespace_warns_of_the_first_day_of_refusal() {
    let namespace = TestNamespace::new("grace", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let (recent, old) = (
        push(&registry, "recent").await,
        push(&registry, "old").await,
    );
    mark(&peer, &recent.pinned(), "2025-03-20").await;
    mark(&peer, &old.pinned(), "2000-01-01").await;
    // Twenty years.
    let _webhook = webhook(&namespace, &registry, &["--enforce-after", "175200h"]).await;
    let text = admitted(&namespace, &recent.tagged(), json!({})).await;
    let expected = format!(
        "Warning: image {} {ENDED}: refused from 2045-03-15",
        recent.tagged()
    );
    assert!(text.contains(&expected), "{text}");
    refused(&namespace, &old.tagged(), json!({})).await;
}

#[tokio::test]
async fn t33_a_label_on_kube_system_refuses_none_of_its_pods() {
    const SYSTEM: &str = "kube-system";
    let namespace = TestNamespace::new("beside", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let old = push(&registry, "old").await;
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let _webhook = webhook(&namespace, &registry, &[]).await;
    refused(&namespace, &old.tagged(), json!({})).await;
    let label = [
        "label",
        "namespace",
        SYSTEM,
        "affix.dev/end-of-life=enforce",
    ];
    let text = output(namespace.kubectl(&label).await).unwrap();
    assert!(!text.contains("Warning"), "{text}");
    let image = old.tagged();
    let run = ["run", "dns", "--namespace", SYSTEM, "--image", &image];
    let kubectl = namespace.plane.kubectl(run).await.unwrap();
    let text = output(kubectl).unwrap();
    assert!(!text.contains("Warning"), "{text}");
    refused(&namespace, &image, json!({})).await;
}
