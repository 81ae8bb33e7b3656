//! The start of the controller and the webhook: the configuration of the cluster, the signals, then health probes and metrics. Probes are
//! served before the process waits for anything else.

mod proxy;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::health::{Readiness, health_routes, metrics_routes, serve};
use super::kubeconfig;
use super::listen::ListenAddress;
use super::signals::stop_on_signal;

/// The addresses of health probes and metrics, over plain HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// The address of `/metrics`, or `None` if it is disabled.
    pub metrics: Option<ListenAddress>,
    /// The address of `/healthz` and `/readyz`, or `None` if they are disabled.
    pub health: Option<ListenAddress>,
}

/// The reason why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no configuration of a cluster, or it is malformed.
    #[error("cannot read the configuration of the cluster: {0}")]
    Config(String),
    /// The client cannot be built.
    #[error("cannot create the client of the cluster: {0}")]
    Client(#[from] kube::Error),
    /// A server cannot listen on its address.
    #[error(
        "cannot serve {what} at {address}: {source}: stop the other process, or set another address"
    )]
    Listen {
        /// The server.
        what: &'static str,
        /// The address of the flag.
        address: ListenAddress,
        /// The cause.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signal(std::io::Error),
    /// The keys of `--lifecycle-trust` cannot be used.
    #[error("{0}")]
    LifecycleTrust(String),
    /// The webhook did not refuse the request of its self-check.
    #[error("{0}")]
    SelfCheck(String),
}

/// The read timeout of the API server. It ends a watch earlier, and answers other requests within a minute. Without a timeout, a connection
/// that the network dropped silently would block until the kernel gives up.
const READ_TIMEOUT: Duration = Duration::from_secs(330);

/// Returns the configuration of the cluster, and the token that a signal cancels.
///
/// # Errors
/// If there is no configuration, or if signals cannot be received.
pub(crate) async fn begin() -> Result<(kube::Config, CancellationToken), StartError> {
    let config = cluster_config().await?;
    let stop = stop_on_signal().map_err(StartError::Signal)?;
    Ok((config, stop))
}

/// Returns the configuration of the cluster: that of the kubeconfig or of the pod, with the proxy of the environment.
///
/// # Errors
/// If there is no configuration, or if its proxy is malformed.
pub(crate) async fn cluster_config() -> Result<kube::Config, StartError> {
    let mut config = kubeconfig::infer().await.map_err(StartError::Config)?;
    config.proxy_url = proxy::of_kubeconfig()
        .or_else(|| proxy::of_environment(&config.cluster_url, |name| std::env::var(name).ok()))
        .map(|url| proxy::parse(&url))
        .transpose()
        .map_err(StartError::Config)?;
    set_read_timeout(&mut config, READ_TIMEOUT);
    Ok(config)
}

/// Sets the read timeout. It counts from the last request, not from the last use of the connection.
fn set_read_timeout(config: &mut kube::Config, timeout: Duration) {
    config.read_timeout = Some(timeout);
    config.reset_reader_on_write = true;
}

/// Returns host and port of the API server. Registry clients must never connect to it.
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

/// The servers of health probes and metrics. They stop when this is dropped, so that they also answer during the shutdown.
#[derive(Debug)]
pub(crate) struct Probes {
    pub(crate) readiness: Arc<Readiness>,
    _serving: DropGuard,
}

impl Probes {
    /// Starts the servers. The process is not ready before all of `awaited` is done.
    ///
    /// # Errors
    /// If a server cannot listen on its address.
    pub(crate) fn serve(
        addresses: Addresses,
        awaited: impl IntoIterator<Item = String>,
        encode: impl Fn() -> String + Clone + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let readiness = Arc::new(Readiness::default());
        awaited
            .into_iter()
            .for_each(|condition| readiness.wait_for(condition));
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
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::api::{Api, ListParams, WatchParams};
    use kube::{Client, Config};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn requests_to_a_silent_api_server_time_out() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(
            format!("http://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
        );
        set_read_timeout(&mut config, Duration::from_millis(200));
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
