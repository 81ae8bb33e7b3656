//! Claims of other resources on an attachment that is about to be removed.

use std::future::Future;

use crate::api::{
    FormatStatus, ImageAttachmentStatus, Origin, PushAccess, TargetState, TargetStatus,
};
use affix_registry::oci::Digest;

/// The relation of other resources to an attachment that its owner no longer wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// No other resource wants it, so it is removed.
    Unclaimed,
    /// Another resource of the namespace wants it and is (or would be) its new owner.
    Transferred,
    /// The resource of another namespace, as `namespace/name`, has it in its status. It stays, and its owner keeps the
    /// record.
    Elsewhere(String),
    /// The claims are unknown for this cause, so it stays until they are known.
    Unknown(String),
}

/// Looks up the claims of other resources on an attachment.
pub trait Claims: Send + Sync {
    /// Returns the claim on `attachment` of `subject`. The engine calls it right before a removal.
    fn claim(&self, subject: &Digest, attachment: &Digest) -> impl Future<Output = Claim> + Send;

    /// Returns the same for a plan, without a transfer of ownership.
    fn would_claim(
        &self,
        subject: &Digest,
        attachment: &Digest,
    ) -> impl Future<Output = Claim> + Send;
}

/// An attachment in the status of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAttachment {
    /// The manifest that it is attached to.
    pub subject: Digest,
    /// Its manifest.
    pub attachment: Digest,
    /// The resource has shown that it may push the attachment: it made it, or it adopted it and the registry accepted the resource's
    /// credential for a push.
    pub may_push: bool,
}

/// Returns the attachments of the targets in `status`, in every format.
pub fn attachments(status: &ImageAttachmentStatus) -> impl Iterator<Item = ListedAttachment> {
    let accepted = status.push_access == Some(PushAccess::Accepted);
    status.targets.iter().flat_map(move |row| {
        let own = (row.attachment.as_deref(), row.state, row.origin);
        let formats = row.formats.iter();
        let formats = formats.map(|format| (format.attachment(), format.state, format.origin));
        let listed = formats.chain([own]);
        listed.filter_map(move |(attachment, state, origin)| {
            Some(ListedAttachment {
                subject: row.digest.parse().ok()?,
                attachment: attachment?.parse().ok()?,
                may_push: state == TargetState::Attached
                    && (origin == Some(Origin::Made) || accepted),
            })
        })
    })
}

/// Returns whether a target in `status` has the attachment.
#[must_use]
pub fn lists(status: &ImageAttachmentStatus, subject: &Digest, attachment: &Digest) -> bool {
    attachments(status).any(|listed| listed.subject == *subject && listed.attachment == *attachment)
}

/// Returns whether a target has the attachment, in any format.
#[must_use]
pub fn shows(row: &TargetStatus, attachment: &Digest) -> bool {
    let formats = row.formats.iter().map(FormatStatus::attachment);
    formats
        .chain([row.attachment.as_deref()])
        .flatten()
        .any(|text| {
            text.parse::<Digest>()
                .is_ok_and(|digest| digest == *attachment)
        })
}

/// No claims, for callers that know no other resources.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClaims;

impl Claims for NoClaims {
    async fn claim(&self, _: &Digest, _: &Digest) -> Claim {
        Claim::Unclaimed
    }

    async fn would_claim(&self, _: &Digest, _: &Digest) -> Claim {
        Claim::Unclaimed
    }
}
