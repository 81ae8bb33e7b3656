//! Multi-platform images, made of nothing but what registries look at, and pushed with plain requests. Owns shapes that real
//! builders make: shared children, nested indexes, build attestations, Docker's media types; refuses to be an image that runs.
//!
//! The same [`Image`] is the same bytes and so the same digest wherever it is used: that is how two indexes share a child.

mod image;
mod index;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::registry::RawClient;

pub use image::Image;
pub use index::Index;

/// What another manifest says of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The manifest's media type.
    pub media_type: String,
    /// `sha256:…` or `sha512:…` of its bytes.
    pub digest: String,
    /// How many bytes it has.
    pub size: usize,
}

impl Descriptor {
    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

/// The hash that names a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

impl Algorithm {
    fn digest(self, bytes: &[u8]) -> String {
        let hex = |hash: &[u8]| {
            hash.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        match self {
            Self::Sha256 => format!("sha256:{}", hex(&Sha256::digest(bytes))),
            Self::Sha512 => format!("sha512:{}", hex(&Sha512::digest(bytes))),
        }
    }
}

/// A manifest as bytes, with what must be in the registry before it.
#[derive(Debug, Clone)]
struct Built {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    blobs: Vec<(String, Vec<u8>)>,
    children: Vec<Built>,
    /// What an index lists; empty for an image.
    entries: Vec<Entry>,
}

/// One entry of an index that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The platform as the entry says it, `os/arch[/variant][:os.version]`; none where it says none.
    pub platform: Option<String>,
    /// What it points to.
    pub descriptor: Descriptor,
}

/// An image or an index that is in a registry now.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// `HOST:PORT` of the registry.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What the tag names.
    pub descriptor: Descriptor,
    /// The index's own entries, in its order; none for an image without an index.
    pub entries: Vec<Entry>,
}

impl Pushed {
    /// `HOST/REPOSITORY:TAG`.
    pub fn tagged(&self) -> String {
        format!("{}/{}:{}", self.host, self.repository, self.tag)
    }

    /// `HOST/REPOSITORY@DIGEST`.
    pub fn pinned(&self) -> String {
        self.at(self.digest())
    }

    /// `HOST/REPOSITORY@DIGEST` for another digest of the same repository.
    pub fn at(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.host, self.repository)
    }

    /// The digest of what the tag names.
    pub fn digest(&self) -> &str {
        &self.descriptor.digest
    }

    /// The first entry for exactly this platform.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn entry(&self, platform: &str) -> anyhow::Result<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.platform.as_deref() == Some(platform))
            .with_context(|| {
                format!(
                    "{} has no entry for {platform}: {:?}",
                    self.tagged(),
                    self.entries
                )
            })
    }

    /// The digest of the first entry for exactly this platform.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn digest_of(&self, platform: &str) -> anyhow::Result<&str> {
        Ok(&self.entry(platform)?.descriptor.digest)
    }
}

impl Built {
    async fn push(
        &self,
        registry: &RawClient,
        repository: &str,
        tag: &str,
    ) -> anyhow::Result<Pushed> {
        self.push_children(registry, repository).await?;
        self.put(registry, repository, tag).await?;
        Ok(Pushed {
            host: registry.host(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            descriptor: self.descriptor.clone(),
            entries: self.entries.clone(),
        })
    }

    async fn push_children(&self, registry: &RawClient, repository: &str) -> anyhow::Result<()> {
        for (digest, bytes) in &self.blobs {
            registry.blob(repository, digest, bytes.clone()).await?;
        }
        for child in &self.children {
            // The nesting is as deep as the test wrote it.
            Box::pin(child.push_children(registry, repository)).await?;
            child
                .put(registry, repository, &child.descriptor.digest)
                .await?;
        }
        Ok(())
    }

    async fn put(
        &self,
        registry: &RawClient,
        repository: &str,
        reference: &str,
    ) -> anyhow::Result<()> {
        registry
            .put_manifest(
                repository,
                reference,
                &self.descriptor.media_type,
                self.bytes.clone(),
            )
            .await?
            .ok()
            .with_context(|| format!("{repository}:{reference} cannot be pushed"))
            .map(drop)
    }
}

/// Names bytes.
fn describe(media_type: &str, bytes: &[u8], algorithm: Algorithm) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: algorithm.digest(bytes),
        size: bytes.len(),
    }
}
