//! The parsed spec of a resource. Parsing makes the checks that the schema cannot make, for the controller, the command line
//! and admission.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{
    Artifact, AttachmentKind, Attestation, CosignSigner, EndOfLife, ImageAttachmentSpec, Reason,
    Scope, Signature, SignatureFormat, SignatureIdentity,
};
use affix_registry::oci::{ArtifactType, Digest, PlatformPattern, Reference, media_type};

use super::content::Content;
use super::files::{File, FileError, FileTarget, Inputs, check_overlap};
use super::mark::MarkKeys;
use super::problem::Problem;
use super::selection::Selection;
use super::statements::Statements;
use super::supersession::{Supersession, TagFilter};
use super::time::{Created, EndOfLifeDate};

/// The desired attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// Fixed content. It is an end-of-life mark if `mark` is given.
    Content {
        /// The type, annotations and files.
        content: Content,
        /// The date of a mark and its annotation.
        mark: Option<MarkKeys>,
    },
    /// An end-of-life mark on the images that the tag leaves.
    WhenSuperseded(Supersession),
    /// A signature, whose bytes are random. The caller makes signatures and recognises equal ones.
    Signature {
        /// The artifact type that listings show.
        artifact_type: ArtifactType,
        /// The time for which the previous signature stays after the new one was made.
        overlap: Duration,
        /// The formats, `Bundle` first.
        formats: Vec<SignatureFormat>,
        /// The name of the image inside signatures of the format `Tag`.
        identity: String,
    },
    /// Signed statements, whose bytes are random as those of a signature.
    Attestation {
        /// The artifact type that listings show.
        artifact_type: ArtifactType,
        /// The statements.
        statements: Statements,
    },
}

impl Desired {
    /// Returns the artifact type of the attachment.
    #[must_use]
    pub const fn artifact_type(&self) -> &ArtifactType {
        match self {
            Self::Content { content, .. } => &content.artifact_type,
            Self::WhenSuperseded(supersession) => &supersession.artifact_type,
            Self::Signature { artifact_type, .. } | Self::Attestation { artifact_type, .. } => {
                artifact_type
            }
        }
    }

    /// Returns the formats of the attachment. Only signatures of cosign have several.
    #[must_use]
    pub fn formats(&self) -> &[SignatureFormat] {
        match self {
            Self::Signature { formats, .. } => formats,
            Self::Content { .. } | Self::WhenSuperseded(_) | Self::Attestation { .. } => {
                &[SignatureFormat::Bundle]
            }
        }
    }

    /// Returns true if readers act on the attachment, so that an obsolete one must be removed.
    #[must_use]
    pub const fn speaks(&self) -> bool {
        matches!(
            self,
            Self::Content { mark: Some(_), .. }
                | Self::WhenSuperseded(_)
                | Self::Signature { .. }
                | Self::Attestation { .. }
        )
    }
}

/// The desired state of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The image.
    pub reference: Reference,
    /// The selection of targets.
    pub selection: Selection,
    /// The desired attachment.
    pub desired: Desired,
    /// True if a signed statement of the date belongs beside each end-of-life mark.
    pub statement: bool,
}

