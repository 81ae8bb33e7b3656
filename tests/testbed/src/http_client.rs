//! The testbed's own HTTP client: reqwest with a choice of roots and nothing of affix.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A client that trusts the certificates of `ca_pem` and no others, follows no redirects, and gives up after 30 s.
///
/// # Errors
///
/// Where `ca_pem` is not PEM.
pub fn client(ca_pem: Option<&str>) -> anyhow::Result<reqwest::Client> {
    Ok(builder(ca_pem, &[])?.build()?)
}

/// The same, and `name` is at `address`.
///
/// # Errors
///
/// Where `ca_pem` is not PEM.
pub fn client_of(ca_pem: &str, name: &str, address: SocketAddr) -> anyhow::Result<reqwest::Client> {
    Ok(builder(Some(ca_pem), &[])?.resolve(name, address).build()?)
}

/// The same over HTTP/2 where the server speaks it: one connection for all requests, as an API server calls webhooks.
///
/// # Errors
///
/// Where `ca_pem` is not PEM.
pub fn multiplexing(ca_pem: &str) -> anyhow::Result<reqwest::Client> {
    Ok(builder(Some(ca_pem), &["h2", "http/1.1"])?.build()?)
}

fn builder(ca_pem: Option<&str>, protocols: &[&str]) -> anyhow::Result<reqwest::ClientBuilder> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default().as_bytes()) {
        roots.add(certificate.context("the authority's certificate is not PEM")?)?;
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    tls.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30)))
}
