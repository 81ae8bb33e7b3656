//! The main job: what is applied is attached, and what others see is what status names.

use affix::api::{Origin, TargetState, TargetStatus};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::Tools;
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::namespace::Namespace;
use crate::readers;

pub(crate) const LIFECYCLE: &str = "application/vnd.demo.artifact.lifecycle";
pub(crate) const END_OF_LIFE: &str = "vnd.demo.artifact.lifecycle.end-of-life.date";
const SIGNATURE: &str = "application/vnd.demo.test.signature";
const DATE: &str = "2025-03-20T01:20:30Z";

/// The image of the two scenarios: two platforms, and the attestation that BuildKit adds.
pub(crate) async fn push(registry: &Registry, repository: &str, tag: &str) -> Pushed {
    let index = Index::new()
        .image(Image::new("linux/amd64", &format!("b1b1 {tag}")))
        .image(Image::new("linux/arm64", &format!("c1c1 {tag}")))
        .attestation("linux/amd64");
    index.push(&registry.raw().unwrap(), repository, tag).await.unwrap()
}

/// The mark of scenario 1.
pub(crate) fn mark(image: &str) -> Value {
    json!({
        "image": image, "insecure": true,
        "targets": {"platforms": ["linux/amd64"]},
        "endOfLife": {"date": DATE, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
    })
}

/// Both registries, one after the other.
pub(crate) async fn registries(tools: &Tools) -> [Registry; 2] {
    [Registry::ociregistry(tools).start().await.unwrap(), Registry::distribution(tools).start().await.unwrap()]
}

/// `kind platform state reason`, for a look at all rows at once.
pub(crate) fn summary(rows: &[TargetStatus]) -> Vec<String> {
    let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    rows.iter().map(|row| format!("{:?} {} {:?} {}", row.kind, part(&row.platform), row.state, part(&row.reason))).collect()
}

#[tokio::test]
async fn an_end_of_life_mark_goes_to_the_index_and_to_the_one_platform_that_is_named() {
    let namespace = Namespace::new("mark").await;
    let registries = registries(&namespace.tools).await;
    let controller = Controller::start(&namespace).await;
    for (registry, mode) in registries.iter().zip(["API", "TagSchema"]) {
        let image = push(registry, "team/app", "v1").await;
        let name = format!("mark-{}", mode.to_lowercase());
        namespace.apply(&name, mark(&image.pinned())).await;

        let status = namespace.ready(&name).await;
        assert_eq!(
            summary(&status.targets),
            [
                "Index - Attached -",
                "Platform linux/amd64 Attached -",
                "Platform linux/arm64 Skipped PlatformNotSelected",
                "Platform - Skipped AttestationManifest",
            ]
        );
        assert_eq!(status.attached.as_deref(), Some("2/2"));
        assert_eq!(status.artifact_type.as_deref(), Some(LIFECYCLE));
        assert_eq!(serde_json::to_value(status.referrers_mode).unwrap(), json!(mode));
        assert_eq!(status.image.as_ref().unwrap().reference, image.pinned());
        assert!(status.targets.iter().take(2).all(|row| row.origin == Some(Origin::Made)));

        let peer = Peer::of(&namespace.tools, registry).unwrap();
        readers::see_what_status_names(&peer, &image, &status, LIFECYCLE).await;
        for row in status.targets.iter().filter(|row| row.state == TargetState::Attached) {
            for (reader, seen) in readers::all(&peer, &image, &row.digest, LIFECYCLE).await {
                assert_eq!(seen[0].annotations[END_OF_LIFE], DATE, "{reader}");
            }
            let subject = if row.digest == image.digest() { &image.descriptor } else { &image.entry("linux/amd64").unwrap().descriptor };
            let created = row.created.as_ref().unwrap().0.strftime("%Y-%m-%dT%H:%M:%SZ");
            let empty = "{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2,\"data\":\"e30=\"}";
            let expected = format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"artifactType\":\"{LIFECYCLE}\",\
                 \"config\":{empty},\"layers\":[{empty}],\
                 \"subject\":{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":{}}},\
                 \"annotations\":{{\"org.opencontainers.image.created\":\"{created}\",\"{END_OF_LIFE}\":\"{DATE}\"}}}}",
                subject.media_type, subject.digest, subject.size,
            );
            let raw = registry.raw().unwrap();
            let manifest = raw.manifest("team/app", row.attachment.as_deref().unwrap()).await.unwrap().ok().unwrap();
            assert_eq!(String::from_utf8_lossy(&manifest.body), expected);
        }
    }
    namespace.check_rules().await;
    drop(controller);
}
