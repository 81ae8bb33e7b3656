//! Readiness with an API server that answers late or refuses.

use std::path::{Path, PathBuf};

use affix_testbed::certificates::Authority;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

/// Starts a webhook with a provided certificate, so that readiness depends only on the lists. Returns
/// the URL of `/readyz`.
async fn webhook(
    namespace: &TestNamespace,
    kubeconfig: &Path,
    certificate: &Path,
) -> (Affix, String) {
    Authority::new().unwrap().server(certificate).unwrap();
    let args = [
        "webhook",
        "--listen-addr",
        "127.0.0.1:0",
        "--certificate-dir",
        certificate.to_str().unwrap(),
        "--validating-webhook-configuration",
        "",
        "--mutating-webhook-configuration",
        "",
    ];
    let mut affix = Affix::start_with(namespace, kubeconfig, &args);
    let health = affix.serves("health").await;
    (affix, format!("http://{health}/readyz"))
}

async fn readyz(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits for a response of `/readyz`.
async fn answers(url: &str, expected: impl Fn(u16, &str) -> bool) -> String {
    let mut last = (0, String::new());
    wait_for("the answer of /readyz", async || {
        last = readyz(url).await;
        expected(last.0, &last.1)
    })
    .await;
    last.1
}

/// Starts a proxy to the API server that delays lists of namespaces. Returns its kubeconfig and the
/// sender that releases them.
async fn behind_a_door(namespace: &TestNamespace, dir: &Path) -> (PathBuf, watch::Sender<bool>) {
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(namespace.plane.kubeconfig()).unwrap())
            .unwrap();
    let (door, opened) = watch::channel(false);
    let authority = reqwest::Certificate::from_pem(namespace.plane.ca_pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([authority])
        .build()
        .unwrap();
    let server = namespace.plane.url();
    let pass = move |request: Request| {
        let (client, server, mut opened) = (client.clone(), server.clone(), opened.clone());
        async move {
            if request.uri().path() == "/api/v1/namespaces" {
                opened.wait_for(|open| *open).await.unwrap();
            }
            let (parts, body) = request.into_parts();
            let mut headers = parts.headers;
            headers.remove("host");
            let sent = client
                .request(parts.method, format!("{server}{}", parts.uri))
                .headers(headers);
            let answer = sent
                .body(reqwest::Body::wrap_stream(body.into_data_stream()))
                .send()
                .await
                .unwrap();
            let mut passed = Response::builder().status(answer.status());
            passed
                .headers_mut()
                .unwrap()
                .extend(answer.headers().clone());
            passed.headers_mut().unwrap().remove("transfer-encoding");
            passed
                .body(Body::from_stream(answer.bytes_stream()))
                .unwrap()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    config["clusters"][0]["cluster"] =
        json!({"server": format!("http://{}", listener.local_addr().unwrap())});
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass)).await });
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    (path, door)
}

#[tokio::test]
async fn a_replica_is_not_ready_before_its_lists_are_complete() {
    let namespace = TestNamespace::new("unready", json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let (kubeconfig, door) = behind_a_door(&namespace, dir.path()).await;
    let (_webhook, url) = webhook(&namespace, &kubeconfig, dir.path()).await;
    let text = answers(&url, |_, text| {
        !text.contains("imageattachments") && !text.contains("certificate")
    })
    .await;
    assert_eq!(text, "waiting for the list of namespaces\n");
    assert_eq!(readyz(&url).await.0, 503);
    door.send_replace(true);
    assert_eq!(answers(&url, |status, _| status == 200).await, "ok\n");
}

#[tokio::test]
async fn a_replica_without_list_permission_is_ready_and_reports_it() {
    let namespace = TestNamespace::new("unlisted", json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    namespace
        .kubectl(&["create", "serviceaccount", "webhook"])
        .await
        .stdout()
        .unwrap();
    let kubeconfig = namespace
        .plane
        .service_account_kubeconfig(&namespace.name, "webhook")
        .await
        .unwrap();
    let (_webhook, url) = webhook(&namespace, &kubeconfig, dir.path()).await;
    let text = answers(&url, |status, _| status == 200).await;
    let both = [
        "ok\ngoing on without the list of imageattachments (the API server answered 403: imageattachments.affix.dev is forbidden: ",
        "), the list of namespaces (the API server answered 403: namespaces is forbidden: ",
    ];
    assert!(both.iter().all(|part| text.contains(part)), "{text}");

    let role = [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": namespace.name}, "rules": [
                {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["affix.dev"], "resources": ["imageattachments"], "verbs": ["list", "watch"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace.name},
            "subjects": [{"kind": "ServiceAccount", "name": "webhook", "namespace": namespace.name}],
        }),
    ];
    for object in &role {
        namespace.apply(object).await.unwrap();
    }
    answers(&url, |status, text| (status, text) == (200, "ok\n")).await;
}
