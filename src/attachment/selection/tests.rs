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

fn from_manifest(
    entries: &[Value],
    nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>,
) -> Image {
    let root = Descriptor::of(media_type::OCI_INDEX, b"root");
    Image::from_manifest(&root, &Manifest::Index(index(entries)), nested, None, 1000).unwrap()
}

/// Returns an index in the form of BuildKit and of Windows builders.
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
    from_manifest(&entries, &BTreeMap::new())
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

/// Returns the names of the selected entries.
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
fn all_entries_of_a_platform_are_selected_in_any_spelling() {
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
fn each_skipped_entry_has_a_reason() {
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
        // No selection turns an attestation into a target.
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
fn a_missing_platform_is_an_error_with_the_existing_ones_or_is_ignored() {
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
fn an_unmatched_exclude_is_a_warning_and_an_empty_selection_an_error() {
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
fn a_single_manifest_has_no_index_to_select() {
    let root = Descriptor::of(media_type::OCI_MANIFEST, b"root");
    let manifest: affix_registry::oci::ImageManifest = serde_json::from_value(
        json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 1}}),
    )
    .unwrap();
    let platform = serde_json::from_value(json!({"os": "linux", "architecture": "arm64"})).unwrap();
    let image = Image::from_manifest(
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
fn a_digest_with_two_entries_is_one_target_with_both_platforms() {
    let image = from_manifest(
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
fn a_nested_index_is_a_target_with_entries_and_an_unreadable_one_fails_alone() {
    let nested = entry(media_type::OCI_INDEX, "nested", "");
    let entries = [image("amd64", "linux/amd64"), nested];
    let key: Digest = digest("nested").parse().unwrap();
    let read = BTreeMap::from([(key.clone(), Ok(index(&[image("arm64", "linux/arm64")])))]);
    assert_eq!(
        chosen(&only(&["linux/arm64"]), &from_manifest(&entries, &read)),
        ["root", "arm64", "nested"]
    );

    let gone = BTreeMap::from([(key, Err(Problem::new(Reason::NotFound, "HTTP 404")))]);
    let image = from_manifest(&entries, &gone);
    assert_eq!(
        chosen(&only(&["linux/amd64"]), &image),
        ["root", "amd64", "nested"],
        "its entries are unknown, so only the nested index fails"
    );
    let error = only(&["linux/arm64"]).choose(&image).unwrap_err();
    assert_eq!(
        error.reason(),
        Reason::NotFound,
        "the nested index can contain it: {error}"
    );
}

#[test]
fn an_attachment_and_an_image_above_the_limit_are_refused() {
    let root = Descriptor::of(media_type::OCI_INDEX, b"root");
    let mut attached = index(&[]);
    attached.subject = Some(Descriptor::of(media_type::OCI_INDEX, b"other"));
    let error = Image::from_manifest(
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
    let error = Image::from_manifest(
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

/// Returns an index of two indexes, each with an image and an attestation. `outer`: the platforms are on the outer entries only.
fn index_of_indexes(outer: bool) -> Image {
    let mut nested = BTreeMap::new();
    let mut entries = Vec::new();
    for arch in ["amd64", "arm64"] {
        let platform = format!("linux/{arch}");
        let mut attestation = image(&format!("{arch}-attestation"), "unknown/unknown");
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let (below, around) = if outer {
            ("", platform.as_str())
        } else {
            (platform.as_str(), "")
        };
        let name = format!("{arch}-index");
        nested.insert(
            digest(&name).parse().unwrap(),
            Ok(index(&[image(arch, below), attestation])),
        );
        entries.push(entry(media_type::OCI_INDEX, &name, around));
    }
    from_manifest(&entries, &nested)
}

/// Returns the names of the selected entries of [`index_of_indexes`].
fn targets(selection: &Selection, image: &Image) -> Vec<&'static str> {
    let (chosen, _) = selection.choose(image).unwrap();
    let is_target = |name: &str| {
        chosen.iter().any(|chosen| {
            chosen.skip.is_none() && chosen.entry.subject.digest.to_string() == digest(name)
        })
    };
    ["root", "amd64-index", "amd64", "arm64-index", "arm64"]
        .into_iter()
        .filter(|name| is_target(name))
        .collect()
}

fn digests(names: &[&str]) -> Selection {
    Selection {
        digests: Some(
            names
                .iter()
                .map(|name| digest(name).parse().unwrap())
                .collect(),
        ),
        ..Selection::default()
    }
}

#[test]
fn an_index_is_a_target_only_if_something_below_it_is_selected() {
    for outer in [false, true] {
        let image = index_of_indexes(outer);
        let excluded = Selection {
            exclude: patterns(&["linux/arm64"]),
            ..Selection::default()
        };
        for selection in [only(&["linux/amd64"]), excluded, digests(&["amd64"])] {
            assert_eq!(
                targets(&selection, &image),
                ["root", "amd64-index", "amd64"],
                "outer: {outer}, {selection:?}"
            );
        }
        assert_eq!(targets(&Selection::default(), &image).len(), 5);
        let (chosen, _) = only(&["linux/amd64"]).choose(&image).unwrap().clone();
        let arm = chosen
            .iter()
            .find(|chosen| chosen.entry.subject.digest.to_string() == digest("arm64-index"));
        assert_eq!(arm.unwrap().skip, Some(Reason::IndexNotSelected));
    }
}

#[test]
fn an_entry_inherits_the_platform_of_every_index_entry_around_it() {
    let key: Digest = digest("nested").parse().unwrap();
    let nested = BTreeMap::from([(
        key,
        Ok(index(&[image("bare", ""), image("amd64", "linux/amd64")])),
    )]);
    let entries = [
        entry(media_type::OCI_INDEX, "nested", "linux/arm/v6"),
        entry(media_type::OCI_INDEX, "nested", "linux/arm/v7"),
    ];
    let image = from_manifest(&entries, &nested);
    let of = |name: &str| -> Vec<String> {
        let entry = image
            .entries
            .iter()
            .find(|entry| entry.subject.digest.to_string() == digest(name));
        entry
            .unwrap()
            .platforms()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(of("bare"), ["linux/arm/v6", "linux/arm/v7"]);
    assert_eq!(of("amd64"), ["linux/amd64"], "its own platform counts");
}

#[test]
fn an_index_named_under_many_platforms_is_refused_at_a_limit() {
    let key: Digest = digest("nested").parse().unwrap();
    let many: Vec<Value> = (0..50).map(|nth| image(&nth.to_string(), "")).collect();
    let nested = BTreeMap::from([(key, Ok(index(&many)))]);
    let entries: Vec<Value> = (0..50)
        .map(|nth| {
            entry(
                media_type::OCI_INDEX,
                "nested",
                &format!("linux/arm/v{nth}"),
            )
        })
        .collect();
    let root = Descriptor::of(media_type::OCI_INDEX, b"root");
    let manifest = Manifest::Index(index(&entries));
    let error = Image::from_manifest(&root, &manifest, &nested, None, 100).unwrap_err();
    assert!(error.to_string().contains("more than 100"), "{error}");
}

#[test]
fn nothing_selected_is_an_error_or_with_ignore_a_warning() {
    let image = index_of_indexes(false);
    let excluded = Selection {
        exclude: patterns(&["linux"]),
        ..Selection::default()
    };
    for selection in [only(&["linux/s390x"]), excluded, digests(&["other"])] {
        let error = selection.choose(&image).unwrap_err();
        assert_eq!(error.reason(), Reason::NoMatchingPlatform, "{selection:?}");
        assert!(error.to_string().contains("missing: Ignore"), "{error}");
        let ignoring = Selection {
            missing: Missing::Ignore,
            ..selection
        };
        assert!(targets(&ignoring, &image).is_empty(), "{ignoring:?}");
        let (_, warnings) = ignoring.choose(&image).unwrap();
        assert!(
            warnings.last().unwrap().contains("nothing is attached"),
            "{warnings:?}"
        );
    }
}

#[test]
fn digests_select_manifests_and_the_indexes_that_hold_them() {
    let image = index_of_indexes(false);
    let scoped = |scope, names: &[&str]| Selection {
        scope,
        ..digests(names)
    };
    for (selection, expected) in [
        (
            scoped(Scope::All, &["arm64"]),
            vec!["root", "arm64-index", "arm64"],
        ),
        (scoped(Scope::Platforms, &["arm64"]), vec!["arm64"]),
        (
            scoped(Scope::Index, &["arm64"]),
            vec!["root", "arm64-index"],
        ),
        (scoped(Scope::All, &["root"]), vec!["root"]),
        (
            scoped(Scope::All, &["amd64-index"]),
            vec!["root", "amd64-index"],
        ),
    ] {
        assert_eq!(targets(&selection, &image), expected, "{selection:?}");
    }
    let selection = digests(&["amd64"]);
    let (chosen, _) = selection.choose(&image).unwrap();
    for name in ["arm64", "arm64-index"] {
        let entry = chosen
            .iter()
            .find(|chosen| chosen.entry.subject.digest.to_string() == digest(name));
        assert_eq!(
            entry.unwrap().skip,
            Some(Reason::DigestNotSelected),
            "{name}"
        );
    }
    // A missing digest is named.
    let error = digests(&["amd64", "other"]).choose(&image).unwrap_err();
    assert!(error.to_string().contains(&digest("other")), "{error}");
    assert!(!error.to_string().contains(&digest("amd64")), "{error}");
}
