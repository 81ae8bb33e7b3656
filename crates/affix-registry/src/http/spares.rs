//! Connections that are opened before they are asked for.
//!
//! Over HTTP/1.1 a wave of requests needs a connection each, and a new one costs a round trip, or three with TLS. Whoever knows that
//! a wave comes says so with [`Connector::open_ahead`], and the connections are made while the registry still thinks about what was asked
//! before. What stands or is being made counts, so that saying it again opens nothing more. Nothing is opened ahead to a
//! registry to which no connection stands: one that is down is not asked more often for it, and the first one shows whether the
//! registry speaks HTTP/2, which needs no second. What nobody takes is closed after a few seconds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use crate::http::dial::{BoxError, Dialer, Wire};

/// How long a connection waits to be taken.
const KEPT: Duration = Duration::from_secs(3);

/// Makes connections for the HTTP client's pool, which takes what was opened ahead first. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    dialer: Dialer,
    ahead: Arc<Ahead>,
}

/// What is opened ahead to the registry itself.
struct Ahead {
    origin: Uri,
    /// Connections at once, at most.
    most: usize,
    /// Connections that stand, used or not, and those that are being made.
    live: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections that are wanted in all, and not yet being made.
    wanted: usize,
    /// Whether the registry was seen to serve one request at a time on a connection.
    one_each: bool,
    spares: VecDeque<Spare>,
}

struct Spare {
    since: Instant,
    dial: AbortOnDropHandle<Result<Wire, BoxError>>,
}

