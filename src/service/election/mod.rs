//! Leader election with a Lease, for the controller and for the reports of the webhook.

mod announcement;
mod leadership;
mod lease;
mod options;

pub use options::LeaderElection;

pub(crate) use leadership::{Epoch, Leadership};
pub(crate) use lease::Election;
