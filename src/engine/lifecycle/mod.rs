//! The end-of-life marks of an image, as readers see them: the webhooks and `affix report` use them, and no pass does.

mod kind;
mod mark;
mod read;
mod report;
mod statements;

pub use kind::LifecycleType;

pub(crate) use mark::{Basis, Day, Mark, Marks};
pub(crate) use read::{LifecycleRules, MAX_REQUESTS, read_lifecycle};
pub(crate) use report::{LifecycleReport, PlatformReport};
pub(crate) use statements::TrustedKeys;
