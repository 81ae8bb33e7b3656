//! Nodes and pods without a kubelet: the tests write the status that a kubelet would write.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::namespace::Namespace;

/// Adds a node of this platform.
pub(crate) async fn node(client: &Client, name: &str, platform: &str) {
    let (os, architecture) = platform.split_once('/').unwrap();
    let labels = json!({"kubernetes.io/os": os, "kubernetes.io/arch": architecture});
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    let nodes: Api<Node> = Api::all(client.clone());
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
}

/// A container as the kubelet reports it: the image as in the pod, and the image ID.
pub(crate) fn container(image: &str, id: &str) -> Value {
    json!({
        "name": "main", "image": image, "imageID": id, "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    })
}

/// Runs a pod with one container on a node.
pub(crate) async fn run(namespace: &Namespace, name: &str, node: &str, container: Value) {
    let image = container["image"].clone();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": image}]},
    });
    run_pod(
        namespace,
        pod,
        json!({"phase": "Running", "containerStatuses": [container]}),
    )
    .await;
}

/// Creates a pod and sets its status.
pub(crate) async fn run_pod(namespace: &Namespace, pod: Value, status: Value) {
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    pods.patch_status(&created.name_any(), &params, &patch)
        .await
        .unwrap();
}

/// Deletes a pod at once.
pub(crate) async fn delete(namespace: &Namespace, name: &str) {
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let now = DeleteParams::default().grace_period(0);
    pods.delete(name, &now).await.unwrap();
}
