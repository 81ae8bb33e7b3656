//! The verdict on the images of a pod. Pure.

use crate::admission::pods::cluster_index::EndOfLifeMode;
use crate::admission::pods::lifecycle_report::ReportEntry;
use crate::admission::pods::lookup::FailureMessage;
use crate::admission::pods::workload::ChangedWorkload;
use crate::admission::review::response::{Refusal, Verdict};
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, truncate, warning};
use affix_registry::oci::Digest;

/// Maximum number of warnings per response, and of entries in the audit annotations.
const MAX_WARNINGS: usize = 16;

/// The result of the check of one image.
pub(crate) struct CheckedImage<'a> {
    pub(crate) image: &'a str,
    pub(crate) outcome: Result<(Digest, Vec<ReportEntry>), FailureMessage>,
}

/// Returns the verdict for the checked images in the mode of the namespace.
///
/// Enforcement applies to new and changed images of pods. An image that the pod already runs causes
/// only a warning, so that it does not block updates of other containers.
pub(crate) fn verdict(
    mode: EndOfLifeMode,
    changed: &ChangedWorkload,
    checked: &[CheckedImage<'_>],
) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut digests, mut dates, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_ended = false;
    for CheckedImage { image, outcome } in checked {
        match outcome {
            Err(cause) => {
                verdict
                    .audit
                    .insert("unchecked", image.chars().take(256).collect());
                if mode != EndOfLifeMode::Audit {
                    verdict.warnings.push(unchecked_warning(image, cause));
                }
            }
            Ok((_, entries)) => {
                let is_enforced = mode == EndOfLifeMode::Enforce
                    && changed.workload.is_pod
                    && changed.is_new_image(image);
                for entry in entries {
                    let applies = entry.has_ended && entry.applies;
                    has_ended |= applies;
                    if applies && is_enforced {
                        refused.push(entry.message(image));
                    } else if mode != EndOfLifeMode::Audit {
                        verdict.warnings.push(entry.message(image));
                    }
                    digests.push(entry.digest.to_string());
                    dates.push(entry.date.clone());
                }
            }
        }
    }
    if !refused.is_empty() {
        verdict.refusal = Some(Refusal::forbidden(format!(
            "{}: run a newer image",
            refused.join("; ")
        )));
    }
    let decision = match mode {
        _ if verdict.refusal.is_some() => "refused",
        EndOfLifeMode::Audit if has_ended => "audited",
        _ if !verdict.warnings.is_empty() => "warned",
        _ => "admitted",
    };
    verdict.audit.insert("decision", decision.to_owned());
    if !digests.is_empty() {
        digests.truncate(MAX_WARNINGS);
        dates.truncate(MAX_WARNINGS);
        verdict.audit.insert("digest", digests.join(","));
        verdict.audit.insert("date", dates.join(","));
    }
    verdict.warnings.truncate(MAX_WARNINGS);
    verdict
}

/// Returns the warning about an image without a result. The image keeps up to 40 characters, and
/// the cause gets the rest.
fn unchecked_warning(image: &str, cause: &str) -> String {
    const TEXT: &str = "was not checked for end of life:";
    const MAX_IMAGE_CHARS: usize = 40;
    let room = MAX_WARNING_CHARS - "image ".len() - " ".len() - TEXT.len() - " ".len();
    let room = room - image.chars().count().min(MAX_IMAGE_CHARS);
    warning("image", image, &format!("{TEXT} {}", truncate(cause, room)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_about_an_unchecked_image_keeps_registry_name_and_cause() {
        let image = format!("registry.example.com/{}/app:v1", "team/".repeat(40));
        let text = unchecked_warning(&image, &format!("login refused {}", "x".repeat(80)));
        assert_eq!(text.chars().count(), MAX_WARNING_CHARS, "{text}");
        for part in [
            "image registry.example.com/…",
            "app:v1 was not checked",
            ": login refused x",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = unchecked_warning("app:v1", "login refused");
        assert_eq!(
            text,
            "image app:v1 was not checked for end of life: login refused"
        );
    }
}
