//! The verdict on an `ImageAttachmentSet`. Its template is checked as the `ImageAttachment` of each repository.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::admission::review::image_attachment;
use crate::admission::review::request::Request;
use crate::admission::review::response::Verdict;
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, printable};
use crate::api::{CONFIRM_ANNOTATION, ImageAttachmentSetSpec, ImageAttachmentSetStatus};
use crate::attachment::sets::{SetPolicy, SetRepository};
use affix_registry::Registries;
use affix_registry::oci::{Digest, Reference};

/// Reviews a request without I/O. The error is a final verdict. Returns the spec and the warnings on it, or `None` if nothing has to be
/// checked.
pub(crate) fn judge(
    request: &Request<'_>,
    registries: &Registries,
) -> Result<Option<(ImageAttachmentSetSpec, Vec<String>)>, Verdict> {
    let parsed = image_attachment::review(request, |spec| parse(spec, registries))?;
    Ok(parsed.map(|spec| {
        let status = request.object.and_then(status_of);
        let warning =
            status.and_then(|(status, confirmed)| fuse_warning(&spec, &status, confirmed));
        (spec, warning.into_iter().collect())
    }))
}

/// Parses and checks a spec. The error is the text for the user.
fn parse(spec: &RawValue, registries: &Registries) -> Result<ImageAttachmentSetSpec, String> {
    let spec: ImageAttachmentSetSpec =
        serde_json::from_str(spec.get()).map_err(|error| format!("spec: {error}"))?;
    let policy = SetPolicy::parse(&spec).map_err(|problem| problem.message)?;
    for repository in &policy.repositories {
        let child = example(&policy, repository);
        let checked = image_attachment::check(&child, registries);
        checked.map_err(|problem| in_template(&problem.message, repository))?;
    }
    Ok(spec)
}

/// Returns the spec of a possible child.
fn example(policy: &SetPolicy, repository: &SetRepository) -> crate::api::ImageAttachmentSpec {
    let image = Reference {
        tag: "v1".parse().ok(),
        digest: Some(Digest::sha256(b"")),
        ..repository.reference()
    };
    let date = policy.lifecycle.as_ref().map(|_| "2026-01-01".to_owned());
    policy.template.spec.child(image.to_string(), None, date)
}

/// Returns the problem of a child with the path of its field in the set.
fn in_template(message: &str, repository: &SetRepository) -> String {
    match message.strip_prefix("spec.") {
        Some(rest) if rest.starts_with("image:") => {
            let problem = rest.trim_start_matches("image:").trim_start();
            format!("spec.repositories: {}: {problem}", repository.name)
        }
        Some(rest) => format!("spec.template.spec.{rest}"),
        None => message.to_owned(),
    }
}

/// Returns status and the confirmed number of marks of an object.
fn status_of(object: &RawValue) -> Option<(ImageAttachmentSetStatus, Option<usize>)> {
    #[derive(Deserialize)]
    struct Object {
        metadata: kube::core::ObjectMeta,
        #[serde(default)]
        status: Option<ImageAttachmentSetStatus>,
    }
    let object: Object = serde_json::from_str(object.get()).ok()?;
    let annotations = object.metadata.annotations.unwrap_or_default();
    let confirmed = annotations.get(CONFIRM_ANNOTATION);
    Some((
        object.status?,
        confirmed.and_then(|text| text.trim().parse().ok()),
    ))
}

/// Returns a warning if the last pass found more new marks than the limit of the changed spec, and the user has not confirmed them.
fn fuse_warning(
    spec: &ImageAttachmentSetSpec,
    status: &ImageAttachmentSetStatus,
    confirmed: Option<usize>,
) -> Option<String> {
    let most = spec.lifecycle.as_ref()?.max_new_marks();
    let marks = usize::try_from(status.new_marks?).ok()?;
    (marks > most && confirmed != Some(marks)).then(|| {
        let text = format!(
            "the last pass found {marks} new marks, more than maxNewMarks ({most}): none is made until {CONFIRM_ANNOTATION}={marks}"
        );
        printable(&text, MAX_WARNING_CHARS)
    })
}
