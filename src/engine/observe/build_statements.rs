//! The statements that BuildKit put beside the platforms of an image: the layers of its attestation manifests.
//!
//! An index names an attestation manifest for each platform by annotations. Newer versions of BuildKit also give it a subject. Each layer
//! is an in-toto statement without a signature.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;

use crate::api::Reason;
use crate::attachment::{BuildAttestation, Image, PredicateTypes};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::request::predicates::problem;
use crate::signing::{MAX_PREDICATE_BYTES, Predicate, UnsignedStatement};
use affix_registry::Locator;
use affix_registry::oci::{Descriptor, Digest, ImageManifest, Manifest};

/// The media type of a statement. A compressed one has a suffix.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// The annotation of a layer with the type of its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Maximum number of statements that are signed on one platform.
const MAX_STATEMENTS: usize = 8;
/// The number of manifests or statements that are read at once.
const CONCURRENCY: usize = 8;
/// The first bytes of a gzip file (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The predicates of the build for each platform, by the digest of its manifest.
pub(in crate::engine) type BuildPredicates = BTreeMap<Digest, Result<Vec<Predicate>, Failure>>;

/// Reads the statements about `platforms` whose type is among `types`. Each platform has at least one predicate, in a fixed order, or a
/// failure.
pub(in crate::engine) async fn read(
    context: &Context<'_>,
    types: &PredicateTypes,
    image: &Image,
    platforms: BTreeSet<Digest>,
) -> BuildPredicates {
    let is_wanted = |of: &&BuildAttestation| {
        let platform = of.platform.as_ref();
        platform.is_none_or(|platform| platforms.contains(platform))
    };
    let attestations = image.attestations.iter().filter(is_wanted).cloned();
    let manifests = attestations.map(|of| async move {
        let manifest = manifest(context, &of.manifest.digest).await;
        (of, manifest)
    });
    let manifests: Vec<_> = futures::stream::iter(manifests)
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let mut layers: BTreeMap<Digest, Result<Vec<Descriptor>, Failure>> = BTreeMap::new();
    let mut unassigned = None;
    for (attestation, manifest) in manifests {
        let (platform, found) = match manifest {
            Ok(manifest) => {
                let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
                let platform = attestation.platform.or_else(|| subject.cloned());
                (platform, Ok(statements_in(&manifest, types)))
            }
            Err(failure) => (attestation.platform, Err(failure)),
        };
        match (platform, found) {
            (Some(platform), found) => {
                let all = layers.entry(platform).or_insert_with(|| Ok(Vec::new()));
                match (all, found) {
                    (Ok(all), Ok(found)) => all.extend(found),
                    (all @ Ok(_), Err(failure)) => *all = Err(failure),
                    (Err(_), _) => {}
                }
            }
            (None, Err(failure)) => unassigned = Some(failure),
            (None, Ok(_)) => {}
        }
    }
    let reads = platforms.into_iter().map(|platform| {
        let layers = layers.remove(&platform).unwrap_or(Ok(Vec::new()));
        let unassigned = unassigned.clone();
        async move {
            let read = async {
                let predicates = read_layers(context, types, &platform, layers?).await?;
                match (predicates.is_empty(), unassigned) {
                    (true, Some(failure)) => Err(failure),
                    (true, None) => Err(none_of(types, &platform)),
                    (false, _) => Ok(predicates),
                }
            };
            let read = context.in_time(read).await;
            (platform, read.and_then(std::convert::identity))
        }
    });
    // One platform after the other, since its statements may be large.
    futures::stream::iter(reads).buffered(2).collect().await
}

fn none_of(types: &PredicateTypes, platform: &Digest) -> Failure {
    let message = format!(
        "spec.attestation.fromBuild: the build put no statement of a type among {types} beside the platform {platform}: build with \
         attestations (docker buildx build --sbom=true --provenance=true), or leave the platform out by spec.targets"
    );
    Failure::new(Reason::FileMissing, message)
}

