//! A webhook in this process, called directly instead of through an API server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use affix::admission::{
    self, CertificateSource, Configurations, DefaultMode, Lookups, Options, ServerLimits,
    UncheckedPolicy,
};
use affix::service::Addresses;
use affix_testbed::certificates::Authority;
use affix_testbed::{http_client, port};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::namespace::wait_for;

/// A running webhook. Dropping it stops it.
pub(crate) struct Direct {
    pub(crate) address: SocketAddr,
    authority: Authority,
    stop: CancellationToken,
    _stop: DropGuard,
    _dir: TempDir,
}

/// Returns the default look-up options of the tests.
pub(crate) fn lookups() -> Lookups {
    Lookups {
        lifecycle_types: vec![
            "application/vnd.microsoft.artifact.lifecycle"
                .parse()
                .unwrap(),
        ],
        lifecycle_trust: Vec::new(),
        warn_before: Duration::from_hours(720),
        enforce_after: Duration::ZERO,
        watch_namespaces: Vec::new(),
        trusted_namespaces: Vec::new(),
        cache_ttl: Duration::from_mins(5),
        timeout: Duration::from_secs(1),
        insecure_registries: Vec::new(),
        unchecked: UncheckedPolicy::Warn,
        default_mode: DefaultMode::Off,
        exempt_images: Vec::new(),
        image_pull_secrets: Vec::new(),
        own_namespace: None,
        identity: None,
    }
}

impl Direct {
    /// Starts a webhook without a reachable API server.
    pub(crate) async fn start(limits: ServerLimits, lookups: Lookups) -> Self {
        Self::start_beside(
            &format!("http://127.0.0.1:{}", port::free().unwrap()),
            limits,
            lookups,
        )
        .await
    }

    /// Starts a webhook with an API server.
    pub(crate) async fn start_beside(
        api_server: &str,
        limits: ServerLimits,
        lookups: Lookups,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        authority.server(dir.path()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port::free().unwrap()));
        let stop = CancellationToken::new();
        let options = Options {
            listen_addr: address.to_string().parse().unwrap(),
            addresses: Addresses::default(),
            shutdown_delay: Duration::ZERO,
            certificate: CertificateSource::Provided(dir.path().to_owned()),
            client_ca: None,
            configurations: Configurations::default(),
            limits,
            lookups,
            reports: None,
            registries: affix_registry::Options {
                allow_loopback: true,
                ..affix_registry::Options::default()
            },
        };
        let client = Client::try_from(kube::Config::new(api_server.parse().unwrap())).unwrap();
        let serving = admission::serve(options, client, Arc::new(Timestamp::now), stop.clone());
        tokio::spawn(async move { serving.await.unwrap() });
        let direct = Self {
            address,
            authority,
            stop: stop.clone(),
            _stop: stop.drop_guard(),
            _dir: dir,
        };
        let client = direct.client();
        wait_for("the webhook", async || {
            client.get(direct.url("validate-pods")).send().await.is_ok()
        })
        .await;
        direct
    }

    /// Returns a client with a single HTTP/2 connection, like an API server.
    pub(crate) fn client(&self) -> reqwest::Client {
        http_client::multiplexing(self.authority.pem()).unwrap()
    }

    /// Opens a connection for HTTP/1.1, without a request.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.authority.pem().as_bytes();
        roots
            .add(CertificateDer::from_pem_slice(pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap()
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }
}

/// Returns a review of an object.
pub(crate) fn review(kind: &str, object: &Value) -> String {
    review_in("team-a", kind, object)
}

/// Returns a review of an object in a namespace.
pub(crate) fn review_in(namespace: &str, kind: &str, object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid", "kind": {"group": "", "version": "v1", "kind": kind}, "resource": {"group": "", "version": "v1", "resource": "x"},
            "name": "x", "namespace": namespace, "operation": "CREATE", "userInfo": {}, "object": object
        }
    })
    .to_string()
}
