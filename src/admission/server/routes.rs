//! The HTTP routes: one path per webhook, all with the same limits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::admission::metrics::Metrics;
use crate::admission::options::ServerLimits;
use crate::admission::review::budget::Budget;
use crate::admission::review::request::{self, MAX_VALUES, Request};
use crate::admission::review::response::{self, Verdict};
use crate::admission::server::body::{BodyError, BodyReader};
use crate::admission::server::reviewer::Reviewer;
use affix_registry::oci::value_bound;

/// The state of all requests.
struct RouteState {
    reviewer: Arc<Reviewer>,
    bodies: BodyReader,
    permits: Semaphore,
    queue_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// The webhooks of affix.
#[derive(Debug, Clone, Copy)]
enum Webhook {
    ValidateImageAttachment,
    ValidatePods,
    ValidateNamespace,
    MutatePods,
}

impl Webhook {
    const ALL: [Self; 4] = [
        Self::ValidateImageAttachment,
        Self::ValidatePods,
        Self::ValidateNamespace,
        Self::MutatePods,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::ValidateImageAttachment => "/validate-imageattachment",
            Self::ValidatePods => "/validate-pods",
            Self::ValidateNamespace => "/validate-namespace",
            Self::MutatePods => "/mutate-pods",
        }
    }

    fn name(self) -> &'static str {
        self.path().trim_start_matches('/')
    }
}

/// Returns the routes of the HTTPS address.
pub(crate) fn routes(
    reviewer: Arc<Reviewer>,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
) -> Router {
    let (bodies, permits) = (BodyReader::new(limits), Semaphore::new(limits.concurrent));
    let state = Arc::new(RouteState {
        reviewer,
        bodies,
        permits,
        queue_timeout: limits.queue_timeout,
        metrics,
    });
    Webhook::ALL
        .into_iter()
        .fold(Router::new(), |router, webhook| {
            let handler = async move |State(state): State<Arc<RouteState>>,
                                      RawQuery(query): RawQuery,
                                      headers: HeaderMap,
                                      body: Body| {
                let budget = state.reviewer.budget(Instant::now(), query.as_deref());
                state.answer(webhook, budget, &headers, body).await
            };
            router.route(webhook.path(), post(handler))
        })
        .with_state(state)
}

impl RouteState {
    async fn answer(
        &self,
        webhook: Webhook,
        budget: Budget,
        headers: &HeaderMap,
        body: Body,
    ) -> Response {
        match self.review(webhook, budget, headers, body).await {
            Ok(answer) => answer,
            Err(error) => {
                self.metrics.rejected(error.cause());
                error.answer().into_response()
            }
        }
    }

    async fn review(
        &self,
        webhook: Webhook,
        budget: Budget,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, BodyError> {
        let body = self.bodies.read(headers, body).await?;
        let began = Instant::now();
        if value_bound(&body.bytes) > MAX_VALUES {
            return Err(BodyError::TooManyValues(MAX_VALUES));
        }
        let _permit = timeout(self.queue_timeout, self.permits.acquire())
            .await
            .map_err(|_| BodyError::Overloaded)?;
        let request = match request::parse(&body.bytes) {
            Ok(request) => request,
            Err(error) => {
                self.metrics.rejected("malformed");
                return Ok(match error.answer() {
                    Ok(answer) => Json(answer).into_response(),
                    Err(message) => {
                        (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response()
                    }
                });
            }
        };
        let verdict = AssertUnwindSafe(self.dispatch(webhook, &request, budget))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                // A panic admits the object: a bug in affix must not block the cluster.
                self.metrics.panicked();
                tracing::error!(
                    webhook = webhook.name(),
                    uid = request.uid,
                    "review panicked"
                );
                Verdict {
                    warnings: vec![
                        "affix panicked on this object: please report this bug".to_owned(),
                    ],
                    ..Verdict::default()
                }
            });
        if !request.is_self_check() {
            self.metrics
                .record_review(webhook.name(), verdict.name(), began.elapsed());
        }
        Ok(Json(response::answer(&request.uid, verdict)).into_response())
    }

    async fn dispatch(&self, webhook: Webhook, request: &Request<'_>, budget: Budget) -> Verdict {
        match webhook {
            Webhook::ValidateImageAttachment => {
                self.reviewer.image_attachment(request, budget).await
            }
            Webhook::ValidatePods => self.reviewer.pods(request, budget).await,
            Webhook::ValidateNamespace => self.reviewer.namespace(request, budget).await,
            Webhook::MutatePods => self.reviewer.mutate_pods(request, budget).await,
        }
    }
}
