//! The one way of all writes to the API server: none leaves while another replica may be the leader.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use affix_registry::WriteGate;

/// The layer of the client: what it wraps must not try again by itself.
pub(crate) struct Fence(pub(crate) WriteGate);

/// A client whose writes pass the gate.
pub(crate) struct Fenced<S> {
    inner: S,
    gate: WriteGate,
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            gate: self.0.clone(),
        }
    }
}

impl<S, B> Service<Request<Body>> for Fenced<S>
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
        let is_safe = request.method().is_safe();
        let answer = self.inner.call(request);
        if is_safe {
            return answer.boxed();
        }
        let gate = self.gate.clone();
        async move { gate.write(answer).await? }.boxed()
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
    async fn a_closed_gate_lets_reads_pass_and_no_write() {
        let gate = WriteGate::default();
        let server = service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(Body::empty()))
        });
        let mut fenced = Fence(gate.clone()).layer(server);
        let mut answered = async |method: &str| {
            let request = Request::builder()
                .method(method)
                .body(Body::empty())
                .unwrap();
            fenced.call(request).await.is_ok()
        };
        assert!(answered("PATCH").await);
        gate.close();
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(!answered(method).await, "{method}");
        }
        assert!(answered("GET").await);
    }
}
