//! Conversions from and to the public types of the crate `oci-client`.
//!
//! A program that uses both clients converts at the edge:
//!
//! ```
//! use affix_registry::oci::Reference;
//!
//! # fn convert() -> Result<(), Box<dyn std::error::Error>> {
//! let theirs: oci_client::Reference = "registry.example.com/team/app:v1".parse()?;
//! let ours = Reference::try_from(&theirs)?;
//! assert_eq!(oci_client::Reference::from(&ours), theirs);
//! # Ok(())
//! # }
//! # convert().unwrap();
//! ```
//!
//! The types of oci-client have no place for some fields, and the types of this crate have no place
//! for others. A conversion that would lose a field with a meaning of its own is an error. The
//! following fields are dropped:
//!
//! * to oci-client: `data`, a copy of the content; and `platform` in descriptors other than index
//!   entries;
//! * from oci-client: `urls`, `os.features` and `features`.
//!
//! A converted manifest has other bytes and so another digest. Push the original bytes.
//!
//! Decision 0001 (`docs/decisions/0001-use-the-vocabulary-of-oci-client-not-its-client.md`) compares
//! the two crates.

use std::num::TryFromIntError;

use oci_client::errors::OciErrorCode;
use oci_client::manifest::{
    ImageIndexEntry, OciDescriptor, OciImageIndex, OciImageManifest, Platform as OciPlatform,
};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::error::ErrorAnswer;
use crate::oci::{
    Descriptor, DigestError, ImageIndex, ImageManifest, Platform, Reference, ReferenceError,
};

/// The reason for which a value has no equivalent in the other crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The digest is malformed, or this crate does not support its algorithm.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The size or the schema version does not fit the type of the other crate.
    #[error("the number does not fit: {0}")]
    Number(#[from] TryFromIntError),
    /// The type of the other crate lacks the field.
    #[error("the other crate's type has no field {0:?}")]
    Field(&'static str),
}

impl From<&Reference> for oci_client::Reference {
    fn from(reference: &Reference) -> Self {
        let registry = reference.host.to_string();
        let repository = reference.repository.to_string();
        let tag = reference.tag.as_ref().map(ToString::to_string);
        let digest = reference.digest.as_ref().map(ToString::to_string);
        match (tag, digest) {
            (Some(tag), Some(digest)) => {
                Self::with_tag_and_digest(registry, repository, tag, digest)
            }
            (None, Some(digest)) => Self::with_digest(registry, repository, digest),
            (tag, None) => Self::with_tag(registry, repository, tag.unwrap_or_default()),
        }
    }
}

impl TryFrom<&oci_client::Reference> for Reference {
    type Error = ReferenceError;

    /// Converts the reference as oci-client completed it: with the registry `docker.io` and the tag
    /// `latest`, if they were missing. A mirror registry is ignored.
    ///
    /// # Errors
    /// If the reference is outside the grammar of [`Reference`].
    fn try_from(reference: &oci_client::Reference) -> Result<Self, ReferenceError> {
        reference.whole().parse()
    }
}

impl From<&Platform> for OciPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.as_str().into(),
            os: platform.os.as_str().into(),
            os_version: non_empty(&platform.os_version),
            os_features: None,
            variant: non_empty(&platform.variant),
            features: None,
        }
    }
}

