//! The TLS settings of the server, and the authorities of its callers (threat T19).
//!
//! With `--client-ca` only callers with a client certificate of these authorities are served, which the API
//! server presents if its admission configuration names one. The file is read again every few seconds,
//! because the kubelet updates mounted files by swapping a symbolic link. See
//! `docs/decisions/0103-recognise-the-api-server-by-its-certificate.md`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::admission::certificates::resolver::CertificateResolver;
use crate::admission::certificates::rotator::RECONCILE_INTERVAL;

/// The TLS settings of new connections.
pub(crate) struct TlsSettings {
    resolver: Arc<CertificateResolver>,
    client_ca: Option<PathBuf>,
    /// The content of the file, and the settings that follow from it.
    current: RwLock<(Vec<u8>, TlsAcceptor)>,
}

impl TlsSettings {
    /// Reads the authorities of callers.
    ///
    /// # Errors
    /// The file cannot be read, or has no usable certificate.
    pub(crate) fn new(
        resolver: Arc<CertificateResolver>,
        client_ca: Option<PathBuf>,
    ) -> io::Result<Arc<Self>> {
        let pem = match &client_ca {
            Some(path) => std::fs::read(path).map_err(|error| unreadable(path, &error))?,
            None => Vec::new(),
        };
        let acceptor = acceptor(&resolver, client_ca.as_deref(), &pem)?;
        Ok(Arc::new(Self {
            resolver,
            client_ca,
            current: RwLock::new((pem, acceptor)),
        }))
    }

    /// Returns the acceptor for a new connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.1.clone()
    }

    /// Follows changes of the file, forever. After an error the previous authorities stay in use.
    pub(crate) async fn follow(&self) {
        let Some(path) = &self.client_ca else {
            return std::future::pending().await;
        };
        let mut last_error = String::new();
        loop {
            tokio::time::sleep(RECONCILE_INTERVAL).await;
            match self.reload(path).await {
                Ok(()) => last_error.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if error != last_error {
                        tracing::warn!(error, "cannot update the authorities of callers, retrying");
                        last_error = error;
                    }
                }
            }
        }
    }

    async fn reload(&self, path: &Path) -> io::Result<()> {
        let pem = tokio::fs::read(path)
            .await
            .map_err(|error| unreadable(path, &error))?;
        let is_same = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.0 == pem
        };
        if !is_same {
            let acceptor = acceptor(&self.resolver, Some(path), &pem)?;
            tracing::info!(path = %path.display(), "using new authorities of callers");
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = (pem, acceptor);
        }
        Ok(())
    }
}

fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    io::Error::new(
        error.kind(),
        format!("cannot read the authorities of --client-ca in {path}: {error}"),
    )
}

fn acceptor(
    resolver: &Arc<CertificateResolver>,
    client_ca: Option<&Path>,
    pem: &[u8],
) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = match client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                certificate
                    .map_err(|error| error.to_string())
                    .and_then(|found| roots.add(found).map_err(|error| error.to_string()))
                    .map_err(|error| unusable(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(path, &error.to_string()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config.with_cert_resolver(Arc::clone(resolver) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unusable(path: &Path, error: &str) -> io::Error {
    let path = path.display();
    io::Error::other(format!(
        "cannot use the authorities of --client-ca in {path}: {error}: it must be a PEM file with CA certificates"
    ))
}
