//! The requests of a look-up: an image, its marks and the marks of its platforms.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;

use super::statements::{Statements, TrustedKeys};
use super::{Basis, LifecycleReport, LifecycleType, Mark, Marks, PlatformReport};
use crate::attachment::{EntryKind, Image};
use affix_registry::oci::{Descriptor, Digest, Manifest, Platform};
use affix_registry::{ErrorKind, Locator, RegistryError, Session};

/// Requests of one look-up in flight. The look-ups of a host together stay within the limit of requests to
/// one registry, so that a slow one holds no request of another.
pub(crate) const MAX_REQUESTS: usize = 2;
/// Maximum number of platforms per image.
const MAX_PLATFORMS: usize = 32;
/// Maximum length of a platform name. A hostile registry could fill the cache with longer ones.
const MAX_PLATFORM_CHARS: usize = 128;
/// Maximum number of referrers whose manifests are read because the listing lacks type or annotation.
const MAX_MANIFESTS_READ: usize = 8;

/// The marks that a look-up reads.
#[derive(Clone)]
pub(crate) struct LifecycleRules {
    /// The types of unsigned marks.
    pub(crate) types: Arc<[LifecycleType]>,
    /// The keys whose statements are enforced. `None`: unsigned marks are.
    pub(crate) trust: Option<Arc<TrustedKeys>>,
}

/// Reads an image, its marks and the marks of its platforms, in two rounds of requests.
pub(crate) async fn read_lifecycle(
    session: &Session,
    digest: &Digest,
    rules: &LifecycleRules,
    now: Timestamp,
) -> Result<LifecycleReport, RegistryError> {
    let locator = Locator::Digest(digest.clone());
    let (fetched, own) = try_join(
        session.manifest(&locator),
        marks_of(session, digest, rules, now),
    )
    .await?;
    let platforms = match &fetched.manifest {
        Manifest::Image(_) => Vec::new(),
        Manifest::Index(index) => {
            let max = index.manifests.len() + 1;
            let image = Image::from_manifest(
                &fetched.descriptor(),
                &fetched.manifest,
                &BTreeMap::new(),
                None,
                max,
            );
            let entries = image.map(|image| image.entries).unwrap_or_default();
            let found: Vec<(Digest, Vec<Platform>)> = entries
                .into_iter()
                .filter_map(|entry| match entry.kind {
                    EntryKind::Platform(platforms) if !platforms.is_empty() => {
                        Some((entry.subject.digest, platforms))
                    }
                    _ => None,
                })
                .take(MAX_PLATFORMS)
                .collect();
            let marks: Vec<_> = found
                .iter()
                .map(|(digest, _)| marks_of(session, digest, rules, now))
                .collect();
            let marks: Vec<Marks> = stream::iter(marks)
                .buffered(MAX_REQUESTS)
                .try_collect()
                .await?;
            let each = found.into_iter().zip(marks);
            each.flat_map(|((digest, platforms), marks)| {
                let plausible = platforms
                    .into_iter()
                    .filter(|platform| platform.to_string().len() <= MAX_PLATFORM_CHARS);
                plausible.map(move |platform| PlatformReport {
                    platform,
                    digest: digest.clone(),
                    marks: marks.clone(),
                })
            })
            .collect()
        }
    };
    Ok(LifecycleReport {
        digest: digest.clone(),
        marks: own,
        platforms,
    })
}

/// Returns the effective marks of one manifest. If signatures are required, only signed statements are
/// enforced.
async fn marks_of(
    session: &Session,
    subject: &Digest,
    rules: &LifecycleRules,
    now: Timestamp,
) -> Result<Marks, RegistryError> {
    let mut marks = Vec::new();
    for kind in &*rules.types {
        marks.extend(marks_of_type(session, subject, kind, now).await?);
    }
    let Some(trust) = &rules.trust else {
        return Ok(Mark::newest(marks).into());
    };
    let statements = Statements::read(session, subject, trust, now).await?;
    let unsigned = marks.into_iter().map(|mark| Mark {
        basis: Basis::Unsigned,
        ..mark
    });
    // Statements come last: among equals, the last one is the newest.
    let advisory = Mark::newest(unsigned.chain(statements.others.iter().cloned()));
    Ok(Marks::new(statements.enforced(), advisory))
}

async fn marks_of_type(
    session: &Session,
    subject: &Digest,
    kind: &LifecycleType,
    now: Timestamp,
) -> Result<Vec<Mark>, RegistryError> {
    let listing = session
        .referrers(subject, Some(&kind.artifact_type))
        .await?;
    let is_complete = |entry: &Descriptor| {
        entry.listed_type().is_some() && entry.annotations.contains_key(&*kind.annotation)
    };
    let (listed, open): (Vec<_>, Vec<_>) =
        listing.entries.iter().partition(|entry| is_complete(entry));
    let mut marks: Vec<Mark> = listed
        .iter()
        .filter_map(|entry| Mark::read(&entry.annotations, kind, now))
        .collect();
    // Some registries list neither artifact type nor annotations, so the manifest is read.
    for entry in open.into_iter().take(MAX_MANIFESTS_READ) {
        let locator = Locator::Digest(entry.digest.clone());
        match session.manifest(&locator).await {
            Ok(fetched) => {
                if let Manifest::Image(manifest) = fetched.manifest
                    && manifest.effective_artifact_type() == kind.artifact_type.as_str()
                {
                    marks.extend(Mark::read(&manifest.annotations, kind, now));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(marks)
}
