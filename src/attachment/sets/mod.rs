//! The computation of a set: which of its tags are alive, which images are out of life and since when, and the children that follow.
//!
//! The computation has two steps. [`TagState::observe`] compares the tags with those of the previous pass and decides on the life of each tag.
//! Then the engine reads the indexes of [`TagState::roots_to_read`], and [`plan()`] returns the children, the table of the lifecycle and the
//! status of the repositories. Both are pure functions: the order of tags, the time of a call and the number of calls change nothing else.
//!
//! An image is marked only if each of its tags is listed and out of life, or if its tag has left it, for at least the time `settle`
//! (docs/decisions/0110). Until then everything that it reaches counts as in use. A tag that vanishes from the list counts as present for
//! the same time (docs/decisions/0113).

mod child;
mod keep;
mod plan;
mod policy;
mod range;
mod state;
mod table;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use child::{Child, ExistingChild, child_name, set_label};
pub use plan::{Removal, RepositoryInput, SetInput, SetPlan, plan};
pub use policy::{LifecyclePolicy, SetPolicy, SetRepository, TagSelector};
pub use range::{VersionRange, VersionRangeError, version_of};
pub use state::{TagState, remembered};

/// The maximum number of tags of all repositories of a set that status remembers.
pub const MAX_TAGS: usize = 4000;

/// The maximum number of unselected tags of a repository that keep images in use.
pub const MAX_TAGS_IN_USE: usize = 500;

/// Returns an instant later by `wait`.
fn after(instant: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| instant.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
