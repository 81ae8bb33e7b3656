//! The resources that sign an image, from their status.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Deserializer};

use crate::api::{RawAttachment, TargetState};
use affix_registry::oci::{Digest, Reference};

/// The number of resources that are kept for a manifest.
const MAX_SIGNERS: usize = 8;

/// An ImageAttachment of a list, of which only the signed manifests are kept while it is read.
#[derive(Debug, Default)]
pub(super) struct ListedSigner {
    /// `namespace/name`.
    resource: String,
    /// `host/repository`.
    image: String,
    signed: Vec<Digest>,
}

impl<'de> Deserialize<'de> for ListedSigner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = RawAttachment::deserialize(deserializer)?;
        let Ok((spec, Some(status))) = object.parse() else {
            return Ok(Self::default());
        };
        let Ok(reference) = spec.image.parse::<Reference>() else {
            return Ok(Self::default());
        };
        let is_current = Some(status.observed_generation) == object.metadata.generation;
        if spec.signature.is_none() || !is_current {
            return Ok(Self::default());
        }
        let attached = status.targets.iter();
        let attached = attached.filter(|target| target.state == TargetState::Attached);
        Ok(Self {
            resource: format!(
                "{}/{}",
                object.metadata.namespace.unwrap_or_default(),
                object.metadata.name.unwrap_or_default()
            ),
            image: reference.name(),
            signed: attached
                .filter_map(|target| target.digest.parse().ok())
                .collect(),
        })
    }
}

/// The resources that sign each of some manifests.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    /// The manifests of interest, by `host/repository`.
    wanted: HashMap<String, HashSet<Digest>>,
    found: HashMap<String, HashMap<Digest, BTreeSet<String>>>,
}

impl Signers {
    /// Returns no signers, for these manifests.
    pub(super) fn of(manifests: impl IntoIterator<Item = (String, Digest)>) -> Self {
        let mut wanted: HashMap<String, HashSet<Digest>> = HashMap::new();
        for (image, digest) in manifests {
            wanted.entry(image).or_default().insert(digest);
        }
        Self {
            wanted,
            found: HashMap::new(),
        }
    }

    /// Adds a resource.
    pub(super) fn add(&mut self, signer: &ListedSigner) {
        let Some(wanted) = self.wanted.get(&signer.image) else {
            return;
        };
        for digest in signer
            .signed
            .iter()
            .filter(|digest| wanted.contains(digest))
        {
            let by_digest = self.found.entry(signer.image.clone()).or_default();
            let resources = by_digest.entry(digest.clone()).or_default();
            resources.insert(signer.resource.clone());
            if resources.len() > MAX_SIGNERS {
                resources.pop_last();
            }
        }
    }

    /// Returns the resources that sign a manifest, as `namespace/name`.
    pub(super) fn for_manifest(
        &self,
        image: &str,
        digest: &Digest,
    ) -> impl Iterator<Item = &String> {
        let found = self.found.get(image).and_then(|found| found.get(digest));
        found.into_iter().flatten()
    }
}
