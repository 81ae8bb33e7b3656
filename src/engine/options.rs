//! Limits of a pass that the operator sets.

use std::time::Duration;

/// Limits of a pass that are not limits of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Maximum number of targets that one resource may select. Default 100.
    pub most_targets: usize,
    /// Number of referrers of one subject from which status warns: admission controllers stop reading at 50. Default 40.
    pub warn_referrers: usize,
    /// Number of referrers of one subject at which affix adds no more. Default: no limit.
    pub most_referrers: Option<usize>,
    /// Maximum time for a pass, which caps `spec.timeout`. Default: no limit.
    pub longest_pass: Option<Duration>,
}

impl EngineOptions {
    /// Returns the time limit of a pass whose resource asks for `timeout`.
    pub(in crate::engine) fn bounded(&self, timeout: Duration) -> Duration {
        self.longest_pass
            .map_or(timeout, |longest| longest.min(timeout))
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            most_targets: 100,
            warn_referrers: 40,
            most_referrers: None,
            longest_pass: None,
        }
    }
}
