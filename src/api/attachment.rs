//! What is attached: an end-of-life mark, files and annotations, or a signature.
//!
//! Owns: the three kinds as users write them, and their defaults. Refuses: Secrets as a source of what is attached. An
//! attachment is as public as the image, so whoever may create resources must not be able to publish what they cannot read
//! (threat T23).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::annotations::Annotations;
use super::duration::GoDuration;
use super::reference::{ConfigMapKeyRef, LocalObjectReference};

/// Marks the image as no longer supported from a date on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EndOfLife {
    /// The date from which the image is no longer supported, in RFC 3339: a date and time (fractions allowed; T and Z in
    /// upper case, as most readers need them), or a date, which begins at 00:00 UTC. Written to the registry as given. Needs a digest in image. Exactly one of date, whenSuperseded is
    /// set. Examples: 2025-03-20T01:20:30Z, 2025-03-20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub date: Option<String>,

    /// Marks what the tag of image leaves behind whenever it moves. Needs a tag, and no digest, in image. Exactly one of date,
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

    /// More annotations of the mark. Default: none. At most 64; keys of at most 256, values of at most 4096 characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,

    /// What to do about a newer, different mark that somebody else made: Report leaves it and says Conflict, Supersede makes a
    /// newer one, once for each generation of this resource. Default: Report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
}

/// Marks what the tag leaves behind whenever it moves.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WhenSuperseded {
    /// How long an image stays supported after its tag has moved on: the date of the mark is the time of the move plus this. A
    /// duration. Required. Example: 720h (30 days).
    pub grace_period: GoDuration,

    /// How long the tag must have been away before anything is marked; a tag that comes back before that leaves no trace. A
    /// duration. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<GoDuration>,

    /// What one of these tags still reaches is in use and is not marked: tags where * stands for any text and ? for one
    /// character, and with ! in front tags that do not count. An empty list counts no other tag. Default: every tag (*).
    /// At most 64. Examples: v1.*, !nightly-*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 129)))]
    pub unless_tagged: Option<Vec<String>>,

    /// Digests that this tag is known to have left before affix saw it, for the first day and after a restore. Default: none.
    /// At most 16. Example: sha256: and 64 hexadecimal digits.
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

/// What to do about a newer, different mark that somebody else made.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum OnConflict {
    /// Leave it, and say so.
    #[default]
    Report,
    /// Make a newer one, once for each generation.
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

    /// Files to attach, one layer each, in this order. Default: none. At most 128.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<ArtifactFile>>", length(max = 128))]
    pub files: Vec<ArtifactFile>,

    /// ConfigMaps all of whose keys are attached, each as a file named like its key. A key with sha256-, followed by 64
    /// hexadecimal digits, in its name goes to the target of that digest only. Default: none. At most 16.
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
    /// Name of the file: the title of the layer, and what tools call the file when they pull it. Required. Example: b1b1.sig.
    #[schemars(length(max = 255))]
    pub name: String,

    /// Media type of the layer. Default: application/octet-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub media_type: Option<String>,

    /// The only targets that get this file: index (nested ones as well), those of a platform, or one by its digest. Needs a digest in image.
    /// Default: every target.
    /// Examples: index, linux/amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub target: Option<String>,

    /// The content of the file as text, at most 1048576 characters. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub value: Option<String>,

    /// Where the content of the file comes from. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

/// Where the content of a file comes from. Never a Secret: what is attached is public.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ValueSource {
    /// A key of a ConfigMap, of its data or its binaryData. Required.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// A ConfigMap all of whose keys are attached.
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
    /// Signs as cosign does, with a Sigstore bundle. Exactly one of cosign, notation is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosign: Option<CosignSigner>,

    /// Signs as notation does, with a JWS envelope. Exactly one of cosign, notation is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notation: Option<NotationSigner>,
}

/// Signs with a cosign key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CosignSigner {
    /// Secret with the private key in cosign.key and its password in cosign.password, as cosign generate-key-pair k8s:// writes
    /// it. Required.
    pub key_secret_ref: LocalObjectReference,

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

/// Signs with a notation key and its certificates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NotationSigner {
    /// Secret of type kubernetes.io/tls with the private key in tls.key and the certificate chain in tls.crt; the root may also
    /// stand in ca.crt. Required.
    pub key_secret_ref: LocalObjectReference,

    /// How long the signature is valid. A duration of at least 1s. Default: no expiry. Example: 8760h (one year).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<GoDuration>,
}

impl EndOfLife {
    /// `artifactType` where it is absent.
    pub const DEFAULT_ARTIFACT_TYPE: &'static str = "application/vnd.microsoft.artifact.lifecycle";
    /// `annotation` where it is absent.
    pub const DEFAULT_ANNOTATION: &'static str =
        "vnd.microsoft.artifact.lifecycle.end-of-life.date";

    /// The artifact type of the mark.
    #[must_use]
    pub fn artifact_type(&self) -> &str {
        self.artifact_type
            .as_deref()
            .unwrap_or(Self::DEFAULT_ARTIFACT_TYPE)
    }

    /// The key of the annotation that holds the date.
    #[must_use]
    pub fn annotation(&self) -> &str {
        self.annotation
            .as_deref()
            .unwrap_or(Self::DEFAULT_ANNOTATION)
    }

    /// What to do about a newer, different mark that somebody else made.
    #[must_use]
    pub fn on_conflict(&self) -> OnConflict {
        self.on_conflict.unwrap_or_default()
    }
}

impl WhenSuperseded {
    /// `settle` where it is absent.
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(600);

    /// The time of the move plus this is the date of the mark.
    #[must_use]
    pub fn grace_period(&self) -> Duration {
        self.grace_period.get()
    }

    /// How long the tag must have been away before anything is marked.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle
            .as_ref()
            .map_or(Self::DEFAULT_SETTLE, GoDuration::get)
    }

    /// The patterns of the tags that keep in use what they reach.
    pub fn unless_tagged(&self) -> impl Iterator<Item = &str> {
        let every = self.unless_tagged.is_none().then_some("*");
        every
            .into_iter()
            .chain(self.unless_tagged.iter().flatten().map(String::as_str))
    }
}

/// The media type of a file where none is given.
const OCTET_STREAM: &str = "application/octet-stream";

impl ArtifactFile {
    /// The media type of the layer.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCTET_STREAM)
    }
}

impl ConfigMapFiles {
    /// The media type of each layer.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCTET_STREAM)
    }
}

/// Reads an explicit `null` as an empty collection. The API server keeps a null that the schema allows.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
