//! The watches of the cluster index and their effect on readiness.
//!
//! A replica is ready once each list is complete or known to be impossible. A missing permission does
//! not keep a replica unready: with `failurePolicy: Ignore` the API server would then admit everything
//! without a review, although single objects can still be read.

use std::time::Duration;

use futures::{StreamExt as _, TryStream, TryStreamExt as _};
use kube::runtime::watcher::{self, Event};

use crate::service::{Readiness, WatchFault};

/// Maximum time for which a failing list delays readiness. It also limits a rolling update.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time before a refused watch is retried. The permission or the CRD may have been added meanwhile.
const RETRY_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// The watched resources.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WatchedList<'a> {
    /// The ImageAttachments of a namespace. `None`: of all.
    ImageAttachments(Option<&'a str>),
    Namespaces,
}

impl<'a> WatchedList<'a> {
    /// Returns all lists, with the ImageAttachments of `scopes`.
    pub(crate) fn all(scopes: &'a [Option<String>]) -> impl Iterator<Item = Self> {
        let scopes = scopes.iter().map(Option::as_deref);
        scopes.map(Self::ImageAttachments).chain([Self::Namespaces])
    }

    /// Returns the name of the list for `/readyz`.
    pub(crate) fn list(self) -> String {
        match self {
            Self::ImageAttachments(None) => "the list of imageattachments".to_owned(),
            Self::ImageAttachments(Some(namespace)) => {
                format!("the list of imageattachments in {namespace}")
            }
            Self::Namespaces => "the list of namespaces".to_owned(),
        }
    }

    /// Passes the events of a watch to `on_event`, forever. A refused watch restarts after a delay.
    pub(crate) async fn run<S, T>(
        self,
        watch: impl Fn() -> S,
        readiness: &Readiness,
        mut on_event: impl FnMut(Event<T>),
    ) where
        S: TryStream<Ok = Event<T>, Error = watcher::Error>,
    {
        // Each failure is logged once.
        let (list, mut last_error) = (self.list(), String::new());
        loop {
            let mut events = std::pin::pin!(watch().into_stream());
            while let Some(event) = events.next().await {
                let error = match event {
                    Ok(event) => {
                        let is_listed = matches!(event, Event::InitDone);
                        on_event(event);
                        if is_listed {
                            readiness.done(&list);
                            last_error.clear();
                        }
                        continue;
                    }
                    Err(error) => error,
                };
                let fault = WatchFault::of(&error);
                let error_text = fault.to_string();
                readiness.because(&list, &error_text);
                if error_text != last_error {
                    tracing::warn!(error = error_text, "{list} failed, retrying");
                    last_error = error_text;
                }
                if fault.is_refusal() || fault.is_unknown() {
                    readiness.wait_no_longer(&list);
                    break;
                }
            }
            tokio::time::sleep(RETRY_AFTER_REFUSAL).await;
        }
    }
}

/// Stops the delay of readiness by lists that are not complete in time.
pub(crate) async fn limit_startup_wait(readiness: &Readiness, scopes: &[Option<String>]) {
    tokio::time::sleep(LIST_TIMEOUT).await;
    WatchedList::all(scopes).for_each(|watched| readiness.wait_no_longer(&watched.list()));
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;
    use futures::stream;

    /// Returns the response of `/readyz` after a period in which every list attempt, one per second,
    /// has this result.
    async fn readyz_after(
        answer: fn() -> Result<Event<()>, watcher::Error>,
        after: Duration,
    ) -> (u16, String) {
        let readiness = Readiness::default();
        readiness.wait_for(WatchedList::Namespaces.list());
        let tries = || {
            stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((answer(), ()))
            })
        };
        tokio::select! {
            () = WatchedList::Namespaces.run(tries, &readiness, drop) => panic!("a watch ended"),
            () = async { tokio::join!(limit_startup_wait(&readiness, &[]), std::future::pending::<()>()); } => panic!("the time limit task ended"),
            () = tokio::time::sleep(after) => {}
        }
        readiness.says()
    }

    fn refuses(code: u16) -> watcher::Error {
        let status = kube::core::Status {
            code,
            message: format!("answered {code}"),
            ..Default::default()
        };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_waits_for_a_failing_list_within_limits_and_not_for_a_refused_one() {
        let (early, late) = (
            Duration::from_secs(2),
            LIST_TIMEOUT + Duration::from_secs(2),
        );
        let failing = || Err(refuses(503));
        let (status, text) = readyz_after(failing, early).await;
        assert!(
            status == 503
                && text.starts_with("waiting for the list of namespaces (")
                && text.contains("answered 503"),
            "{status} {text}"
        );
        let (status, text) = readyz_after(failing, late).await;
        assert!(
            status == 200
                && text.contains("without the list of namespaces (")
                && text.contains("answered 503"),
            "{status} {text}"
        );
        let (status, text) = readyz_after(|| Err(refuses(403)), early).await;
        assert!(
            status == 200
                && text.contains("without the list of namespaces (")
                && text.contains("answered 403"),
            "{status} {text}"
        );
        assert_eq!(
            readyz_after(|| Ok(Event::InitDone), early).await,
            (200, "ok\n".to_owned())
        );
    }
}
