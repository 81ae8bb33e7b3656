//! The images that run, by digest, namespace and platform.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::pod::{ListedPod, UsedImage};
use affix_registry::oci::{Digest, Platform, Reference};

/// The maximum number of rows. Pods beyond it are counted only.
const MAX_ROWS: usize = 50_000;
/// The number of pods that a row names.
const MAX_EXAMPLES: usize = 8;
/// The number of sets of pull secrets that are kept for an image.
const MAX_LOGINS: usize = 4;

/// The identity of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageKey {
    /// Host and repository, or the name that the node reports for an image without a digest.
    pub(crate) name: Arc<str>,
    /// The digest. `None`: the node reports none of a registry.
    pub(crate) digest: Option<Digest>,
}

/// The place of an image: the namespace, and the platform of the node if it is known.
pub(super) type Place = (Arc<str>, Option<Arc<Platform>>);

/// The use of an image in one place.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// The number of pods.
    pub(super) pods: usize,
    /// The names of a few pods, those that come first.
    pub(super) examples: BTreeSet<String>,
    /// A tag by which the image was pulled, the first in order.
    pub(super) tag: Option<String>,
}

/// A running image.
#[derive(Debug, Default)]
pub(crate) struct RunningImage {
    /// The image in its registry. `None`: the node reports no digest of a registry.
    pub(super) reference: Option<Reference>,
    pub(super) uses: BTreeMap<Place, Use>,
    /// Namespaces and names of the pull secrets of some of its pods.
    logins: BTreeSet<(Arc<str>, Vec<String>)>,
}

impl RunningImage {
    /// Returns the image in its registry, with its digest.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// Returns the namespaces and names of the pull secrets of some of its pods.
    pub(crate) fn logins(&self) -> impl Iterator<Item = (&str, &[String])> {
        let logins = self.logins.iter();
        logins.map(|(namespace, names)| (&**namespace, names.as_slice()))
    }
}

/// All running images.
#[derive(Debug, Default)]
pub(crate) struct RunningImages {
    pub(super) images: BTreeMap<ImageKey, RunningImage>,
    /// The platforms of the nodes, by name.
    nodes: HashMap<String, Arc<Platform>>,
    rows: usize,
    /// The number of pods that have not ended.
    pub(super) pods: usize,
    /// The number of images of pods that are not listed, because there are too many rows.
    pub(super) not_listed: usize,
}

impl RunningImages {
    /// Returns no images, for nodes of these platforms.
    pub(super) fn on(nodes: HashMap<String, Arc<Platform>>) -> Self {
        Self {
            nodes,
            ..Self::default()
        }
    }

    /// Returns the images.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ImageKey, &RunningImage)> {
        self.images.iter()
    }

    /// Returns whether an image runs.
    pub(crate) fn contains(&self, key: &ImageKey) -> bool {
        self.images.contains_key(key)
    }

    /// Adds the images of a pod.
    pub(super) fn add(&mut self, pod: &ListedPod) {
        if !pod.is_active() {
            return;
        }
        self.pods += 1;
        let namespace: Arc<str> = pod.namespace().into();
        let platform = pod.node().and_then(|node| self.nodes.get(node)).cloned();
        let place = (namespace, platform);
        for used in pod.images() {
            self.add_image(pod, &place, used);
        }
    }

    fn add_image(&mut self, pod: &ListedPod, place: &Place, used: UsedImage) {
        let (key, reference, tag) = match used {
            UsedImage::Identified { image, digest, tag } => {
                let key = ImageKey {
                    name: image.name().into(),
                    digest: Some(digest.clone()),
                };
                (key, Some(image.at(&digest)), tag.map(|tag| tag.to_string()))
            }
            UsedImage::Unidentified(name) => {
                let name = name.into();
                (ImageKey { name, digest: None }, None, None)
            }
        };
        let known = self.images.get(&key);
        let is_new = known.is_none_or(|image| !image.uses.contains_key(place));
        if is_new && self.rows >= MAX_ROWS {
            self.not_listed += 1;
            return;
        }
        self.rows += usize::from(is_new);
        let image = self.images.entry(key).or_default();
        image.reference = reference;
        let secrets = pod.pull_secrets();
        if !secrets.is_empty() && image.logins.len() < MAX_LOGINS {
            image.logins.insert((Arc::clone(&place.0), secrets));
        }
        let row = image.uses.entry(place.clone()).or_default();
        row.pods += 1;
        row.examples.insert(pod.name().to_owned());
        if row.examples.len() > MAX_EXAMPLES {
            row.examples.pop_last();
        }
        if tag.is_some() && (row.tag.is_none() || tag < row.tag) {
            row.tag = tag;
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, name: &str, node: &str, phase: &str, letter: &str) -> ListedPod {
        let id = format!("r.example.com/app@sha256:{}", letter.repeat(64));
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"nodeName": node, "imagePullSecrets": [{"name": "login"}]},
            "status": {"phase": phase, "containerStatuses": [{"image": format!("r.example.com/app:{name}"), "imageID": id}]},
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_counted_by_digest_namespace_and_platform() {
        let nodes = [("one", "linux/amd64"), ("two", "linux/arm64")];
        let nodes =
            nodes.map(|(name, platform)| (name.to_owned(), Arc::new(platform.parse().unwrap())));
        let mut running = RunningImages::on(nodes.into());
        for (namespace, name, node, phase, letter) in [
            ("a", "v2", "one", "Running", "a"),
            ("a", "v1", "one", "Pending", "a"),
            ("a", "v1", "two", "Running", "a"),
            ("b", "v1", "three", "Running", "a"),
            ("b", "v1", "one", "Running", "b"),
            ("b", "v1", "one", "Succeeded", "c"),
        ] {
            running.add(&pod(namespace, name, node, phase, letter));
        }
        assert_eq!(
            (running.pods, running.images.len(), running.rows),
            (5, 2, 4)
        );
        let (_, image) = running.images.first_key_value().unwrap();
        let rows = image.uses.iter().map(|((namespace, platform), row)| {
            let platform = platform.as_ref().map(ToString::to_string);
            (namespace.to_string(), platform, row.pods, row.tag.clone())
        });
        let expected = [
            ("a", Some("linux/amd64"), 2, "v1"),
            ("a", Some("linux/arm64"), 1, "v1"),
            ("b", None, 1, "v1"),
        ];
        let expected = expected.map(|(namespace, platform, pods, tag)| {
            (
                namespace.to_owned(),
                platform.map(str::to_owned),
                pods,
                Some(tag.to_owned()),
            )
        });
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        assert_eq!(image.logins().count(), 2);
    }

    #[test]
    fn t36_rows_and_examples_are_bounded() {
        let mut running = RunningImages::default();
        for nth in 0..MAX_ROWS + 2 {
            running.add(&pod(&format!("n{nth}"), "v1", "", "Running", "a"));
        }
        assert_eq!(
            (running.rows, running.not_listed, running.pods),
            (MAX_ROWS, 2, MAX_ROWS + 2)
        );
        let mut running = RunningImages::default();
        for nth in 0..100 {
            running.add(&pod(
                "a",
                &format!("pod-{:02}", 99 - nth),
                "",
                "Running",
                "a",
            ));
        }
        let (_, image) = running.images.first_key_value().unwrap();
        let row = image.uses.values().next().unwrap();
        assert_eq!((row.pods, row.examples.len()), (100, MAX_EXAMPLES));
        assert_eq!(row.examples.first().unwrap(), "pod-00");
    }
}
