//! A volume of a Secret as the kubelet mounts it: a folder with a version, a symbolic link to that, and one to each file by way of it,
//! so that all files change at once.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::support::cluster::Cluster;
use crate::support::helm::NAMESPACE;

/// A mounted Secret.
pub(crate) struct Mount {
    secret: String,
    dir: PathBuf,
}

impl Mount {
    /// Mounts the Secret at `dir`.
    pub(crate) async fn new(cluster: &Cluster, secret: &str, dir: &Path) -> Self {
        std::fs::create_dir(dir).unwrap();
        let mount = Self {
            secret: secret.to_owned(),
            dir: dir.to_owned(),
        };
        mount.update(cluster).await;
        mount
    }

    /// Brings it up to date.
    pub(crate) async fn update(&self, cluster: &Cluster) {
        let secret = cluster
            .get(&["secret", &self.secret, "--namespace", NAMESPACE])
            .await;
        let version = format!(
            "..{}",
            secret["metadata"]["resourceVersion"].as_str().unwrap()
        );
        let before = std::fs::read_link(self.dir.join("..data")).ok();
        std::fs::create_dir(self.dir.join(&version)).unwrap();
        for (name, text) in secret["data"].as_object().unwrap() {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text.as_str().unwrap())
                .unwrap();
            std::fs::write(self.dir.join(&version).join(name), bytes).unwrap();
        }
        symlink(&version, self.dir.join("..data_tmp")).unwrap();
        std::fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        for name in secret["data"].as_object().unwrap().keys() {
            if !self.dir.join(name).exists() {
                symlink(Path::new("..data").join(name), self.dir.join(name)).unwrap();
            }
        }
        if let Some(before) = before {
            std::fs::remove_dir_all(self.dir.join(before)).unwrap();
        }
    }
}
