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
    let mut unchecked = Vec::new();
    let mut has_ended = false;
    for CheckedImage { image, outcome } in checked {
        match outcome {
            Err(cause) => {
                verdict
                    .audit
                    .insert("unchecked", image.chars().take(256).collect());
                if mode != EndOfLifeMode::Audit {
                    unchecked.push(unchecked_warning(image, cause));
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
    // End-of-life dates come first, so that the limit cuts only unchecked images.
    verdict.warnings.append(&mut unchecked);
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

/// Returns a warning for each tag that could not be resolved to a digest.
pub(crate) fn unresolved_warnings(checked: &[CheckedImage<'_>]) -> Vec<String> {
    checked
        .iter()
        .filter(|checked| !checked.image.contains('@'))
        .filter_map(|checked| Some((checked.image, checked.outcome.as_ref().err()?)))
        .map(|(image, cause)| failure_warning(image, "keeps its tag:", cause))
        .take(MAX_WARNINGS)
        .collect()
}

fn unchecked_warning(image: &str, cause: &str) -> String {
    failure_warning(image, "was not checked for end of life:", cause)
}

/// Returns the warning about an image without a result. The image keeps up to 40 characters, and
/// the cause gets the rest.
fn failure_warning(image: &str, effect: &str, cause: &str) -> String {
    const MAX_IMAGE_CHARS: usize = 40;
    let room = MAX_WARNING_CHARS.saturating_sub("image   ".len() + effect.len());
    let room = room.saturating_sub(image.chars().count().min(MAX_IMAGE_CHARS));
    warning(
        "image",
        image,
        &format!("{effect} {}", truncate(cause, room)),
    )
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::pods::lifecycle_report::LifecycleReport;
    use crate::admission::pods::mark::Mark;
    use crate::admission::pods::workload::Workload;
    use crate::admission::review::request::Metadata;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn end_of_life_dates_come_before_unchecked_images() {
        let pod = json!({"spec": {"containers": [{"image": "zzz:v1"}]}});
        let workload =
            Workload::read("Pod", &serde_json::value::to_raw_value(&pod).unwrap()).unwrap();
        let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        let report = LifecycleReport {
            digest: Digest::sha256(b"index"),
            mark: Some(Mark {
                date: "2025-03-20".parse().unwrap(),
                created: None,
            }),
            platforms: Vec::new(),
        };
        let entries = report.entries(&workload.nodes, now.as_duration(), now.as_duration());
        let names: Vec<String> = (0..40).map(|index| format!("a{index}:v1")).collect();
        let mut checked: Vec<_> = names
            .iter()
            .map(|image| CheckedImage {
                image,
                outcome: Err("no answer".into()),
            })
            .collect();
        checked.push(CheckedImage {
            image: "zzz:v1",
            outcome: Ok((report.digest.clone(), entries)),
        });
        assert_eq!(unresolved_warnings(&checked).len(), MAX_WARNINGS);
        assert_eq!(
            unresolved_warnings(&checked).first().unwrap(),
            "image a0:v1 keeps its tag: no answer"
        );
        let changed = ChangedWorkload {
            workload,
            old: None,
            metadata: Metadata::default(),
        };
        let verdict = verdict(EndOfLifeMode::Warn, &changed, &checked);
        assert_eq!(verdict.warnings.len(), MAX_WARNINGS);
        assert_eq!(
            verdict.warnings.first().unwrap(),
            "image zzz:v1 reached end of life on 2025-03-20"
        );
    }

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
