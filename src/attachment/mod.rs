//! What to attach, to what: pure.
//!
//! Owns the way from a resource's spec to a [`Plan`]: [`Intent`] is the spec parsed, [`Image`] is what the registry holds,
//! [`Selection`] chooses targets, [`Content`] becomes manifest bytes, and [`plan()`] says for each target whether to attach,
//! adopt, keep or skip. Nothing here does I/O or reads a clock: the same input gives the same plan, which is what
//! `affix plan` prints, what tests assert and what the engine carries out.

mod adoption;
mod content;
mod end_of_life;
mod files;
mod future_mark;
mod image;
mod intent;
mod plan;
mod problem;
mod selection;
pub mod supersession;
mod time;

pub use adoption::{Existing, condensed, is_found, proven, to_fetch};
pub use content::{Attachment, Content, TargetContent};
pub use end_of_life::{EndOfLifeDate, EndOfLifeDateError};
pub use files::{File, FileError, FileTarget, Inputs};
pub use future_mark::FutureMark;
pub use image::{Entry, EntryKind, Image, ImageError};
pub use intent::{Desired, Intent, MarkKeys, artifact_type, file_problem, parse_reference};
pub use plan::{
    Action, Known, Listed, MOST_CANDIDATES, MOST_SIGNATURES, Observed, Plan, TargetPlan, equal,
    plan,
};
pub use problem::Problem;
pub use selection::{Chosen, Selection, SelectionError};
pub use time::Created;
