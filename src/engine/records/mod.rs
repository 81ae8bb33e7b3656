//! Typed entries of status. A pass parses them from the previous status and prints them when it ends.

pub(in crate::engine) mod format;
pub(in crate::engine) mod leftover;
pub(in crate::engine) mod owned;
pub(in crate::engine) mod slot;
pub(in crate::engine) mod table;
pub(in crate::engine) mod target;
