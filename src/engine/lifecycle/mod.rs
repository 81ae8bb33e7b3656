//! The end-of-life marks of an image, as readers see them: the webhooks and `affix report` use them, and no pass does.

mod kind;
mod mark;
mod read;
mod report;

pub use kind::LifecycleType;

pub(crate) use mark::{Day, Mark};
pub(crate) use read::{MAX_REQUESTS, read_lifecycle};
pub(crate) use report::{LifecycleReport, PlatformReport};
