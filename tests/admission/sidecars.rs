//! Containers that are injected after the webhook was called.

use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use crate::support::marked_images::{push, webhook};
use crate::support::namespace::{TestNamespace, wait_for};

/// Returns a policy that adds a container to pods that the webhook has already changed.
fn injection(namespace: &TestNamespace, image: &str) -> Value {
    let expression = format!(
        "has(object.metadata.annotations) && 'affix.dev/resolved-digests' in object.metadata.annotations \
         ? Object{{spec: Object.spec{{containers: [Object.spec.containers{{name: 'sidecar', image: '{image}'}}]}}}} : Object{{}}"
    );
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": namespace.name},
            "spec": {
                "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                },
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": namespace.name}, "spec": {"policyName": namespace.name},
        },
    ]})
}

#[tokio::test]
async fn an_injected_sidecar_gets_its_digest_in_a_second_review() {
    let labels = json!({"affix.dev/resolve-digests": "enabled"});
    let namespace = TestNamespace::new("injected", labels).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (app, sidecar) = (
        push(&registry, "app").await,
        push(&registry, "sidecar").await,
    );
    let _webhook = webhook(&namespace, &registry, &[]).await;
    let policy = injection(&namespace, &sidecar.tagged()).to_string();
    let applied = namespace.plane.kubectl_with(["apply", "-f", "-"], policy);
    applied.await.unwrap().stdout().unwrap();
    let pinned = [&app, &sidecar].map(|image| format!("{}@{}", image.tagged(), image.digest()));
    let (mut images, mut count) = (Vec::new(), 0);
    // The API server loads a policy with a short delay.
    wait_for("a sidecar and both digests", async || {
        count += 1;
        let name = format!("pod-{count}");
        let pod = TestNamespace::pod(&name, &app.tagged(), json!({}));
        namespace.apply(&pod).await.unwrap();
        let found = namespace
            .kubectl(&["get", "pod", &name, "-o", "json"])
            .await;
        let found = found.json().unwrap();
        let containers = found["spec"]["containers"].as_array().unwrap().iter();
        images = containers
            .filter_map(|container| container["image"].as_str().map(str::to_owned))
            .collect();
        images.sort();
        println!("{images:?}");
        images == pinned
    })
    .await;
}
