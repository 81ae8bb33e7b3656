//! The parts that the controller and the webhook share: start, health probes, metrics over HTTP, leader election, and shutdown.

mod api_error;
mod cluster_networks;
mod election;
mod health;
mod kubeconfig;
mod listen;
mod owner;
mod process;
mod signals;
mod start;
mod token_requests;
mod watch_fault;

pub use election::LeaderElection;
pub use listen::ListenAddress;
pub use start::{Addresses, StartError};

pub(crate) use api_error::{ApiServerError, FIELD_MANAGER, with_timeout};
pub(crate) use cluster_networks::cluster_networks;
pub(crate) use election::{Election, Epoch, Leadership};
pub(crate) use health::Readiness;
pub(crate) use owner::{OwningDeployment, set_owner};
pub(crate) use process::describe;
pub(crate) use start::{Probes, api_server, begin, cluster_config};
pub(crate) use token_requests::{TokenRequests, identity};
pub(crate) use watch_fault::{WatchFault, watch_backoff};
