//! The table of reasons.
//!
//! A reason is the reason of a condition, the reason of an event and the label of a metric. The table also says whether a reason is retried or
//! stalled.

use std::fmt;
use std::str::FromStr;

/// Declares the enum with its names and flags. Every reason needs a doc comment.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $([$flag:ident])? ,)+) => {
        /// The reason for the state of a resource, a target or a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the name in conditions, events and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Returns the description, as one line.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim(),)+
                }
            }

            /// Returns whether only the user can fix this. The resource is Stalled and not retried before its spec or its digest changes.
            #[must_use]
            pub const fn is_stalled(self) -> bool {
                match self {
                    $(Self::$name => reasons!(@stalled $($flag)?),)+
                }
            }

            /// Returns whether the reconcile is retried with back-off.
            #[must_use]
            pub const fn is_retried(self) -> bool {
                match self {
                    $(Self::$name => reasons!(@retried $($flag)?),)+
                }
            }

            /// Returns whether the next pass follows soon, with back-off. Other reasons wait for the interval.
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
    /// Every selected target, or this target, has its attachment (Ready=True).
    Attached,
    /// `whenSuperseded` watches the tag, and no image was superseded yet (Ready=True).
    Watching,

    // Progress.
    /// Work is in progress.
    Progressing,
    /// The last pass failed and will be retried. A reason of Reconciling only.
    ProgressingWithRetry,
    /// `spec.suspend` is set, so nothing is done.
    Suspended,
    /// `spec.dryRun` is set: the status contains the plan, and nothing was written to the registry.
    Planned,
    /// The image was resolved to a digest and its manifests were read.
    Resolved,

    // Not ready; reconciled again at the next interval or verification, without back-off.
    /// Another author attached a newer, different end-of-life mark, and `onConflict` is `Report`.
    Conflict,
    /// The registry refuses to delete an end-of-life mark, a signature or a statement that this resource no longer wants.
    RemovalRefused,
    /// A set would newly mark more images than `lifecycle.maxNewMarks`. It marks none of them until the user confirms their number.
    TooManyMarks,

    // Not ready, retried.
    /// Some of the selected targets have their attachment, others do not.
    PartiallyAttached [Retried],
    /// The bytes from the registry do not have the requested digest.
    DigestMismatch [Retried],
    /// No file is for a selected target although files have targets, or a ConfigMap or one of its keys is missing.
    FileMissing [Retried],
    /// The registry does not accept the credentials (401).
    AuthenticationFailed [Retried],
    /// The registry accepts the credentials, but denies this access (403, or a denied scope).
    AccessDenied [Retried],
    /// The image, or one of its nested indexes, does not exist.
    NotFound [Retried],
    /// The registry limits the rate of requests (429).
    RateLimited [Retried],
    /// The registry does not respond, or responds with a server error.
    RegistryUnavailable [Retried],
    /// The registry's certificate is not trusted, has expired or belongs to another host.
    CertificateInvalid [Retried],
    /// A Secret or ServiceAccount of the spec does not exist, or lacks a required key.
    SecretNotFound [Retried],
    /// A cloud or a key management service refuses the token of the ServiceAccount, or affix may not request such a token.
    IdentityRefused [Retried],
    /// A key management service, a transparency log or a timestamp authority does not answer, or gives a wrong answer.
    SigningUnavailable [Retried],

    // Not ready until the user fixes it.
    /// `spec.image` is not a valid image reference, or names a manifest that cannot have attachments.
    InvalidReference [Stalled],
    /// A field of the spec is invalid, or needs a newer version of affix.
    InvalidSpec [Stalled],
    /// An item of `targets.platforms` or `targets.digests` is not in the image, or nothing of the image is selected.
    NoMatchingPlatform [Stalled],
    /// The media type of the image does not allow attachments, such as Docker schema 1. Also a reason to skip an entry of an index.
    UnsupportedMediaType [Stalled],
    /// A signature file, or a statement of the build, is for another digest than its target.
    SubjectMismatch [Stalled],
    /// The predicate of a statement is not a JSON object, or a statement of the build is malformed.
    StatementInvalid [Stalled],
    /// `spec.insecure` is set, but the operator does not allow plain HTTP.
    InsecureNotAllowed [Stalled],
    /// The operator does not allow this registry host.
    HostNotAllowed [Stalled],
    /// The annotation `affix.dev/repositories` of the key Secret, or of the ServiceAccount that signs, does not allow this repository.
    RepositoryNotAllowed [Stalled],
    /// There are more targets, index entries, referrers or bytes than the limits allow.
    LimitExceeded [Stalled],
    /// The fallback tag cannot be updated, because tags of the registry are immutable.
    ImmutableTag [Stalled],
    /// The registry refuses the manifest (400, 413, 422).
    ManifestRejected [Stalled],
    /// The fallback tag of the referrers has another meaning on this registry.
    FallbackTagConflict [Stalled],
    /// The signing key cannot be decrypted, or cannot be used to sign.
    KeyInvalid [Stalled],

    // Reasons to skip a target, with UnsupportedMediaType.
    /// `targets.scope` is `Platforms`, which excludes indexes, or nothing below the index is selected.
    IndexNotSelected,
    /// `targets` does not select this platform.
    PlatformNotSelected,
    /// `targets.digests` does not list this manifest.
    DigestNotSelected,
    /// The entry is a build attestation, which is never a target.
    AttestationManifest,
    /// An image in use still contains this manifest, so it is not marked.
    StillInUse,

    // Reasons of leftovers.
    /// The previous signature of this resource stays until `spec.signature.overlap` is over.
    Overlap,

    // Events that are not conditions.
    /// The tag names another digest than before.
    TagMoved,
    /// A newer mark of another author was superseded, once for this generation. Also a reason of a target.
    Superseded,
    /// An attachment was missing in the registry and was pushed again.
    Restored,
    /// An attachment that is no longer wanted was removed from the registry.
    Removed,
    /// An entry of a fallback tag without a manifest was removed.
    DanglingEntryDropped,
    /// The tags `.sig` or `.att` of an image hold signatures by other keys, which cosign 3 and Kyverno do not read beside a bundle.
    OlderSignaturesHidden,
    /// New signatures are in a transparency log, from which no entry can be removed.
    SignaturesLogged,
    /// The resource was deleted before its attachments could be removed from the registry.
    RemovalAbandoned,
}

impl Reason {
    /// The reasons of targets in the state `Skipped`.
    pub const SKIPPED: &'static [Self] = &[
        Self::IndexNotSelected,
        Self::PlatformNotSelected,
        Self::DigestNotSelected,
        Self::AttestationManifest,
        Self::StillInUse,
        Self::UnsupportedMediaType,
    ];

    /// The reasons of Ready=True.
    pub const READY: &'static [Self] = &[Self::Attached, Self::Watching];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a reason of the table. It comes from a newer version or another controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reason of affix")]
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
    fn the_reasons_that_only_the_user_can_fix_are_stalled() {
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
            "StatementInvalid",
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
            r#""Bogus" is not a reason of affix"#
        );
    }
}
