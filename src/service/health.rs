//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::ListenAddress;

/// What the process still waits for; ready when there is nothing.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    absent: Mutex<BTreeMap<String, Absent>>,
    remark: Mutex<String>,
}

/// What has not come yet.
#[derive(Debug, Default)]
struct Absent {
    /// Why; empty: nobody knows.
    why: String,
    /// Nothing waits for it any more.
    is_done_without: bool,
}

impl Readiness {
    /// Adds something to wait for.
    pub(crate) fn wait_for(&self, what: impl Into<String>) {
        self.absent().entry(what.into()).or_default();
    }

    /// Says why what is waited for has not come yet.
    pub(crate) fn because(&self, what: &str, why: &str) {
        if let Some(absent) = self.absent().get_mut(what) {
            why.clone_into(&mut absent.why);
        }
    }

    /// Goes on without it, and says so for as long as it has not come.
    pub(crate) fn wait_no_longer(&self, what: &str) {
        if let Some(absent) = self.absent().get_mut(what) {
            absent.is_done_without = true;
        }
    }

    /// It has come.
    pub(crate) fn done(&self, what: &str) {
        self.absent().remove(what);
    }

    /// What is to be said beside: a replica that stands by is ready, and nothing is wrong with it. Empty: nothing.
    pub(crate) fn remark(&self, text: &str) {
        text.clone_into(&mut self.remark.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn absent(&self) -> MutexGuard<'_, BTreeMap<String, Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `/readyz` answers: the status, and the text.
    #[cfg(test)]
    pub(crate) fn says(&self) -> (u16, String) {
        let (status, text) = self.answer();
        (status.as_u16(), text)
    }

    fn answer(&self) -> (StatusCode, String) {
        let absent = self.absent();
        let named = |(what, Absent { why, .. }): (&String, &Absent)| {
            if why.is_empty() {
                what.clone()
            } else {
                format!("{what} ({why})")
            }
        };
        let list = |without: bool| {
            let listed: Vec<String> = absent
                .iter()
                .filter(|(_, absent)| absent.is_done_without == without)
                .map(named)
                .collect();
            (!listed.is_empty()).then(|| listed.join(", "))
        };
        let (status, first) = match list(false) {
            Some(awaited) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for {awaited}"),
            ),
            None => (StatusCode::OK, "ok".to_owned()),
        };
        let without = list(true).map(|without| format!("going on without {without}"));
        let remark = self.remark.lock().unwrap_or_else(PoisonError::into_inner);
        let remark = (!remark.is_empty()).then(|| remark.clone());
        let lines = [Some(first), without, remark].into_iter().flatten();
        (status, lines.map(|line| line + "\n").collect())
    }
}

/// The routes of the health address.
pub(super) fn health_routes(readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async move { readiness.answer() }))
}

/// The routes of the metrics address.
pub(super) fn metrics_routes(
    encode: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    let answer = || async move {
        let kind = [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )];
        (kind, encode()).into_response()
    };
    Router::new().route("/metrics", get(answer))
}

/// Listens, and serves in the background until `shutdown`.
///
/// # Errors
/// When the address is taken or not this machine's.
pub(super) fn serve(
    what: &'static str,
    address: ListenAddress,
    routes: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = address.listen()?;
    tracing::info!(address = %listener.local_addr()?, "serving {what}");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
        {
            tracing::error!(%error, "serving {what} ended");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readyz_says_what_it_waits_for() {
        let readiness = Readiness::default();
        readiness.wait_for("the list of imageattachments");
        readiness.wait_for("the leader's lease");
        let (status, text) = readiness.answer();
        assert_eq!(
            (status, text.as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "waiting for the leader's lease, the list of imageattachments\n"
            )
        );
        readiness.because("the list of imageattachments", "403 Forbidden");
        readiness.because("what nobody waits for", "unknown");
        assert_eq!(
            readiness.answer().1,
            "waiting for the leader's lease, the list of imageattachments (403 Forbidden)\n"
        );
        readiness.done("the leader's lease");
        readiness.done("the list of imageattachments");
        assert_eq!(readiness.answer(), (StatusCode::OK, "ok\n".to_owned()));
        readiness.remark("standing by: b has the lease affix");
        assert_eq!(
            readiness.answer(),
            (
                StatusCode::OK,
                "ok\nstanding by: b has the lease affix\n".to_owned()
            )
        );
    }

    #[test]
    fn readyz_says_what_it_goes_on_without_until_that_comes() {
        let readiness = Readiness::default();
        readiness.wait_no_longer("what nobody waits for");
        readiness.wait_for("the certificate");
        readiness.wait_for("the list of namespaces");
        readiness.because("the list of namespaces", "403 Forbidden");
        readiness.wait_no_longer("the list of namespaces");
        let without = "going on without the list of namespaces (403 Forbidden)\n";
        assert_eq!(
            readiness.answer(),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for the certificate\n{without}")
            )
        );
        readiness.done("the certificate");
        assert_eq!(
            readiness.answer(),
            (StatusCode::OK, format!("ok\n{without}"))
        );
        readiness.done("the list of namespaces");
        assert_eq!(readiness.answer(), (StatusCode::OK, "ok\n".to_owned()));
    }
}
