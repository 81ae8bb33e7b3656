//! Reading and writing manifests: the digests, sizes and media types that are verified.

use affix_registry::oci::{Algorithm, Descriptor, Manifest};
use affix_registry::{Deletion as Deleted, ErrorKind, Put};
use affix_testbed::hostile::{
    Deletion, Fault, HostileRegistry, ImmutableTags, Location, Matcher, OciSubject, Op, Quirks,
    Refusal, Reply, Stage,
};
use affix_testbed::peer::Peer;
use affix_testbed::tools::Tools;
use bytes::Bytes;
use serde_json::json;

use crate::support::{
    INDEX, MANIFEST, NAME, attachment, by, descriptor, digest, image, open, refused, tag,
};

#[tokio::test]
async fn a_manifest_is_read_by_tag_and_by_digest_and_asks_for_nothing_else() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open(&registry);
    for at in [tag("v1"), by(&digest(&image.digest))] {
        let fetched = session.manifest(&at).await.unwrap();
        assert_eq!(fetched.descriptor(), descriptor(&image));
        assert!(matches!(fetched.manifest, Manifest::Index(index) if index.manifests.len() == 2));
        let head = session.head(&at).await.unwrap();
        let seen = (head.digest, head.media_type.as_deref(), head.size);
        assert_eq!(
            seen,
            (digest(&image.digest), Some(INDEX), Some(image.size as u64))
        );
    }
    assert_eq!(
        (session.requests(), registry.requests().len()),
        (4, 4),
        "{}",
        registry.transcript()
    );
    let expected = format!(
        "GET manifest v2 at {}/{NAME}: HTTP 404 MANIFEST_UNKNOWN",
        registry.host()
    );
    refused(
        session.manifest(&tag("v2")).await,
        ErrorKind::NotFound,
        &[&expected],
    );
}

#[tokio::test]
async fn sha512_digests_work_from_the_tag_to_the_child() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image(NAME, "v1")
        .platform("linux/amd64")
        .sha512()
        .push();
    let session = open(&registry);
    let fetched = session.manifest(&tag("v1")).await.unwrap();
    assert_eq!(
        (fetched.digest.algorithm(), fetched.digest.to_string()),
        (Algorithm::Sha512, image.digest.clone())
    );
    let child = digest(image.platform("linux/amd64"));
    assert_eq!(session.manifest(&by(&child)).await.unwrap().digest, child);
    assert_eq!(
        session.head(&tag("v1")).await.unwrap().digest,
        fetched.digest
    );
}

#[tokio::test]
async fn t8_bytes_that_do_not_hash_to_their_digest_are_refused() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open(&registry);
    let asked = by(&digest(&image.digest));
    let other = format!("sha256:{}", "0".repeat(64));
    for (fault, at, expected) in [
        (Fault::Corrupt, &asked, "have the digest sha256:"),
        (Fault::Append(" ".into()), &asked, "have the digest sha256:"),
        (
            Fault::Corrupt,
            &tag("v1"),
            "the registry reports the digest sha256:",
        ),
        (
            Fault::digest_header(Some(&other)),
            &tag("v1"),
            "the registry reports the digest sha256:000",
        ),
        (
            Fault::digest_header(Some(&other)),
            &asked,
            "the registry reports the digest sha256:000",
        ),
        (
            Fault::digest_header(Some("md5:900150983cd24fb0d6963f7d28e17f72")),
            &tag("v1"),
            "which cannot be verified",
        ),
    ] {
        let rule = registry.fault(Matcher::on(Op::ManifestGet), fault);
        refused(
            session.manifest(at).await,
            ErrorKind::DigestMismatch,
            &[
                &format!("GET manifest {at} at {}", registry.host()),
                expected,
            ],
        );
        rule.lift();
    }
    registry.fault(
        Matcher::on(Op::ManifestHead),
        Fault::digest_header(Some(&other)),
    );
    refused(
        session.head(&asked).await,
        ErrorKind::DigestMismatch,
        &["the registry reports the digest sha256:000"],
    );
}

