//! The place of an attachment among those of its target (docs/decisions/0120, 0126).

use crate::api::SignatureFormat;
use crate::attachment::LIFECYCLE_PREDICATE;
use affix_registry::oci::Digest;

/// The place of an attachment among those of its target. A target with one attachment has it in [`Slot::Referrer`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Slot {
    /// The referrer of a target that has one mark, artifact, signature or statement.
    Referrer,
    /// The signature in the signature tag.
    Tag,
    /// A signed statement beside other attachments.
    Statement {
        predicate_type: String,
        /// The hash of the predicate, where a target can have several statements of one type.
        predicate: Option<Digest>,
    },
}

impl Slot {
    /// Returns the slot of the statement beside an end-of-life mark.
    pub(in crate::engine) fn lifecycle() -> Self {
        Self::Statement {
            predicate_type: LIFECYCLE_PREDICATE.to_owned(),
            predicate: None,
        }
    }

    /// Returns the slot of a signature.
    pub(in crate::engine) const fn of(format: SignatureFormat) -> Self {
        match format {
            SignatureFormat::Bundle => Self::Referrer,
            SignatureFormat::Tag => Self::Tag,
        }
    }

    /// Returns the format. Everything that is a referrer counts as `Bundle`.
    pub(in crate::engine) const fn format(&self) -> SignatureFormat {
        match self {
            Self::Referrer | Self::Statement { .. } => SignatureFormat::Bundle,
            Self::Tag => SignatureFormat::Tag,
        }
    }
}
