//! Resolves a reference to an image and reads its nested indexes.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::StreamExt as _;
use futures::future::join_all;

use crate::api::Reason;
use crate::attachment::{Image, ImageError, Problem};
use affix_registry::oci::{
    Descriptor, Digest, ImageIndex, ImageManifest, Manifest, Platform, Reference, media_type,
};
use affix_registry::{ErrorKind, Fetched, Limits, Locator, RegistryError, Session};

use crate::engine::failure::Failure;

/// An image in the registry.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Resolved {
    /// The descriptor of the root.
    pub(in crate::engine) root: Descriptor,
    /// All entries.
    pub(in crate::engine) image: Image,
    /// Remarks on entries that cannot be read.
    pub(in crate::engine) remarks: Vec<String>,
}

/// Resolves a reference. The whole pass uses this one answer.
pub(in crate::engine) async fn resolve(
    session: &Session,
    reference: &Reference,
    limits: &Limits,
) -> Result<Resolved, Failure> {
    let locator = Locator::of(reference).ok_or_else(|| {
        Failure::new(
            Reason::InvalidReference,
            format_args!("{reference} names neither a tag nor a digest"),
        )
    })?;
    let fetched = session.manifest(&locator).await?;
    let root = fetched.descriptor();
    let (nested, config_platform) = match &fetched.manifest {
        Manifest::Index(index) => (walk(session, index, limits).await?, None),
        Manifest::Image(image) => (BTreeMap::new(), platform_of(session, image, limits).await?),
    };
    let image = Image::from_manifest(
        &root,
        &fetched.manifest,
        &nested,
        config_platform,
        limits.index_entries,
    )
    .map_err(|error| unusable(&error))?;
    let mut remarks = Vec::new();
    if let Manifest::Index(index) = &fetched.manifest {
        remarks.extend(on_skipped(&root.digest, index));
    }
    for (digest, index) in &nested {
        remarks.extend(
            index
                .as_ref()
                .ok()
                .and_then(|index| on_skipped(digest, index)),
        );
    }
    Ok(Resolved {
        root,
        image,
        remarks,
    })
}

/// Returns the remark on the unreadable entries of an index.
fn on_skipped(digest: &Digest, index: &ImageIndex) -> Option<String> {
    let first = index.skipped.first()?;
    let more = match index.skipped.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more skipped)"),
    };
    Some(format!("{first} (in the index {digest}){more}"))
}

fn unusable(error: &ImageError) -> Failure {
    let reason = match error {
        ImageError::Attachment(_) => Reason::InvalidReference,
        ImageError::TooManyEntries(_) => Reason::LimitExceeded,
    };
    Failure::new(reason, format_args!("spec.image: {error}"))
}

/// Nested indexes by digest, each with the problem of an unreadable one.
pub(in crate::engine) type Nested = BTreeMap<Digest, Result<ImageIndex, Problem>>;

/// Fetches nested indexes, one level at a time. An unreadable index is a failure of that target only.
///
/// # Errors
/// `LimitExceeded` once the indexes together have more entries than an image may have.
pub(in crate::engine) async fn walk(
    session: &Session,
    index: &ImageIndex,
    limits: &Limits,
) -> Result<Nested, Failure> {
    const CONCURRENCY: usize = 8;
    let mut seen = Nested::new();
    let mut entries = index.manifests.len();
    let mut wave: Vec<Descriptor> = Image::nested_in(index).cloned().collect();
    for _ in 0..limits.depth {
        wave.retain(|descriptor| !seen.contains_key(&descriptor.digest));
        wave.sort_by(|a, b| a.digest.cmp(&b.digest));
        wave.dedup_by(|a, b| a.digest == b.digest);
        if wave.is_empty() {
            break;
        }
        let fetches = wave.into_iter().map(|descriptor| async move {
            let answer = session
                .manifest(&Locator::Digest(descriptor.digest.clone()))
                .await;
            (descriptor.digest, answer)
        });
        let mut answers = pin!(futures::stream::iter(fetches).buffered(CONCURRENCY));
        let mut next = Vec::new();
        while let Some((digest, answer)) = answers.next().await {
            let index = match answer {
                Ok(Fetched {
                    manifest: Manifest::Index(index),
                    ..
                }) => {
                    entries += index.manifests.len();
                    if entries > limits.index_entries {
                        return Err(unusable(&ImageError::TooManyEntries(limits.index_entries)));
                    }
                    next.extend(Image::nested_in(&index).cloned());
                    Ok(index)
                }
                Ok(_) => Err(Problem::new(
                    Reason::UnsupportedMediaType,
                    "the entry is listed as an index and is not an index",
                )),
                Err(error) => Err(Failure::from(error).problem),
            };
            seen.insert(digest, index);
        }
        wave = next;
    }
    let too_deep = || {
        Problem::new(
            Reason::LimitExceeded,
            format_args!("indexes are nested deeper than {} levels", limits.depth),
        )
    };
    for descriptor in wave {
        seen.entry(descriptor.digest)
            .or_insert_with(|| Err(too_deep()));
    }
    Ok(seen)
}

/// Fetches several manifests concurrently, in the order of `digests`.
pub(in crate::engine) async fn manifests(
    session: &Session,
    digests: impl Iterator<Item = &Digest>,
) -> Vec<Result<Fetched, RegistryError>> {
    join_all(
        digests
            .cloned()
            .map(|digest| async move { session.manifest(&Locator::Digest(digest)).await }),
    )
    .await
}

/// Returns the platform of a single manifest, which is in its config. Other kinds of configs have none.
async fn platform_of(
    session: &Session,
    image: &ImageManifest,
    limits: &Limits,
) -> Result<Option<Platform>, Failure> {
    if !media_type::is_image_config(&image.config.media_type) {
        return Ok(None);
    }
    match session.blob(&image.config, limits.manifest_bytes).await {
        Ok(bytes) => Ok(Platform::from_config(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
