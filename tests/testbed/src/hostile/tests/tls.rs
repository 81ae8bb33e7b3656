//! TLS: HTTP/2 where it is offered, certificates good and bad, and the same faults there.

use std::error::Error as _;
use std::time::Duration;

use reqwest::Version;

use super::client::{Client, NAME, builder, unanswered};
use crate::hostile::{Authority, Certificate, Cut, Fault, HostileRegistry, Matcher, Op, Outcome};

/// An error with all its causes.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let registry = HostileRegistry::builder().tls().start().await.unwrap();
    assert!(registry.url().starts_with("https://"));
    let client = Client::new(&registry);
    assert_eq!(client.get("/v2/").await.status, 200);
    let request = registry.requests().remove(0);
    assert_eq!(
        (
            request.version,
            request.header("host"),
            request.client_certificate
        ),
        (Version::HTTP_2, Some(&*registry.host()), false)
    );
    let old = HostileRegistry::builder()
        .tls()
        .http1_only()
        .start()
        .await
        .unwrap();
    assert_eq!(Client::new(&old).get("/v2/").await.status, 200);
    assert_eq!(old.requests()[0].version, Version::HTTP_11);
}

#[tokio::test]
async fn a_bad_certificate_is_noticed() {
    let authority = Authority::new().unwrap();
    let bad = [
        (Certificate::Expired, "expired"),
        (Certificate::OtherName, "not valid for name"),
        (Certificate::SelfSigned, "UnknownIssuer"),
    ];
    for (certificate, text) in bad {
        let registry = HostileRegistry::builder()
            .tls_with(&authority, certificate)
            .start()
            .await
            .unwrap();
        let error = causes(&Client::new(&registry).try_get("/v2/").await.unwrap_err());
        assert!(error.contains(text), "{certificate:?}: {error}");
        assert!(registry.requests().is_empty());
    }
    let good = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .start()
        .await
        .unwrap();
    let stranger = Client::with(&good, builder());
    assert_eq!(stranger.get("/v2/").await.status, 200);
    assert_eq!(good.ca_pem(), authority.pem());
}

#[tokio::test]
async fn a_client_certificate_is_noted_and_may_be_required() {
    let authority = Authority::new().unwrap();
    let (certificate, key) = authority.client("affix").unwrap();
    let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
    let strict = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .client_certificate_required()
        .start()
        .await
        .unwrap();
    assert_eq!(
        Client::with(&strict, builder().identity(identity.clone()))
            .get("/v2/")
            .await
            .status,
        200
    );
    assert!(strict.requests()[0].client_certificate && strict.requests()[0].has_credentials());
    assert!(Client::new(&strict).try_get("/v2/").await.is_err());
    let lax = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .start()
        .await
        .unwrap();
    Client::new(&lax).get("/v2/").await;
    Client::with(&lax, builder().identity(identity))
        .get("/v2/")
        .await;
    assert_eq!(lax.with_credentials().len(), 1, "{}", lax.transcript());
}

#[tokio::test]
async fn faults_happen_over_http_2_too() {
    let registry = HostileRegistry::builder().tls().start().await.unwrap();
    registry.image(NAME, "v1").platform("linux/amd64").push();
    let client = Client::new(&registry);
    let path = format!("/v2/{NAME}/manifests/v1");
    let faults = [
        Fault::Reset,
        Fault::Close,
        Fault::CutAfter(5, Cut::Close),
        Fault::CutAfter(5, Cut::Reset),
        Fault::ContentLength(5000),
    ];
    for fault in faults {
        registry.fault(Matcher::on(Op::ManifestGet).times(1), fault.clone());
        let seen = client.try_get(&path).await;
        assert!(seen.is_err(), "{fault:?}: {seen:?}");
        assert_eq!(client.get(&path).await.status, 200, "after {fault:?}");
    }
    registry.fault(Matcher::on(Op::ManifestGet).times(1), Fault::Hang);
    unanswered(&registry, client.get(&path)).await;
    let gone = Matcher::any().when(|request| request.outcome == Outcome::Abandoned);
    registry
        .wait_for(&gone, 1, Duration::from_mins(1))
        .await
        .unwrap();
}
