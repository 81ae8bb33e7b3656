#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use affix_registry::oci::{Descriptor, ImageIndex, Manifest, media_type};

fn digest(name: &str) -> String {
    Digest::sha256(name.as_bytes()).to_string()
}

fn entry(media_type: &str, name: &str, platform: &str) -> Value {
    let mut entry = json!({"mediaType": media_type, "digest": digest(name), "size": 7});
    if !platform.is_empty() {
        let (platform, version) = platform.split_once(':').unwrap_or((platform, ""));
        let mut parts = platform.split('/');
        let mut part = || parts.next().unwrap_or_default();
        entry["platform"] =
            json!({"os": part(), "architecture": part(), "variant": part(), "os.version": version});
    }
    entry
}

fn image(name: &str, platform: &str) -> Value {
    entry(media_type::OCI_MANIFEST, name, platform)
}

fn index(entries: &[Value]) -> ImageIndex {
    serde_json::from_value(
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}),
    )
    .unwrap()
}

fn lay_out(entries: &[Value], nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>) -> Image {
    let root = Descriptor::of(media_type::OCI_INDEX, b"root");
    Image::lay_out(&root, &Manifest::Index(index(entries)), nested, None, 1000).unwrap()
}

/// An index as BuildKit and Windows builders write them.
fn usual() -> Image {
    let mut attestation = image("attestation", "unknown/unknown");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let entries = [
        image("amd64", "linux/amd64"),
        image("arm64", "linux/arm64"),
        image("armv6", "linux/arm/v6"),
        image("armv7", "linux/arm"),
        image("win1", "windows/amd64:10.0.20348.1234"),
        image("win2", "windows/amd64:10.0.203480.1"),
        image("bare", ""),
        attestation,
        entry("application/vnd.example.config", "odd", ""),
    ];
    lay_out(&entries, &BTreeMap::new())
}

fn patterns(texts: &[&str]) -> Vec<PlatformPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn only(texts: &[&str]) -> Selection {
    Selection {
        platforms: Some(patterns(texts)),
        ..Selection::default()
    }
}

/// The names of the platforms that are chosen.
fn chosen(selection: &Selection, image: &Image) -> Vec<&'static str> {
    let (chosen, _) = selection.choose(image).unwrap();
    let is_chosen = |name: &str| {
        chosen.iter().any(|chosen| {
            chosen.skip.is_none() && chosen.entry.subject.digest.to_string() == digest(name)
        })
    };
    [
        "root",
        "amd64",
        "arm64",
        "armv6",
        "armv7",
        "win1",
        "win2",
        "bare",
        "attestation",
        "odd",
        "nested",
    ]
    .into_iter()
    .filter(|name| is_chosen(name))
    .collect()
}

#[test]
fn all_entries_that_are_a_platform_in_other_words_are_chosen() {
    for (pattern, expected) in [
        ("linux/arm64", vec!["arm64"]),
        ("linux/arm64/v8", vec!["arm64"]),
        ("linux/aarch64", vec!["arm64"]),
        ("linux/arm", vec!["armv6", "armv7"]),
        ("linux/arm/v7", vec!["armv7"]),
        ("linux/x86_64", vec!["amd64"]),
        ("linux", vec!["amd64", "arm64", "armv6", "armv7"]),
        ("*/amd64", vec!["amd64", "win1", "win2"]),
        ("windows/amd64:10.0.20348", vec!["win1"]),
        ("windows/amd64:10.0.20348.1234", vec!["win1"]),
    ] {
        assert_eq!(
            chosen(
                &Selection {
                    scope: Scope::Platforms,
                    ..only(&[pattern])
                },
                &usual()
            ),
            expected,
            "{pattern}"
        );
    }
}

#[test]
fn each_entry_says_why_it_is_left_out() {
    let image = usual();
    let skip = |selection: &Selection, name: &str| {
        let (chosen, _) = selection.choose(&image).unwrap();
        chosen
            .iter()
            .find(|chosen| chosen.entry.subject.digest.to_string() == digest(name))
            .unwrap()
            .skip
    };
    for (selection, name, expected) in [
        (Selection::default(), "root", None),
        (Selection::default(), "bare", None),
        (
            Selection::default(),
            "attestation",
            Some(Reason::AttestationManifest),
        ),
        (
            Selection::default(),
            "odd",
            Some(Reason::UnsupportedMediaType),
        ),
        (
            Selection {
                scope: Scope::Platforms,
                ..Selection::default()
            },
            "root",
            Some(Reason::IndexNotSelected),
        ),
        (
            Selection {
                scope: Scope::Index,
                ..Selection::default()
            },
            "amd64",
            Some(Reason::PlatformNotSelected),
        ),
        (only(&["linux/amd64"]), "root", None),
        (
            only(&["linux/amd64"]),
            "bare",
            Some(Reason::PlatformNotSelected),
        ),
        (
            Selection {
                exclude: patterns(&["linux/arm"]),
                ..Selection::default()
            },
            "armv7",
            Some(Reason::PlatformNotSelected),
        ),
        (
            Selection {
                exclude: patterns(&["linux/arm"]),
                ..Selection::default()
            },
            "arm64",
            None,
        ),
        // An attestation is one, whatever is selected.
        (
            only(&["*"]),
            "attestation",
            Some(Reason::AttestationManifest),
        ),
    ] {
        assert_eq!(
            skip(&selection, name),
            expected,
            "{name} under {selection:?}"
        );
    }
}

