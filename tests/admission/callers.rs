//! Callers of the webhook's port that are not the API server.

use affix_testbed::certificates::Authority;
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::tools::Tools;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::support::abusive_clients::{authority, tls_as};
use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

/// Sends a request. Returns the first line of the response, or `None` if the server refuses the connection.
async fn call(tls: &TlsConnector, address: &str) -> Option<String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = tls
        .connect("127.0.0.1".try_into().unwrap(), stream)
        .await
        .ok()?;
    let request = b"GET /validate-pods HTTP/1.1\r\nhost: affix\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.lines().next().map(str::to_owned)
}

#[tokio::test]
async fn t19_with_a_client_ca_only_the_api_server_is_served() {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let tools = Tools::core().await.unwrap();
    let (clients, others) = (Authority::new().unwrap(), Authority::new().unwrap());
    let plane = ControlPlane::start_with_webhook_client(&tools, &clients)
        .await
        .unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    let namespace = TestNamespace::on(plane, &INSTALLED, tools, "callers", json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client-ca.crt");
    std::fs::write(&file, clients.pem()).unwrap();
    // The installation waits for a refusal by the webhook, so the API server is served.
    let (webhook, address) =
        Affix::webhook(&namespace, &["--client-ca", file.to_str().unwrap()]).await;
    let ca = authority(&namespace).await;
    let (own, other) = (
        clients.client("kube-apiserver").unwrap(),
        others.client("kube-apiserver").unwrap(),
    );
    let served = Some("HTTP/1.1 405 Method Not Allowed".to_owned());
    assert_eq!(call(&tls_as(&ca, Some(&own)), &address).await, served);
    assert_eq!(call(&tls_as(&ca, Some(&other)), &address).await, None);
    assert_eq!(call(&tls_as(&ca, None), &address).await, None);

    // A broken file changes nothing. A new authority counts without a restart.
    std::fs::write(&file, "broken").unwrap();
    wait_for("the warning", async || {
        let log = webhook.process.log().unwrap();
        log.contains("cannot update the authorities of callers")
    })
    .await;
    assert_eq!(call(&tls_as(&ca, Some(&own)), &address).await, served);
    std::fs::write(&file, others.pem()).unwrap();
    wait_for("the new authority", async || {
        call(&tls_as(&ca, Some(&other)), &address).await == served
    })
    .await;
    assert_eq!(call(&tls_as(&ca, Some(&own)), &address).await, None);
}
