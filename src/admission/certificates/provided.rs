//! A certificate that somebody else keeps in a folder, such as a mounted Secret of cert-manager.
//!
//! The kubelet changes such a folder by swapping a symbolic link, of which watches of files see nothing: so it is read again
//! every few seconds, and a pair that does not fit (half of a swap) leaves the present one in place.

use std::path::PathBuf;
use std::sync::Arc;

use crate::admission::certificates::certificate::{CERTIFICATE, CertificateError, KEY, Servable};
use crate::admission::certificates::resolver::Served;
use crate::admission::metrics::Metrics;

/// Why the folder's certificate is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    #[error("{path:?} cannot be read: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the certificate in {dir:?} cannot be served: {source}")]
    Certificate {
        dir: PathBuf,
        source: CertificateError,
    },
}

/// Serves what stands in a folder.
pub(crate) struct Given {
    dir: PathBuf,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    now_serving: Option<Servable>,
}

impl Given {
    pub(crate) fn new(dir: PathBuf, served: Arc<Served>, metrics: Arc<Metrics>) -> Self {
        Self {
            dir,
            served,
            metrics,
            now_serving: None,
        }
    }

    /// One look. Afterwards the folder's certificate is served unless it is an error.
    pub(crate) async fn look(&mut self) -> Result<(), GivenError> {
        let read = async |name: &str| {
            let path = self.dir.join(name);
            tokio::fs::read(&path)
                .await
                .map_err(|source| GivenError::File { path, source })
        };
        let (certificate, key) = (
            read(CERTIFICATE).await?,
            zeroize::Zeroizing::new(read(KEY).await?),
        );
        let servable =
            Servable::read(&certificate, &key).map_err(|source| GivenError::Certificate {
                dir: self.dir.clone(),
                source,
            })?;
        if self.now_serving.as_ref() != Some(&servable) {
            self.served.set(Arc::clone(&servable.key));
            self.metrics
                .serves_certificate_until(servable.not_after.as_second());
            tracing::info!(until = %servable.not_after, "serving another certificate");
            self.now_serving = Some(servable);
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
    use crate::admission::certificates::shared_certificate::{Judgement, judge};

    /// A pair as a mounted Secret has it, in a folder of its own.
    fn pair(dir: &Path, version: &str) -> Data {
        let Ok(Judgement::Replace { data, .. }) = judge(
            &Data::new(),
            &["a.svc".to_owned()],
            &[],
            k8s_openapi::jiff::Timestamp::now(),
        ) else {
            panic!("nothing was made")
        };
        let folder = dir.join(version);
        std::fs::create_dir(&folder).unwrap();
        for name in [CERTIFICATE, KEY] {
            std::fs::write(folder.join(name), data[name].expose()).unwrap();
        }
        data
    }

    /// Swaps what the folder shows, as the kubelet does.
    fn show(dir: &Path, version: &str) {
        symlink(version, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_swapped_folder_is_served_and_half_of_a_swap_or_none_leaves_the_present_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let (first, second) = (pair(path, "..1"), pair(path, "..2"));
        for name in [CERTIFICATE, KEY] {
            symlink(Path::new("..data").join(name), path.join(name)).unwrap();
        }
        let served = Arc::new(Served::default());
        let mut given = Given::new(
            path.to_owned(),
            Arc::clone(&served),
            Arc::new(Metrics::new()),
        );
        let missing = given.look().await.unwrap_err().to_string();
        assert!(missing.contains("tls.crt\" cannot be read"), "{missing}");

        let serves = |given: &Given, data: &Data| {
            given.now_serving
                == Some(Servable::read(data[CERTIFICATE].expose(), data[KEY].expose()).unwrap())
        };
        show(path, "..1");
        given.look().await.unwrap();
        assert!(serves(&given, &first));
        show(path, "..2");
        given.look().await.unwrap();
        assert!(serves(&given, &second));

        pair(path, "..3");
        std::fs::write(path.join("..3").join(KEY), first[KEY].expose()).unwrap();
        show(path, "..3");
        let halved = given.look().await.unwrap_err().to_string();
        assert!(
            halved.contains("the key does not belong to the certificate")
                && serves(&given, &second),
            "{halved}"
        );
        std::fs::remove_file(path.join("..data")).unwrap();
        assert!(given.look().await.is_err() && serves(&given, &second));
    }
}