/// Counts a connection for as long as it lives.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connector {
    /// A connector that opens connections ahead to `origin` only, and never has more than `most` there by itself.
    pub(crate) fn new(dialer: Dialer, origin: Uri, most: usize) -> Self {
        Self {
            dialer,
            ahead: Arc::new(Ahead {
                origin,
                most,
                live: Arc::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// Sees to it that `wanted` connections stand soon, those that stand already included.
    pub(crate) fn open_ahead(&self, wanted: usize) {
        let mut state = self.ahead.state();
        state.wanted = wanted.min(self.ahead.most);
        if state.one_each && self.ahead.live.load(Ordering::Relaxed) > 0 {
            self.fill(&mut state);
        }
    }

    /// A connection was made, and has shown what the registry speaks.
    fn learn(&self, wire: &Wire) {
        let mut state = self.ahead.state();
        state.one_each = !wire.is_shared();
        if state.one_each {
            self.fill(&mut state);
        } else {
            *state = State::default();
        }
    }

    fn fill(&self, state: &mut State) {
        let missing = std::mem::take(&mut state.wanted)
            .saturating_sub(self.ahead.live.load(Ordering::Relaxed));
        if missing == 0 {
            return;
        }
        let since = Instant::now();
        state.spares.extend((0..missing).map(|_| {
            let dial = self.dialer.clone().dial(
                self.ahead.origin.clone(),
                Some(Counted::new(&self.ahead.live)),
            );
            Spare {
                since,
                dial: AbortOnDropHandle::new(tokio::spawn(dial)),
            }
        }));
        let ahead = Arc::downgrade(&self.ahead);
        tokio::spawn(async move {
            sleep(KEPT).await;
            if let Some(ahead) = ahead.upgrade() {
                ahead.state().spares.retain(|spare| spare.since > since);
            }
        });
    }
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that stands, else one that is being made.
    fn take(&self) -> Option<Spare> {
        let spares = &mut self.state().spares;
        let at = spares
            .iter()
            .position(|spare| spare.dial.is_finished())
            .unwrap_or_default();
        spares.remove(at)
    }
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let origin = &this.ahead.origin;
            if (uri.scheme(), uri.authority()) != (origin.scheme(), origin.authority()) {
                return this.dialer.dial(uri, None).await;
            }
            while let Some(spare) = this.ahead.take() {
                if let Ok(Ok(wire)) = spare.dial.await
                    && wire.is_usable()
                {
                    return Ok(wire);
                }
            }
            let wire = this
                .dialer
                .clone()
                .dial(uri, Some(Counted::new(&this.ahead.live)))
                .await?;
            this.learn(&wire);
            Ok(wire)
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::io::ErrorKind;

    use http::HeaderValue;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::access::address_policy::AddressPolicy;
    use crate::client::options::{Options, TlsOptions};
    use crate::http::tls::TlsConfigs;

    /// A registry that only takes connections.
    struct Door {
        listener: TcpListener,
        connector: Connector,
        uri: Uri,
    }

    impl Door {
        async fn open(most: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
                .parse()
                .unwrap();
            let policy = Arc::new(AddressPolicy {
                allow_loopback: true,
                ..AddressPolicy::default()
            });
            let (tls, options) = (
                TlsConfigs::new(&TlsOptions::default()).unwrap().own,
                &Options::default(),
            );
            let dialer = Dialer::new(
                &policy,
                tls,
                None,
                &HeaderValue::from_static("test"),
                options,
            );
            Self {
                listener,
                connector: Connector::new(dialer, uri.clone(), most),
                uri,
            }
        }

        async fn dial(&self) -> Wire {
            self.connector.clone().call(self.uri.clone()).await.unwrap()
        }

        /// Takes so many connections, for which it waits, and whatever comes a moment later.
        async fn takes(&self, many: usize) -> Vec<TcpStream> {
            let mut taken = Vec::new();
            let patience = |taken: usize| {
                if taken < many {
                    Duration::from_mins(1)
                } else {
                    Duration::from_millis(100)
                }
            };
            while let Ok(stream) = timeout(patience(taken.len()), self.listener.accept()).await {
                taken.push(stream.unwrap().0);
            }
            taken
        }
    }

    /// Whether the other side has closed it.
    fn is_closed(stream: &TcpStream) -> bool {
        !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn nothing_is_opened_ahead_before_a_connection_stands_and_then_as_many_as_are_wanted() {
        let door = Door::open(32).await;
        door.connector.open_ahead(4);
        assert_eq!(door.takes(0).await.len(), 0);
        let first = door.dial().await;
        assert_eq!(door.takes(4).await.len(), 4, "the first and three ahead");
        let others = [door.dial().await, door.dial().await, door.dial().await];
        assert_eq!(
            door.takes(0).await.len(),
            0,
            "those that were opened ahead are used"
        );
        drop((first, others));
    }

    #[tokio::test]
    async fn what_stands_counts_so_that_saying_it_again_opens_nothing_more_and_never_above_the_cap()
    {
        let door = Door::open(5).await;
        let first = door.dial().await;
        for wanted in [3, 3, 2, 1] {
            door.connector.open_ahead(wanted);
        }
        assert_eq!(door.takes(3).await.len(), 3);
        door.connector.open_ahead(100);
        assert_eq!(door.takes(2).await.len(), 2, "five are the cap");
        drop(first);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_closed_after_a_few_seconds() {
        let door = Door::open(32).await;
        let first = door.dial().await;
        door.connector.open_ahead(3);
        let taken = door.takes(3).await;
        assert_eq!(taken.iter().filter(|stream| is_closed(stream)).count(), 0);
        tokio::time::pause();
        tokio::time::advance(KEPT * 2).await;
        tokio::time::resume();
        let closed = || taken.iter().filter(|stream| is_closed(stream)).count();
        let all = async {
            while closed() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_mins(1), all).await.unwrap();
        assert_eq!(closed(), 2);
        assert_eq!(
            door.connector.ahead.live.load(Ordering::Relaxed),
            1,
            "only the one in use counts"
        );
        drop(first);
    }

    #[tokio::test]
    async fn one_that_the_registry_has_closed_meanwhile_is_not_used() {
        let door = Door::open(32).await;
        let first = door.dial().await;
        door.connector.open_ahead(3);
        let taken = door.takes(3).await;
        assert_eq!(taken.len(), 3);
        drop(taken);
        sleep(Duration::from_millis(100)).await;
        let second = door.dial().await;
        assert_eq!(door.takes(1).await.len(), 1, "a new one was made");
        assert!(second.is_usable());
        drop((first, second));
    }
}
