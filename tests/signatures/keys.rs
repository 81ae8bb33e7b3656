//! Unusable keys: the error names the cause and reveals no part of the secret.

use serde_json::json;

use crate::cosign::key_pair;
use crate::runner::{Files, Fixture, Runner};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn runner(fixture: &Fixture, data: Files<'_>) -> Runner {
    let wanted = json!({"signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    Runner::new(
        fixture,
        &fixture.spec(&fixture.image.tagged(), &wanted),
        &[("key", data)],
    )
}

#[tokio::test]
async fn an_unusable_key_is_refused_with_its_reason_and_nothing_is_pushed() {
    let fixture = Fixture::both().await.remove(0);
    let key = key_pair(&fixture, "cosign").await;
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
        let mut runner = runner(&fixture, &data);
        let (found, message) = runner.refused().await;
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(part), "{message}");
        let status = serde_json::to_string(&runner.status).unwrap();
        assert!(!status.contains("canary"), "{status}");
        assert!(
            fixture
                .listed(fixture.image.digest(), BUNDLE)
                .await
                .is_empty()
        );
    }
}

#[tokio::test]
async fn t16_a_key_signs_only_in_the_repositories_that_its_secret_allows() {
    let fixture = Fixture::both().await.remove(0);
    let key = key_pair(&fixture, "cosign").await;
    let mut runner = runner(
        &fixture,
        &[("cosign.key", &key), ("cosign.password", b"correct horse")],
    );
    let host = fixture.registry.host().to_owned();
    for annotation in [
        "registry.example.com/team/*".to_owned(),
        format!("{host}/teams/*"),
        String::new(),
        "team".to_owned(),
    ] {
        runner.annotate("key", "affix.dev/repositories", &annotation);
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, "RepositoryNotAllowed", "{message}");
        assert!(message.contains("affix.dev/repositories"), "{message}");
        assert!(
            fixture
                .listed(fixture.image.digest(), BUNDLE)
                .await
                .is_empty()
        );
    }
    runner.annotate(
        "key",
        "affix.dev/repositories",
        &format!("registry.example.com/*, {host}/team/*"),
    );
    runner.ready().await;
}
