//! Events of a pass.

use crate::api::Reason;

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The pass did something.
    Normal,
    /// Something is wrong or was lost.
    Warning,
}

/// An event that users see once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassEvent {
    /// The type of the event.
    pub severity: Severity,
    /// A reason from the table.
    pub reason: Reason,
    /// The description of the event.
    pub message: String,
}

impl PassEvent {
    pub(in crate::engine) const fn normal(reason: Reason, message: String) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            message,
        }
    }

    pub(in crate::engine) const fn warning(reason: Reason, message: String) -> Self {
        Self {
            severity: Severity::Warning,
            reason,
            message,
        }
    }
}
