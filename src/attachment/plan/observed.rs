//! The observed state of one target: the input of its plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use affix_registry::oci::{Descriptor, Digest};

use super::adoption::{self, Existing};
use super::fetched_referrer::FetchedReferrer;
use crate::attachment::content::TargetContent;
use crate::attachment::mark::MarkKeys;
use crate::attachment::problem::Problem;
use crate::attachment::time::Created;

/// The last applied state of one target, from the status of the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastApplied {
    /// The hash of the content that was pushed or was about to be pushed.
    pub content: Option<Digest>,
    /// The creation time of the attachment.
    pub created: Option<Created>,
    /// The digest of the attachment's manifest.
    pub attachment: Option<Digest>,
    /// True if this resource made the attachment or was about to make it. Otherwise it was adopted.
    pub made: bool,
    /// True if this generation of the spec has already superseded a foreign mark on the target.
    pub superseded: bool,
}

/// The desired state of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DesiredContent {
    /// Fixed content. Equal manifests are found by comparison.
    Content {
        /// The content.
        content: TargetContent,
        /// The rank of the content if it is an end-of-life mark.
        mark: Option<MarkKeys>,
    },
    /// A signature, whose bytes are random. The caller verifies the listed signatures.
    Signature {
        /// The hash of the inputs of the signature: key, annotations and expiry.
        content: Digest,
        /// The artifact type that listings show.
        artifact_type: String,
        /// The time for which the previous signature stays after the new one was made.
        overlap: Duration,
        /// The listed signatures that verify.
        verified: Vec<Existing>,
    },
}

/// The observed state of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The target.
    pub subject: Descriptor,
    /// The desired state.
    pub wanted: DesiredContent,
    /// The referrers of the subject, or the error of the listing.
    pub listing: Result<Vec<Descriptor>, Problem>,
    /// The fetched referrers that the listing does not describe completely.
    pub fetched: BTreeMap<Digest, FetchedReferrer>,
    /// The last applied state.
    pub known: LastApplied,
    /// The digests of all attachments that this resource made on the subject, also in earlier generations.
    pub ours: BTreeSet<Digest>,
}

/// Returns the attachments of any owner that equal the desired state. The first one is the one to keep.
#[must_use]
pub fn equal(observed: &Observed) -> Vec<Existing> {
    match (&observed.listing, &observed.wanted) {
        (Err(_), _) => Vec::new(),
        (Ok(entries), DesiredContent::Content { content, .. }) => {
            adoption::equals(content, &observed.subject, entries, &observed.fetched)
        }
        (Ok(_), DesiredContent::Signature { verified, .. }) => {
            let mut verified = verified.clone();
            adoption::sort(&mut verified);
            verified
        }
    }
}
