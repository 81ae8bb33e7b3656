//! The work queue, its limits and the workers.

pub(super) mod alarms;
pub(super) mod limiter;
pub(super) mod pace;
pub(super) mod queue;
pub(super) mod worker;
