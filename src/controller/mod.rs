//! The controller: watches `ImageAttachment` resources and reconciles them with the engine, and the sets that make them.
//!
//! It owns everything between the API server and the engine: watches, the work queue, the Secrets and ConfigMaps of a
//! resource's namespace, status, events, back-off, the role of this process, metrics and health. It sends no request to a registry
//! itself.

mod api_server;
mod context;
mod leader;
mod metrics;
mod options;
mod reconcile;
mod run;
mod sets;
mod watch;
mod workqueue;

pub use crate::service::LeaderElection;
pub use options::Options;
pub use run::{RunError, run};
