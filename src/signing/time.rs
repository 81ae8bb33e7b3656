//! The text form of a time in signatures.

use k8s_openapi::jiff::Timestamp;

/// Returns `at` as an RFC 3339 time in UTC, in whole seconds.
pub(super) fn to_rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
