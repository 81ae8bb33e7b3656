//! Signatures without a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::reference::LocalObjectReference;

/// The audience of Fulcio by default.
const AUDIENCE: &str = "sigstore";

/// Signs without a key: Fulcio certifies an ephemeral key for a ServiceAccount, and a transparency log publishes the signature with the
/// names of the ServiceAccount and its namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Keyless {
    /// ServiceAccount that signs. Its annotation affix.dev/repositories limits the repositories in which it signs. Required. Example:
    /// signer.
    #[schemars(length(max = 253))]
    pub service_account_name: String,

    /// The audience of the token, as Fulcio expects it. Default: sigstore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: Option<String>,

    /// ConfigMap that describes the Sigstore instance in trusted_root.json and signing_config.json (v0.2), as cosign writes them.
    /// Required.
    pub trust_ref: LocalObjectReference,
}

impl Keyless {
    /// Returns the audience of the token.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(AUDIENCE)
    }
}
