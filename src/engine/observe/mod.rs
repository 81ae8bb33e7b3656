//! Observe: reads from the registry.

pub(in crate::engine) mod build_statements;
pub(in crate::engine) mod candidates;
mod found;
pub(in crate::engine) mod mark_in_use;
pub(in crate::engine) mod older_signatures;
pub(in crate::engine) mod parents;
pub(in crate::engine) mod prefetch;
pub(in crate::engine) mod recovered_dates;
pub(in crate::engine) mod referrers;
pub(in crate::engine) mod resolve;
mod signature_tag;
pub(in crate::engine) mod signatures;
pub(in crate::engine) mod tags_in_use;
