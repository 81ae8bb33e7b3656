//! Traces, with the feature `otlp`.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;

use super::fixture::{Fixture, code, mark};

#[tokio::test]
async fn each_request_to_a_registry_is_exported_as_a_span() {
    let got: Arc<Mutex<Vec<u8>>> = Arc::default();
    let taken = Arc::clone(&got);
    let take = move |body: Bytes| async move { taken.lock().unwrap().extend_from_slice(&body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        axum::serve(listener, Router::new().route("/v1/traces", post(take))).await
    });
    let fixture = Fixture::new().await;
    let attach = fixture
        .run(&["attach", "-f", "-"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector);
    let attach = attach
        .input(mark(&fixture.image.pinned()).to_string())
        .output()
        .await
        .unwrap();
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    // Protocol buffers contain strings as plain bytes.
    let got = String::from_utf8_lossy(&got.lock().unwrap()).into_owned();
    for part in ["affix", "pass", "request", "PUT manifest sha256:"] {
        assert!(got.contains(part), "{part} is not in {got:?}");
    }
}
