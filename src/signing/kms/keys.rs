//! Opens keys of key management services.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use affix_registry::oci::{Algorithm, Digest, Hasher};
use affix_registry::{Registries, Secret};
use tokio::time::Instant;

use super::cache::Cache;
use super::error::SigningError;
use super::vault::{self, KnownKey, Login, VaultKey};
use crate::identity::{Account, Identities};
use crate::signing::formats::CosignSigner;
use crate::signing::keys::CosignKey;

/// The time for which a public key is used without a look at the service, so that a pass notices a new version soon.
const MAX_AGE: Duration = Duration::from_mins(1);

/// A ServiceAccount that logs in to a service.
#[derive(Debug, Clone)]
pub struct KmsIdentity {
    /// The ServiceAccount.
    pub account: Account,
    /// The source of its tokens.
    pub identities: Identities,
}

/// A key of a service, and the identity that uses it.
#[derive(Debug, Clone)]
pub struct KmsRequest {
    /// The key.
    pub key: VaultKey,
    /// The identity.
    pub identity: KmsIdentity,
}

impl KmsRequest {
    /// Returns the cache key of the login, and that of the public key. Both contain everything that a tenant can choose.
    fn cache_keys(&self) -> (Digest, Digest) {
        let account = &self.identity.account;
        let mut parts = Parts::new();
        for part in [&account.namespace, &account.name, &account.uid] {
            parts.add(Some(part.as_bytes()));
        }
        self.key.identify_login(&mut parts);
        let login = parts.0.finish();
        let mut parts = Parts::new();
        parts.add(Some(login.hex().as_bytes()));
        self.key.identify_key(&mut parts);
        (login, parts.0.finish())
    }
}

/// The input of a cache key.
pub(super) struct Parts(Hasher);

impl Parts {
    fn new() -> Self {
        Self(Hasher::new(Algorithm::Sha256))
    }

    /// Adds a part with its length, so that two lists never have the same input.
    pub(super) fn add(&mut self, part: Option<&[u8]>) {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        self.0.update(&length.to_be_bytes());
        self.0.update(part.unwrap_or_default());
    }
}

/// Opens keys for all passes of a process.
#[derive(Default)]
pub struct KmsKeys {
    logins: Cache<Login>,
    keys: Cache<KnownKey>,
}

impl fmt::Debug for KmsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KmsKeys")
    }
}

impl KmsKeys {
    /// Opens a key as a signer of cosign. No wait goes beyond `deadline`. With `is_fresh`, the service is asked for the newest version
    /// of the key; otherwise the answer may be a minute old. Without the service, the last known public key still verifies.
    ///
    /// # Errors
    /// Fails if the service is not allowed, does not answer or refuses the identity, or if cosign cannot use the key.
    pub async fn cosign_signer(
        &self,
        registries: &Registries,
        request: &KmsRequest,
        annotations: std::collections::BTreeMap<String, String>,
        (deadline, is_fresh): (Instant, bool),
    ) -> Result<CosignSigner, SigningError> {
        let (login, key) = request.cache_keys();
        let session = vault::Session::open(registries, request, self.logins.get(&login), deadline)?;
        let shared = self.keys.get(&key);
        let begun = Instant::now();
        let is_usable = |known: &KnownKey| {
            if is_fresh {
                known.read_at >= begun
            } else {
                known.read_at.elapsed() < MAX_AGE
            }
        };
        let known = match shared.get(begun, is_usable, || session.read_key()).await {
            Err(error @ SigningError::Unavailable(_)) => shared.last().await.ok_or(error)?,
            known => known?,
        };
        let public_der = known.public_der.clone();
        let unsupported = session.unsupported(&known);
        let remote = vault::RemoteVaultKey::new(session, shared, known);
        let key = CosignKey::remote(Arc::new(remote), public_der).ok_or(unsupported)?;
        Ok(CosignSigner::new(key, annotations)?)
    }
}

/// Returns a secret as text.
pub(super) fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}
