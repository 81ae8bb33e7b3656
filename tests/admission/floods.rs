//! Abusive clients: floods of large reviews, slow requests, and random bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use affix_testbed::http_client;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::abusive_clients::{authority, drip, peak, tls};
use crate::support::namespace::{TestNamespace, output};
use crate::support::process::Affix;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_floods_of_large_and_slow_reviews_do_not_block_others_or_exhaust_memory() {
    let namespace = TestNamespace::new("flooded", json!({})).await;
    let (mut webhook, address) = Affix::webhook(&namespace, &[]).await;
    let ca = authority(&namespace).await;
    let (client, one) = (
        http_client::client(Some(&ca)).unwrap(),
        http_client::multiplexing(&ca).unwrap(),
    );
    let url = format!("https://{address}/validate-imageattachment");
    let before = peak(webhook.process.pid().unwrap());
    // Silent connections, and connections that send headers or a body at one byte per second.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let head = "POST /validate-pods HTTP/1.1\r\nhost: affix\r\n";
    let body = format!("{head}content-length: 1000000\r\n\r\n");
    let tls = tls(&ca);
    let slow = join_all(
        (0..100).map(|index| drip(&tls, &address, if index % 2 == 0 { head } else { &body })),
    );
    // 2 MiB each, half over separate connections and half over a single one.
    let pad = "x".repeat(2 << 20);
    let large = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "pad": pad}}).to_string();
    let flood = join_all(
        (0..400)
            .map(|index| if index % 2 == 0 { &client } else { &one })
            .map(|client| client.post(&url).body(large.clone()).send()),
    );
    let served = async {
        for _ in 0..20 {
            let invalid = TestNamespace::attachment(
                "invalid",
                &json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}}),
            );
            let text = namespace
                .apply_with(&invalid, &["--dry-run=server"])
                .await
                .expect_err("the webhook did not answer in its time");
            assert!(text.contains("is malformed"), "{text}");
        }
    };
    let (answers, (), slow) = tokio::join!(flood, served, slow);
    assert!(
        slow.iter().all(|let_go| *let_go),
        "a slow connection was kept open"
    );
    let mut known: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in answers.into_iter().flatten() {
        *known.entry(answer.status().as_u16()).or_default() += 1;
    }
    assert!(
        !known.is_empty() && known.keys().all(|status| matches!(status, 200 | 408 | 503)),
        "{known:?}"
    );
    let huge = client.post(&url).body(vec![b'x'; 9 << 20]).send().await;
    assert!(huge.map_or(true, |answer| answer.status() == 413));
    let after = peak(webhook.process.pid().unwrap());
    println!(
        "answers by status: {known:?}; peak of memory {} MiB before, {} MiB after",
        before >> 20,
        after >> 20
    );
    // The memory limit of the chart.
    assert!(after < 256 << 20, "{} MiB", after >> 20);
    assert!(webhook.process.ended().unwrap().is_none());
    for stream in &mut silent {
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn random_bytes_get_status_400_or_a_response_with_their_uid() {
    let namespace = TestNamespace::new("random", json!({})).await;
    let (mut webhook, address) = Affix::webhook(&namespace, &[]).await;
    let client = http_client::client(Some(&authority(&namespace).await)).unwrap();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "p", "namespace": namespace.name, "operation": "CREATE", "userInfo": {},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "UPPER@@"}]}}
        }
    })
    .to_string();
    // A deterministic random number generator.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for index in 0..300 {
        let mut bytes = review.clone().into_bytes();
        for _ in 0..=(index % 5) {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] = u8::try_from(next() % 256).unwrap(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, u8::try_from(next() % 256).unwrap()),
            }
        }
        for path in ["validate-imageattachment", "validate-pods", "mutate-pods"] {
            let answer = client
                .post(format!("https://{address}/{path}"))
                .body(bytes.clone())
                .send()
                .await
                .unwrap();
            match answer.status().as_u16() {
                400 => {}
                200 => {
                    let answer: Value = answer.json().await.unwrap();
                    // A field that the webhook skips may be invalid JSON.
                    if let Ok(sent) = serde_json::from_slice::<Value>(&bytes) {
                        assert_eq!(
                            answer["response"]["uid"], sent["request"]["uid"],
                            "{answer}"
                        );
                    }
                    assert!(answer["response"]["allowed"].is_boolean(), "{answer}");
                }
                other => panic!("{other} for {}", String::from_utf8_lossy(&bytes)),
            }
        }
    }
    let get = client
        .get(format!("https://{address}/validate-pods"))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), 405);
    let metrics = webhook.serves("metrics").await;
    let metrics = reqwest::get(format!("http://{metrics}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("affix_admission_panics_total 0")
            && metrics.contains("affix_admission_turned_away_total{cause=\"malformed\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn reviews_in_flight_complete_on_shutdown_and_pods_start_without_the_webhook() {
    let namespace =
        TestNamespace::new("drained", json!({"affix.dev/end-of-life": "enforce"})).await;
    let (mut webhook, address) = Affix::webhook(&namespace, &["--shutdown-delay", "3s"]).await;
    let client = http_client::client(Some(&authority(&namespace).await)).unwrap();
    let health = webhook.serves("health").await;
    assert_eq!(
        reqwest::get(format!("http://{health}/readyz"))
            .await
            .unwrap()
            .status(),
        200
    );
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "DELETE", "userInfo": {}
        }
    })
    .to_string();
    let calls = async {
        let (mut answered, mut again) = (0, false);
        // Every accepted request is answered. A kept connection may be closed at the moment of its
        // reuse; clients retry once in that case, as the API server does.
        for _ in 0..10_000 {
            match client
                .post(format!("https://{address}/validate-pods"))
                .body(review.clone())
                .send()
                .await
            {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200);
                    (answered, again) = (answered + 1, false);
                }
                Err(error) if error.is_connect() => return answered,
                Err(_) if !again => again = true,
                Err(error) => panic!("a call failed after {answered}: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answered
    };
    let (answered, status) = tokio::join!(calls, webhook.process.stop());
    assert!(status.unwrap().success() && answered > 0, "{answered}");
    // The remaining configuration does not block pods.
    let pod = output(
        namespace
            .kubectl(&[
                "run",
                "alone",
                "--image",
                "registry.example.com/team/app:v1",
            ])
            .await,
    )
    .unwrap();
    assert!(!pod.contains("Warning"), "{pod}");
}
