//! The result of a listing beside its entries.

use crate::engine::report::remarks::ListingSize;
use affix_registry::ListingSource;

use super::signatures::Unlisted;

/// The result of a listing beside its entries.
pub(super) struct Found {
    pub(super) source: ListingSource,
    pub(super) unlisted: Unlisted,
    pub(super) size: ListingSize,
}
