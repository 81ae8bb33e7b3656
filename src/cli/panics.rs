//! What a panic leaves behind: where it happened, and nothing of what it says.
//!
//! The message of a panic is made of whatever values were at hand, so it may hold a login, a key, or what a registry sent. The place
//! is enough to find the bug by.

use std::panic::{Location, PanicHookInfo};

/// From now on a panic is a line in the log with its place. Nothing else of it is written anywhere.
pub(super) fn tell_only_the_place() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(Location::to_string)
        .unwrap_or_default();
    tracing::error!(
        place,
        thread = std::thread::current().name(),
        "affix panicked, which is a bug of affix: please report this line"
    );
}
