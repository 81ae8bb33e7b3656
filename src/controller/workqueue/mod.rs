//! The work queue, its concurrency limits, and the workers that empty it.

pub(super) mod caches;
pub(super) mod flow;
pub(super) mod limiter;
pub(super) mod queue;
pub(super) mod worker;
