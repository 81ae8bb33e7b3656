//! The passes. Each one observes, plans, applies and reports.

mod attach;
pub(in crate::engine) mod delete;
mod detach;
mod fast_path;
pub(in crate::engine) mod reconcile_targets;
pub(in crate::engine) mod run;
pub(in crate::engine) mod statements;
mod supersede;
mod superseded_images;
mod tag_drift;
