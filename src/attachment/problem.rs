//! Why something cannot be done, in the words of the one table of reasons.

use std::fmt;

use crate::api::Reason;

/// A reason and the message that explains it to a user. The message is stable: no clock, no request id, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From the one table.
    pub reason: Reason,
    /// What is wrong and the way out.
    pub message: String,
}

impl Problem {
    /// A problem of `reason`.
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
