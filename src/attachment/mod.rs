//! Turns the spec of a resource and the observed state of the registry into a [`Plan`]. It has no I/O and no clock.
//!
//! [`Intent`] is the parsed spec and [`Image`] the observed image. [`Selection`] selects the targets and [`Content`] becomes
//! the bytes of a manifest. [`plan()`] decides for each target: attach, adopt, keep or refuse. The same input gives the same
//! plan, which `affix plan` prints, the tests assert and the engine applies.

mod content;
mod files;
mod future_mark;
mod image;
mod intent;
mod lifecycle_document;
mod mark;
mod plan;
mod problem;
mod selection;
pub mod sets;
mod statements;
pub mod supersession;
mod time;

pub use content::{Attachment, Content, TargetContent};
pub use files::{File, FileError, FileTarget, Inputs};
pub use future_mark::FutureMark;
pub use image::{BuildAttestation, Entry, EntryKind, Image, ImageError};
pub use intent::{Desired, Intent, artifact_type, file_problem, parse_reference};
pub use lifecycle_document::{LIFECYCLE_PREDICATE, LifecycleDocument};
pub use mark::MarkKeys;
pub use plan::{
    Action, Candidate, DesiredContent, Existing, FetchedReferrer, LastApplied, Observed, Plan,
    TargetPlan, condensed, equal, overlap_end, plan, proven, to_fetch,
};
pub use problem::Problem;
pub use selection::{SelectedEntry, Selection, SelectionError};
pub use statements::{GivenPredicate, PredicateTypes, Statements, predicate_for};
pub use time::{Created, EndOfLifeDate, EndOfLifeDateError};
