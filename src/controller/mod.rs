//! The operator: watches `ImageAttachment`s and has the engine carry out what they say.
//!
//! Owns what is between the API server and the engine: the watch, the Secrets and ConfigMaps of a resource's own namespace,
//! status, events, back-off, metrics and health. It never speaks to a registry itself.

mod alarms;
mod backoff;
mod claims;
mod cluster;
mod context;
mod definition;
mod deletion;
mod events;
mod fence;
mod finalizer;
mod leadership;
mod lease;
mod ledger;
mod metrics;
mod neighbours;
mod objects;
mod options;
mod pace;
mod packed;
mod queue;
mod reconcile;
mod rotation;
mod run;
mod schedule;
mod stored;
mod visits;
mod watch;

pub use options::{LeaderElection, Options};
pub use run::{RunError, run};
