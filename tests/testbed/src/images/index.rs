//! An image index, or Docker's manifest list.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON object that was made here takes any key"
)]

use serde_json::{Map, Value, json};

use super::image::OCI_MANIFEST;
use super::{Algorithm, Built, Entry, Image, Pushed, describe};
use crate::registry::RawClient;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const EMPTY: (&str, &str) = ("application/vnd.oci.empty.v1+json", "{}");

/// An index that is about to be pushed. Entries keep the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Index {
    children: Vec<Child>,
    docker: bool,
    algorithm: Algorithm,
    annotations: Map<String, Value>,
}

#[derive(Debug, Clone)]
enum Child {
    Image(Image),
    Bare(Image),
    Missing(Image),
    Index(Index),
    Attestation { platform: String, modern: bool },
}

impl Index {
    /// An index without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image. Two calls with the same image are two equal entries.
    #[must_use]
    pub fn image(mut self, image: Image) -> Self {
        self.children.push(Child::Image(image));
        self
    }

    /// Adds an image whose entry says no platform.
    #[must_use]
    pub fn bare(mut self, image: Image) -> Self {
        self.children.push(Child::Bare(image));
        self
    }

    /// Adds an entry whose manifest is not pushed, as in a partial mirror. distribution takes that with
    /// [`Quirk::MissingChildren`](crate::registry::Quirk::MissingChildren) only.
    #[must_use]
    pub fn missing(mut self, image: Image) -> Self {
        self.children.push(Child::Missing(image));
        self
    }

    /// Adds another index as an entry.
    #[must_use]
    pub fn index(mut self, index: Index) -> Self {
        self.children.push(Child::Index(index));
        self
    }

    /// Adds a build attestation of the image for this platform, which must be added before, in the shape of BuildKit's entries.
    #[must_use]
    pub fn attestation(mut self, platform: &str) -> Self {
        self.children.push(Child::Attestation {
            platform: platform.to_owned(),
            modern: false,
        });
        self
    }

    /// The same as newer BuildKits write it: with an `artifactType` and a `subject`, so that it is also a referrer.
    #[must_use]
    pub fn attestation_with_subject(mut self, platform: &str) -> Self {
        self.children.push(Child::Attestation {
            platform: platform.to_owned(),
            modern: true,
        });
        self
    }

    /// Makes it a Docker manifest list, and the images added so far Docker's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        for child in &mut self.children {
            if let Child::Image(image) | Child::Bare(image) | Child::Missing(image) = child {
                *image = image.clone().docker();
            }
        }
        self
    }

    /// Names the index by SHA-512. Of the testbed's registries only the liar takes that.
    #[must_use]
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// Adds an annotation to the index.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), json!(value));
        self
    }

    /// The digest that the index has in every registry.
    pub fn digest(&self) -> String {
        self.build().descriptor.digest
    }

    /// Pushes everything and tags the index.
    ///
    /// # Errors
    ///
    /// Where the registry refuses a part.
    pub async fn push(
        &self,
        registry: &RawClient,
        repository: &str,
        tag: &str,
    ) -> anyhow::Result<Pushed> {
        self.build().push(registry, repository, tag).await
    }

    fn build(&self) -> Built {
        let mut manifests = Vec::new();
        let mut children = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        for child in &self.children {
            let (built, platform, annotations) = match child {
                Child::Image(image) | Child::Missing(image) => (
                    image.build(),
                    Some((image.platform(), image.platform_text())),
                    None,
                ),
                Child::Bare(image) => (image.build(), None, None),
                Child::Index(index) => (index.build(), None, None),
                Child::Attestation { platform, modern } => {
                    let about = entries
                        .iter()
                        .find(|entry| entry.platform.as_deref() == Some(platform.as_str()));
                    let about = about
                        .map(|entry| entry.descriptor.json())
                        .unwrap_or_default();
                    let annotations = json!({
                        "vnd.docker.reference.digest": about["digest"],
                        "vnd.docker.reference.type": "attestation-manifest",
                    });
                    let unknown = json!({"architecture": "unknown", "os": "unknown"});
                    (
                        statement(&about, *modern),
                        Some((unknown, "unknown/unknown".to_owned())),
                        Some(annotations),
                    )
                }
            };
            let mut entry = built.descriptor.json();
            if let Some((platform, _)) = &platform {
                entry["platform"] = platform.clone();
            }
            if let Some(annotations) = annotations {
                entry["annotations"] = annotations;
            }
            manifests.push(entry);
            entries.push(Entry {
                platform: platform.map(|(_, text)| text),
                descriptor: built.descriptor.clone(),
            });
            if !matches!(child, Child::Missing(_)) {
                children.push(built);
            }
        }
        let media_type = if self.docker { DOCKER_LIST } else { OCI_INDEX };
        let mut index =
            json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        if !self.annotations.is_empty() {
            index["annotations"] = Value::Object(self.annotations.clone());
        }
        let bytes = index.to_string().into_bytes();
        Built {
            descriptor: describe(media_type, &bytes, self.algorithm),
            bytes,
            blobs: Vec::new(),
            children,
            entries,
        }
    }
}

