//! affix.

pub mod api;
