//! One pass for one resource: observe, plan, apply, report.
//!
//! The engine owns the order of the registry calls and the records that are saved between them. The decisions are pure functions of
//! [`crate::attachment`]; the protocol belongs to [`affix_registry`]. The engine does not know Kubernetes: the controller, the command
//! line and the tests run the same [`Engine`].
//!
//! | folder | contents |
//! | --- | --- |
//! | `request` | the input of a pass: references, Secrets, signing key, state of the previous pass |
//! | `records` | typed entries of status, parsed when a pass begins and printed when it ends |
//! | `observe` | reads from the registry |
//! | `apply` | writes to the registry |
//! | `report` | verdict, outcome and status |
//! | `sets` | reads the repositories of a set, and reports on it |
//! | `passes` | the passes themselves, which use all of the above |
//! | `lifecycle` | the end-of-life marks of an image, for the webhooks and the report |

mod apply;
mod claims;
mod context;
mod failure;
mod journal;
mod lifecycle;
mod observe;
mod options;
mod passes;
mod records;
mod report;
mod request;
mod sets;

pub use claims::{Claim, Claims, ListedAttachment, NoClaims, attachments, lists, shows};
pub use failure::Failure;
pub use journal::{Draft, Journal};
pub use lifecycle::LifecycleType;
pub use options::{EngineOptions, TenantRules};
pub use passes::delete::{Deleted, Deletion, deletion};
pub use passes::run::Engine;
pub use report::change::{AttachmentChange, ChangeKind};
pub use report::event::{PassEvent, Severity};
pub use report::outcome::Outcome;
pub use report::status::{due_in, status, status_in_progress, status_started};
pub use report::verdict::Verdict;
pub use request::access::access;
pub use request::build::{Mode, Request, request};
pub use request::predicates::parse as parse_predicates;
pub use request::previous::PreviousState;
pub use request::references::Names;
pub use request::secrets::{SecretData, Sources};
pub use request::signing_key::SigningKey;
pub use sets::read::{ReachCache, RepositoryRead, RepositoryReading};
pub use sets::status::{
    ChildState, ChildrenState, Progress, set_failed, set_started, set_status, set_tables,
};

pub(crate) use lifecycle::{
    Basis, Day, LifecycleReport, LifecycleRules, MAX_REQUESTS, Mark, Marks, PlatformReport,
    TrustedKeys, read_lifecycle,
};

#[cfg(test)]
mod tests;