impl Intent {
    /// Parses `spec`. `inputs` are the ConfigMaps that it names.
    ///
    /// # Errors
    /// Fails with `InvalidReference`, `InvalidSpec` or `FileMissing`.
    pub fn parse(spec: &ImageAttachmentSpec, inputs: &Inputs) -> Result<Self, Problem> {
        let reference = parse_reference(&spec.image)?;
        let mut selection = parse_selection(spec)?;
        let has_moves = |mark: &EndOfLife| mark.when_superseded.is_some();
        if selection.parents && spec.end_of_life.as_ref().is_some_and(has_moves) {
            return Err(invalid(
                "targets.parents: an image that a tagged index holds is in use, so it does not go with whenSuperseded: remove it",
            ));
        }
        let desired = match spec.kind() {
            Some(AttachmentKind::EndOfLife(end_of_life)) => parse_mark(end_of_life, &reference)?,
            Some(AttachmentKind::Artifact(artifact)) => {
                parse_artifact(artifact, &reference, inputs)?
            }
            Some(AttachmentKind::Signature(signature)) => parse_signature(signature, &reference)?,
            Some(AttachmentKind::Attestation(attestation)) => {
                let statements = parse_statements(attestation, &reference, inputs)?;
                if matches!(statements, Statements::Build(_)) {
                    if selection.scope == Scope::Index {
                        return Err(invalid(
                            "attestation.fromBuild: the build states nothing about the index: remove targets.scope",
                        ));
                    }
                    selection.scope = Scope::Platforms;
                }
                Desired::Attestation {
                    artifact_type: parse_artifact_type(media_type::SIGSTORE_BUNDLE, "attestation")?,
                    statements,
                }
            }
            None => {
                return Err(Problem::new(
                    Reason::InvalidSpec,
                    "spec: give exactly one of endOfLife, artifact, signature and attestation",
                ));
            }
        };
        Ok(Self {
            reference,
            selection,
            desired,
            statement: spec
                .end_of_life
                .as_ref()
                .is_some_and(|mark| mark.statement.is_some()),
        })
    }
}

/// Returns a problem of the spec. `message` begins with the path of the field.
fn invalid(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, format_args!("spec.{message}"))
}

/// Returns an error of a file as a problem: `FileMissing` if a user can add the content, otherwise `InvalidSpec`.
#[must_use]
pub fn file_problem(error: FileError) -> Problem {
    Problem::new(
        if error.is_missing() {
            Reason::FileMissing
        } else {
            Reason::InvalidSpec
        },
        error,
    )
}

/// Parses the image of a spec.
///
/// # Errors
/// Fails with `InvalidReference`.
pub fn parse_reference(image: &str) -> Result<Reference, Problem> {
    let reference: Reference = image.parse().map_err(|error| {
        Problem::new(
            Reason::InvalidReference,
            format_args!("spec.image: {error}"),
        )
    })?;
    match &reference.tag {
        Some(tag) if tag.is_referrers_tag() => Err(Problem::new(
            Reason::InvalidReference,
            format_args!(
                "spec.image: the tag {tag} holds referrers or signatures of an image: name the image itself"
            ),
        )),
        _ => Ok(reference),
    }
}

fn parse_selection(spec: &ImageAttachmentSpec) -> Result<Selection, Problem> {
    let Some(targets) = &spec.targets else {
        return Ok(Selection::default());
    };
    let parse = |field: &str, texts: &[String]| -> Result<Vec<PlatformPattern>, Problem> {
        texts
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|error| invalid(format_args!("targets.{field}: {error}")))
            })
            .collect()
    };
    let platforms = targets
        .platforms
        .as_deref()
        .map(|texts| parse("platforms", texts))
        .transpose()?;
    let exclude = parse("excludePlatforms", targets.exclude_platforms())?;
    if platforms.as_ref().is_some_and(Vec::is_empty) {
        return Err(invalid(
            "targets.platforms: the list is empty: remove it to choose every platform, or set targets.scope: Index to choose none",
        ));
    }
    let scope = targets.scope();
    if scope == Scope::Index && (platforms.is_some() || targets.exclude_platforms.is_some()) {
        return Err(invalid(
            "targets: platforms and excludePlatforms have no meaning with scope Index: remove them, or the scope",
        ));
    }
    let digests = targets.digests.as_deref().map(parse_digests).transpose()?;
    if digests.is_some() && platforms.is_some() {
        return Err(invalid(
            "targets: digests and platforms do not go together: remove one of the two",
        ));
    }
    Ok(Selection {
        scope,
        platforms,
        exclude,
        digests,
        parents: targets.parents.is_some(),
        missing: targets.missing(),
    })
}

fn parse_digests(texts: &[String]) -> Result<Vec<Digest>, Problem> {
    if texts.is_empty() {
        return Err(invalid(
            "targets.digests: the list is empty: remove it to choose every manifest",
        ));
    }
    let parse = |text: &String| {
        text.parse()
            .map_err(|error| invalid(format_args!("targets.digests: {error}")))
    };
    texts.iter().map(parse).collect()
}

