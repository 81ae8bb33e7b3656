//! The fields of a pod that the inventory reads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::image_name::reference;
use affix_registry::oci::{Digest, Reference, Tag};

/// The maximum length of an image name that is kept, in characters.
const MAX_NAME_CHARS: usize = 512;
/// The maximum number of pull secrets of a pod that are kept.
const MAX_PULL_SECRETS: usize = 8;

/// A pod of a list. Each list may be absent, null or empty.
#[derive(Debug, Deserialize)]
pub(super) struct ListedPod {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    image_pull_secrets: Option<Vec<PullSecret>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PullSecret {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    image: Option<String>,
    #[serde(rename = "imageID")]
    image_id: Option<String>,
    volume_mounts: Option<Vec<VolumeMount>>,
}

/// A mounted volume. The status of one with an image has the image.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolumeMount {
    volume_status: Option<VolumeStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeStatus {
    image: Option<ImageVolume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ImageVolume {
    image_ref: Option<String>,
}

/// An image that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UsedImage {
    /// The node reports a digest of a registry.
    Identified {
        /// Host and repository.
        image: Reference,
        digest: Digest,
        tag: Option<Tag>,
    },
    /// The node reports no digest of a registry, as for an image that was loaded into the node. The name is as the node reports it.
    Unidentified(String),
}

impl ListedPod {
    /// Returns true if the pod has not ended.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    pub(super) fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref()
    }

    /// Returns the names of the first pull secrets.
    pub(super) fn pull_secrets(&self) -> Vec<String> {
        let names = self.spec.image_pull_secrets.iter().flatten();
        names
            .map(|secret| secret.name.clone())
            .filter(|name| !name.is_empty())
            .take(MAX_PULL_SECRETS)
            .collect()
    }

    /// Returns the images of all containers that the node has pulled, and those of image volumes, without duplicates.
    pub(super) fn images(&self) -> Vec<UsedImage> {
        let status = &self.status;
        let containers = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let containers = containers.into_iter().flatten().flatten();
        let mut images: BTreeMap<String, UsedImage> = BTreeMap::new();
        for container in containers {
            let id = container.image_id.as_deref().unwrap_or_default();
            if !id.is_empty() {
                let name = container.image.as_deref().unwrap_or_default();
                images
                    .entry(id.to_owned())
                    .or_insert_with(|| used_image(id, name));
            }
            let volumes = container.volume_mounts.iter().flatten();
            let volumes = volumes.filter_map(|mount| {
                let image = mount.volume_status.as_ref()?.image.as_ref()?;
                image.image_ref.as_deref().filter(|id| !id.is_empty())
            });
            for id in volumes {
                images
                    .entry(id.to_owned())
                    .or_insert_with(|| used_image(id, ""));
            }
        }
        images.into_values().collect()
    }
}

/// Returns the image for the image ID of a container and the name beside it.
///
/// A runtime writes `REPOSITORY@DIGEST`, with `docker-pullable://` in front in the case of Docker. `docker://DIGEST` and a bare digest
/// are the digest of a config, which no registry knows.
fn used_image(id: &str, name: &str) -> UsedImage {
    let bare = id.split_once("://").map_or(id, |(_, rest)| rest);
    if bare.contains('@')
        && let Ok(image) = reference(bare)
        && let Some(digest) = image.digest.clone()
    {
        let image = Reference {
            tag: None,
            digest: None,
            ..image
        };
        let named = reference(name).ok();
        let tag = named
            .filter(|named| named.name() == image.name())
            .and_then(|named| named.tag);
        return UsedImage::Identified { image, digest, tag };
    }
    let shown = if name.is_empty() { bare } else { name };
    UsedImage::Unidentified(shown.chars().take(MAX_NAME_CHARS).collect())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shown(pod: Value) -> Vec<String> {
        let pod: ListedPod = serde_json::from_value(pod).unwrap();
        let show = |used| match used {
            UsedImage::Identified { image, digest, tag } => {
                let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
                format!("{}{tag}@{}", image.name(), digest.short())
            }
            UsedImage::Unidentified(name) => format!("? {name}"),
        };
        pod.images().into_iter().map(show).collect()
    }

    fn digest(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    #[test]
    fn image_ids_of_all_runtimes_are_read() {
        let a = digest("a");
        for (id, name, expected) in [
            (
                format!("quay.io/team/app@{a}"),
                "quay.io/team/app:v1",
                "quay.io/team/app:v1@aaaaaaaaaaaa",
            ),
            (
                format!("docker-pullable://nginx@{a}"),
                "nginx:1.29",
                "docker.io/library/nginx:1.29@aaaaaaaaaaaa",
            ),
            (
                format!("docker.io/library/nginx@{a}"),
                a.as_str(),
                "docker.io/library/nginx@aaaaaaaaaaaa",
            ),
            (
                format!("registry:5000/app@{a}"),
                "registry:5000/app",
                "registry:5000/app:latest@aaaaaaaaaaaa",
            ),
            (format!("docker://{a}"), "local:dev", "? local:dev"),
            (a.clone(), "", format!("? {a}").as_str()),
            ("f".repeat(64), "localhost/app:dev", "? localhost/app:dev"),
            (format!("<none>@{a}"), "app:v1", "? app:v1"),
        ] {
            let pod = json!({"status": {"containerStatuses": [{"image": name, "imageID": id}]}});
            assert_eq!(shown(pod), [expected], "{id}");
        }
    }

    #[test]
    fn images_of_all_containers_and_volumes_count_once_and_waiting_ones_do_not() {
        let id = |letter: &str| format!("r.example.com/app@{}", digest(letter));
        let pod = json!({"status": {
            "containerStatuses": [
                {"image": "r.example.com/app:v1", "imageID": id("a"), "volumeMounts": [
                    {"name": "w", "volumeStatus": {"image": {"imageRef": id("d")}}}, {"name": "x"}]},
                {"image": "r.example.com/app:v1", "imageID": id("a")},
                {"image": "r.example.com/app:v2", "imageID": ""},
            ],
            "initContainerStatuses": [{"image": "r.example.com/app:v3", "imageID": id("b")}],
            "ephemeralContainerStatuses": [{"image": "r.example.com/app:v4", "imageID": id("c")}],
        }});
        let expected = [
            "r.example.com/app:v1@aaaaaaaaaaaa",
            "r.example.com/app:v3@bbbbbbbbbbbb",
            "r.example.com/app:v4@cccccccccccc",
            "r.example.com/app@dddddddddddd",
        ];
        assert_eq!(shown(pod), expected);
        let nulls =
            json!({"spec": {"imagePullSecrets": null}, "status": {"containerStatuses": null}});
        assert!(shown(nulls).is_empty() && shown(json!({})).is_empty());
    }
}
