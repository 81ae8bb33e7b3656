//! Leader election and the write gate.

pub(super) mod leadership;
pub(super) mod lease;
pub(super) mod write_gate;
