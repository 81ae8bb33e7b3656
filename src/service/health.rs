//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::ListenAddress;

/// What the operator still waits for; ready when there is nothing.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// What, and why it has not come yet; empty: nobody knows.
    waiting: Mutex<BTreeMap<String, String>>,
    remark: Mutex<String>,
}

impl Readiness {
    /// Adds something to wait for.
    pub(crate) fn wait_for(&self, what: impl Into<String>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(what.into()).or_default();
    }

    /// Says why what is waited for has not come yet.
    pub(crate) fn because(&self, what: &str, why: &str) {
        if let Some(reason) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get_mut(what) {
            why.clone_into(reason);
        }
    }

    /// It has come.
    pub(crate) fn done(&self, what: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What is to be said beside: a replica that stands by is ready, and nothing is wrong with it. Empty: nothing.
    pub(crate) fn remark(&self, text: &str) {
        text.clone_into(&mut self.remark.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn answer(&self) -> (StatusCode, String) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let remark = self.remark.lock().unwrap_or_else(PoisonError::into_inner);
        let remark = if remark.is_empty() { String::new() } else { format!("{remark}\n") };
        if waiting.is_empty() {
            return (StatusCode::OK, format!("ok\n{remark}"));
        }
        let list: Vec<String> =
            waiting.iter().map(|(what, why)| if why.is_empty() { what.clone() } else { format!("{what} ({why})") }).collect();
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n{remark}", list.join(", ")))
    }
}

/// The routes of the health address.
pub(super) fn health_routes(readiness: Arc<Readiness>) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(|| async move { readiness.answer() }))
}

/// The routes of the metrics address.
pub(super) fn metrics_routes(encode: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let answer = || async move {
        let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
        (kind, encode()).into_response()
    };
    Router::new().route("/metrics", get(answer))
}

/// Listens, and serves in the background until `shutdown`.
///
/// # Errors
/// When the address is taken or not this machine's.
pub(super) fn serve(what: &'static str, address: ListenAddress, routes: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let listener = address.listen()?;
    tracing::info!(address = %listener.local_addr()?, "serving {what}");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await {
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
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for the leader's lease, the list of imageattachments\n")
        );
        readiness.because("the list of imageattachments", "403 Forbidden");
        readiness.because("what nobody waits for", "unknown");
        assert_eq!(readiness.answer().1, "waiting for the leader's lease, the list of imageattachments (403 Forbidden)\n");
        readiness.done("the leader's lease");
        readiness.done("the list of imageattachments");
        assert_eq!(readiness.answer(), (StatusCode::OK, "ok\n".to_owned()));
        readiness.remark("standing by: b has the lease affix");
        assert_eq!(readiness.answer(), (StatusCode::OK, "ok\nstanding by: b has the lease affix\n".to_owned()));
    }
}
