//! Two replicas of the webhook that share a certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use affix::admission::{
    self, CertificateSource, Clock, Configurations, Options, SelfManaged, ServerLimits,
};
use affix::service::Addresses;
use affix_testbed::port;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::direct::lookups;
use crate::support::namespace::{TestNamespace, wait_for};

pub(crate) const SECRET: &str = "affix-webhook-tls";
pub(crate) const HOUR: i64 = 3600;

/// Two replicas, a webhook configuration, and their clock.
pub(crate) struct Replicas {
    pub(crate) namespace: TestNamespace,
    pub(crate) addresses: [String; 2],
    /// Offset of the clock in seconds.
    pub(crate) ahead: Arc<AtomicI64>,
    _stop: tokio_util::sync::DropGuard,
}

pub(crate) fn options(namespace: &TestNamespace, address: &str) -> Options {
    Options {
        listen_addr: address.parse().unwrap(),
        addresses: Addresses::default(),
        shutdown_delay: Duration::ZERO,
        certificate: CertificateSource::SelfManaged(SelfManaged {
            secret: SECRET.to_owned(),
            namespace: Some(namespace.name.clone()),
            owner: None,
            service: "affix-webhook".to_owned(),
            names: vec!["127.0.0.1".to_owned()],
        }),
        configurations: Configurations {
            validating: Some(namespace.name.clone()),
            mutating: Some(namespace.name.clone()),
            self_check_namespace: None,
        },
        client_ca: None,
        limits: ServerLimits::default(),
        lookups: lookups(),
        reports: None,
        registries: affix_registry::Options::default(),
    }
}

impl Replicas {
    pub(crate) async fn start(about: &str, ahead: i64) -> Self {
        let namespace = TestNamespace::new(about, json!({})).await;
        let (ahead, stop) = (Arc::new(AtomicI64::new(ahead)), CancellationToken::new());
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", port::free().unwrap()));
        for address in &addresses {
            let moved = Arc::clone(&ahead);
            let clock: Clock = Arc::new(move || {
                Timestamp::from_second(Timestamp::now().as_second() + moved.load(Ordering::Relaxed))
                    .unwrap()
            });
            let (options, client, stop) = (
                options(&namespace, address),
                namespace.client.clone(),
                stop.clone(),
            );
            tokio::spawn(async move {
                admission::serve(options, client, clock, stop)
                    .await
                    .unwrap();
            });
        }
        Self {
            namespace,
            addresses,
            ahead,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) async fn secret(&self) -> Option<Value> {
        self.namespace
            .kubectl(&["get", "secret", SECRET, "-o", "json"])
            .await
            .json()
            .ok()
    }

    pub(crate) async fn part(&self, key: &str) -> String {
        self.secret()
            .await
            .map(|secret| secret["data"][key].as_str().unwrap_or_default().to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn secrets(&self) -> Api<k8s_openapi::api::core::v1::Secret> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    /// Returns whether the API server gets the refusal of the webhook, which shows that it trusts the
    /// certificate.
    pub(crate) async fn refuses(&self) -> bool {
        refuses(&self.namespace).await
    }

    /// Waits until both replicas serve the certificate of the Secret.
    pub(crate) async fn agree(&self) {
        wait_for("two replicas that serve what is shared", async || {
            let shared = self.part("tls.crt").await;
            let mut agreed = !shared.is_empty();
            for address in &self.addresses {
                agreed &= served(address).await.as_deref() == Some(&shared);
            }
            agreed
        })
        .await;
    }
}

pub(crate) async fn refuses(namespace: &TestNamespace) -> bool {
    let spec = json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}});
    let api: Api<affix::api::ImageAttachment> =
        Api::namespaced(namespace.client.clone(), &namespace.name);
    let object = serde_json::from_value(TestNamespace::attachment("invalid", &spec)).unwrap();
    let params = kube::api::PostParams {
        dry_run: true,
        ..Default::default()
    };
    api.create(&params, &object)
        .await
        .is_err_and(|error| error.to_string().contains("is malformed"))
}

/// Returns the certificate of a new handshake, in the encoding of the Secret.
pub(crate) async fn served(address: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let output = tokio::process::Command::new("sh")
        .args(["-c", &format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 2>/dev/null")])
        .output()
        .await
        .unwrap();
    (!output.stdout.is_empty()).then(|| STANDARD.encode(output.stdout))
}
