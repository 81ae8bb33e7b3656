//! Timestamps of signatures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::reference::LocalObjectReference;

/// Has each signature timestamped by an authority (RFC 3161), so that it outlives the certificates of the key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(
    rustdoc::bare_urls,
    reason = "kubectl explain prints the text as it is"
)]
pub struct TimestampService {
    /// URL of the authority, with http or https. Required. Example: http://timestamp.digicert.com.
    #[schemars(length(max = 2048))]
    pub url: String,

    /// Secret with the root certificates of the authority in ca.crt. Each timestamp is verified with them. Required.
    pub cert_secret_ref: LocalObjectReference,
}
