//! The contents of the objects that a spec references.
//!
//! References have no namespace. The controller fills [`Sources`] from the namespace of the resource and the command line from the given
//! files, so no resource reads from another namespace (threat T5).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{LocalObjectReference, Reason};
use crate::attachment::Problem;
use crate::engine::options::TenantRules;
use crate::identity::{Account, Identities};
use affix_registry::{Keychain, Secret};

/// The type, data and annotations of a Secret.
#[derive(Debug, Clone, Default)]
pub struct SecretData {
    /// `type`, if given.
    pub kind: Option<String>,
    /// `data`, decoded.
    pub data: BTreeMap<String, Secret>,
    /// Annotations such as `affix.dev/repositories`.
    pub annotations: BTreeMap<String, String>,
}

/// The objects that a spec references, by name. Objects that do not exist are absent.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The namespace of the resource. Empty for the command line, which has one user.
    pub namespace: String,
    /// The rules of the operator. The command line has none.
    pub tenants: TenantRules,
    /// ConfigMaps: `data` and `binaryData` together.
    pub config_maps: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// Secrets.
    pub secrets: BTreeMap<String, SecretData>,
    /// The `imagePullSecrets` of the service account that the spec names; `None` if the account does not exist.
    pub image_pull_secrets: Option<Vec<String>>,
    /// The service account itself, for a spec with a cloud's provider; `None` if it does not exist.
    pub service_account: Option<Account>,
    /// The service account whose token logs in to a key management service; `None` if it does not exist.
    pub signing_account: Option<Account>,
    /// The logins of clouds. `None`: the operator has not enabled them.
    pub identities: Option<Identities>,
    /// Logins for a spec that names none: those of the user of the command line, never those of the controller.
    pub fallback_credentials: Keychain,
}

/// Returns the Secret that `field` references.
pub(in crate::engine) fn find<'a>(
    field: &str,
    reference: &LocalObjectReference,
    sources: &'a Sources,
) -> Result<&'a SecretData, Problem> {
    sources.secrets.get(&reference.name).ok_or_else(|| {
        missing(format_args!(
            "{field}: the Secret {:?} is not there: create it in the namespace of the resource",
            reference.name
        ))
    })
}

/// Returns a key of the Secret `name`. `hint` is the way out for an absent one.
pub(in crate::engine) fn key<'a>(
    secret: &'a SecretData,
    field: &str,
    name: &str,
    key: &str,
    hint: &str,
) -> Result<&'a Secret, Problem> {
    secret.data.get(key).ok_or_else(|| {
        missing(format_args!(
            "{field}: the Secret {name:?} has no key {key}: {hint}"
        ))
    })
}

/// Returns the problem of a Secret that is absent or incomplete.
pub(in crate::engine) fn missing(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::SecretNotFound, message)
}
