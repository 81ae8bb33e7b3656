//! Signed statements about the end of life: Sigstore bundles among the referrers of a manifest, with an
//! OpenEoX Core document as predicate.

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;

use super::{Basis, Mark};
use crate::attachment::{EndOfLifeDate, LIFECYCLE_PREDICATE, LifecycleDocument};
use crate::signing::{PublicKey, SignedStatement};
use affix_registry::oci::{ArtifactType, Descriptor, Digest, ImageManifest, Manifest, media_type};
use affix_registry::{ErrorKind, Locator, Object, Operation, RegistryError, Session};

/// The annotation with the predicate type, as cosign and affix write it.
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
/// Maximum number of bundles of one manifest that are read. Beyond it the image is not checked: a statement
/// must not be hidden behind others.
const MAX_BUNDLES: usize = 32;
/// Maximum size of a bundle in bytes. A statement about the end of life has 2 KiB.
const MAX_BUNDLE_BYTES: u64 = 256 << 10;

/// The keys whose statements are enforced.
#[derive(Debug)]
pub(crate) struct TrustedKeys {
    pub(crate) keys: Vec<PublicKey>,
    /// The digest of the files, which identifies the keys.
    pub(crate) id: Digest,
}

/// The statements on one manifest.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// The newest document that a trusted key has signed.
    trusted: Option<LifecycleDocument>,
    /// The dates of other keys.
    pub(super) others: Vec<Mark>,
}

impl Statements {
    /// Reads the statements on `subject`. Statements from the future are ignored, as marks are.
    pub(super) async fn read(
        session: &Session,
        subject: &Digest,
        trust: &TrustedKeys,
        now: Timestamp,
    ) -> Result<Self, RegistryError> {
        let mut statements = Self::default();
        for bundle in bundles(session, subject).await? {
            let Some(statement) = SignedStatement::parse(&bundle) else {
                continue;
            };
            if statement.predicate_type() != LIFECYCLE_PREDICATE || !statement.is_about(subject) {
                continue;
            }
            let document = LifecycleDocument::parse(statement.predicate().as_bytes())
                .filter(|document| document.last_updated.instant() <= now);
            let is_trusted = || trust.keys.iter().any(|key| statement.verifies(key));
            match document {
                Some(document) if is_trusted() => statements.add(document),
                Some(document) => statements.others.extend(mark(document, Basis::OtherKey)),
                None => {}
            }
        }
        Ok(statements)
    }

    /// Adds a document of a trusted key. The latest counts, and among equally late ones the earliest date.
    fn add(&mut self, document: LifecycleDocument) {
        let rank = |document: &LifecycleDocument| {
            let date = document.end_of_life.as_ref().map(EndOfLifeDate::instant);
            let is_open = date.is_none();
            (document.last_updated, std::cmp::Reverse((is_open, date)))
        };
        if self
            .trusted
            .as_ref()
            .is_none_or(|known| rank(known) < rank(&document))
        {
            self.trusted = Some(document);
        }
    }

    /// Returns the date that is enforced. A date that is to be announced is none.
    pub(super) fn enforced(&self) -> Option<Mark> {
        mark(self.trusted.clone()?, Basis::Enforced)
    }
}

fn mark(document: LifecycleDocument, basis: Basis) -> Option<Mark> {
    Some(Mark {
        date: document.end_of_life?,
        created: Some(document.last_updated),
        basis,
    })
}

/// Reads the bundles among the referrers that can hold a statement about the end of life.
async fn bundles(session: &Session, subject: &Digest) -> Result<Vec<Bytes>, RegistryError> {
    let artifact_type: Option<ArtifactType> = media_type::SIGSTORE_BUNDLE.parse().ok();
    let listing = session.referrers(subject, artifact_type.as_ref()).await?;
    let candidates: Vec<&Descriptor> = listing
        .entries
        .iter()
        .filter(|entry| entry.may_have_type(media_type::SIGSTORE_BUNDLE))
        .filter(|entry| is_possible(entry.annotations.get(PREDICATE_TYPE)))
        .collect();
    if candidates.len() > MAX_BUNDLES {
        return Err(RegistryError::LimitExceeded {
            operation: Operation {
                method: "GET",
                object: Object::Manifest,
                what: format!("the Sigstore bundles of {subject}"),
                host: session.host().to_string(),
                repository: Some(session.repository().clone()),
            },
            what: format!("the manifest has {} of them", candidates.len()),
            limit: MAX_BUNDLES as u64,
        });
    }
    let mut bundles = Vec::new();
    for entry in candidates {
        match bundle(session, entry).await {
            Ok(found) => bundles.extend(found),
            // A manifest or a layer that is gone, damaged or no bundle hides no other statement.
            Err(error) if is_unreadable(error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bundles)
}

/// Reads a bundle, or returns `None` for another manifest.
async fn bundle(session: &Session, entry: &Descriptor) -> Result<Option<Bytes>, RegistryError> {
    let locator = Locator::Digest(entry.digest.clone());
    let Manifest::Image(manifest) = session.manifest(&locator).await?.manifest else {
        return Ok(None);
    };
    match bundle_layer(&manifest) {
        Some(layer) => session.blob(layer, MAX_BUNDLE_BYTES).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the layer of a bundle that can hold a statement about the end of life. A larger one holds another.
fn bundle_layer(manifest: &ImageManifest) -> Option<&Descriptor> {
    let [layer] = manifest.layers.as_slice() else {
        return None;
    };
    let is_bundle = manifest.effective_artifact_type() == media_type::SIGSTORE_BUNDLE
        && is_possible(manifest.annotations.get(PREDICATE_TYPE))
        && layer.size <= MAX_BUNDLE_BYTES;
    is_bundle.then_some(layer)
}

const fn is_unreadable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::DigestMismatch
            | ErrorKind::UnsupportedMediaType
            | ErrorKind::LimitExceeded
    )
}

fn is_possible(predicate_type: Option<&String>) -> bool {
    predicate_type.is_none_or(|stated| stated == LIFECYCLE_PREDICATE)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_document_of_a_trusted_key_counts_also_if_its_date_is_open() {
        let document = |date: &str, updated: &str| LifecycleDocument {
            end_of_life: (!date.is_empty()).then(|| date.parse().unwrap()),
            last_updated: updated.parse().unwrap(),
        };
        let early = document("2025-03-20", "2026-01-01T00:00:00Z");
        let late = document("2030-01-01", "2026-02-01T00:00:00Z");
        let twin = document("2028-01-01", "2026-02-01T00:00:00Z");
        let open = document("", "2026-02-01T00:00:00Z");
        let withdrawn = document("", "2026-03-01T00:00:00Z");
        for (all, expected) in [
            (vec![&early, &late], Some("2030-01-01")),
            (vec![&late, &early], Some("2030-01-01")),
            (vec![&late, &twin, &early], Some("2028-01-01")),
            (vec![&open, &late], Some("2030-01-01")),
            (vec![&late, &open], Some("2030-01-01")),
            (vec![&late, &withdrawn, &early], None),
            (vec![], None),
        ] {
            let mut statements = Statements::default();
            for document in &all {
                statements.add((*document).clone());
            }
            let enforced = statements.enforced();
            let date = enforced.as_ref().map(|mark| mark.date.as_str());
            assert_eq!(date, expected, "{all:?}");
        }
    }
}