/// Reads an attestation manifest.
async fn manifest(context: &Context<'_>, digest: &Digest) -> Result<ImageManifest, Failure> {
    let at = Locator::Digest(digest.clone());
    let fetched = context.in_time(context.session.manifest(&at)).await??;
    match fetched.manifest {
        Manifest::Image(manifest) => Ok(manifest),
        Manifest::Index(_) => Err(Failure::new(
            Reason::StatementInvalid,
            format_args!("the attestation manifest {digest} of the build is an index"),
        )),
    }
}

/// Returns the layers that can be statements of a type among `types`.
fn statements_in(manifest: &ImageManifest, types: &PredicateTypes) -> Vec<Descriptor> {
    let is_wanted = |layer: &&Descriptor| {
        let stated = layer.annotations.get(PREDICATE_TYPE);
        layer.media_type.starts_with(STATEMENT)
            && stated.is_none_or(|predicate_type| types.includes(predicate_type))
    };
    manifest.layers.iter().filter(is_wanted).cloned().collect()
}

/// Reads the statements in `layers`, and returns their predicates in the order of their types and hashes, each once.
async fn read_layers(
    context: &Context<'_>,
    types: &PredicateTypes,
    platform: &Digest,
    mut layers: Vec<Descriptor>,
) -> Result<Vec<Predicate>, Failure> {
    layers.sort_by(|one, other| one.digest.cmp(&other.digest));
    layers.dedup_by(|one, other| one.digest == other.digest);
    if layers.len() > MAX_STATEMENTS {
        let message = format!(
            "the build put {} statements beside the platform {platform}, more than {MAX_STATEMENTS}: choose among them by \
             spec.attestation.fromBuild.predicateTypes",
            layers.len()
        );
        return Err(Failure::new(Reason::LimitExceeded, message));
    }
    let mut predicates = Vec::new();
    for layer in &layers {
        let at = format!("the statement {} of the build", layer.digest);
        let bytes = context
            .session
            .blob(layer, MAX_PREDICATE_BYTES as u64)
            .await?;
        let json = uncompressed(bytes).map_err(|cause| {
            let reason = match cause {
                Uncompressed::TooLarge => Reason::LimitExceeded,
                Uncompressed::Damaged => Reason::StatementInvalid,
            };
            Failure::new(reason, format_args!("{at}: {cause}"))
        })?;
        let statement = UnsignedStatement::parse(&json).map_err(|error| problem(&at, &error))?;
        if !types.includes(statement.predicate().kind()) {
            continue;
        }
        if !statement.is_about(platform) {
            let message =
                format!("{at} is not about the platform {platform} that it stands beside");
            return Err(Failure::new(Reason::SubjectMismatch, message));
        }
        predicates.push(statement.predicate().clone());
    }
    predicates.sort_by(|one, other| (one.kind(), one.hash()).cmp(&(other.kind(), other.hash())));
    predicates.dedup_by(|one, other| (one.kind(), one.hash()) == (other.kind(), other.hash()));
    Ok(predicates)
}

/// An error of a compressed statement.
#[derive(Debug, thiserror::Error)]
enum Uncompressed {
    #[error("it is larger than {MAX_PREDICATE_BYTES} bytes uncompressed")]
    TooLarge,
    #[error("its gzip compression is damaged")]
    Damaged,
}

/// Returns the content of a statement. Its first bytes show whether gzip compresses it, because the media type can be wrong.
fn uncompressed(bytes: Bytes) -> Result<Bytes, Uncompressed> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    let limit = MAX_PREDICATE_BYTES as u64;
    MultiGzDecoder::new(&*bytes)
        .take(limit + 1)
        .read_to_end(&mut content)
        .map_err(|_| Uncompressed::Damaged)?;
    if content.len() as u64 > limit {
        return Err(Uncompressed::TooLarge);
    }
    Ok(content.into())
}
