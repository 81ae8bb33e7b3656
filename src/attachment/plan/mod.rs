//! Plans each target of an image: attach, adopt, keep or refuse. A pure function of the observed state.

mod adoption;
mod observed;
mod ranking;
mod target_plan;

pub use adoption::{Existing, condensed, is_found, proven, to_fetch};
pub use observed::{DesiredContent, LastApplied, MAX_CANDIDATES, MAX_SIGNATURES, Observed, equal};
pub use target_plan::{Action, Plan, TargetPlan, plan};

#[cfg(test)]
mod tests;
