//! A foreign end-of-life mark whose creation time lies in the future. It does not count before that time.

use std::fmt;

use affix_registry::oci::Digest;

use super::time::Created;

/// A foreign mark that is dated in the future. Marks order by time, then by digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FutureMark {
    /// The time from which the mark counts.
    pub created: Created,
    /// The digest of the mark's manifest.
    pub digest: Digest,
}

impl fmt::Display for FutureMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, digest } = self;
        write!(
            f,
            "the mark {digest} claims to be made in the future ({created}); it is ignored until then"
        )
    }
}
