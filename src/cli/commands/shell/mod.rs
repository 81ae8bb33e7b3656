//! Completion scripts, completions for kubectl, and manual pages.

pub(in crate::cli) mod complete;
pub(in crate::cli) mod completion;
pub(in crate::cli) mod man;
