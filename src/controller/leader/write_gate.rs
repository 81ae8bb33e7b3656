//! The client layer that rejects writes to the API server while another replica may be the leader.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use affix_registry::WriteGate;

/// The layer. The wrapped client must not retry by itself, since a retry would not pass the gate.
pub(crate) struct WriteGateLayer(pub(crate) WriteGate);

/// A client whose writes pass the gate.
pub(crate) struct GatedClient<S> {
    inner: S,
    gate: WriteGate,
}

impl<S> Layer<S> for WriteGateLayer {
    type Service = GatedClient<S>;

    fn layer(&self, inner: S) -> GatedClient<S> {
        GatedClient {
            inner,
            gate: self.0.clone(),
        }
    }
}

impl<S, B> Service<Request<Body>> for GatedClient<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_read = request.method().is_safe();
        let response = self.inner.call(request);
        if is_read {
            return response.boxed();
        }
        let gate = self.gate.clone();
        async move { gate.write(response).await? }.boxed()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use tower::service_fn;

    #[tokio::test]
    async fn a_closed_gate_passes_reads_and_rejects_writes() {
        let gate = WriteGate::default();
        let server = service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(Body::empty()))
        });
        let mut client = WriteGateLayer(gate.clone()).layer(server);
        let mut is_answered = async |method: &str| {
            let request = Request::builder()
                .method(method)
                .body(Body::empty())
                .unwrap();
            client.call(request).await.is_ok()
        };
        assert!(is_answered("PATCH").await);
        gate.close();
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(!is_answered(method).await, "{method}");
        }
        assert!(is_answered("GET").await);
    }
}
