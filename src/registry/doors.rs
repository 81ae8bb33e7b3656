//! Doors for the crate's fuzz properties to the parsers of what registries send, which are otherwise this room's own business.

use std::time::{Duration, SystemTime};

use super::challenge::Challenge;
use super::docker_config::Keychain;
use super::error_body::ErrorBody;
use crate::oci::{Host, Repository};

/// Reads `WWW-Authenticate`; answers with the number of challenges understood.
pub(crate) fn www_authenticate(line: &str) -> usize {
    Challenge::parse_all([line]).len()
}

/// Reads `Link`; answers with the next page's target.
pub(crate) fn link(line: &str) -> Option<String> {
    super::link::next([line])
}

/// Reads `Retry-After` as of the epoch.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    super::retry_after::parse(value, SystemTime::UNIX_EPOCH)
}

/// Reads an error's body; answers with its codes and its text as a message would show them.
pub(crate) fn error_body(bytes: &[u8]) -> (Vec<String>, String) {
    let read = ErrorBody::parse(bytes, &[]);
    (read.codes, read.text)
}

/// Finds a login in a docker config, or says what is wrong with it.
pub(crate) fn docker_config(
    bytes: &[u8],
    host: &Host,
    repository: &Repository,
) -> Result<(), String> {
    let keychain = Keychain::parse(bytes).map_err(|error| error.to_string())?;
    let _ = keychain.find(host, repository);
    Ok(())
}
