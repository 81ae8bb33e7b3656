//! The changes of a pass to single attachments, for the audit trail.

use std::fmt;

use affix_registry::oci::Digest;

use crate::api::{Origin, SignatureFormat, TargetState};
use crate::engine::context::Context;
use crate::engine::observe::referrers::Target;
use crate::engine::records::target::TargetRecord;

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The pass pushed the attachment, or found that the push of an earlier pass succeeded.
    Made,
    /// An equal attachment existed, and the resource uses it from now on.
    Adopted,
    /// The attachment was lost and was pushed or signed again.
    Restored,
    /// The attachment was removed.
    Removed,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Adopted => "adopted",
            Self::Restored => "restored",
            Self::Removed => "removed",
        })
    }
}

/// A change to one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentChange {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The manifest that the attachment is or was attached to.
    pub subject: Digest,
    /// The attachment. In the format `Tag` it is the digest of the signed payload.
    pub attachment: Digest,
    /// The format of a signature. Other attachments are referrers, as is the format `Bundle`.
    pub format: SignatureFormat,
}

/// Returns the attachments that a target did not have before this pass, without those in `known`.
pub(in crate::engine) fn new_attachments(
    context: &Context<'_>,
    records: &[TargetRecord],
    targets: &[Target],
    known: &[AttachmentChange],
) -> Vec<AttachmentChange> {
    let previous = &context.request.previous;
    let change = |target: &Target| {
        let subject = &target.observed.subject.digest;
        let record = records.get(target.position)?.in_slot(&target.slot)?;
        let attachment = record
            .attachment
            .filter(|_| record.state == TargetState::Attached)?;
        let before = previous
            .target(subject)
            .and_then(|before| before.in_slot(&target.slot));
        let is_known = before.is_some_and(|before| {
            before.state == TargetState::Attached && before.attachment.as_ref() == Some(&attachment)
        }) || known
            .iter()
            .any(|change| change.subject == *subject && change.attachment == attachment);
        (!is_known).then(|| AttachmentChange {
            kind: match record.origin {
                Some(Origin::Adopted) => ChangeKind::Adopted,
                _ => ChangeKind::Made,
            },
            subject: subject.clone(),
            attachment,
            format: target.slot.format(),
        })
    };
    targets.iter().filter_map(change).collect()
}
