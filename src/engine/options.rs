//! Limits of a pass, and rules for resources, that the operator sets.

use std::time::Duration;

/// Limits of a pass that are not limits of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Maximum number of targets that one resource may select. Default 100.
    pub max_targets: usize,
    /// Number of referrers of one subject from which status warns: admission controllers stop reading at 50. Default 40.
    pub warn_referrers: usize,
    /// Number of referrers of one subject at which affix adds no more. Default: no limit.
    pub max_referrers: Option<usize>,
    /// True if a pass waits, until its time limit, for the registry to list what was pushed. Default false: the next pass looks again.
    pub wait_until_listed: bool,
    /// Maximum time for a pass, which caps `spec.timeout`. Default: no limit.
    pub max_pass_time: Option<Duration>,
}

/// The parts of a resource's access that the operator refuses. Each of them can show a login of the namespace to a user who cannot read
/// the Secret (threat T39).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantRules {
    /// `spec.proxySecretRef`.
    pub refuse_proxies: bool,
    /// `ca.crt` in the Secret of `spec.certSecretRef`.
    pub refuse_authorities: bool,
}

impl EngineOptions {
    /// Returns the time limit of a pass whose resource asks for `timeout`.
    pub(in crate::engine) fn bounded(&self, timeout: Duration) -> Duration {
        self.max_pass_time
            .map_or(timeout, |longest| longest.min(timeout))
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_targets: 100,
            warn_referrers: 40,
            max_referrers: None,
            wait_until_listed: false,
            max_pass_time: None,
        }
    }
}
