//! Keys that sign nothing: why, in words that help, and without a word of the secret.

use serde_json::json;

use crate::cosign::key_pair;
use crate::desk::{Bench, Desk, Files};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn desk(bench: &Bench, data: Files<'_>) -> Desk {
    let wanted = json!({"signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    Desk::new(
        bench,
        &bench.spec(&bench.image.tagged(), &wanted),
        &[("key", data)],
    )
}

#[tokio::test]
async fn a_key_that_does_not_open_is_refused_with_its_reason_and_nothing_is_pushed() {
    let bench = Bench::both().await.remove(0);
    let key = key_pair(&bench, "cosign").await;
    let canary: &[u8] = b"canary-hunter2";
    for (data, reason, part) in [
        (
            vec![("cosign.key", key.as_slice()), ("cosign.password", canary)],
            "KeyInvalid",
            "cosign.password does not open cosign.key",
        ),
        (
            vec![("cosign.key", key.as_slice())],
            "KeyInvalid",
            "the Secret has no cosign.password",
        ),
        (vec![("cosign.key", canary)], "KeyInvalid", "cosign.key"),
        (
            vec![("cosign.password", canary)],
            "SecretNotFound",
            "the Secret \"key\" has no key cosign.key",
        ),
    ] {
        let mut desk = desk(&bench, &data);
        let (found, message) = desk.refused().await;
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(part), "{message}");
        let status = serde_json::to_string(&desk.status).unwrap();
        assert!(!status.contains("canary"), "{status}");
        assert!(bench.listed(bench.image.digest(), BUNDLE).await.is_empty());
    }
}

#[tokio::test]
async fn a_key_signs_only_in_the_repositories_that_its_secret_allows() {
    let bench = Bench::both().await.remove(0);
    let key = key_pair(&bench, "cosign").await;
    let mut desk = desk(
        &bench,
        &[("cosign.key", &key), ("cosign.password", b"correct horse")],
    );
    let host = bench.registry.host().to_owned();
    for annotation in [
        "registry.example.com/team/*".to_owned(),
        format!("{host}/teams/*"),
        String::new(),
        "team".to_owned(),
    ] {
        desk.annotate("key", "affix.dev/repositories", &annotation);
        let (reason, message) = desk.refused().await;
        assert_eq!(reason, "RepositoryNotAllowed", "{message}");
        assert!(message.contains("affix.dev/repositories"), "{message}");
        assert!(bench.listed(bench.image.digest(), BUNDLE).await.is_empty());
    }
    desk.annotate(
        "key",
        "affix.dev/repositories",
        &format!("registry.example.com/*, {host}/team/*"),
    );
    desk.ready().await;
}
