//! Requests to the API server, with the metric names of client-go. A layer of the client counts them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

use super::registration::{Labels, register};

/// Counters of requests to the API server.
#[derive(Debug)]
pub(crate) struct ApiServerRequests(Family<Labels<2, String>, Counter>);

impl ApiServerRequests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self(register(
            registry,
            "rest_client_requests",
            "Requests to the API server, by method and status code",
            Family::default(),
        ))
    }
}

/// The client layer that counts requests.
#[derive(Debug, Clone)]
pub(crate) struct CountRequests(pub(crate) Arc<ApiServerRequests>);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            counts: Arc::clone(&self.0),
        }
    }
}

/// A client that counts its requests.
#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    counts: Arc<ApiServerRequests>,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let method = request.method().as_str().to_owned();
        let counts = Arc::clone(&self.counts);
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            let code = response.as_ref().map_or_else(
                |_| "<error>".to_owned(),
                |response| response.status().as_u16().to_string(),
            );
            let labels = [("method", method), ("code", code)];
            counts.0.get_or_create(&labels).inc();
            response
        })
    }
}
