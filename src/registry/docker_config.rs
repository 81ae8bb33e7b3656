//! `.dockerconfigjson`.
use crate::registry::secret::Secret;

/// Logins by registry and path.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    entries: Vec<(String, Secret)>,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DockerConfigError(String);

impl Keychain {
    /// No login at all.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Reads the content of a `kubernetes.io/dockerconfigjson` Secret or of `~/.docker/config.json`.
    ///
    /// # Errors
    /// When the bytes are no such document.
    pub fn parse(json: &[u8]) -> Result<Self, DockerConfigError> {
        let _ = json;
        Ok(Self::default())
    }

    /// Several in their order, as a service account's `imagePullSecrets`: of equally good matches the first wins.
    #[must_use]
    pub fn merge(keychains: impl IntoIterator<Item = Self>) -> Self {
        Self { entries: keychains.into_iter().flat_map(|keychain| keychain.entries).collect() }
    }
}
