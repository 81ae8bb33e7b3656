//! The keys whose signed statements about the end of life are enforced (`--lifecycle-trust`). See
//! `docs/decisions/0125-enforce-signed-statements-only.md`.
//!
//! The files are read again every few seconds, because the kubelet updates mounted files by swapping a
//! symbolic link.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::admission::certificates::rotator::RECONCILE_INTERVAL;
use crate::engine::TrustedKeys;
use crate::signing::PublicKey;
use affix_registry::oci::Digest;

/// Maximum number of keys, each of which is tried for each signature.
const MAX_KEYS: usize = 32;
/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The current keys.
pub(crate) struct LifecycleTrust {
    paths: Vec<PathBuf>,
    current: RwLock<Arc<TrustedKeys>>,
}

impl LifecycleTrust {
    /// Reads the keys. Returns `None` without paths: then unsigned marks are enforced.
    ///
    /// # Errors
    /// A file cannot be read or has no usable key. The text names the file.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Option<Arc<Self>>, String> {
        if paths.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            paths: paths.to_vec(),
            current: RwLock::new(Arc::new(read_keys(paths)?)),
        })))
    }

    pub(crate) fn current(&self) -> Arc<TrustedKeys> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Follows changes of the files, forever. After an error the previous keys stay in use.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut last_error = String::new();
        loop {
            tokio::time::sleep(RECONCILE_INTERVAL).await;
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || read_keys(&this.paths)).await;
            match read.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(keys) => {
                    last_error.clear();
                    if keys.id != self.current().id {
                        tracing::info!(
                            keys = keys.keys.len(),
                            "using new keys of --lifecycle-trust"
                        );
                        let mut current =
                            self.current.write().unwrap_or_else(PoisonError::into_inner);
                        *current = Arc::new(keys);
                    }
                }
                Err(error) if error != last_error => {
                    tracing::warn!(
                        error,
                        "cannot update the keys of --lifecycle-trust, retrying"
                    );
                    last_error = error;
                }
                Err(_) => {}
            }
        }
    }
}

/// Reads files, and all files of folders.
fn read_keys(paths: &[PathBuf]) -> Result<TrustedKeys, String> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(files_of(path)?);
        } else {
            files.push(path.clone());
        }
    }
    let (mut keys, mut contents) = (Vec::new(), Vec::new());
    for path in &files {
        let refused = |why: &dyn std::fmt::Display| {
            format!(
                "cannot use the keys of --lifecycle-trust in {}: {why}",
                path.display()
            )
        };
        let content = std::fs::read(path).map_err(|error| refused(&error))?;
        if content.len() > MAX_FILE_BYTES {
            return Err(refused(&format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        let found = PublicKey::from_pem("the file", &content).map_err(|error| refused(&error))?;
        keys.extend(found);
        contents.extend_from_slice(&content);
        contents.push(b'\n');
    }
    match keys.len() {
        0 => Err(
            "--lifecycle-trust names a folder without a file: add a public key as PEM".to_owned(),
        ),
        count if count > MAX_KEYS => Err(format!(
            "--lifecycle-trust has {count} keys, more than {MAX_KEYS}: remove some"
        )),
        _ => Ok(TrustedKeys {
            keys,
            id: Digest::sha256(&contents),
        }),
    }
}

/// Returns the files of a folder in order, without hidden ones: the kubelet keeps the versions of a mounted
/// ConfigMap in hidden folders.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| {
        format!(
            "cannot read the folder {} of --lifecycle-trust: {error}",
            folder.display()
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn vector(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/cosign/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    #[test]
    fn keys_come_from_files_and_from_folders_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("mounted")).unwrap();
        std::fs::create_dir(path("mounted/..data")).unwrap();
        std::fs::write(path("mounted/.hidden"), "text").unwrap();
        let error = read_keys(&[path("mounted")]).unwrap_err();
        assert!(error.contains("folder without a file"), "{error}");
        std::fs::write(path("mounted/a.pub"), vector("p256.pub")).unwrap();
        std::fs::write(path("one.pem"), vector("rsa.pub")).unwrap();
        let keys = read_keys(&[path("mounted"), path("one.pem")]).unwrap();
        assert_eq!(keys.keys.len(), 2);
        assert_ne!(read_keys(&[path("one.pem")]).unwrap().id, keys.id);

        std::fs::write(path("mounted/b.pub"), "text").unwrap();
        let error = read_keys(&[path("mounted")]).unwrap_err();
        assert!(
            error.contains("b.pub: the file holds no PEM block"),
            "{error}"
        );
        std::fs::write(path("mounted/b.pub"), vector("p256.pub").repeat(MAX_KEYS)).unwrap();
        let error = read_keys(&[path("mounted")]).unwrap_err();
        assert!(error.contains("33 keys, more than 32"), "{error}");
        let error = read_keys(&[path("absent")]).unwrap_err();
        assert!(error.contains("absent: "), "{error}");
        assert!(LifecycleTrust::read(&[]).unwrap().is_none());
    }
}
