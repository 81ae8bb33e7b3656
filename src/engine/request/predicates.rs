//! The predicates of the spec, parsed once for all targets.

use crate::api::Reason;
use crate::attachment::{Desired, Problem, Statements};
use crate::signing::{Predicate, PredicateError};

/// Parses the predicates of the spec, in its order. A resource without predicates has none.
///
/// # Errors
/// `StatementInvalid` for a predicate that is no JSON object, and `LimitExceeded` for one that is too large.
pub fn parse(desired: &Desired) -> Result<Vec<Predicate>, Problem> {
    let Desired::Attestation {
        statements:
            Statements::Given {
                predicate_type,
                predicates,
            },
        ..
    } = desired
    else {
        return Ok(Vec::new());
    };
    let parse = |of: &crate::attachment::GivenPredicate| {
        Predicate::parse(predicate_type, &of.bytes).map_err(|error| problem(&of.at, &error))
    };
    predicates.iter().map(parse).collect()
}

/// Returns the problem of a predicate. `at` is its place.
pub(in crate::engine) fn problem(at: impl std::fmt::Display, error: &PredicateError) -> Problem {
    let reason = match error {
        PredicateError::TooLarge(_) => Reason::LimitExceeded,
        PredicateError::Malformed(_)
        | PredicateError::NoObject(_)
        | PredicateError::NoStatement => Reason::StatementInvalid,
    };
    Problem::new(reason, format_args!("{at}: {error}"))
}
