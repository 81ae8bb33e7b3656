//! Signatures in a transparency log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::reference::LocalObjectReference;

/// Writes each signature to the transparency log of a Sigstore instance, with a timestamp. That is a publication, and no entry can be
/// removed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Transparency {
    /// ConfigMap that describes the instance in trusted_root.json and signing_config.json (v0.2), as cosign writes them. Required.
    pub trust_ref: LocalObjectReference,
}