#[tokio::test]
async fn t8_a_size_that_differs_from_the_descriptor_is_refused() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open(&registry);
    let wrong = Descriptor {
        size: 7,
        ..descriptor(&image)
    };
    let expected = format!("it has {} bytes, its descriptor states 7", image.size);
    refused(
        session.manifest_of(&wrong).await,
        ErrorKind::DigestMismatch,
        &[&expected],
    );
    assert_eq!(
        session
            .manifest_of(&descriptor(&image))
            .await
            .unwrap()
            .descriptor(),
        descriptor(&image)
    );
}

#[tokio::test]
async fn t8_the_digest_in_the_answer_to_a_put_is_compared() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open(&registry);
    let (at, bytes) = attachment(&image.descriptor(), "a");
    let other = format!("sha256:{}", "0".repeat(64));
    let rule = registry.fault(
        Matcher::on(Op::ManifestPut),
        Fault::digest_header(Some(&other)),
    );
    refused(
        session
            .put_manifest(&by(&at), MANIFEST, bytes.clone())
            .await,
        ErrorKind::DigestMismatch,
        &["reports the digest sha256:000"],
    );
    rule.lift();
    refused(
        session
            .put_manifest(&by(&at), MANIFEST, Bytes::from_static(b"{}"))
            .await,
        ErrorKind::DigestMismatch,
        &["the bytes to write have another digest"],
    );
    session
        .put_manifest(&by(&at), MANIFEST, bytes)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_subject_is_acknowledged_or_not_and_no_location_is_needed() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::ecr())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    let session = open(&registry);
    for (oci_subject, acknowledged) in [(OciSubject::WithApi, true), (OciSubject::Never, false)] {
        registry.quirks(|quirks| {
            (quirks.oci_subject, quirks.manifest_location) = (oci_subject, Location::None);
        });
        let (at, bytes) = attachment(&image.descriptor(), "a");
        let expected = Put {
            subject_acknowledged: acknowledged.then(|| digest(&image.digest)),
        };
        assert_eq!(
            session
                .put_manifest(&by(&at), MANIFEST, bytes)
                .await
                .unwrap(),
            expected
        );
    }
}

#[tokio::test]
async fn a_head_without_digest_or_without_support_becomes_a_get() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    for fault in [
        Fault::digest_header(None),
        Fault::status(405),
        Fault::status(501),
    ] {
        registry.calm();
        registry.fault(Matcher::on(Op::ManifestHead), fault);
        assert_eq!(
            open(&registry).head(&tag("v1")).await.unwrap().digest,
            digest(&image.digest)
        );
    }
    assert_eq!(
        (
            registry.count(Op::ManifestHead),
            registry.count(Op::ManifestGet)
        ),
        (3, 3)
    );
}

