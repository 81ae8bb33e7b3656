//! The routes: one path a webhook, each with the same limits around its own verdict.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::admission::metrics::Metrics;
use crate::admission::options::ServerLimits;
use crate::admission::review::request::{self, MOST_VALUES, Request};
use crate::admission::review::response::{self, Verdict};
use crate::admission::server::body::{Bodies, Unread};
use crate::admission::server::reviewer::Reviewer;
use affix_registry::oci::most_values;

/// What all requests share.
struct Shared {
    reviewer: Arc<Reviewer>,
    bodies: Bodies,
    turns: Semaphore,
    turn: Duration,
    metrics: Arc<Metrics>,
}

/// One of the webhooks.
#[derive(Debug, Clone, Copy)]
enum Webhook {
    ValidateImageAttachment,
    ValidatePods,
    MutatePods,
}

impl Webhook {
    const ALL: [Self; 3] = [
        Self::ValidateImageAttachment,
        Self::ValidatePods,
        Self::MutatePods,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::ValidateImageAttachment => "/validate-imageattachment",
            Self::ValidatePods => "/validate-pods",
            Self::MutatePods => "/mutate-pods",
        }
    }

    fn name(self) -> &'static str {
        self.path().trim_start_matches('/')
    }
}

/// The routes of the TLS address.
pub(crate) fn routes(
    reviewer: Arc<Reviewer>,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
) -> Router {
    let (bodies, turns) = (Bodies::new(limits), Semaphore::new(limits.concurrent));
    let shared = Arc::new(Shared {
        reviewer,
        bodies,
        turns,
        turn: limits.turn,
        metrics,
    });
    Webhook::ALL
        .into_iter()
        .fold(Router::new(), |router, webhook| {
            let handler =
                async move |State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body| {
                    shared.answer(webhook, &headers, body).await
                };
            router.route(webhook.path(), post(handler))
        })
        .with_state(shared)
}

impl Shared {
    async fn answer(&self, webhook: Webhook, headers: &HeaderMap, body: Body) -> Response {
        match self.review(webhook, headers, body).await {
            Ok(answer) => answer,
            Err(unread) => {
                self.metrics.turned_away(unread.cause());
                unread.answer().into_response()
            }
        }
    }

    async fn review(
        &self,
        webhook: Webhook,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Unread> {
        let read = self.bodies.read(headers, body).await?;
        let began = Instant::now();
        if most_values(&read.bytes) > MOST_VALUES {
            return Err(Unread::TooComplex(MOST_VALUES));
        }
        let _turn = timeout(self.turn, self.turns.acquire())
            .await
            .map_err(|_| Unread::Overloaded)?;
        let request = match request::parse(&read.bytes) {
            Ok(request) => request,
            Err(unreadable) => {
                self.metrics.turned_away("malformed");
                return Ok(match unreadable.answer() {
                    Ok(answer) => Json(answer).into_response(),
                    Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
                });
            }
        };
        let verdict = AssertUnwindSafe(self.judge(webhook, &request, began))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                // Neither one odd object nor a bug of ours may keep people from their cluster.
                self.metrics.panicked();
                tracing::error!(
                    webhook = webhook.name(),
                    uid = request.uid,
                    "a review panicked"
                );
                Verdict {
                    warnings: vec![
                        "affix failed on this object, which is a bug of affix: please report it"
                            .to_owned(),
                    ],
                    ..Verdict::default()
                }
            });
        self.metrics
            .reviewed(webhook.name(), verdict.name(), began.elapsed());
        Ok(Json(response::answer(&request.uid, verdict)).into_response())
    }

    async fn judge(&self, webhook: Webhook, request: &Request<'_>, began: Instant) -> Verdict {
        match webhook {
            Webhook::ValidateImageAttachment => {
                self.reviewer.image_attachment(request, began).await
            }
            Webhook::ValidatePods => self.reviewer.pods(request, began).await,
            Webhook::MutatePods => self.reviewer.mutate_pods(request, began).await,
        }
    }
}
