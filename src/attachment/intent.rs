//! A spec, parsed: what the user wants, in types. Everything that a schema cannot check is checked here, by one code for the
//! controller, the command and admission.

use std::collections::BTreeMap;

use crate::api::{
    Artifact, AttachmentKind, EndOfLife, ImageAttachmentSpec, Reason, Scope, Signature,
};
use affix_registry::oci::{ArtifactType, PlatformPattern, Reference, media_type};

use super::content::Content;
use super::end_of_life::EndOfLifeDate;
use super::files::{File, FileError, FileTarget, Inputs, check_overlap};
use super::problem::Problem;
use super::selection::Selection;
use super::supersession::{Supersession, TagFilter};
use super::time::Created;

/// How readers find and rank an end-of-life mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkKeys {
    /// The annotation that holds the date.
    pub annotation: String,
    /// The date.
    pub date: EndOfLifeDate,
}

/// What is to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// The same manifest content whenever it is made; an end-of-life mark where `mark` is given.
    Content {
        /// Type, annotations, files.
        content: Content,
        /// Where it is a mark.
        mark: Option<MarkKeys>,
    },
    /// An end-of-life mark on what the tag leaves behind.
    WhenSuperseded(Supersession),
    /// A signature, whose bytes are others each time: what makes it, and tells equal ones, is the caller's.
    Signature {
        /// By which listings know signatures of this kind.
        artifact_type: ArtifactType,
    },
}

impl Desired {
    /// The artifact type of what is attached.
    #[must_use]
    pub const fn artifact_type(&self) -> &ArtifactType {
        match self {
            Self::Content { content, .. } => &content.artifact_type,
            Self::WhenSuperseded(supersession) => &supersession.artifact_type,
            Self::Signature { artifact_type } => artifact_type,
        }
    }

    /// Whether readers act on what is attached, so that one that is no longer wanted must not stay.
    #[must_use]
    pub const fn speaks(&self) -> bool {
        matches!(
            self,
            Self::Content { mark: Some(_), .. } | Self::WhenSuperseded(_) | Self::Signature { .. }
        )
    }
}

/// What a resource wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The image.
    pub reference: Reference,
    /// Which of its entries.
    pub selection: Selection,
    /// What to attach to them.
    pub desired: Desired,
}

impl Intent {
    /// Parses `spec`; `inputs` are the ConfigMaps that it names.
    ///
    /// # Errors
    /// `InvalidReference`, `InvalidSpec` or `FileMissing`, with the field, the value and the way out.
    pub fn parse(spec: &ImageAttachmentSpec, inputs: &Inputs) -> Result<Self, Problem> {
        let reference = parse_reference(&spec.image)?;
        let selection = parse_selection(spec)?;
        let desired = match (&spec.end_of_life, &spec.artifact, &spec.signature) {
            (Some(end_of_life), None, None) => parse_mark(end_of_life, &reference)?,
            (None, Some(artifact), None) => parse_artifact(artifact, &reference, inputs)?,
            (None, None, Some(signature)) => parse_signature(signature)?,
            _ => {
                return Err(Problem::new(
                    Reason::InvalidSpec,
                    "spec: give exactly one of endOfLife, artifact and signature",
                ));
            }
        };
        Ok(Self {
            reference,
            selection,
            desired,
        })
    }
}

/// A problem of the spec; `message` begins with the field.
fn invalid(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, format_args!("spec.{message}"))
}

/// A file that is missing can still come; anything else is for the spec's author.
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

/// The image of a spec.
///
/// # Errors
/// `InvalidReference`, with the value and the way out.
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
    Ok(Selection {
        scope,
        platforms,
        exclude,
        missing: targets.missing(),
    })
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
    // A key that names a digest is safe on a tag: wherever the tag moves, the file goes to that digest or nowhere.
    for (nth, from) in artifact.files_from.iter().enumerate() {
        files.extend(
            File::all_of(from, &format!("spec.artifact.filesFrom[{nth}]"), inputs)
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

/// The artifact type that a spec asks for, whatever becomes of what it refers to; `None` where the spec itself is wrong.
#[must_use]
pub fn artifact_type(spec: &ImageAttachmentSpec) -> Option<ArtifactType> {
    let text = match spec.kind()? {
        AttachmentKind::EndOfLife(mark) => mark.artifact_type(),
        AttachmentKind::Artifact(artifact) => &artifact.artifact_type,
        AttachmentKind::Signature(signature) => signature_type(signature)?,
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

fn parse_signature(signature: &Signature) -> Result<Desired, Problem> {
    let artifact_type = signature_type(signature)
        .ok_or_else(|| invalid("signature: give exactly one of cosign and notation"))?;
    Ok(Desired::Signature {
        artifact_type: parse_artifact_type(artifact_type, "signature")?,
    })
}

fn parse_artifact_type(text: &str, field: &str) -> Result<ArtifactType, Problem> {
    text.parse()
        .map_err(|error| invalid(format_args!("{field}: {error}")))
}

/// `created` decides which mark is the newest and which attachment stays, so where the spec gives it, it must be a time.
fn check_annotations(annotations: &BTreeMap<String, String>, field: &str) -> Result<(), Problem> {
    let created = annotations.get(affix_registry::oci::annotation::CREATED);
    match created.map(|text| Created::stated(text)) {
        Some(Err(error)) => Err(invalid(format_args!(
            "{field}: {}: {error}",
            affix_registry::oci::annotation::CREATED
        ))),
        _ => Ok(()),
    }
}