#[tokio::test]
async fn an_unsupported_document_is_refused_by_name() {
    let registry = HostileRegistry::start().await.unwrap();
    let session = open(&registry);
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (media_type, body, expected) in [
        (schema1, r#"{"schemaVersion":1}"#.to_owned(), "Docker schema 1"),
        (INDEX, json!({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}).to_string(), "but the document states"),
        (INDEX, r#"{"manifests":[],"layers":[]}"#.to_owned(), "both the fields"),
        ("text/html", "<html>".to_owned(), "malformed"),
        (INDEX, format!("{{\"a\":{}", "[".repeat(15_000)), "malformed"),
        (INDEX, r#"{"manifests":[],"manifests":[]}"#.to_owned(), "malformed"),
        (INDEX, "{\"manifests\":[],\"x\":\"\u{0}\"}".to_owned(), "malformed"),
        (
            MANIFEST,
            r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"md5:1","size":1},"layers":[]}"#.to_owned(),
            "use sha256 or sha512",
        ),
    ] {
        registry.store().put_manifest(NAME, Some("odd"), media_type, body);
        refused(session.manifest(&tag("odd")).await, ErrorKind::UnsupportedMediaType, &["GET manifest odd at", expected]);
    }
}

#[tokio::test]
async fn null_values_and_an_odd_sibling_are_read_as_oras_crane_and_regctl_do() {
    let registry = HostileRegistry::start().await.unwrap();
    let pushed = image(&registry);
    let good = json!({"mediaType": INDEX, "digest": pushed.digest, "size": pushed.size, "annotations": null, "platform": null});
    let odd = json!({"mediaType": MANIFEST, "digest": "blake3:00ff", "size": 7});
    let text = json!({"schemaVersion": 2, "mediaType": null, "annotations": null, "subject": null, "manifests": [odd, good]}).to_string();
    let store = registry.store();
    store.put_manifest(NAME, Some("odd"), INDEX, text.clone());
    store.put_manifest(
        NAME,
        Some("none"),
        INDEX,
        r#"{"schemaVersion":2,"mediaType":null,"manifests":null}"#,
    );
    store.put_manifest(NAME, Some("marked"), INDEX, format!("\u{feff}{text}"));
    let session = open(&registry);
    for (name, read, skipped) in [("odd", 1, 1), ("none", 0, 0), ("marked", 1, 1)] {
        let fetched = session.manifest(&tag(name)).await.unwrap();
        assert_eq!(fetched.media_type, INDEX);
        let Manifest::Index(index) = fetched.manifest else {
            panic!("{name} is no index");
        };
        assert_eq!(
            (index.manifests.len(), index.skipped.len()),
            (read, skipped),
            "{name}"
        );
        for entry in index.skipped {
            assert_eq!(
                entry.to_string(),
                "entry 0 is skipped: digest algorithm \"blake3\" is not supported: use sha256 or sha512"
            );
        }
    }
    let mut peer = Peer::new(&Tools::core().await.unwrap()).unwrap();
    peer.know_plain(&registry.host()).unwrap();
    let at = |name: &str| format!("{}/{NAME}:{name}", registry.host());
    for name in ["odd", "none"] {
        let name = at(name);
        peer.crane(["manifest", &name])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        peer.oras(["manifest", "fetch", &name])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        peer.regctl(["manifest", "get", "--format", "raw-body", &name])
            .await
            .unwrap()
            .stdout()
            .unwrap();
    }
}

#[tokio::test]
async fn an_immutable_tag_is_told_from_other_refusals() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let session = open(&registry);
    let index =
        Bytes::from(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string());
    for refusal in [
        Refusal::TagInvalid,
        Refusal::Precondition,
        Refusal::Conflict,
    ] {
        registry.quirks(|quirks| {
            quirks.immutable_tags = Some(ImmutableTags {
                pattern: "v*".to_owned(),
                refusal,
            });
        });
        let result = session.put_manifest(&tag("v1"), INDEX, index.clone()).await;
        refused(
            result,
            ErrorKind::ImmutableTag,
            &["the tag v1 is immutable"],
        );
    }
    registry.fault(
        Matcher::on(Op::ManifestPut),
        Reply::error(400, "MANIFEST_INVALID", "no\u{7} good"),
    );
    let expected = format!(
        "PUT manifest v2 at {}/{NAME}: HTTP 400 MANIFEST_INVALID: no good",
        registry.host()
    );
    let error = refused(
        session.put_manifest(&tag("v2"), INDEX, index).await,
        ErrorKind::ManifestRejected,
        &[&expected],
    );
    assert_eq!((error.status(), error.is_transient()), (Some(400), false));
}

#[tokio::test]
async fn a_put_that_was_done_but_not_answered_is_made_again() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let (at, bytes) = attachment(&image.descriptor(), "a");
    registry.fault_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).times(1),
        Fault::Reset,
    );
    let put = open(&registry)
        .put_manifest(&by(&at), MANIFEST, bytes)
        .await
        .unwrap();
    assert_eq!(put.subject_acknowledged, Some(digest(&image.digest)));
    assert_eq!(registry.store().referrers(NAME, &image.digest).len(), 1);
}

#[tokio::test]
async fn a_deletion_is_done_gone_or_refused() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open(&registry);
    let (at, bytes) = attachment(&image.descriptor(), "a");
    session
        .put_manifest(&by(&at), MANIFEST, bytes)
        .await
        .unwrap();
    assert_eq!(session.delete_manifest(&at).await.unwrap(), Deleted::Done);
    assert_eq!(session.delete_manifest(&at).await.unwrap(), Deleted::Gone);
    for (deletion, status) in [
        (Deletion::Disabled, 405),
        (Deletion::RefusedWhereReferenced, 403),
    ] {
        registry.quirks(|quirks| quirks.deletion = deletion);
        let child = digest(image.platform("linux/amd64"));
        let refused = session.delete_manifest(&child).await.unwrap();
        assert!(
            matches!(&refused, Deleted::Refused(answer) if answer.status == status),
            "{refused:?}"
        );
    }
}
