//! Which entries of an index a platform names.

use std::collections::BTreeSet;

use affix::api::{Reason, TargetState};
use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{SIGNATURE, note, registries, with};
use crate::support::namespace::{Namespace, says};
use crate::support::readers;

#[tokio::test]
async fn a_platform_names_all_entries_that_are_the_same_platform_in_other_words() {
    let namespace = Namespace::new("platforms").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let image = Index::new()
        .image(Image::new("linux/amd64", "1"))
        .image(Image::new("linux/arm64", "2"))
        .image(Image::new("linux/arm64/v8", "3"))
        .image(Image::new("linux/arm", "4"))
        .image(Image::new("linux/arm/v6", "5"))
        .image(Image::new("linux/arm/v7", "6"))
        .image(Image::new("windows/amd64", "7").os_version("10.0.20348.1234"))
        .image(Image::new("windows/amd64", "8").os_version("10.0.17763.5"))
        .image(Image::new("windows/arm64", "9"))
        .attestation("linux/amd64")
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    let cases: [(&str, &[usize]); 10] = [
        ("linux/arm64", &[1, 2]),
        ("linux/arm64/v8", &[1, 2]),
        ("linux/aarch64", &[1, 2]),
        ("linux/arm", &[3, 4, 5]),
        ("linux/arm/v7", &[3, 5]),
        ("windows/amd64:10.0.20348", &[6]),
        ("windows/amd64", &[6, 7]),
        ("linux", &[0, 1, 2, 3, 4, 5]),
        ("*/arm64", &[1, 2, 8]),
        ("linux/x86_64", &[0]),
    ];
    let _controller = Controller::start(&namespace).await;
    for (nth, (pattern, _)) in cases.iter().enumerate() {
        let spec = json!({
            "image": image.pinned(), "insecure": true, "targets": {"scope": "Platforms", "platforms": [pattern]},
            "artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/case": nth.to_string()}},
        });
        namespace.apply(&format!("case-{nth}"), spec).await;
    }
    for (nth, (pattern, expected)) in cases.iter().enumerate() {
        let status = namespace.ready(&format!("case-{nth}")).await;
        let rows = &status.targets;
        let attached: BTreeSet<usize> = (0..9)
            .filter(|entry| {
                let digest = &image.entries[*entry].descriptor.digest;
                rows.iter()
                    .any(|row| &row.digest == digest && row.state == TargetState::Attached)
            })
            .collect();
        assert_eq!(
            attached,
            expected.iter().copied().collect(),
            "{pattern}: {rows:#?}"
        );
        let reason = |digest: &str| {
            rows.iter()
                .find(|row| row.digest == digest)
                .and_then(|row| row.reason.clone())
        };
        assert_eq!(reason(image.digest()).as_deref(), Some("IndexNotSelected"));
        assert_eq!(
            reason(&image.entries[9].descriptor.digest).as_deref(),
            Some("AttestationManifest")
        );
    }
    // And the registry agrees: each platform has one attachment of every case that names it.
    let raw = registry.raw().unwrap();
    for (entry, descriptor) in image.entries.iter().enumerate() {
        let listing = raw
            .referrers("team/app", &descriptor.descriptor.digest)
            .await
            .unwrap()
            .json()
            .unwrap();
        let seen: BTreeSet<String> = listing["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|manifest| {
                manifest["annotations"]["demo.affix.dev/case"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        let expected: BTreeSet<String> = cases
            .iter()
            .enumerate()
            .filter(|(_, (_, entries))| entries.contains(&entry))
            .map(|(nth, _)| nth.to_string())
            .collect();
        assert_eq!(seen, expected, "{:?}", descriptor.platform);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_docker_manifest_list_is_attached_to_under_its_own_media_types() {
    let namespace = Namespace::new("docker").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(Image::new("linux/arm64/v8", "c1c1"))
            .docker()
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        let name = format!("docker-{}", mode.to_lowercase());
        namespace.apply(&name, note(&image.tagged())).await;
        let status = namespace.ready(&name).await;
        assert_eq!(status.attached.as_deref(), Some("3/3"));
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        readers::see_what_status_names(&peer, &image, &status, SIGNATURE).await;
        for (row, kind) in status.targets.iter().zip(["list", "", ""]) {
            let manifest = registry
                .raw()
                .unwrap()
                .manifest("team/app", row.attachment.as_deref().unwrap())
                .await
                .unwrap()
                .json()
                .unwrap();
            let expected = match kind {
                "list" => "application/vnd.docker.distribution.manifest.list.v2+json",
                _ => "application/vnd.docker.distribution.manifest.v2+json",
            };
            assert_eq!(manifest["subject"]["mediaType"], expected);
            assert_eq!(manifest["subject"]["digest"], row.digest);
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_platform_that_is_missing_fails_the_whole_unless_it_may_be_missing() {
    let namespace = Namespace::new("missing").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let image = crate::support::images::push(&registry, "team/app", "v1").await;
    let _controller = Controller::start(&namespace).await;
    let targets = |missing: &str| json!({"targets": {"platforms": ["linux/amd64", "linux/s390x"], "missing": missing}});
    let mark = registry.mark().unwrap();
    namespace
        .apply("missing", with(note(&image.tagged()), targets("Fail")))
        .await;
    namespace
        .refused("missing", Reason::NoMatchingPlatform)
        .await;
    let writes: Vec<_> = registry
        .requests_since(mark)
        .unwrap()
        .into_iter()
        .filter(|request| request.method == "PUT")
        .collect();
    assert!(writes.is_empty(), "{writes:?}");

    namespace
        .apply("missing", with(note(&image.tagged()), targets("Ignore")))
        .await;
    let status = namespace.ready("missing").await;
    assert_eq!(status.attached.as_deref(), Some("2/2"));
    let resolved = says(&status, affix::api::ConditionType::Resolved);
    assert!(resolved.contains("linux/s390x"), "{resolved}");
    namespace.check_rules().await;
}
