//! One pass for one resource: observe → plan → apply → outcome.
//!
//! Owns the order of the registry's calls and what is written down between them; decides nothing that [`crate::attachment`]
//! can decide purely, speaks no protocol that [`affix_registry`] owns, and knows no cluster: the controller, the command and
//! the tests run the same [`Engine`].

mod allowed_repositories;
mod apply;
mod claims;
mod dates;
mod deletion;
mod detach;
mod dry_run;
mod failure;
mod finish;
mod inspection;
mod listing;
mod memory;
mod observe;
mod outcome;
mod pass;
mod pinned;
mod remove;
mod rows;
mod signatures;
mod signers;
mod signing_key;
mod sources;
mod status;
mod supersede;
mod targets;

pub use claims::{Claim, Claims, NoClaims, lists};
pub use deletion::{Deleted, Deletion, deletion};
pub use failure::Failure;
pub use memory::Memory;
pub use outcome::{Note, Outcome, Severity, Verdict};
pub use pass::{Draft, Engine, EngineOptions, Journal, Mode, Request};
pub use signing_key::SigningKey;
pub use sources::{Names, SecretData, Sources, access, request};
pub use status::{due_in, status, status_in_progress};

#[cfg(test)]
mod tests;
