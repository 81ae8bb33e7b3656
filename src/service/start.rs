//! What every long-running part begins with, in one order: the cluster's configuration, the signals, then health and metrics, so
//! that a probe is answered before anything else is waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::health::{Readiness, health_routes, metrics_routes, serve};
use super::listen::ListenAddress;
use super::signals::stop_on_signal;

/// The plain HTTP addresses, which only the kubelet and a monitoring system ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// Address of `/metrics`; `None`: not served.
    pub metrics: Option<ListenAddress>,
    /// Address of `/healthz` and `/readyz`; `None`: not served.
    pub health: Option<ListenAddress>,
}

/// Why a long-running part could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No kubeconfig and not in a cluster, or a broken one.
    #[error("the cluster's configuration cannot be read: {0}")]
    Config(String),
    /// The client could not be built.
    #[error("the cluster's client cannot be made: {0}")]
    Client(#[from] kube::Error),
    /// An address cannot be listened on.
    #[error("{what} cannot be served at {address}: {source}")]
    Listen {
        /// Which server.
        what: &'static str,
        /// The address as it was given.
        address: ListenAddress,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signal(std::io::Error),
}

/// How long the API server may be silent on a connection that something is asked on: it ends a watch before that, and answers all else
/// within a minute. Without a bound a connection that a network has dropped unsaid would be listened to until the kernel gives it up.
const SILENCE: Duration = Duration::from_secs(330);

/// The cluster of the kubeconfig, or the one that this process runs in, and what ends the process.
///
/// # Errors
/// When there is no configuration, or no signals.
pub(crate) async fn begin() -> Result<(kube::Config, CancellationToken), StartError> {
    let mut config = kube::Config::infer()
        .await
        .map_err(|error| StartError::Config(error.to_string()))?;
    bound(&mut config, SILENCE);
    let stop = stop_on_signal().map_err(StartError::Signal)?;
    Ok((config, stop))
}

/// Lets no read wait for longer than `silence`, counted from what was asked last: not from when its connection was used before.
fn bound(config: &mut kube::Config, silence: Duration) {
    config.read_timeout = Some(silence);
    config.reset_reader_on_write = true;
}

/// Host and port of the cluster's API server. It is reached with rights that no registry may come near.
pub(crate) fn api_server(config: &kube::Config) -> Option<(String, u16)> {
    let port = if config.cluster_url.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    Some((
        config.cluster_url.host()?.to_owned(),
        config.cluster_url.port_u16().unwrap_or(port),
    ))
}

/// Health and metrics, served until this is dropped: whoever asks hears of an orderly end too.
#[derive(Debug)]
pub(crate) struct Probes {
    pub(crate) readiness: Arc<Readiness>,
    _serving: DropGuard,
}

impl Probes {
    /// Serves them. Ready is what waits for nothing, `awaited` to begin with.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub(crate) fn serve(
        addresses: Addresses,
        awaited: impl IntoIterator<Item = String>,
        encode: impl Fn() -> String + Clone + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let readiness = Arc::new(Readiness::default());
        awaited
            .into_iter()
            .for_each(|what| readiness.wait_for(what));
        let ended = CancellationToken::new();
        let servers = [
            (
                "health",
                addresses.health,
                health_routes(Arc::clone(&readiness)),
            ),
            ("metrics", addresses.metrics, metrics_routes(encode)),
        ];
        for (what, address, routes) in servers {
            let Some(address) = address else { continue };
            serve(what, address, routes, ended.clone()).map_err(|source| StartError::Listen {
                what,
                address,
                source,
            })?;
        }
        Ok(Self {
            readiness,
            _serving: ended.drop_guard(),
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::api::{Api, ListParams, WatchParams};
    use kube::{Client, Config};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_api_server_that_takes_a_request_and_goes_silent_is_not_waited_for_for_ever() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(
            format!("http://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
        );
        bound(&mut config, Duration::from_millis(200));
        let api: Api<Namespace> = Api::all(Client::try_from(config).unwrap());
        let listed = timeout(Duration::from_mins(2), api.list(&ListParams::default()))
            .await
            .unwrap();
        assert!(listed.is_err(), "{listed:?}");
        let watched = timeout(
            Duration::from_mins(2),
            api.watch(&WatchParams::default(), "0"),
        )
        .await
        .unwrap();
        assert!(watched.is_err());
    }
}
