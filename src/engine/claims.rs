//! Who else wants what is about to be removed.

use std::future::Future;

use crate::api::ImageAttachmentStatus;
use affix_registry::oci::Digest;

/// What others have to do with an attachment that the resource which made it does not want any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody wants it: it goes.
    Nobody,
    /// Another resource of the namespace wants it, and is its maker from now on (or would be).
    HandedOver,
    /// A resource elsewhere has it in its status: it stays, and its maker does not forget it.
    Elsewhere,
    /// That cannot be told now, and why: it stays until it can.
    Unknown(String),
}

/// Who else wants an attachment.
pub trait Claims: Send + Sync {
    /// What others have to do with `attachment` on `subject`; asked right before it would be removed.
    fn claim(&self, subject: &Digest, attachment: &Digest) -> impl Future<Output = Claim> + Send;

    /// The same for a plan: nothing is handed over.
    fn would_claim(
        &self,
        subject: &Digest,
        attachment: &Digest,
    ) -> impl Future<Output = Claim> + Send;
}

/// Whether a status has the attachment as a target's own.
#[must_use]
pub fn lists(status: &ImageAttachmentStatus, subject: &Digest, attachment: &Digest) -> bool {
    let is =
        |text: &str, digest: &Digest| text.parse::<Digest>().is_ok_and(|parsed| parsed == *digest);
    status.targets.iter().any(|row| {
        is(&row.digest, subject)
            && row
                .attachment
                .as_deref()
                .is_some_and(|text| is(text, attachment))
    })
}

/// Nobody else wants anything: where no other resources are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClaims;

impl Claims for NoClaims {
    async fn claim(&self, _: &Digest, _: &Digest) -> Claim {
        Claim::Nobody
    }

    async fn would_claim(&self, _: &Digest, _: &Digest) -> Claim {
        Claim::Nobody
    }
}