impl From<&OciPlatform> for Platform {
    fn from(platform: &OciPlatform) -> Self {
        Self {
            architecture: platform.architecture.to_string(),
            os: platform.os.to_string(),
            os_version: platform.os_version.clone().unwrap_or_default(),
            variant: platform.variant.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<&Descriptor> for OciDescriptor {
    type Error = ConversionError;

    fn try_from(descriptor: &Descriptor) -> Result<Self, ConversionError> {
        Ok(Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size.try_into()?,
            urls: None,
            annotations: Some(descriptor.annotations.clone()).filter(|all| !all.is_empty()),
            artifact_type: non_empty(&descriptor.artifact_type),
        })
    }
}

impl TryFrom<&OciDescriptor> for Descriptor {
    type Error = ConversionError;

    fn try_from(descriptor: &OciDescriptor) -> Result<Self, ConversionError> {
        Ok(Self {
            annotations: descriptor.annotations.clone().unwrap_or_default(),
            artifact_type: descriptor.artifact_type.clone().unwrap_or_default(),
            ..Self::plain(
                descriptor.media_type.clone(),
                descriptor.digest.parse()?,
                descriptor.size.try_into()?,
            )
        })
    }
}

impl TryFrom<&Descriptor> for ImageIndexEntry {
    type Error = ConversionError;

    fn try_from(descriptor: &Descriptor) -> Result<Self, ConversionError> {
        let plain = OciDescriptor::try_from(descriptor)?;
        Ok(Self {
            media_type: plain.media_type,
            digest: plain.digest,
            size: plain.size,
            platform: descriptor.platform.as_ref().map(Into::into),
            annotations: plain.annotations,
            artifact_type: plain.artifact_type,
        })
    }
}

impl TryFrom<&ImageIndexEntry> for Descriptor {
    type Error = ConversionError;

    fn try_from(entry: &ImageIndexEntry) -> Result<Self, ConversionError> {
        Ok(Self {
            annotations: entry.annotations.clone().unwrap_or_default(),
            artifact_type: entry.artifact_type.clone().unwrap_or_default(),
            platform: entry.platform.as_ref().map(Into::into),
            ..Self::plain(
                entry.media_type.clone(),
                entry.digest.parse()?,
                entry.size.try_into()?,
            )
        })
    }
}

impl TryFrom<&ImageManifest> for OciImageManifest {
    type Error = ConversionError;

    /// # Errors
    /// If the manifest has skipped layers, for which oci-client has no field, or a size is too large.
    fn try_from(manifest: &ImageManifest) -> Result<Self, ConversionError> {
        if !manifest.skipped.is_empty() {
            return Err(ConversionError::Field("skipped"));
        }
        Ok(Self {
            schema_version: manifest.schema_version.try_into()?,
            media_type: manifest.media_type.clone(),
            config: (&manifest.config).try_into()?,
            layers: all(&manifest.layers)?,
            subject: manifest
                .subject
                .as_ref()
                .map(TryInto::try_into)
                .transpose()?,
            artifact_type: manifest.artifact_type.clone(),
            annotations: Some(manifest.annotations.clone()).filter(|all| !all.is_empty()),
        })
    }
}

impl TryFrom<&OciImageManifest> for ImageManifest {
    type Error = ConversionError;

    fn try_from(manifest: &OciImageManifest) -> Result<Self, ConversionError> {
        Ok(Self {
            schema_version: manifest.schema_version.into(),
            media_type: manifest.media_type.clone(),
            config: (&manifest.config).try_into()?,
            layers: all(&manifest.layers)?,
            skipped: Vec::new(),
            subject: manifest
                .subject
                .as_ref()
                .map(TryInto::try_into)
                .transpose()?,
            artifact_type: manifest.artifact_type.clone(),
            annotations: manifest.annotations.clone().unwrap_or_default(),
        })
    }
}

impl TryFrom<&ImageIndex> for OciImageIndex {
    type Error = ConversionError;

    /// # Errors
    /// If the index has a subject or skipped entries, for which oci-client has no field, or a size is
    /// too large.
    fn try_from(index: &ImageIndex) -> Result<Self, ConversionError> {
        if index.subject.is_some() {
            return Err(ConversionError::Field("subject"));
        }
        if !index.skipped.is_empty() {
            return Err(ConversionError::Field("skipped"));
        }
        Ok(Self {
            schema_version: 2,
            media_type: index.media_type.clone(),
            manifests: all(&index.manifests)?,
            artifact_type: index.artifact_type.clone(),
            annotations: Some(index.annotations.clone()).filter(|all| !all.is_empty()),
        })
    }
}

impl TryFrom<&OciImageIndex> for ImageIndex {
    type Error = ConversionError;

    fn try_from(index: &OciImageIndex) -> Result<Self, ConversionError> {
        Ok(Self {
            media_type: index.media_type.clone(),
            artifact_type: index.artifact_type.clone(),
            manifests: all(&index.manifests)?,
            skipped: Vec::new(),
            subject: None,
            annotations: index.annotations.clone().unwrap_or_default(),
        })
    }
}

impl ErrorAnswer {
    /// Returns the codes of the error body as oci-client's codes (distribution-spec, "Error
    /// Codes"). Unknown codes are [`OciErrorCode::Other`].
    pub fn error_codes(&self) -> impl Iterator<Item = OciErrorCode> {
        self.codes.iter().map(|code| {
            let text: StrDeserializer<'_, ValueError> = code.as_str().into_deserializer();
            OciErrorCode::deserialize(text).unwrap_or_else(|_| OciErrorCode::Other(code.clone()))
        })
    }

    /// Returns true if the error body contains `code`.
    #[must_use]
    pub fn has_code(&self, code: &OciErrorCode) -> bool {
        self.error_codes().any(|found| found == *code)
    }
}

fn non_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn all<'a, T, U>(items: &'a [T]) -> Result<Vec<U>, ConversionError>
where
    U: TryFrom<&'a T, Error = ConversionError>,
{
    items.iter().map(U::try_from).collect()
}
