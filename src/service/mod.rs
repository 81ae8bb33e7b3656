//! What every long-running part of affix shares: how it starts, health, metrics over HTTP, and an orderly end.
//!
//! Owns the cluster's configuration, the addresses that are listened on, what a process tells of itself, and the signals. Knows
//! neither what else is measured nor what is waited for.

mod health;
mod listen;
mod process;
mod signals;
mod start;
mod watch_fault;

pub use listen::ListenAddress;
pub use start::{Addresses, StartError};

pub(crate) use health::Readiness;
pub(crate) use process::describe;
pub(crate) use start::{Probes, api_server, begin};
pub(crate) use watch_fault::WatchFault;
