//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::ListenAddress;

/// The conditions that the process waits for. It is ready if there are none.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    pending: Mutex<BTreeMap<String, Pending>>,
    note: Mutex<String>,
}

/// A condition that is not met yet.
#[derive(Debug, Default)]
struct Pending {
    /// The reason, or an empty text if it is unknown.
    reason: String,
    /// True if the process is ready without it.
    is_optional: bool,
}

impl Readiness {
    /// Adds a condition.
    pub(crate) fn wait_for(&self, condition: impl Into<String>) {
        self.pending().entry(condition.into()).or_default();
    }

    /// Sets the reason why a condition is not met.
    pub(crate) fn because(&self, condition: &str, reason: &str) {
        if let Some(pending) = self.pending().get_mut(condition) {
            reason.clone_into(&mut pending.reason);
        }
    }

    /// Makes a condition optional. `/readyz` still reports it until it is met.
    pub(crate) fn wait_no_longer(&self, condition: &str) {
        if let Some(pending) = self.pending().get_mut(condition) {
            pending.is_optional = true;
        }
    }

    /// Reports that a condition is met.
    pub(crate) fn done(&self, condition: &str) {
        self.pending().remove(condition);
    }

    /// Sets a note for `/readyz`, for example that a ready replica is not the leader. An empty text removes it.
    pub(crate) fn remark(&self, text: &str) {
        text.clone_into(&mut self.note.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer of `/readyz`: the status and the text.
    #[cfg(test)]
    pub(crate) fn says(&self) -> (u16, String) {
        let (status, text) = self.answer();
        (status.as_u16(), text)
    }

    fn answer(&self) -> (StatusCode, String) {
        let pending = self.pending();
        let with_reason = |(condition, Pending { reason, .. }): (&String, &Pending)| {
            if reason.is_empty() {
                condition.clone()
            } else {
                format!("{condition} ({reason})")
            }
        };
        let list = |is_optional: bool| {
            let listed: Vec<String> = pending
                .iter()
                .filter(|(_, pending)| pending.is_optional == is_optional)
                .map(with_reason)
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
        let optional = list(true).map(|optional| format!("going on without {optional}"));
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let note = (!note.is_empty()).then(|| note.clone());
        let lines = [Some(first), optional, note].into_iter().flatten();
        (status, lines.map(|line| line + "\n").collect())
    }
}

/// Returns the routes of the health address.
pub(super) fn health_routes(readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async move { readiness.answer() }))
}

/// Returns the routes of the metrics address.
pub(super) fn metrics_routes(
    encode: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    let answer = |headers: HeaderMap| async move {
        let accepts_open_metrics = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|accept| accept.to_str().ok())
            .any(|accept| accept.contains("application/openmetrics-text"));
        let (kind, text) = if accepts_open_metrics {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (kind, encode())
        } else {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            (kind, prometheus_text(&encode()))
        };
        ([(header::CONTENT_TYPE, kind)], text).into_response()
    };
    Router::new().route("/metrics", get(answer))
}

/// Converts the text format of OpenMetrics 1.0 to that of Prometheus (version 0.0.4): counters are described under the name of
/// their samples, an info metric is a gauge, and there is neither a unit nor an end mark.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), description) => {
                help = Some((name, description.unwrap_or_default()));
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, description)) = help.take_if(|(described, _)| *described == name) {
                    text += &format!("# HELP {name}{suffix} {description}\n");
                }
                text += &format!("# TYPE {name}{suffix} {kind}\n");
            }
            (Some("#"), ..) => {}
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

/// Starts a server in the background. It stops at `shutdown`.
///
/// # Errors
/// If it cannot listen on the address.
pub(super) fn serve(
    server: &'static str,
    address: ListenAddress,
    routes: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = address.listen()?;
    tracing::info!(address = %listener.local_addr()?, "serving {server}");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
        {
            tracing::error!(%error, "the server of {server} stopped");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readyz_lists_the_pending_conditions() {
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
        readiness.because("an unknown condition", "unknown");
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
    fn the_prometheus_text_format_describes_counters_by_the_name_of_their_samples() {
        let open_metrics = "# HELP affix_build Version.\n# TYPE affix_build info\naffix_build_info{version=\"1\"} 1\n\
            # HELP a_requests Requests, by code.\n# TYPE a_requests counter\na_requests_total{code=\"200\"} 7\n\
            # HELP b_seconds Duration.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 0.5\nb_seconds_count 1\n\
            b_seconds_bucket{le=\"+Inf\"} 1\n# HELP c State.\n# TYPE c gauge\nc 3\n# EOF\n";
        assert_eq!(
            prometheus_text(open_metrics),
            "# HELP affix_build_info Version.\n# TYPE affix_build_info gauge\naffix_build_info{version=\"1\"} 1\n\
             # HELP a_requests_total Requests, by code.\n# TYPE a_requests_total counter\na_requests_total{code=\"200\"} 7\n\
             # HELP b_seconds Duration.\n# TYPE b_seconds histogram\nb_seconds_sum 0.5\nb_seconds_count 1\n\
             b_seconds_bucket{le=\"+Inf\"} 1\n# HELP c State.\n# TYPE c gauge\nc 3\n"
        );
    }

    #[test]
    fn readyz_lists_optional_conditions_until_they_are_met() {
        let readiness = Readiness::default();
        readiness.wait_no_longer("an unknown condition");
        readiness.wait_for("the certificate");
        readiness.wait_for("the list of namespaces");
        readiness.because("the list of namespaces", "403 Forbidden");
        readiness.wait_no_longer("the list of namespaces");
        let optional = "going on without the list of namespaces (403 Forbidden)\n";
        assert_eq!(
            readiness.answer(),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for the certificate\n{optional}")
            )
        );
        readiness.done("the certificate");
        assert_eq!(
            readiness.answer(),
            (StatusCode::OK, format!("ok\n{optional}"))
        );
        readiness.done("the list of namespaces");
        assert_eq!(readiness.answer(), (StatusCode::OK, "ok\n".to_owned()));
    }
}
