//! Doors for the fuzz targets to the parsers of what registries send, which are otherwise this room's own business.

use std::time::SystemTime;

use super::challenge::Challenge;
use super::error_body::ErrorBody;

/// Reads `WWW-Authenticate`; answers with the number of challenges understood.
#[must_use]
pub fn www_authenticate(line: &str) -> usize {
    Challenge::parse_all([line]).len()
}

/// Reads `Link`; answers with the next page's target.
#[must_use]
pub fn link(line: &str) -> Option<String> {
    super::link::next([line])
}

/// Reads `Retry-After` as of the epoch.
#[must_use]
pub fn retry_after(value: &str) -> Option<std::time::Duration> {
    super::retry_after::parse(value, SystemTime::UNIX_EPOCH)
}

/// Reads an error's body; answers with its text as a message would show it.
#[must_use]
pub fn error_body(bytes: &[u8]) -> String {
    ErrorBody::parse(bytes, &[]).text
}
