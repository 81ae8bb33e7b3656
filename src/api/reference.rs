//! References to other objects of the same namespace.
//!
//! There is no field for a namespace: a resource uses objects of its own namespace only (threat T5).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of an object in the resource's own namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// Name of the object, in the namespace of the ImageAttachment. Required. Example: registry-login.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// One key of a ConfigMap in the resource's own namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap, in the namespace of the ImageAttachment. Required. Example: signatures.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Key of the ConfigMap's data or binaryData. Required. Example: b1b1.sig.
    #[schemars(length(max = 253))]
    pub key: String,
}
