//! oci-client's types beside ours: conversions, and every difference of the reference grammars.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]

use std::path::Path;

use affix_registry::interop::ConversionError;
use affix_registry::oci::{
    Descriptor, Digest, ImageIndex, ImageManifest, Platform, Reference, media_type,
};
use oci_client::manifest::{
    ImageIndexEntry, OciDescriptor, OciImageIndex, OciImageManifest, Platform as OciPlatform,
};

const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// The text that each grammar prints after parsing; `None` if it refuses the text.
fn both(text: &str) -> (Option<String>, Option<String>) {
    (
        text.parse::<Reference>().ok().map(|ours| ours.to_string()),
        text.parse::<oci_client::Reference>()
            .ok()
            .map(|theirs| theirs.whole()),
    )
}

#[test]
fn the_reference_grammars_differ_only_as_listed() {
    let upper = HEX.to_uppercase();
    for (text, ours, theirs) in [
        // oci-client completes a reference. This crate has no default registry and no default tag.
        ("app:v1", false, Some("docker.io/library/app:v1")),
        ("team/app:v1", false, Some("docker.io/team/app:v1")),
        ("r.io/app", false, Some("r.io/app:latest")),
        // oci-client rewrites the names of Docker Hub. This crate does so only for requests.
        ("docker.io/app:v1", true, Some("docker.io/library/app:v1")),
        ("index.docker.io/a/b:v1", true, Some("docker.io/a/b:v1")),
        // oci-client has no IPv6 addresses.
        ("[::1]:5000/app:v1", true, None),
        // oci-client accepts names and ports that are not valid in a URL.
        ("r.io:0/app:v1", false, Some("r.io:0/app:v1")),
        ("r.io:99999/app:v1", false, Some("r.io:99999/app:v1")),
        // oci-client accepts tags and digests outside of the specifications.
        ("r.io/app:é", false, Some("r.io/app:é")),
        (
            &format!("r.io/app@sha256:{upper}"),
            false,
            Some(&*format!("r.io/app@sha256:{upper}")),
        ),
        (
            &format!("r.io/app@sha384:{HEX}{}", "0".repeat(32)),
            false,
            Some(&*format!("r.io/app@sha384:{HEX}{}", "0".repeat(32))),
        ),
    ] {
        let expected = (ours.then(|| text.to_owned()), theirs.map(str::to_owned));
        assert_eq!(both(text), expected, "{text}");
    }
}

#[test]
fn on_the_corpus_the_grammars_differ_only_in_default_registry_and_ipv6() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/reference");
    let mut different = Vec::new();
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let (ours, theirs) = both(&text);
        if ours != theirs {
            different.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    different.sort();
    assert_eq!(different, ["decimal-host", "ipv6", "no-host"]);
}

#[test]
fn references_survive_the_conversion_in_both_directions() {
    for text in [
        "r.io/team/app:v1".to_owned(),
        "docker.io/app:v1".to_owned(),
        "[::1]:5000/app:v1".to_owned(),
        format!("r.io:5000/app@sha256:{HEX}"),
        format!("r.io/app:v1@sha256:{HEX}"),
    ] {
        let ours: Reference = text.parse().unwrap();
        let theirs = oci_client::Reference::from(&ours);
        assert_eq!(theirs.whole(), text);
        assert_eq!(Reference::try_from(&theirs).unwrap(), ours);
    }
    let completed: oci_client::Reference = "app".parse().unwrap();
    assert_eq!(
        Reference::try_from(&completed).unwrap().to_string(),
        "docker.io/library/app:latest"
    );
}

fn platform() -> Platform {
    Platform {
        architecture: "arm64".to_owned(),
        os: "linux".to_owned(),
        os_version: "1.2".to_owned(),
        variant: "v8".to_owned(),
    }
}

fn descriptor() -> Descriptor {
    Descriptor {
        annotations: [("k".to_owned(), "v".to_owned())].into(),
        artifact_type: "a/b".to_owned(),
        ..Descriptor::of(media_type::OCI_MANIFEST, b"content")
    }
}

#[test]
fn platforms_descriptors_manifests_and_indexes_survive_both_conversions() {
    for platform in [
        platform(),
        Platform {
            os: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            ..Platform::default()
        },
        Platform::default(),
    ] {
        assert_eq!(Platform::from(&OciPlatform::from(&platform)), platform);
    }
    let descriptor = descriptor();
    let theirs = OciDescriptor::try_from(&descriptor).unwrap();
    assert_eq!(Descriptor::try_from(&theirs).unwrap(), descriptor);
    let entry = Descriptor {
        platform: Some(platform()),
        ..descriptor.clone()
    };
    let theirs = ImageIndexEntry::try_from(&entry).unwrap();
    assert_eq!(Descriptor::try_from(&theirs).unwrap(), entry);
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some("a/b".to_owned()),
        config: descriptor.clone(),
        layers: vec![descriptor.clone(), descriptor.clone()],
        skipped: Vec::new(),
        subject: Some(descriptor.clone()),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
    };
    let theirs = OciImageManifest::try_from(&manifest).unwrap();
    assert_eq!(ImageManifest::try_from(&theirs).unwrap(), manifest);
    let index = ImageIndex {
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: vec![entry],
        skipped: Vec::new(),
        subject: None,
        annotations: [("k".to_owned(), "v".to_owned())].into(),
    };
    let theirs = OciImageIndex::try_from(&index).unwrap();
    assert_eq!(ImageIndex::try_from(&theirs).unwrap(), index);
}

#[test]
fn a_conversion_that_would_lose_meaning_is_an_error() {
    let index = ImageIndex {
        media_type: None,
        artifact_type: None,
        manifests: Vec::new(),
        skipped: Vec::new(),
        subject: Some(descriptor()),
        annotations: Default::default(),
    };
    assert_eq!(
        OciImageIndex::try_from(&index).unwrap_err(),
        ConversionError::Field("subject")
    );
    let large = Descriptor::plain("a/b", Digest::sha256(b""), u64::MAX);
    assert!(matches!(
        OciDescriptor::try_from(&large),
        Err(ConversionError::Number(_))
    ));
    for (digest, size) in [("sha256:12", 1), (&*format!("sha256:{HEX}"), -1)] {
        let theirs = OciDescriptor {
            digest: digest.to_owned(),
            size,
            ..OciDescriptor::default()
        };
        assert!(Descriptor::try_from(&theirs).is_err(), "{digest} {size}");
    }
}
