//! One manifest with its configuration and one layer.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON object that was made here takes any key"
)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Algorithm, Built, Pushed, describe};
use crate::registry::RawClient;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image for one platform. Its bytes follow from its platform and its seed alone.
#[derive(Debug, Clone)]
pub struct Image {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
    seed: String,
    docker: bool,
    config: Option<String>,
    algorithm: Algorithm,
    program: Option<Arc<[u8]>>,
}

impl Image {
    /// An image for `os/arch[/variant]`. Another seed is another digest.
    pub fn new(platform: &str, seed: &str) -> Self {
        let mut parts = platform.splitn(3, '/').map(str::to_owned);
        Self {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
            os_version: None,
            seed: seed.to_owned(),
            docker: false,
            config: None,
            algorithm: Algorithm::default(),
            program: None,
        }
    }

    /// Gives it a static program, so that a node can run it as an unprivileged user.
    #[must_use]
    pub fn program(mut self, program: &Arc<[u8]>) -> Self {
        self.program = Some(Arc::clone(program));
        self
    }

    /// Sets the `os.version`, as Windows images have it.
    #[must_use]
    pub fn os_version(mut self, version: &str) -> Self {
        self.os_version = Some(version.to_owned());
        self
    }

    /// Uses Docker's media types.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Gives it a configuration of another media type, which is not an image's and names no platform, as Helm charts have.
    #[must_use]
    pub fn config_type(mut self, media_type: &str) -> Self {
        self.config = Some(media_type.to_owned());
        self
    }

    /// Names the manifest by SHA-512. Of the testbed's registries only the liar takes that.
    #[must_use]
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// The digest that the image's manifest has in every registry.
    pub fn digest(&self) -> String {
        self.build().descriptor.digest
    }

    /// Pushes the image alone, without an index, and tags it.
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

    /// `os/arch[/variant][:os.version]`.
    pub(super) fn platform_text(&self) -> String {
        let variant = self
            .variant
            .as_ref()
            .map(|variant| format!("/{variant}"))
            .unwrap_or_default();
        let version = self
            .os_version
            .as_ref()
            .map(|version| format!(":{version}"))
            .unwrap_or_default();
        format!("{}/{}{variant}{version}", self.os, self.architecture)
    }

    /// The platform as an index's entry has it, and as the configuration begins.
    pub(super) fn platform(&self) -> Value {
        let mut platform = json!({"architecture": self.architecture, "os": self.os});
        if let Some(variant) = &self.variant {
            platform["variant"] = json!(variant);
        }
        if let Some(version) = &self.os_version {
            platform["os.version"] = json!(version);
        }
        platform
    }

    pub(super) fn build(&self) -> Built {
        let (manifest_type, config_type, layer_type) = if self.docker {
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        };
        let mut layer = self
            .program
            .as_ref()
            .map_or_else(Vec::new, |program| file("program", "0000755", program));
        layer.extend(file(
            "seed",
            "0000644",
            format!("{}\n", self.seed).as_bytes(),
        ));
        layer.resize(layer.len() + 2 * BLOCK, 0);
        let layer_name = describe(layer_type, &layer, Algorithm::Sha256);
        let config = if self.config.is_some() {
            json!({"seed": self.seed})
        } else {
            let mut config = self.platform();
            config["config"] = if self.program.is_some() {
                json!({"Entrypoint": ["/program"], "User": "65532:65532"})
            } else {
                json!({})
            };
            config["rootfs"] = json!({"type": "layers", "diff_ids": [layer_name.digest]});
            config
        };
        let config = config.to_string().into_bytes();
        let config_name = describe(
            self.config.as_deref().unwrap_or(config_type),
            &config,
            Algorithm::Sha256,
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config_name.json(),
            "layers": [layer_name.json()],
        });
        let bytes = manifest.to_string().into_bytes();
        Built {
            descriptor: describe(manifest_type, &bytes, self.algorithm),
            bytes,
            blobs: vec![(config_name.digest, config), (layer_name.digest, layer)],
            children: Vec::new(),
            entries: Vec::new(),
        }
    }
}

/// The unit of a tar archive, in bytes.
const BLOCK: usize = 512;

/// A file in a tar archive, whose end is two empty blocks.
fn file(name: &str, mode: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |value: &str, width: usize| {
        header.extend(value.bytes().chain(std::iter::repeat(0)).take(width));
    };
    field(name, 100);
    field(mode, 8);
    field("0000000", 8);
    field("0000000", 8);
    field(&format!("{:011o}", content.len()), 12);
    field("00000000000", 12);
    // The checksum is taken with blanks in its own place.
    field("        ", 8);
    field("0", 1);
    field("", 100);
    field("ustar", 6);
    field("00", 2);
    field("", BLOCK - 265);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let checksum = format!("{sum:06o}\0 ");
    let mut archive: Vec<u8> = header
        .iter()
        .copied()
        .take(148)
        .chain(checksum.bytes())
        .chain(header.iter().copied().skip(156))
        .collect();
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    archive
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_has_the_same_digest_and_another_seed_another() {
        let image = Image::new("linux/arm/v7", "seed");
        assert_eq!(image.digest(), Image::new("linux/arm/v7", "seed").digest());
        assert_ne!(image.digest(), Image::new("linux/arm/v7", "other").digest());
        assert_ne!(image.digest(), Image::new("linux/arm/v6", "seed").digest());
        assert!(image.sha512().digest().starts_with("sha512:"));
    }

    #[test]
    fn a_platform_is_written_as_it_was_given() {
        assert_eq!(
            Image::new("linux/arm/v7", "x").platform_text(),
            "linux/arm/v7"
        );
        let windows = Image::new("windows/amd64", "x").os_version("10.0.20348.1234");
        assert_eq!(windows.platform_text(), "windows/amd64:10.0.20348.1234");
        assert_eq!(windows.platform()["os.version"], "10.0.20348.1234");
    }

    #[test]
    fn the_layer_is_an_archive_that_tar_lists() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("layer.tar");
        let image = Image::new("linux/amd64", "hello").program(&Arc::from(b"program".as_slice()));
        let (_, layer) = image.build().blobs.pop().unwrap();
        std::fs::write(&file, layer).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-xOf")
            .arg(&file)
            .args(["program", "seed"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "programhello\n",
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
    }
}
