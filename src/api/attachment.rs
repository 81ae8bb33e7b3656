//! The kinds of attachment: an end-of-life mark, an artifact of files and annotations, a signature, or a signed statement.
//!
//! Secrets are not a source of content. An attachment is as public as the image, and a user who may create resources must not be able to
//! publish Secrets that they cannot read (threat T23).

mod attestation;
mod keyless;
mod kms;
mod timestamp;
mod transparency;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::annotations::Annotations;
use super::duration::GoDuration;
use super::reference::{ConfigMapKeyRef, LocalObjectReference};

pub use attestation::{
    Attestation, ConfigMapPredicates, FromBuild, PredicateDocument, StatementSigner,
};
pub use keyless::Keyless;
pub use kms::{Kms, Vault};
pub use timestamp::TimestampService;
pub use transparency::Transparency;

/// Marks the image as no longer supported from a date on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[allow(
    rustdoc::bare_urls,
    reason = "kubectl explain prints the text as it is"
)]
pub struct EndOfLife {
    /// The date from which the image is no longer supported, in RFC 3339: a date and time (with T and Z in upper case; fractions
    /// allowed), or a date, which begins at 00:00 UTC. It is written to the registry unchanged and needs a digest in image. Exactly
    /// one of date, whenSuperseded is set. Examples: 2025-03-20T01:20:30Z, 2025-03-20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub date: Option<String>,

    /// Marks the previous image whenever the tag of image moves. It needs a tag and no digest in image. Exactly one of date,
    /// whenSuperseded is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_superseded: Option<WhenSuperseded>,

    /// The artifact type of the mark, a media type. Default: application/vnd.microsoft.artifact.lifecycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub artifact_type: Option<String>,

    /// The key of the annotation that holds the date. Default: vnd.microsoft.artifact.lifecycle.end-of-life.date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub annotation: Option<String>,

    /// Additional annotations of the mark. Default: none. At most 64; keys of at most 256, values of at most 4096 characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,

    /// The reaction to a newer, different mark of another author: Report keeps it and sets the reason Conflict, Supersede attaches
    /// a newer one, once per generation of this resource. Default: Report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,

    /// Also attaches a signed statement of the date beside each mark, as cosign attest does: an OpenEoX Core document with the predicate
    /// type https://docs.oasis-open.org/openeox/eox-core/v1.0. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<LifecycleStatement>,
}

/// Signs the date of each end-of-life mark.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleStatement {
    /// Signs as cosign attest does, with a Sigstore bundle. Required.
    pub cosign: StatementSigner,
}

/// Marks the previous image whenever the tag moves.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WhenSuperseded {
    /// The time for which an image stays supported after its tag has moved: the date of the mark is the time of the move plus this
    /// duration. Required. Example: 720h (30 days).
    pub grace_period: GoDuration,

    /// The time for which the tag must have moved before the image is marked, a duration. If the tag returns earlier, nothing is
    /// attached. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<GoDuration>,

    /// Tags that keep an image in use: an image that one of them still names is not marked. In a pattern, * stands for any text and
    /// ? for one character; ! in front excludes tags. With an empty list no other tag counts. Default: every tag (*). At most 64.
    /// Examples: v1.*, !nightly-*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 129)))]
    pub unless_tagged: Option<Vec<String>>,

    /// Digests that the tag named before affix watched it, for the first day and after a restore. Default: none. At most 16.
    /// Example: sha256: and 64 hexadecimal digits.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(
        with = "Option<Vec<String>>",
        length(max = 16),
        inner(length(max = 135))
    )]
    pub previous: Vec<String>,
}

/// The reaction to a newer, different mark of another author.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum OnConflict {
    /// Keep it, and report a conflict.
    #[default]
    Report,
    /// Attach a newer one, once per generation.
    Supersede,
}

/// Attaches files and annotations.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The artifact type, a media type. Required. Example: application/vnd.demo.test.signature.
    #[schemars(length(max = 255))]
    pub artifact_type: String,

    /// Annotations of the attachment. Default: none. At most 64; keys of at most 256, values of at most 4096 characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,

    /// Files to attach, one layer per file, in this order. Default: none. At most 128.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<ArtifactFile>>", length(max = 128))]
    pub files: Vec<ArtifactFile>,

    /// ConfigMaps whose keys are attached, each as a file with the name of the key. A key that contains sha256- and 64 hexadecimal
    /// digits is attached to the target of that digest only. Default: none. At most 16.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<ConfigMapFiles>>", length(max = 16))]
    pub files_from: Vec<ConfigMapFiles>,
}

/// One file to attach.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactFile {
    /// Name of the file: the title of the layer, and the file name that tools use when they pull it. A relative path without .. is
    /// allowed. Required. Examples: b1b1.sig, sbom/app.json.
    #[schemars(length(max = 255))]
    pub name: String,

    /// Media type of the layer. Default: application/octet-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub media_type: Option<String>,

    /// The targets of this file: index (nested ones as well), a platform, or a digest. It needs a digest in image. Default: every
    /// target. Examples: index, linux/amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub target: Option<String>,

    /// The content of the file as text, at most 1048576 characters. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub value: Option<String>,

    /// The source of the content of the file. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

/// The source of the content of a file. It is never a Secret, because attachments are public.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ValueSource {
    /// A key of a ConfigMap, of its data or its binaryData. Required.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// A ConfigMap whose keys are attached.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapFiles {
    /// The ConfigMap. Required.
    pub config_map_ref: LocalObjectReference,

    /// Media type of each layer. Default: application/octet-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub media_type: Option<String>,
}

