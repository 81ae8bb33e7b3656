//! A reason from the table of reasons, with its message.

use std::fmt;

use crate::api::Reason;

/// A reason and its message for a user. The message is stable and contains no time, no request id and no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The reason.
    pub reason: Reason,
    /// The cause and the way out.
    pub message: String,
}

impl Problem {
    /// Returns a problem with `reason`.
    #[must_use]
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self {
            reason,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}
