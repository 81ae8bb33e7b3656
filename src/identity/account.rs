//! ServiceAccounts and their tokens.

use std::collections::BTreeMap;
use std::fmt;

use affix_registry::{RegistryError, Secret};
use futures::future::BoxFuture;

/// A ServiceAccount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The namespace, which is that of the resource.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID. A ServiceAccount that is created anew under the same name is another identity.
    pub uid: String,
    /// The annotations, which name the identity in the cloud.
    pub annotations: BTreeMap<String, String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ServiceAccount {}/{}", self.namespace, self.name)
    }
}

impl Account {
    /// Returns an annotation. An empty one counts as absent.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let value = self.annotations.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// Returns an annotation, or the error that names it.
    pub(super) fn required(&self, name: &str) -> Result<&str, RegistryError> {
        self.annotation(name)
            .ok_or_else(|| RegistryError::LoginRefused {
                why: format!(
                    "the annotation {name} is missing on {self}: it names the identity in the cloud"
                ),
            })
    }

    /// Returns the error for an annotation with an unusable value.
    pub(super) fn malformed(&self, name: &str, expected: &str) -> RegistryError {
        RegistryError::LoginRefused {
            why: format!("the annotation {name} of {self} is malformed: write {expected}"),
        }
    }
}

/// Requests tokens of ServiceAccounts.
pub trait TokenIssuer: fmt::Debug + Send + Sync {
    /// Requests a token for one audience with a life of 10 minutes.
    fn token<'a>(
        &'a self,
        account: &'a Account,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Secret, TokenError>>;

    /// Returns the issuer of the cluster's tokens, which is the `iss` claim of each of them.
    fn issuer(&self) -> BoxFuture<'_, Result<String, TokenError>>;
}

/// The reason for which there is no token. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);

impl From<TokenError> for RegistryError {
    fn from(error: TokenError) -> Self {
        Self::LoginRefused { why: error.0 }
    }
}
