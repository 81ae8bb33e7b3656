//! Apply: writes to the registry.

mod build;
pub(in crate::engine) mod carry_out;
pub(in crate::engine) mod cleanup;
pub(in crate::engine) mod conclude;
pub(in crate::engine) mod dry_run;
pub(in crate::engine) mod push;
pub(in crate::engine) mod remove;
pub(in crate::engine) mod unwanted;
