//! Why a watch does not bring what it should, in a sentence.

use std::fmt;

use kube::core::Status;
use kube::runtime::watcher;

/// A failure of a watch.
#[derive(Debug)]
pub(crate) struct WatchFault<'a>(&'a watcher::Error);

impl<'a> WatchFault<'a> {
    pub(crate) const fn of(error: &'a watcher::Error) -> Self {
        Self(error)
    }

    /// The API server's answer, where it gave one.
    fn answer(&self) -> Option<&Status> {
        match self.0 {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the API server does not let affix watch this: it says the same a minute later.
    pub(crate) fn is_refusal(&self) -> bool {
        self.answer()
            .is_some_and(|answer| matches!(answer.code, 401 | 403))
    }

    /// Whether the API server does not know what is to be watched: its definition is not installed.
    pub(crate) fn is_unknown(&self) -> bool {
        self.answer().is_some_and(|answer| answer.code == 404)
    }
}

impl fmt::Display for WatchFault<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer() {
            // What the library makes of it has the whole answer a second time.
            Some(answer) => write!(
                out,
                "the API server answered {}: {}",
                answer.code, answer.message
            ),
            None => self.0.fmt(out),
        }
    }
}
