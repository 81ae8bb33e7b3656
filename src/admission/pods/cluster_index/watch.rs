//! Watches that a review relies on: a replica is ready once each has listed what there is, or is known not to be able to.
//!
//! Owns what `/readyz` says of them. A right that is missing keeps no replica down: with `failurePolicy: Ignore` that would let
//! everything in unjudged, while what is not listed can still be asked for one by one.

use std::time::Duration;

use futures::{StreamExt as _, TryStream, TryStreamExt as _};
use kube::runtime::watcher::{self, Event};

use crate::service::{Readiness, WatchFault};

/// How long a replica waits for lists that fail without being refused. Whoever updates the replicas one by one waits as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after a refusal it is tried again: somebody may have granted the right, or installed the definition, meanwhile.
const REFUSED: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watched {
    ImageAttachments,
    Namespaces,
}

impl Watched {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::ImageAttachments, Self::Namespaces];

    /// What is waited for.
    pub(crate) const fn list(self) -> &'static str {
        match self {
            Self::ImageAttachments => "the list of imageattachments",
            Self::Namespaces => "the list of namespaces",
        }
    }

    /// Takes what a watch brings, for ever: one that is refused begins anew only now and then.
    pub(crate) async fn follow<S, T>(
        self,
        watch: impl Fn() -> S,
        readiness: &Readiness,
        mut take: impl FnMut(Event<T>),
    ) where
        S: TryStream<Ok = Event<T>, Error = watcher::Error>,
    {
        // The same failure is said once.
        let mut said = String::new();
        loop {
            let mut events = std::pin::pin!(watch().into_stream());
            while let Some(event) = events.next().await {
                let error = match event {
                    Ok(event) => {
                        let is_listed = matches!(event, Event::InitDone);
                        take(event);
                        if is_listed {
                            readiness.done(self.list());
                            said.clear();
                        }
                        continue;
                    }
                    Err(error) => error,
                };
                let fault = WatchFault::of(&error);
                let why = fault.to_string();
                readiness.because(self.list(), &why);
                if why != said {
                    tracing::warn!(error = why, "{} does not come; trying again", self.list());
                    said = why;
                }
                if fault.is_refusal() || fault.is_unknown() {
                    readiness.wait_no_longer(self.list());
                    break;
                }
            }
            tokio::time::sleep(REFUSED).await;
        }
    }
}

/// Ends the wait for lists that do not come.
pub(crate) async fn bound(readiness: &Readiness) {
    tokio::time::sleep(PATIENCE).await;
    Watched::ALL
        .into_iter()
        .for_each(|watched| readiness.wait_no_longer(watched.list()));
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;
    use futures::stream;

    /// What `/readyz` says `after` this time, where the API server answers so to each try, one a second.
    async fn said_of(
        answer: fn() -> Result<Event<()>, watcher::Error>,
        after: Duration,
    ) -> (u16, String) {
        let readiness = Readiness::default();
        readiness.wait_for(Watched::Namespaces.list());
        let tries = || {
            stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((answer(), ()))
            })
        };
        tokio::select! {
            () = Watched::Namespaces.follow(tries, &readiness, drop) => panic!("a watch ended"),
            () = async { tokio::join!(bound(&readiness), std::future::pending::<()>()); } => panic!("the wait ended"),
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
    async fn a_list_that_fails_is_waited_for_within_bounds_and_one_that_is_refused_is_not() {
        let (early, late) = (Duration::from_secs(2), PATIENCE + Duration::from_secs(2));
        let failing = || Err(refuses(503));
        let (status, text) = said_of(failing, early).await;
        assert!(
            status == 503
                && text.starts_with("waiting for the list of namespaces (")
                && text.contains("answered 503"),
            "{status} {text}"
        );
        let (status, text) = said_of(failing, late).await;
        assert!(
            status == 200
                && text.contains("without the list of namespaces (")
                && text.contains("answered 503"),
            "{status} {text}"
        );
        let (status, text) = said_of(|| Err(refuses(403)), early).await;
        assert!(
            status == 200
                && text.contains("without the list of namespaces (")
                && text.contains("answered 403"),
            "{status} {text}"
        );
        assert_eq!(
            said_of(|| Ok(Event::InitDone), early).await,
            (200, "ok\n".to_owned())
        );
    }
}
