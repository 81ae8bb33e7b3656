//! Remarks of the condition Resolved.

use affix_registry::oci::Digest;

/// The referrers of a subject that a pass has read.
#[derive(Default)]
pub(in crate::engine) struct ListingSize {
    /// The number of listed referrers.
    pub(in crate::engine) referrers: usize,
    /// True if the registry left out referrers of other types.
    pub(in crate::engine) filtered: bool,
    /// The number of candidates that were not read, since an equal one was found before.
    pub(in crate::engine) unread: usize,
    /// The number of listed Sigstore bundles, of any statement.
    pub(in crate::engine) bundles: usize,
}

/// Returns the remarks on a subject with many referrers. The first one begins at `warn_referrers`.
pub(in crate::engine) fn on_size(
    subject: &Digest,
    size: &ListingSize,
    warn_referrers: usize,
) -> Vec<String> {
    let ListingSize {
        referrers,
        filtered,
        unread,
        ..
    } = size;
    let mut remarks = Vec::new();
    if *referrers >= warn_referrers {
        let of = if *filtered { " of this type alone" } else { "" };
        remarks.push(format!(
            "{subject} has {referrers} referrers{of}; admission controllers stop reading at 50"
        ));
    }
    if *unread > 0 {
        remarks.push(format!(
            "{subject} has {unread} more referrers of this type that were not read"
        ));
    }
    remarks
}
