//! Messages about long waits.

use std::time::Duration;

use tokio::time::{Instant, interval_at};

use crate::cli::exit::message;

/// The time after which a wait is announced.
const FIRST: Duration = Duration::from_secs(2);
/// The time between two messages about one wait.
const NEXT: Duration = Duration::from_secs(10);

/// Waits for `work`. After two seconds, and then every ten, it writes to stderr what it waits for.
pub(in crate::cli) async fn announced<T>(
    waits_for: impl Fn() -> String,
    work: impl Future<Output = T>,
) -> T {
    announced_by(|| message(&waits_for()), work).await
}

/// Waits for `work`. After two seconds, and then every ten, it calls `announce`.
pub(super) async fn announced_by<T>(announce: impl Fn(), work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval_at(Instant::now() + FIRST, NEXT);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => announce(),
        }
    }
}
