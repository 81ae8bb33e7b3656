//! An attachment that this resource owns.

use crate::api::SignatureFormat;
use affix_registry::oci::Digest;

/// An attachment of this resource on one subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Owned {
    /// The digest of its manifest, or the identity of a signature in the signature tag.
    pub(in crate::engine) attachment: Digest,
    pub(in crate::engine) format: SignatureFormat,
}
