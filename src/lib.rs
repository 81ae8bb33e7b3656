//! affix.
