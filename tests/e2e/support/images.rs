//! What the tests attach to, and the resources that ask for it.

use affix::api::TargetStatus;
use affix_testbed::hostile::{self, Deletion, HostileRegistry, Quirks, Referrers};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::Registry;
use affix_testbed::tools::Tools;
use serde_json::{Value, json};

/// The types and the annotation of the two scenarios.
pub(crate) const LIFECYCLE: &str = "application/vnd.demo.artifact.lifecycle";
pub(crate) const END_OF_LIFE: &str = "vnd.demo.artifact.lifecycle.end-of-life.date";
pub(crate) const SIGNATURE: &str = "application/vnd.demo.test.signature";
pub(crate) const DATE: &str = "2025-03-20T01:20:30Z";

/// Two platforms, and the attestation that BuildKit adds. Each tag has its own digests.
pub(crate) async fn push(registry: &Registry, repository: &str, tag: &str) -> Pushed {
    let index = Index::new()
        .image(Image::new("linux/amd64", &format!("b1b1 {tag}")))
        .image(Image::new("linux/arm64", &format!("c1c1 {tag}")))
        .attestation("linux/amd64");
    index
        .push(&registry.raw().unwrap(), repository, tag)
        .await
        .unwrap()
}

/// The same two platforms in the scriptable registry, without the attestation.
pub(crate) fn host(registry: &HostileRegistry, tag: &str) -> hostile::Image {
    registry
        .image("team/app", tag)
        .platforms(["linux/amd64", "linux/arm64"])
        .push()
}

/// The mark of scenario 1: the index and linux/amd64.
pub(crate) fn mark(image: &str) -> Value {
    json!({
        "image": image, "insecure": true,
        "targets": {"platforms": ["linux/amd64"]},
        "endOfLife": {"date": DATE, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
    })
}

/// A note on every target.
pub(crate) fn note(image: &str) -> Value {
    json!({
        "image": image, "insecure": true,
        "artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": "hello"}},
    })
}

/// `spec` with more fields.
pub(crate) fn with(mut spec: Value, fields: Value) -> Value {
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    spec
}

/// The registry with the referrers API, and the one without, each with what status calls it.
pub(crate) async fn registries(tools: &Tools) -> [(Registry, &'static str); 2] {
    [
        (Registry::ociregistry(tools).start().await.unwrap(), "API"),
        (
            Registry::distribution(tools)
                .delete_enabled(true)
                .start()
                .await
                .unwrap(),
            "TagSchema",
        ),
    ]
}

/// The scriptable registry with the referrers API, and as one without; manifests can be deleted from both.
pub(crate) async fn scriptable() -> [HostileRegistry; 2] {
    let fallback = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::builder()
            .quirks(fallback)
            .start()
            .await
            .unwrap(),
    ]
}

/// The digests of what the scriptable registry lists on a manifest of `team/app`, in the way that it has.
pub(crate) fn listed(registry: &HostileRegistry, digest: &str) -> Vec<String> {
    let mut is_api = false;
    registry.quirks(|quirks| is_api = quirks.referrers == Referrers::Api);
    if is_api {
        return registry
            .store()
            .referrers("team/app", digest)
            .into_iter()
            .map(|manifest| manifest.digest)
            .collect();
    }
    let entries = registry.store().fallback_entries("team/app", digest);
    entries
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect()
}

/// The manifests of an image in the scriptable registry: the index first.
pub(crate) fn manifests(image: &hostile::Image) -> Vec<&str> {
    std::iter::once(&image.digest)
        .chain(image.children.iter().map(|child| &child.digest))
        .map(String::as_str)
        .collect()
}

/// `kind platform state reason`, for a look at all rows at once.
pub(crate) fn summary(rows: &[TargetStatus]) -> Vec<String> {
    let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    rows.iter()
        .map(|row| {
            format!(
                "{:?} {} {:?} {}",
                row.kind,
                part(&row.platform),
                row.state,
                part(&row.reason)
            )
        })
        .collect()
}

/// The attachment that status names on `subject`.
pub(crate) fn attachment<'a>(rows: &'a [TargetStatus], subject: &str) -> &'a str {
    let row = rows
        .iter()
        .find(|row| row.digest == subject)
        .unwrap_or_else(|| panic!("{subject} is not in {rows:#?}"));
    row.attachment
        .as_deref()
        .unwrap_or_else(|| panic!("nothing is attached in {row:#?}"))
}

/// The digests of what is attached to a manifest, as the registry itself lists it.
pub(crate) async fn attached(registry: &Registry, repository: &str, digest: &str) -> Vec<String> {
    let raw = registry.raw().unwrap();
    let api = raw.referrers(repository, digest).await.unwrap();
    let answer = if api.status == 200 {
        api
    } else {
        raw.manifest(repository, &digest.replace(':', "-"))
            .await
            .unwrap()
    };
    let listed = answer
        .json()
        .map(|index| index["manifests"].clone())
        .unwrap_or_default();
    listed
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect()
}
