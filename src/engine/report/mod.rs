//! The report of a pass: verdict, events, leftovers, and the status that follows.

pub(in crate::engine) mod change;
pub(in crate::engine) mod event;
pub(in crate::engine) mod leftovers;
pub(in crate::engine) mod outcome;
pub(in crate::engine) mod remarks;
pub(in crate::engine) mod status;
pub(in crate::engine) mod verdict;
