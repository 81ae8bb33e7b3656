//! Errors of watches, with messages for users, and the delay until the next attempt.

use std::fmt;
use std::time::Duration;

use backon::ExponentialBuilder;
use kube::core::Status;
use kube::runtime::watcher;

/// Returns the delays between the attempts of a watch: from 100 ms to 1 s, with jitter.
///
/// kube's default grows to 30 s. After an outage of the API server the controller would wait for the rest of such a delay before
/// it sees new resources.
pub(crate) fn watch_backoff() -> watcher::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(1))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .into()
}

/// An error of a watch.
#[derive(Debug)]
pub(crate) struct WatchFault<'a>(&'a watcher::Error);

impl<'a> WatchFault<'a> {
    pub(crate) const fn of(error: &'a watcher::Error) -> Self {
        Self(error)
    }

    /// Returns the status that the API server answered, if there is one.
    fn status(&self) -> Option<&Status> {
        match self.0 {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => Some(status),
            _ => None,
        }
    }

    /// Returns whether the API server denies the watch. A retry within a minute would be in vain.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status()
            .is_some_and(|status| matches!(status.code, 401 | 403))
    }

    /// Returns whether the API server does not know the kind, because its CRD is not installed.
    pub(crate) fn is_unknown(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }
}

impl fmt::Display for WatchFault<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status() {
            // The message of kube repeats the whole status.
            Some(status) => write!(
                out,
                "the API server answered {}: {}",
                status.code, status.message
            ),
            None => self.0.fmt(out),
        }
    }
}
