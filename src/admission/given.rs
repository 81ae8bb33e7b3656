//! A certificate that somebody else keeps in a folder, such as a mounted Secret of cert-manager.
//!
//! The kubelet changes such a folder by swapping a symbolic link, of which watches of files see nothing: so it is read again
//! every few seconds, and a pair that does not fit (half of a swap) leaves the present one in place.

use std::path::PathBuf;
use std::sync::Arc;

use super::certificate::{CERTIFICATE, CertificateError, KEY, Servable};
use super::metrics::Metrics;
use super::server::Served;

/// Why the folder's certificate is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum GivenError {
    #[error("{path:?} cannot be read: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the certificate in {dir:?} cannot be served: {source}")]
    Certificate { dir: PathBuf, source: CertificateError },
}

/// Serves what stands in a folder.
pub(super) struct Given {
    dir: PathBuf,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    now_serving: Option<Servable>,
}

impl Given {
    pub(super) fn new(dir: PathBuf, served: Arc<Served>, metrics: Arc<Metrics>) -> Self {
        Self { dir, served, metrics, now_serving: None }
    }

    /// One look. Afterwards the folder's certificate is served unless it is an error.
    pub(super) async fn look(&mut self) -> Result<(), GivenError> {
        let read = async |name: &str| {
            let path = self.dir.join(name);
            tokio::fs::read(&path).await.map_err(|source| GivenError::File { path, source })
        };
        let (certificate, key) = (read(CERTIFICATE).await?, zeroize::Zeroizing::new(read(KEY).await?));
        let servable = Servable::read(&certificate, &key).map_err(|source| GivenError::Certificate { dir: self.dir.clone(), source })?;
        if self.now_serving.as_ref() != Some(&servable) {
            self.served.set(Arc::clone(&servable.key));
            self.metrics.serves_certificate_until(servable.not_after.as_second());
            tracing::info!(until = %servable.not_after, "serving another certificate");
            self.now_serving = Some(servable);
        }
        Ok(())
    }
}