#[test]
fn a_platform_that_is_missing_is_an_error_that_names_it_and_what_is_there_unless_it_may_be_missing()
{
    let selection = only(&["linux/amd64", "linux/s390x"]);
    let error = selection.choose(&usual()).unwrap_err();
    assert_eq!(error.reason(), Reason::NoMatchingPlatform);
    for part in [
        "\"linux/s390x\"",
        "linux/amd64, linux/arm64",
        "missing: Ignore",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!error.to_string().contains("\"linux/amd64\""), "{error}");

    let selection = Selection {
        missing: Missing::Ignore,
        ..selection
    };
    let image = usual();
    let (_, notes) = selection.choose(&image).unwrap();
    assert_eq!(notes, ["no entry matches the platform \"linux/s390x\""]);
    assert_eq!(chosen(&selection, &image), ["root", "amd64"]);
}

#[test]
fn an_exclude_that_matches_nothing_is_said_and_one_that_leaves_nothing_is_an_error() {
    let image = usual();
    let selection = Selection {
        exclude: patterns(&["linux/s390x"]),
        ..Selection::default()
    };
    assert_eq!(
        selection.choose(&image).unwrap().1,
        ["the excluded platform \"linux/s390x\" matches no entry"]
    );
    let selection = Selection {
        scope: Scope::Platforms,
        exclude: patterns(&["linux/arm"]),
        ..only(&["linux/arm"])
    };
    assert_eq!(
        selection.choose(&image).unwrap_err().reason(),
        Reason::NoMatchingPlatform
    );
}

#[test]
fn a_single_manifest_has_no_index_to_choose() {
    let root = Descriptor::of(media_type::OCI_MANIFEST, b"root");
    let manifest: affix_registry::oci::ImageManifest = serde_json::from_value(
        json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 1}}),
    )
    .unwrap();
    let platform = serde_json::from_value(json!({"os": "linux", "architecture": "arm64"})).unwrap();
    let image = Image::lay_out(
        &root,
        &Manifest::Image(manifest),
        &BTreeMap::new(),
        Some(platform),
        10,
    )
    .unwrap();
    for (selection, expected) in [
        (Selection::default(), Ok(1)),
        (
            Selection {
                scope: Scope::Platforms,
                ..Selection::default()
            },
            Ok(1),
        ),
        (only(&["linux/arm64/v8"]), Ok(1)),
        (
            Selection {
                scope: Scope::Index,
                ..Selection::default()
            },
            Err(Reason::NoMatchingPlatform),
        ),
        (only(&["linux/amd64"]), Err(Reason::NoMatchingPlatform)),
    ] {
        let chosen = selection
            .choose(&image)
            .map(|(chosen, _)| chosen.iter().filter(|chosen| chosen.skip.is_none()).count());
        assert_eq!(
            chosen.map_err(|error| error.reason()),
            expected,
            "{selection:?}"
        );
    }
}

#[test]
fn a_digest_that_is_listed_twice_is_one_target_that_answers_to_both_platforms() {
    let image = lay_out(
        &[
            image("amd64", "linux/arm/v6"),
            image("amd64", "linux/arm/v7"),
        ],
        &BTreeMap::new(),
    );
    assert_eq!(image.entries.len(), 2);
    assert_eq!(
        image.entries[1]
            .platforms()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["linux/arm/v6", "linux/arm/v7"]
    );
    for pattern in ["linux/arm/v6", "linux/arm/v7"] {
        assert_eq!(
            chosen(&only(&[pattern]), &image),
            ["root", "amd64"],
            "{pattern}"
        );
    }
}

#[test]
fn a_nested_index_is_a_target_and_walked_and_one_that_cannot_be_read_fails_alone() {
    let nested = entry(media_type::OCI_INDEX, "nested", "");
    let entries = [image("amd64", "linux/amd64"), nested];
    let key: Digest = digest("nested").parse().unwrap();
    let read = BTreeMap::from([(key.clone(), Ok(index(&[image("arm64", "linux/arm64")])))]);
    assert_eq!(
        chosen(&only(&["linux/arm64"]), &lay_out(&entries, &read)),
        ["root", "arm64", "nested"]
    );

    let gone = BTreeMap::from([(key, Err(Problem::new(Reason::NotFound, "HTTP 404")))]);
    let image = lay_out(&entries, &gone);
    assert_eq!(
        chosen(&only(&["linux/amd64"]), &image),
        ["root", "amd64", "nested"],
        "what it holds is unknown, so it fails in its own row"
    );
    let error = only(&["linux/arm64"]).choose(&image).unwrap_err();
    assert_eq!(
        error.reason(),
        Reason::NotFound,
        "it may be in there: {error}"
    );
}

#[test]
fn what_is_attached_to_something_and_what_is_too_large_is_no_image() {
    let root = Descriptor::of(media_type::OCI_INDEX, b"root");
    let mut attached = index(&[]);
    attached.subject = Some(Descriptor::of(media_type::OCI_INDEX, b"other"));
    let error = Image::lay_out(
        &root,
        &Manifest::Index(attached),
        &BTreeMap::new(),
        None,
        10,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("name the image itself"),
        "{error}"
    );
    let many: Vec<Value> = (0..11)
        .map(|nth| image(&nth.to_string(), "linux/amd64"))
        .collect();
    let error = Image::lay_out(
        &root,
        &Manifest::Index(index(&many)),
        &BTreeMap::new(),
        None,
        10,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("more than 10 entries"),
        "{error}"
    );
}