/// Signs each target.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// The time for which the previous signature of this resource stays after a new one was made, a duration. It counts from the
    /// created time of the new signature, so that verifiers can get the new key first. Default: 0s. At most 876000h. Example: 72h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<GoDuration>,

    /// Signs as cosign does, with a Sigstore bundle. Exactly one of cosign, notation is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosign: Option<CosignSigner>,

    /// Signs as notation does, with a JWS envelope. Exactly one of cosign, notation is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notation: Option<NotationSigner>,
}

/// Signs with a cosign key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CosignSigner {
    /// Secret with the private key in cosign.key and its password in cosign.password, as cosign generate-key-pair k8s:// writes
    /// it. Exactly one of keySecretRef, kms, keyless is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<LocalObjectReference>,

    /// The key of a key management service. Exactly one of keySecretRef, kms, keyless is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<Kms>,

    /// Signs without a key, by the identity of a ServiceAccount, and publishes its name and the signature in a transparency log, from which
    /// no entry can be removed. Exactly one of keySecretRef, kms, keyless is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyless: Option<Keyless>,

    /// The formats to sign in: Bundle is a Sigstore bundle as a referrer, which cosign 3 and Kyverno read; Tag is the image tag
    /// sha256-HEX.sig, which podman, CRI-O, policy-controller and older tools read. Default: Bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2))]
    pub formats: Option<Vec<SignatureFormat>>,

    /// The name of the image inside a signature of the format Tag: Tag is REPOSITORY:TAG, which podman's default policy requires;
    /// Repository is the repository alone, as cosign signs. Default: Tag where image has a tag, else Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SignatureIdentity>,

    /// Also publishes each signature in a transparency log, from which no entry can be removed, with a timestamp, so that cosign verify --key
    /// --trusted-root accepts it. Default: no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparency: Option<Transparency>,

    /// Annotations inside the signed statement, as cosign sign -a puts them. Default: none. At most 64; keys of at most 256,
    /// values of at most 4096 characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,
}

/// A format of cosign's signatures.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum SignatureFormat {
    /// A Sigstore bundle, which is a referrer. Every attachment that is not a signature of cosign counts as this format.
    Bundle,
    /// A layer of the manifest under the tag `sha256-HEX.sig`.
    Tag,
}

/// The name of the image inside a signature of the format `Tag`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum SignatureIdentity {
    /// `REPOSITORY:TAG`.
    Tag,
    /// `REPOSITORY`.
    Repository,
}

impl CosignSigner {
    /// Returns the formats to sign in, `Bundle` first, each once.
    #[must_use]
    pub fn formats(&self) -> Vec<SignatureFormat> {
        let mut formats = match &self.formats {
            Some(formats) => formats.clone(),
            None => vec![SignatureFormat::Bundle],
        };
        formats.sort();
        formats.dedup();
        formats
    }
}

/// Signs with a notation key and its certificates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NotationSigner {
    /// Secret of type kubernetes.io/tls with the private key in tls.key and the certificate chain in tls.crt; the root may also
    /// stand in ca.crt. Required.
    pub key_secret_ref: LocalObjectReference,

    /// The validity of the signature, a duration of at least 1s. Default: no expiry. Example: 8760h (one year).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<GoDuration>,

    /// The timestamp authority. Default: no timestamp, and a signature ends with the certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampService>,
}

impl Signature {
    /// Returns the time for which the previous signature stays.
    #[must_use]
    pub fn overlap(&self) -> Duration {
        self.overlap
            .as_ref()
            .map_or(Duration::ZERO, GoDuration::get)
    }
}

impl EndOfLife {
    /// The default of `artifactType`.
    pub const DEFAULT_ARTIFACT_TYPE: &'static str = "application/vnd.microsoft.artifact.lifecycle";
    /// The default of `annotation`.
    pub const DEFAULT_ANNOTATION: &'static str =
        "vnd.microsoft.artifact.lifecycle.end-of-life.date";

    /// Returns the artifact type of the mark.
    #[must_use]
    pub fn artifact_type(&self) -> &str {
        self.artifact_type
            .as_deref()
            .unwrap_or(Self::DEFAULT_ARTIFACT_TYPE)
    }

    /// Returns the key of the annotation that holds the date.
    #[must_use]
    pub fn annotation(&self) -> &str {
        self.annotation
            .as_deref()
            .unwrap_or(Self::DEFAULT_ANNOTATION)
    }

    /// Returns the reaction to a newer, different mark of another author.
    #[must_use]
    pub fn on_conflict(&self) -> OnConflict {
        self.on_conflict.unwrap_or_default()
    }
}

impl WhenSuperseded {
    /// The default of `settle`.
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(600);

    /// Returns the time between the move and the date of the mark.
    #[must_use]
    pub fn grace_period(&self) -> Duration {
        self.grace_period.get()
    }

    /// Returns the time for which the tag must have moved before the image is marked.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle
            .as_ref()
            .map_or(Self::DEFAULT_SETTLE, GoDuration::get)
    }

    /// Returns the patterns of the tags that keep an image in use.
    pub fn unless_tagged(&self) -> impl Iterator<Item = &str> {
        let every = self.unless_tagged.is_none().then_some("*");
        every
            .into_iter()
            .chain(self.unless_tagged.iter().flatten().map(String::as_str))
    }
}

/// The default media type of a file.
const OCTET_STREAM: &str = "application/octet-stream";

impl ArtifactFile {
    /// Returns the media type of the layer.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCTET_STREAM)
    }
}

impl ConfigMapFiles {
    /// Returns the media type of each layer.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCTET_STREAM)
    }
}

/// Deserializes an explicit `null` as an empty collection. The API server stores a null where the schema allows it.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
