//! Blobs: the number of requests of an upload, and the verification of downloads.

use affix_registry::ErrorKind;
use affix_registry::oci::Descriptor;
use affix_testbed::hostile::{Fault, HostileRegistry, Location, Matcher, Op, Quirks, Reply, Stage};

use crate::support::{NAME, open, refused};

#[tokio::test]
async fn a_blob_is_one_request_and_two_where_the_post_keeps_nothing() {
    for (quirks, expected) in [(Quirks::default(), 1), (Quirks::distribution(), 2)] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let session = open(&registry);
        let digest = session.put_blob("content".into()).await.unwrap();
        assert_eq!(session.requests(), expected, "{}", registry.transcript());
        assert_eq!(
            registry.store().blob(NAME, &digest.to_string()).unwrap(),
            "content"
        );
        assert!(session.has_blob(&digest).await.unwrap());
        assert!(
            !session
                .has_blob(&affix_registry::oci::Digest::sha256(b"other"))
                .await
                .unwrap()
        );
        assert_eq!(
            session
                .blob(&Descriptor::of("x", b"content"), 100)
                .await
                .unwrap(),
            "content"
        );
    }
}

#[tokio::test]
async fn a_registry_that_rejects_content_in_the_post_gets_it_in_the_put() {
    for status in [400, 404, 405, 415] {
        let registry = HostileRegistry::start().await.unwrap();
        registry.fault(
            Matcher::on(Op::UploadStart).when(|request| request.parameter("digest").is_some()),
            Fault::status(status),
        );
        let digest = open(&registry).put_blob("content".into()).await.unwrap();
        assert_eq!(
            registry.store().blob(NAME, &digest.to_string()).unwrap(),
            "content",
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_is_lost_is_begun_again() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    registry.fault(
        Matcher::on(Op::UploadPut).times(1),
        Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "gone"),
    );
    registry.fault_at(
        Stage::After,
        Matcher::on(Op::UploadPut).times(1),
        Fault::Reset,
    );
    let digest = open(&registry).put_blob("content".into()).await.unwrap();
    assert_eq!(
        registry.store().blob(NAME, &digest.to_string()).unwrap(),
        "content",
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn an_upload_without_location_is_an_error_that_says_so() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    registry.quirks(|quirks| quirks.upload_location = Location::None);
    refused(
        open(&registry).put_blob("content".into()).await,
        ErrorKind::RegistryUnavailable,
        &["PUT blob sha256:", "without a Location"],
    );
}

#[tokio::test]
async fn t8_a_blob_that_differs_from_its_descriptor_is_refused() {
    let registry = HostileRegistry::start().await.unwrap();
    registry.store().put_blob(NAME, "content");
    let session = open(&registry);
    let descriptor = Descriptor::of("x", b"content");
    let wrong = Descriptor {
        size: 6,
        ..descriptor.clone()
    };
    refused(
        session.blob(&wrong, 100).await,
        ErrorKind::DigestMismatch,
        &["it has 7 bytes, its descriptor states 6"],
    );
    refused(
        session.blob(&descriptor, 6).await,
        ErrorKind::LimitExceeded,
        &["the blob has 7 bytes (the limit is 6)"],
    );
    registry.fault(Matcher::on(Op::BlobGet), Fault::Corrupt);
    refused(
        session.blob(&descriptor, 100).await,
        ErrorKind::DigestMismatch,
        &["have the digest sha256:"],
    );
    registry.fault(
        Matcher::on(Op::UploadStart),
        Fault::digest_header(Some(&format!("sha256:{}", "0".repeat(64)))),
    );
    refused(
        session.put_blob("content".into()).await,
        ErrorKind::DigestMismatch,
        &["reports the digest sha256:000"],
    );
    refused(
        session.blob(&Descriptor::of("x", b"none"), 100).await,
        ErrorKind::NotFound,
        &["HTTP 404 BLOB_UNKNOWN"],
    );
}
