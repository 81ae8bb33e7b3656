//! The testbed.

pub mod hostile;
