//! The operator: watches `ImageAttachment`s and has the engine carry out what they say.
//!
//! Owns what is between the API server and the engine: the watch, the Secrets and ConfigMaps of a resource's own namespace,
//! status, events, back-off, metrics and health. It never speaks to a registry itself.

mod context;
mod leader;
mod metrics;
mod options;
mod reconcile;
mod run;
mod watch;
mod workqueue;

pub use options::{LeaderElection, Options};
pub use run::{RunError, run};
