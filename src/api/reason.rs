//! The one table of reasons.
//!
//! A reason is at once the reason of a condition, the reason of an event and the label of a metric, so all of them come from
//! here. Owns: every name, and which of them only the user can mend (Stalled). Refuses: free text, which belongs into messages.

use std::fmt;
use std::str::FromStr;

/// Declares the enum, its names and its flags in one place, so that no name can be added without a line that explains it.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $([$flag:ident])? ,)+) => {
        /// Why a resource, a target or a condition is in the state that it is in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name as it stands in conditions, events and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Whether only the user can mend this: the resource is Stalled, and not retried before its spec or its digest changes.
            #[must_use]
            pub const fn is_stalled(self) -> bool {
                match self {
                    $(Self::$name => reasons!(@stalled $($flag)?),)+
                }
            }

            /// Whether a pass that ended so is tried again with back-off, without anybody touching the resource.
            #[must_use]
            pub const fn is_retried(self) -> bool {
                match self {
                    $(Self::$name => reasons!(@retried $($flag)?),)+
                }
            }

            /// Whether the next pass follows soon, with back-off. All else waits for the interval: time alone mends nothing there.
            #[must_use]
            pub const fn is_hurried(self) -> bool {
                self.is_retried() || matches!(self, Self::Progressing)
            }
        }
    };
    (@stalled Stalled) => { true };
    (@stalled Retried) => { false };
    (@stalled) => { false };
    (@retried Retried) => { true };
    (@retried Stalled) => { false };
    (@retried) => { false };
}

reasons! {
    // Ready=True.
    /// Every selected target has its attachment (Ready=True), or a target has it.
    Attached,
    /// `whenSuperseded` watches its tag, and nothing has been superseded yet (Ready=True).
    Watching,

    // Progress.
    /// The work is under way.
    Progressing,
    /// The last pass failed and another one follows; a reason of Reconciling only.
    ProgressingWithRetry,
    /// `spec.suspend` is set; nothing is done.
    Suspended,
    /// `spec.dryRun` is set: the plan is in status, and nothing was written to the registry.
    Planned,
    /// The image was resolved to a digest and its manifests were read.
    Resolved,

    // Not ready; looked at again at the next interval or verification, without back-off.
    /// Somebody else made a newer, different end-of-life mark, and `onConflict` is `Report`.
    Conflict,
    /// The registry refuses to delete an end-of-life mark or a signature of ours that is no longer wanted.
    RemovalRefused,

    // Not ready, retried.
    /// Some of the selected targets have their attachment and some do not.
    PartiallyAttached [Retried],
    /// The bytes that the registry sent do not hash to the digest that was asked for.
    DigestMismatch [Retried],
    /// No file covers a selected target although files have targets, or a ConfigMap or one of its keys is absent.
    FileMissing [Retried],
    /// The registry does not accept the credentials (401).
    AuthenticationFailed [Retried],
    /// The registry accepts the credentials, but not for this (403, or a denied scope).
    AccessDenied [Retried],
    /// The image, or a nested index of it, does not exist.
    NotFound [Retried],
    /// The registry asks to slow down (429).
    RateLimited [Retried],
    /// The registry does not answer, or answers with a server error.
    RegistryUnavailable [Retried],
    /// The registry's certificate is not trusted, has expired or belongs to another host.
    CertificateInvalid [Retried],
    /// A Secret or a ServiceAccount that the spec names does not exist, or lacks the key that is needed.
    SecretNotFound [Retried],

    // Not ready until the user mends it.
    /// `spec.image` cannot be read as an image reference, or names what nothing can be attached to.
    InvalidReference [Stalled],
    /// A field of the spec holds what it must not, or asks for what this version cannot do.
    InvalidSpec [Stalled],
    /// A platform of `targets.platforms` matches no entry of the index.
    NoMatchingPlatform [Stalled],
    /// The image is of a media type that nothing can be attached to, such as Docker schema 1; also why an index entry is skipped.
    UnsupportedMediaType [Stalled],
    /// A signature file names another digest than the target that it would be attached to.
    SubjectMismatch [Stalled],
    /// `spec.insecure` is set, and the operator does not allow plain HTTP.
    InsecureNotAllowed [Stalled],
    /// The operator does not allow this registry host.
    HostNotAllowed [Stalled],
    /// The key Secret's annotation `affix.dev/repositories` does not allow this repository.
    RepositoryNotAllowed [Stalled],
    /// More targets, index entries, referrers or bytes than affix takes.
    LimitExceeded [Stalled],
    /// The registry's immutable tags do not let the fallback tag be updated.
    ImmutableTag [Stalled],
    /// The registry refuses the manifest as such (400, 413, 422).
    ManifestRejected [Stalled],
    /// The tag that would hold the list of referrers is something else on this registry.
    FallbackTagConflict [Stalled],
    /// The signing key cannot be opened, or is not fit for signing.
    KeyInvalid [Stalled],

    // Why a target is skipped (UnsupportedMediaType is one of them too).
    /// `targets.scope` is `Platforms`, so the index is left alone.
    IndexNotSelected,
    /// `targets` does not select this platform.
    PlatformNotSelected,
    /// The entry is a build attestation, never a target.
    AttestationManifest,
    /// Something that is in use still reaches this manifest, so it is not marked.
    StillInUse,

    // Events that are not conditions.
    /// The tag names another digest than before.
    TagMoved,
    /// A newer mark of somebody else was outranked, once for this generation; also a target's reason.
    Superseded,
    /// An attachment was lost from the registry and was put back.
    Restored,
    /// An attachment that is no longer wanted was removed.
    Removed,
    /// An entry of a fallback tag whose manifest is gone was taken off the list.
    DanglingEntryDropped,
    /// The resource was deleted before what it made could be removed from the registry.
    RemovalAbandoned,
}

impl Reason {
    /// The reasons that a target of state `Skipped` may carry.
    pub const SKIPPED: &'static [Self] = &[
        Self::IndexNotSelected,
        Self::PlatformNotSelected,
        Self::AttestationManifest,
        Self::StillInUse,
        Self::UnsupportedMediaType,
    ];

    /// The reasons that Ready may carry while it is True.
    pub const READY: &'static [Self] = &[Self::Attached, Self::Watching];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no reason of the table: of a newer version, or of another controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reason that affix knows")]
pub struct UnknownReason(pub String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
            .ok_or_else(|| UnknownReason(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn exactly_the_reasons_that_only_the_user_can_mend_are_stalled() {
        let stalled: BTreeSet<_> = Reason::ALL
            .iter()
            .filter(|reason| reason.is_stalled())
            .map(|reason| reason.as_str())
            .collect();
        let expected = [
            "InvalidReference",
            "InvalidSpec",
            "NoMatchingPlatform",
            "UnsupportedMediaType",
            "SubjectMismatch",
            "InsecureNotAllowed",
            "HostNotAllowed",
            "RepositoryNotAllowed",
            "LimitExceeded",
            "ImmutableTag",
            "ManifestRejected",
            "FallbackTagConflict",
            "KeyInvalid",
        ];
        assert_eq!(stalled, BTreeSet::from(expected));
    }

    #[test]
    fn each_name_is_unique_and_fits_a_condition() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric())
                    && name.as_bytes().first().unwrap().is_ascii_uppercase(),
                "{name}"
            );
            assert_eq!(name.parse::<Reason>().unwrap().to_string(), name);
        }
        assert_eq!(
            "Bogus".parse::<Reason>().unwrap_err().to_string(),
            r#""Bogus" is not a reason that affix knows"#
        );
    }
}