fn parse_mark(end_of_life: &EndOfLife, reference: &Reference) -> Result<Desired, Problem> {
    let artifact_type = parse_artifact_type(end_of_life.artifact_type(), "endOfLife.artifactType")?;
    let annotation = end_of_life.annotation().to_owned();
    let mut annotations = end_of_life.annotations.clone();
    check_annotations(&annotations, "endOfLife.annotations")?;
    if annotations.contains_key(&annotation) {
        return Err(invalid(format_args!(
            "endOfLife.annotations: {annotation:?} is written by affix from endOfLife.date: remove it"
        )));
    }
    if annotation == affix_registry::oci::annotation::CREATED {
        return Err(invalid(format_args!(
            "endOfLife.annotation: {annotation:?} is the time of the mark itself: name another"
        )));
    }
    let date = match (&end_of_life.date, &end_of_life.when_superseded) {
        (Some(date), None) => date,
        (None, Some(when)) => {
            let previous = when.previous.iter().map(|text| {
                text.parse().map_err(|error| {
                    invalid(format_args!("endOfLife.whenSuperseded.previous: {error}"))
                })
            });
            if reference.tag.is_none() || reference.digest.is_some() {
                return Err(invalid(
                    "endOfLife.whenSuperseded: it follows a tag, so image must be name:tag without a digest",
                ));
            }
            return Ok(Desired::WhenSuperseded(Supersession {
                artifact_type,
                annotation,
                annotations,
                grace: when.grace_period(),
                settle: when.settle(),
                unless_tagged: TagFilter::new(when.unless_tagged()),
                previous: previous.collect::<Result<_, _>>()?,
            }));
        }
        _ => {
            return Err(invalid(
                "endOfLife: give exactly one of date and whenSuperseded",
            ));
        }
    };
    let date: EndOfLifeDate = date
        .parse()
        .map_err(|error| invalid(format_args!("endOfLife.date: {error}")))?;
    if reference.digest.is_none() {
        return Err(invalid(
            "endOfLife.date: it needs a digest in image, since the tag may already name the next, good image: write image as name:tag@sha256:… (affix pin does)",
        ));
    }
    annotations.insert(annotation.clone(), date.as_str().to_owned());
    let content = Content {
        artifact_type,
        annotations,
        files: Vec::new(),
    };
    Ok(Desired::Content {
        content,
        mark: Some(MarkKeys { annotation, date }),
    })
}

fn parse_artifact(
    artifact: &Artifact,
    reference: &Reference,
    inputs: &Inputs,
) -> Result<Desired, Problem> {
    let mut files = Vec::new();
    for (nth, file) in artifact.files.iter().enumerate() {
        files.push(
            File::resolve(file, &format!("spec.artifact.files[{nth}]"), inputs)
                .map_err(file_problem)?,
        );
    }
    if files.iter().any(|file| file.target != FileTarget::Every) && reference.digest.is_none() {
        return Err(invalid(
            "artifact.files: a file with a target needs a digest in image, since a tag may move on: write image as name:tag@sha256:… (affix pin does)",
        ));
    }
    check_overlap(&files, "spec.artifact.files").map_err(file_problem)?;
    // A key with a digest is safe on a tag, because the file never goes to another digest.
    for (nth, from) in artifact.files_from.iter().enumerate() {
        files.extend(
            File::from_config_map(from, &format!("spec.artifact.filesFrom[{nth}]"), inputs)
                .map_err(file_problem)?,
        );
    }
    let artifact_type = parse_artifact_type(&artifact.artifact_type, "artifact.artifactType")?;
    let annotations = artifact.annotations.clone();
    check_annotations(&annotations, "artifact.annotations")?;
    Ok(Desired::Content {
        content: Content {
            artifact_type,
            annotations,
            files,
        },
        mark: None,
    })
}

