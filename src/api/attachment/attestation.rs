//! Signed statements about the targets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyless::Keyless;
use super::kms::Kms;
use super::transparency::Transparency;
use super::{ValueSource, null_is_empty};
use crate::api::annotations::Annotations;
use crate::api::reference::LocalObjectReference;

/// The short names of cosign for types of predicates.
const SHORT_NAMES: [(&str, &str); 10] = [
    ("custom", "https://cosign.sigstore.dev/attestation/v1"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("link", "https://in-toto.io/Link/v1"),
    ("openvex", "https://openvex.dev/ns"),
    ("slsaprovenance", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance02", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance1", "https://slsa.dev/provenance/v1"),
    ("spdx", "https://spdx.dev/Document"),
    ("spdxjson", "https://spdx.dev/Document"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
];

/// Attaches a signed statement to each target.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[allow(
    rustdoc::bare_urls,
    reason = "kubectl explain prints the text as it is"
)]
pub struct Attestation {
    /// The type of the predicates: a URI, or a short name of cosign: custom, cyclonedx, link, openvex, slsaprovenance, slsaprovenance02,
    /// slsaprovenance1, spdx, spdxjson, vuln. Needed with predicates and predicatesFrom, not with fromBuild. Default: none. Examples:
    /// https://cyclonedx.org/bom, openvex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub predicate_type: Option<String>,

    /// The predicates, each a JSON object. Each target gets one. Not with fromBuild. Default: none. At most 128.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<PredicateDocument>>", length(max = 128))]
    pub predicates: Vec<PredicateDocument>,

    /// ConfigMaps whose keys are predicates. A key that contains sha256- and 64 hexadecimal digits is for the target of that digest only,
    /// another key for every target. Not with fromBuild. Default: none. At most 16.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Option<Vec<ConfigMapPredicates>>", length(max = 16))]
    pub predicates_from: Vec<ConfigMapPredicates>,

    /// Signs the statements that BuildKit put beside each platform, such as its SBOM and its provenance. The index gets none. Not with
    /// predicates and predicatesFrom. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_build: Option<FromBuild>,

    /// Signs as cosign attest does, with a Sigstore bundle. Required.
    pub cosign: StatementSigner,
}

/// A predicate of the spec.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PredicateDocument {
    /// The targets of this predicate: index (nested ones as well), a platform, or a digest. It needs a digest in image. Default: every
    /// target. Examples: index, linux/amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub target: Option<String>,

    /// The predicate as text, a JSON object of at most 1048576 characters. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub value: Option<String>,

    /// The source of the predicate. Exactly one of value, valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

/// A ConfigMap whose keys are predicates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapPredicates {
    /// The ConfigMap. Required.
    pub config_map_ref: LocalObjectReference,
}

/// The unsigned statements of the build.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(
    rustdoc::bare_urls,
    reason = "kubectl explain prints the text as it is"
)]
pub struct FromBuild {
    /// The types of the predicates to sign. In a pattern, * stands for any text and ? for one character; ! in front excludes types.
    /// Default: every type (*). At most 32. Examples: https://spdx.dev/Document, https://slsa.dev/provenance/*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(max = 255)))]
    pub predicate_types: Option<Vec<String>>,
}

/// Signs statements with a cosign key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StatementSigner {
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

    /// Also publishes each signature in a transparency log, from which no entry can be removed, with a timestamp, so that cosign verify --key
    /// --trusted-root accepts it. Default: no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparency: Option<Transparency>,

    /// Annotations of the subject inside the signed statement. Default: none. At most 64; keys of at most 256, values of at most 4096
    /// characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,
}

impl Attestation {
    /// Returns the type of the predicates as a URI.
    #[must_use]
    pub fn predicate_type(&self) -> Option<&str> {
        let stated = self.predicate_type.as_deref()?;
        let known = SHORT_NAMES.iter().find(|(name, _)| *name == stated);
        Some(known.map_or(stated, |(_, uri)| *uri))
    }
}

impl FromBuild {
    /// Returns the patterns of the types.
    pub fn predicate_types(&self) -> impl Iterator<Item = &str> {
        let every = self.predicate_types.is_none().then_some("*");
        every
            .into_iter()
            .chain(self.predicate_types.iter().flatten().map(String::as_str))
    }
}
