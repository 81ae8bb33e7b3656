//! affix attaches signatures, end-of-life marks and other artifacts to multi-platform images and to their platforms.
//!
//! The modules are layers, and each uses only those before it (see `tests/layers.rs`):
//!
//! - [`api`]: the custom resource and its validation rules
//! - [`attachment`] and [`signing`]: plans and signature formats, without I/O
//! - [`identity`]: logins for the token of a ServiceAccount
//! - [`engine`]: observe, plan and apply, for one resource
//! - [`service`]: start, health probes and metrics of long-running commands
//! - `inventory`: the images that run in a cluster, and their state
//! - [`controller`] and [`admission`]: the operator and the webhooks
//! - [`cli`]: the command
//!
//! The lowest layer is the crate `affix_registry`: the wire types of OCI, and a client for the distribution protocol.

pub mod admission;
pub mod api;
pub mod attachment;
pub mod cli;
pub mod controller;
pub mod engine;
pub mod identity;
mod inventory;
pub mod service;
pub mod signing;
