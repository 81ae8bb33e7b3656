//! Plans each target of an image: attach, adopt, keep or refuse. A pure function of the observed state.

mod adoption;
mod fetched_referrer;
mod observed;
mod ranking;
mod target_plan;

pub use adoption::{Candidate, Existing, condensed, proven, to_fetch};
pub use fetched_referrer::FetchedReferrer;
pub use observed::{DesiredContent, LastApplied, Observed, equal};
pub use target_plan::{Action, Plan, TargetPlan, overlap_end, plan};

#[cfg(test)]
mod tests;
