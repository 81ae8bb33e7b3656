//! A certificate that an external tool, for example cert-manager, provides in a folder.
//!
//! The kubelet updates a mounted Secret by swapping a symbolic link, which file watches do not report.
//! The folder is therefore read every few seconds. A key that does not match its certificate (a
//! half-finished swap) leaves the current certificate in place.

use std::path::PathBuf;
use std::sync::Arc;

use crate::admission::certificates::certificate::{
    CERTIFICATE, CertificateError, KEY, ServingCertificate,
};
use crate::admission::certificates::resolver::CertificateResolver;
use crate::admission::metrics::Metrics;

/// A provided certificate that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvidedError {
    #[error("cannot read {path:?}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot use the certificate in {dir:?}: {source}")]
    Certificate {
        dir: PathBuf,
        source: CertificateError,
    },
}

/// Serves the certificate of a folder.
pub(crate) struct ProvidedCertificate {
    dir: PathBuf,
    resolver: Arc<CertificateResolver>,
    metrics: Arc<Metrics>,
    serving: Option<ServingCertificate>,
}

impl ProvidedCertificate {
    pub(crate) fn new(
        dir: PathBuf,
        resolver: Arc<CertificateResolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            dir,
            resolver,
            metrics,
            serving: None,
        }
    }

    /// Reads the folder and serves a changed certificate. After an error the previous certificate stays
    /// in use.
    pub(crate) async fn reconcile(&mut self) -> Result<(), ProvidedError> {
        let read = async |name: &str| {
            let path = self.dir.join(name);
            tokio::fs::read(&path)
                .await
                .map_err(|source| ProvidedError::File { path, source })
        };
        let (chain, key) = (
            read(CERTIFICATE).await?,
            zeroize::Zeroizing::new(read(KEY).await?),
        );
        let certificate = ServingCertificate::read(&chain, &key).map_err(|source| {
            ProvidedError::Certificate {
                dir: self.dir.clone(),
                source,
            }
        })?;
        if self.serving.as_ref() != Some(&certificate) {
            self.resolver.set(Arc::clone(&certificate.key));
            self.metrics
                .set_certificate_expiry(certificate.not_after.as_second());
            tracing::info!(not_after = %certificate.not_after, "serving a new certificate");
            self.serving = Some(certificate);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::admission::certificates::certificate::Data;
    use crate::admission::certificates::shared_certificate::{Assessment, assess};

    /// Creates a certificate and key in a version folder, the layout of a mounted Secret.
    fn pair(dir: &Path, version: &str) -> Data {
        let Ok(Assessment::Replace { data, .. }) = assess(
            &Data::new(),
            &["a.svc".to_owned()],
            &[],
            k8s_openapi::jiff::Timestamp::now(),
        ) else {
            panic!("the assessment creates no certificate")
        };
        let folder = dir.join(version);
        std::fs::create_dir(&folder).unwrap();
        for name in [CERTIFICATE, KEY] {
            std::fs::write(folder.join(name), data[name].expose()).unwrap();
        }
        data
    }

    /// Swaps the visible version, as the kubelet does.
    fn show(dir: &Path, version: &str) {
        symlink(version, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_swapped_folder_is_served_and_a_partial_swap_keeps_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let (first, second) = (pair(path, "..1"), pair(path, "..2"));
        for name in [CERTIFICATE, KEY] {
            symlink(Path::new("..data").join(name), path.join(name)).unwrap();
        }
        let resolver = Arc::new(CertificateResolver::default());
        let mut provided = ProvidedCertificate::new(
            path.to_owned(),
            Arc::clone(&resolver),
            Arc::new(Metrics::new()),
        );
        let error = provided.reconcile().await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains("tls.crt\""),
            "{error}"
        );

        let is_serving = |provided: &ProvidedCertificate, data: &Data| {
            provided.serving
                == Some(
                    ServingCertificate::read(data[CERTIFICATE].expose(), data[KEY].expose())
                        .unwrap(),
                )
        };
        show(path, "..1");
        provided.reconcile().await.unwrap();
        assert!(is_serving(&provided, &first));
        show(path, "..2");
        provided.reconcile().await.unwrap();
        assert!(is_serving(&provided, &second));

        pair(path, "..3");
        std::fs::write(path.join("..3").join(KEY), first[KEY].expose()).unwrap();
        show(path, "..3");
        let error = provided.reconcile().await.unwrap_err().to_string();
        assert!(
            error.contains("the key does not belong to the certificate")
                && is_serving(&provided, &second),
            "{error}"
        );
        std::fs::remove_file(path.join("..data")).unwrap();
        assert!(provided.reconcile().await.is_err() && is_serving(&provided, &second));
    }
}
