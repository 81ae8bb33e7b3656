//! Keys that a key management service holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::reference::LocalObjectReference;

/// A key that a key management service holds. It never leaves the service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Kms {
    /// The key, as cosign writes it: hashivault://KEY is the key of a transit engine of OpenBao or Vault. Its newest version signs.
    /// Required. Example: hashivault://images.
    #[schemars(length(max = 255))]
    pub key_ref: String,

    /// The server of a key hashivault://. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<Vault>,

    /// ServiceAccount whose token logs in to the service. Its annotation affix.dev/repositories limits the repositories in which it
    /// signs. Default: serviceAccountName of the spec. Example: signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
}

/// A server of OpenBao or Vault.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(
    rustdoc::bare_urls,
    reason = "kubectl explain prints the text as it is"
)]
pub struct Vault {
    /// The URL of the server. Required. Example: https://bao.example.com:8200.
    #[schemars(length(max = 253))]
    pub address: String,

    /// The namespace of the transit engine and of the auth method. Default: the root namespace. Example: team-a.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub namespace: Option<String>,

    /// The path of the transit engine. Default: transit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub mount: Option<String>,

    /// The role of the login. Required. Example: affix.
    #[schemars(length(max = 253))]
    pub role: String,

    /// The path of the auth method, which is of the type jwt or kubernetes. Default: jwt. Example: kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub auth_mount: Option<String>,

    /// The audience of the token. Default: address as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub audience: Option<String>,

    /// Secret with the certificate authority of the server in ca.crt, and optionally a client certificate in tls.crt and tls.key.
    /// Default: the authorities of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalObjectReference>,
}

impl Kms {
    /// Returns the name of a key of a transit engine.
    #[must_use]
    pub fn vault_key(&self) -> Option<&str> {
        self.key_ref.strip_prefix("hashivault://")
    }
}

impl Vault {
    /// Returns the path of the transit engine.
    #[must_use]
    pub fn mount(&self) -> &str {
        self.mount.as_deref().unwrap_or("transit")
    }

    /// Returns the path of the auth method.
    #[must_use]
    pub fn auth_mount(&self) -> &str {
        self.auth_mount.as_deref().unwrap_or("jwt")
    }

    /// Returns the audience of the token.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.audience.as_deref().unwrap_or(&self.address)
    }
}
