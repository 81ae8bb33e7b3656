//! Leader election, and the gate that stops the writes of a process that lost it.

mod announcement;
pub(super) mod leadership;
pub(super) mod lease;
pub(super) mod write_gate;
