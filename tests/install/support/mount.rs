//! A volume of a Secret or a ConfigMap in the layout of the kubelet: a folder for each version, a symbolic link to the current one,
//! and a symbolic link for each file, so that all files change at once.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::Value;

use crate::support::cluster::Cluster;

/// A mounted Secret or ConfigMap.
pub(crate) struct Mount {
    kind: &'static str,
    name: String,
    namespace: String,
    dir: PathBuf,
}

impl Mount {
    /// Mounts the object of a pod's volume at `dir`.
    pub(crate) async fn new(
        cluster: &Cluster,
        namespace: &str,
        volume: &Value,
        dir: &Path,
    ) -> Self {
        std::fs::create_dir(dir).unwrap();
        let (kind, name) = match volume["secret"]["secretName"].as_str() {
            Some(name) => ("secret", name),
            None => ("configmap", volume["configMap"]["name"].as_str().unwrap()),
        };
        let mount = Self {
            kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            dir: dir.to_owned(),
        };
        mount.update(cluster).await;
        mount
    }

    /// Updates the files.
    pub(crate) async fn update(&self, cluster: &Cluster) {
        let object = cluster
            .get(&[self.kind, &self.name, "--namespace", &self.namespace])
            .await;
        let version = format!(
            "..{}",
            object["metadata"]["resourceVersion"].as_str().unwrap()
        );
        let before = std::fs::read_link(self.dir.join("..data")).ok();
        std::fs::create_dir(self.dir.join(&version)).unwrap();
        for (name, text) in object["data"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            let bytes = match self.kind {
                "secret" => base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .unwrap(),
                _ => text.into(),
            };
            std::fs::write(self.dir.join(&version).join(name), bytes).unwrap();
        }
        symlink(&version, self.dir.join("..data_tmp")).unwrap();
        std::fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        for name in object["data"].as_object().unwrap().keys() {
            if !self.dir.join(name).exists() {
                symlink(Path::new("..data").join(name), self.dir.join(name)).unwrap();
            }
        }
        if let Some(before) = before {
            std::fs::remove_dir_all(self.dir.join(before)).unwrap();
        }
    }
}
