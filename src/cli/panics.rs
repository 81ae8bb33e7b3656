//! Panics are logged with their location only.
//!
//! The message of a panic may contain a login, a key, or text from a registry. The location is enough to find the bug.

use std::panic::{Location, PanicHookInfo};

/// Installs a panic hook that logs the location and nothing else.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let location = panic
        .location()
        .map(Location::to_string)
        .unwrap_or_default();
    tracing::error!(
        location,
        thread = std::thread::current().name(),
        "affix panicked, which is a bug: please report this line"
    );
}