/// A build attestation: a manifest with one in-toto statement.
fn statement(about: &Value, modern: bool) -> Built {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "_", "digest": {"sha256": about["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:")}}],
        "predicate": {},
    })
    .to_string()
    .into_bytes();
    let mut layer = describe(
        "application/vnd.in-toto+json",
        &statement,
        Algorithm::Sha256,
    )
    .json();
    layer["annotations"] = json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"});
    let (config_type, config) = if modern {
        (EMPTY.0, EMPTY.1.to_owned())
    } else {
        let config = json!({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}});
        (
            "application/vnd.oci.image.config.v1+json",
            config.to_string(),
        )
    };
    let config = config.into_bytes();
    let config_name = describe(config_type, &config, Algorithm::Sha256);
    let statement_digest = layer["digest"].as_str().unwrap_or_default().to_owned();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config_name.json(),
        "layers": [layer],
    });
    if modern {
        manifest["artifactType"] = json!("application/vnd.docker.attestation.manifest.v1+json");
        manifest["subject"] = about.clone();
    }
    let bytes = manifest.to_string().into_bytes();
    Built {
        descriptor: describe(OCI_MANIFEST, &bytes, Algorithm::Sha256),
        bytes,
        blobs: vec![(config_name.digest, config), (statement_digest, statement)],
        children: Vec::new(),
        entries: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;

    fn entries(index: &Index) -> Vec<Entry> {
        index.build().entries
    }

    #[test]
    fn two_indexes_share_the_child_that_is_the_same_image() {
        let good = Image::new("linux/arm64", "c1c1");
        let old = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(good.clone());
        let new = Index::new()
            .image(Image::new("linux/amd64", "r1r1"))
            .image(good);
        let (old, new) = (entries(&old), entries(&new));
        assert_ne!(old.first().unwrap(), new.first().unwrap());
        assert_eq!(old.last().unwrap(), new.last().unwrap());
    }

    #[test]
    fn an_attestation_names_the_digest_of_its_image() {
        let image = Image::new("linux/amd64", "b1b1");
        for index in [
            Index::new().image(image.clone()).attestation("linux/amd64"),
            Index::new()
                .image(image.clone())
                .attestation_with_subject("linux/amd64"),
        ] {
            let built = index.build();
            let text = String::from_utf8(built.bytes).unwrap();
            assert!(
                text.contains(&format!(
                    r#""vnd.docker.reference.digest":"{}""#,
                    image.digest()
                )),
                "{text}"
            );
            assert_eq!(
                built.entries.last().unwrap().platform.as_deref(),
                Some("unknown/unknown")
            );
        }
    }

    #[test]
    fn a_missing_image_is_listed_and_not_pushed() {
        let built = Index::new()
            .missing(Image::new("linux/amd64", "b1b1"))
            .build();
        assert_eq!(built.entries.len(), 1);
        assert!(built.children.is_empty());
    }
}
