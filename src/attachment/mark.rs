//! The annotations by which readers find and rank an end-of-life mark.

use super::time::EndOfLifeDate;

/// The date of an end-of-life mark and the annotation that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkKeys {
    /// The key of the annotation that holds the date.
    pub annotation: String,
    /// The date.
    pub date: EndOfLifeDate,
}