/// Returns the artifact type of a spec without its references, or `None` if the spec is wrong.
#[must_use]
pub fn artifact_type(spec: &ImageAttachmentSpec) -> Option<ArtifactType> {
    let text = match spec.kind()? {
        AttachmentKind::EndOfLife(mark) => mark.artifact_type(),
        AttachmentKind::Artifact(artifact) => &artifact.artifact_type,
        AttachmentKind::Signature(signature) => signature_type(signature)?,
        AttachmentKind::Attestation(_) => media_type::SIGSTORE_BUNDLE,
    };
    text.parse().ok()
}

fn signature_type(signature: &Signature) -> Option<&'static str> {
    match (&signature.cosign, &signature.notation) {
        (Some(_), None) => Some(media_type::SIGSTORE_BUNDLE),
        (None, Some(_)) => Some(media_type::NOTARY_SIGNATURE),
        _ => None,
    }
}

fn parse_statements(
    attestation: &Attestation,
    reference: &Reference,
    inputs: &Inputs,
) -> Result<Statements, Problem> {
    let statements = Statements::parse(attestation, inputs).map_err(file_problem)?;
    let statements = statements.ok_or_else(|| {
        invalid(
            "attestation: give predicateType with predicates or predicatesFrom, or fromBuild alone",
        )
    })?;
    let has_target = attestation.predicates.iter().any(|of| of.target.is_some());
    if has_target && reference.digest.is_none() {
        return Err(invalid(
            "attestation.predicates: a predicate with a target needs a digest in image, since a tag may move on: write image as name:tag@sha256:… (affix pin does)",
        ));
    }
    Ok(statements)
}

fn parse_signature(signature: &Signature, reference: &Reference) -> Result<Desired, Problem> {
    let artifact_type = signature_type(signature)
        .ok_or_else(|| invalid("signature: give exactly one of cosign and notation"))?;
    Ok(Desired::Signature {
        artifact_type: parse_artifact_type(artifact_type, "signature")?,
        overlap: signature.overlap(),
        formats: match &signature.cosign {
            Some(cosign) => cosign.formats(),
            None => vec![SignatureFormat::Bundle],
        },
        identity: match &signature.cosign {
            Some(cosign) => parse_identity(cosign, reference)?,
            None => String::new(),
        },
    })
}

/// Returns the name of the image inside a signature of the format `Tag`, as cosign writes it.
fn parse_identity(cosign: &CosignSigner, reference: &Reference) -> Result<String, Problem> {
    if cosign.formats().is_empty() {
        return Err(invalid(
            "signature.cosign.formats: the list is empty: remove it for [Bundle]",
        ));
    }
    let name = reference.name();
    let name = match name.strip_prefix("docker.io/") {
        Some(path) if path.contains('/') => format!("index.docker.io/{path}"),
        Some(path) => format!("index.docker.io/library/{path}"),
        None => name,
    };
    match (cosign.identity, &reference.tag) {
        (Some(SignatureIdentity::Tag), None) => Err(invalid(
            "signature.cosign.identity: Tag needs a tag in image: add it, or set identity to Repository",
        )),
        (None | Some(SignatureIdentity::Tag), Some(tag)) => Ok(format!("{name}:{tag}")),
        (None, None) | (Some(SignatureIdentity::Repository), _) => Ok(name),
    }
}

fn parse_artifact_type(text: &str, field: &str) -> Result<ArtifactType, Problem> {
    text.parse()
        .map_err(|error| invalid(format_args!("{field}: {error}")))
}

/// Checks that a `created` annotation of the spec is a time, because it ranks marks and equal attachments.
fn check_annotations(annotations: &BTreeMap<String, String>, field: &str) -> Result<(), Problem> {
    let created = annotations.get(affix_registry::oci::annotation::CREATED);
    match created.map(|text| Created::from_spec(text)) {
        Some(Err(error)) => Err(invalid(format_args!(
            "{field}: {}: {error}",
            affix_registry::oci::annotation::CREATED
        ))),
        _ => Ok(()),
    }
}
