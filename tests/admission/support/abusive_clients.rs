//! Slow clients, and the memory of the server.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::namespace::TestNamespace;

/// Returns the certificate authority of the webhook.
pub(crate) async fn authority(namespace: &TestNamespace) -> String {
    let secret = namespace
        .kubectl(&[
            "get",
            "secret",
            "affix-webhook-tls",
            "-o",
            "go-template={{index .data \"ca.crt\" | base64decode}}",
        ])
        .await;
    secret.stdout().unwrap()
}

/// Sends the start of a request and then one byte per second. Returns whether the server closes the
/// connection.
pub(crate) async fn drip(tls: &TlsConnector, address: &str, sent: &str) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let Ok(mut stream) = tls.connect("127.0.0.1".try_into().unwrap(), stream).await else {
        return true;
    };
    let _ = stream.write_all(sent.as_bytes()).await;
    for _ in 0..60 {
        if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    false
}

/// Returns a TLS client that trusts an authority.
pub(crate) fn tls(ca_pem: &str) -> TlsConnector {
    tls_as(ca_pem, None)
}

/// Returns a TLS client that trusts an authority and presents a certificate with its key, both as PEM.
pub(crate) fn tls_as(ca_pem: &str, identity: Option<&(String, String)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    Arc::new(config).into()
}

/// Returns the peak memory of a process in bytes.
pub(crate) fn peak(pid: u32) -> usize {
    memory(pid, "VmHWM:")
}

/// Returns a value of the memory of a process in bytes.
pub(crate) fn memory(pid: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}
