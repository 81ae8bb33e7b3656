//! Callers who mean no good: floods of large reviews, slow ones, and bytes that are no review.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use affix_testbed::http_client;
use futures::future::join_all;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::place::{Place, said};
use crate::webhook::Affix;

/// The authority that the webhook made.
async fn authority(place: &Place) -> String {
    let secret = place
        .kubectl(&[
            "get",
            "secret",
            "affix-webhook-tls",
            "-o",
            "go-template={{index .data \"ca.crt\" | base64decode}}",
        ])
        .await;
    secret.stdout().unwrap()
}

/// Sends the beginning of a request and then a byte a second; whether it is let go.
async fn drip(tls: &TlsConnector, address: &str, sent: &str) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let Ok(mut stream) = tls.connect("127.0.0.1".try_into().unwrap(), stream).await else {
        return true;
    };
    let _ = stream.write_all(sent.as_bytes()).await;
    for _ in 0..60 {
        if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    false
}

/// TLS that trusts an authority.
fn tls(ca_pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into()
}

/// Bytes of memory that a process has had at most.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_reviews_and_slow_callers_leaves_others_served_and_takes_little_memory() {
    let place = Place::new("flooded", json!({})).await;
    let (mut webhook, address) = Affix::webhook(&place, &[]).await;
    let ca = authority(&place).await;
    let (client, one) = (
        http_client::client(Some(&ca)).unwrap(),
        http_client::multiplexing(&ca).unwrap(),
    );
    let url = format!("https://{address}/validate-imageattachment");
    let before = peak(webhook.process.pid().unwrap());
    // Connections that say nothing, and those that say a byte a second: heads, and bodies.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let head = "POST /validate-pods HTTP/1.1\r\nhost: affix\r\n";
    let body = format!("{head}content-length: 1000000\r\n\r\n");
    let tls = tls(&ca);
    let slow =
        join_all((0..100).map(|nth| drip(&tls, &address, if nth % 2 == 0 { head } else { &body })));
    // 2 MB each, over connections of their own and over a single one.
    let pad = "x".repeat(2 << 20);
    let large = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "pad": pad}}).to_string();
    let flood = join_all(
        (0..400)
            .map(|nth| if nth % 2 == 0 { &client } else { &one })
            .map(|client| client.post(&url).body(large.clone()).send()),
    );
    let served = async {
        for _ in 0..20 {
            let odd = Place::attachment(
                "odd",
                &json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}}),
            );
            let text = place
                .apply_with(&odd, &["--dry-run=server"])
                .await
                .expect_err("the webhook did not answer in its time");
            assert!(text.contains("is malformed"), "{text}");
        }
    };
    let (answers, (), slow) = tokio::join!(flood, served, slow);
    assert!(
        slow.iter().all(|let_go| *let_go),
        "a slow caller was borne with"
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
    // What the chart gives it.
    assert!(after < 256 << 20, "{} MiB", after >> 20);
    assert!(webhook.process.ended().unwrap().is_none());
    for stream in &mut silent {
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn random_bytes_get_400_or_an_answer_with_their_uid() {
    let place = Place::new("random", json!({})).await;
    let (mut webhook, address) = Affix::webhook(&place, &[]).await;
    let client = http_client::client(Some(&authority(&place).await)).unwrap();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "p", "namespace": place.name, "operation": "CREATE", "userInfo": {},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "UPPER@@"}]}}
        }
    })
    .to_string();
    // A generator of odd bytes that is the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for nth in 0..300 {
        let mut bytes = review.clone().into_bytes();
        for _ in 0..=(nth % 5) {
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
                    // What the webhook skips may be no JSON that a whole reader takes.
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
async fn calls_under_way_are_answered_before_it_ends_and_nothing_breaks_when_it_is_gone() {
    let place = Place::new("drained", json!({"affix.dev/end-of-life": "enforce"})).await;
    let (mut webhook, address) = Affix::webhook(&place, &["--shutdown-delay", "3s"]).await;
    let client = http_client::client(Some(&authority(&place).await)).unwrap();
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
        // Until it takes no more calls; each that it took is answered. A kept connection may be closed in the moment in which it is used
        // again: then nothing was taken, and whoever keeps connections, as the API server does, tries once more.
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
    // What it leaves behind is harmless.
    let pod = said(
        place
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
