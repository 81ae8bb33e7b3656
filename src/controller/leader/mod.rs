//! The gate that stops the writes of a process that is not the leader.

pub(super) mod write_gate;
