//! The verdict on the images of a pod. Pure.

use crate::admission::options::UncheckedPolicy;
use crate::admission::pods::cluster_index::EndOfLifeMode;
use crate::admission::pods::lifecycle_report::ReportEntry;
use crate::admission::pods::lookup::LookupFailure;
use crate::admission::pods::workload::ChangedWorkload;
use crate::admission::review::response::{Refusal, Verdict};
use crate::admission::review::warning_text::unchecked_warning;
use crate::engine::Day;
use affix_registry::oci::Digest;
use k8s_openapi::jiff::SignedDuration;

/// Maximum number of warnings per response, and of entries in the audit annotations.
const MAX_WARNINGS: usize = 16;

/// The effect of a failed look-up on an image.
const NOT_CHECKED: &str = "was not checked for end of life:";
/// The effect on an image of a workload whose pods are refused without a check.
const NOT_CHECKED_REFUSED: &str = "was not checked, so its pods will be refused here:";

/// The result of the check of one image.
pub(crate) struct CheckedImage<'a> {
    pub(crate) image: &'a str,
    pub(crate) outcome: Result<(Digest, Vec<ReportEntry>), LookupFailure>,
}

/// The consequence for a workload in an enforcing namespace.
pub(crate) const PODS_REFUSED: &str = ": its pods will be refused here";

/// The time from which images past their end of life are refused in an enforcing namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GracePeriod {
    /// The period after the end-of-life date.
    pub(crate) length: SignedDuration,
    /// The time of the review, since the epoch.
    pub(crate) now: SignedDuration,
}

impl GracePeriod {
    /// Returns whether the grace period of a date is over.
    pub(crate) fn is_over(self, entry: &ReportEntry) -> bool {
        self.end(entry) <= self.now
    }

    fn end(self, entry: &ReportEntry) -> SignedDuration {
        entry.instant.saturating_add(self.length)
    }
}

/// Returns the verdict for the checked images in the mode of the namespace.
///
/// Enforcement applies to new and changed images of pods. An image that the pod already runs causes
/// only a warning, so that it does not block updates of other containers.
pub(crate) fn verdict(
    (mode, unchecked_policy, grace): (EndOfLifeMode, UncheckedPolicy, GracePeriod),
    changed: &ChangedWorkload,
    checked: &[CheckedImage<'_>],
) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut digests, mut dates, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unchecked, mut unchecked_images) = (Vec::new(), Vec::new());
    let (mut has_ended, mut has_old) = (false, false);
    for CheckedImage { image, outcome } in checked {
        let is_enforced = mode == EndOfLifeMode::Enforce
            && changed.workload.is_pod
            && changed.is_new_image(image);
        match outcome {
            Err(failure) => {
                unchecked_images.push(image.chars().take(256).collect::<String>());
                if is_enforced && unchecked_policy == UncheckedPolicy::Refuse {
                    refused.push(format!("image {image} {NOT_CHECKED} {}", failure.text()));
                } else if mode != EndOfLifeMode::Audit {
                    let is_refused_later = mode == EndOfLifeMode::Enforce
                        && unchecked_policy == UncheckedPolicy::Refuse
                        && !changed.workload.is_pod;
                    let effect = if is_refused_later {
                        NOT_CHECKED_REFUSED
                    } else {
                        NOT_CHECKED
                    };
                    unchecked.push(failure_warning(image, effect, failure));
                }
            }
            Ok((_, entries)) => {
                for entry in entries {
                    let applies = entry.has_ended && entry.applies;
                    has_ended |= applies;
                    let applies = applies && entry.is_enforced();
                    if applies && is_enforced && grace.is_over(entry) {
                        has_old = true;
                        refused.insert(0, entry.message(image));
                    } else if applies && mode == EndOfLifeMode::Enforce {
                        let consequence = if !grace.is_over(entry) {
                            format!(": refused from {}", Day::of(grace.end(entry)))
                        } else if changed.workload.is_pod {
                            String::new()
                        } else {
                            PODS_REFUSED.to_owned()
                        };
                        let warning = entry.message_with(image, &consequence);
                        verdict.warnings.push(warning);
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
        let way_out = if has_old { ": run a newer image" } else { "" };
        verdict.refusal = Some(Refusal::forbidden(format!(
            "{}{way_out}",
            limited(refused, |left| format!("{left} more images")).join("; ")
        )));
    }
    let decision = match mode {
        _ if verdict.refusal.is_some() => "refused",
        EndOfLifeMode::Audit if has_ended => "audited",
        _ if !verdict.warnings.is_empty() => "warned",
        _ => "admitted",
    };
    verdict.audit.insert("decision", decision.to_owned());
    for (key, mut values) in [
        ("digest", digests),
        ("date", dates),
        ("unchecked", unchecked_images),
    ] {
        values.truncate(MAX_WARNINGS);
        if !values.is_empty() {
            verdict.audit.insert(key, values.join(","));
        }
    }
    verdict.warnings = limited(verdict.warnings, |left| {
        format!("{left} more warnings: see the audit log and the webhook's log")
    });
    verdict
}

/// Cuts a list to its maximum. The last entry says how many entries are left out.
fn limited(mut texts: Vec<String>, rest: impl FnOnce(usize) -> String) -> Vec<String> {
    if texts.len() > MAX_WARNINGS {
        let left = texts.len() - (MAX_WARNINGS - 1);
        texts.truncate(MAX_WARNINGS - 1);
        texts.push(rest(left));
    }
    texts
}

/// Returns a warning for each tag that could not be resolved to a digest.
pub(crate) fn unresolved_warnings(checked: &[CheckedImage<'_>]) -> Vec<String> {
    let warnings = checked
        .iter()
        .filter(|checked| !checked.image.contains('@'))
        .filter_map(|checked| Some((checked.image, checked.outcome.as_ref().err()?)))
        .map(|(image, failure)| failure_warning(image, "keeps its tag:", failure))
        .collect();
    limited(warnings, |left| {
        format!("{left} more images keep their tags")
    })
}

fn failure_warning(image: &str, effect: &str, failure: &LookupFailure) -> String {
    unchecked_warning(image, effect, &failure.cause, failure.way_out)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::pods::workload::Workload;
    use crate::admission::review::request::Metadata;
    use crate::engine::{Basis, LifecycleReport, Mark};
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    const NO_GRACE: GracePeriod = GracePeriod {
        length: SignedDuration::ZERO,
        now: SignedDuration::MAX,
    };

    fn workload(image: &str) -> ChangedWorkload {
        let pod = json!({"spec": {"containers": [{"image": image}]}});
        let pod = serde_json::value::to_raw_value(&pod).unwrap();
        ChangedWorkload {
            workload: Workload::read("Pod", &pod).unwrap(),
            old: None,
            metadata: Metadata::default(),
        }
    }

    fn unchecked(image: &str) -> CheckedImage<'_> {
        CheckedImage {
            image,
            outcome: Err(LookupFailure::new("no answer", "try again")),
        }
    }

    fn ended<'a>(image: &'a str, changed: &ChangedWorkload) -> CheckedImage<'a> {
        let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        let report = LifecycleReport {
            digest: Digest::sha256(b"index"),
            marks: Some(Mark {
                date: "2025-03-20".parse().unwrap(),
                created: None,
                basis: Basis::Enforced,
            })
            .into(),
            platforms: Vec::new(),
        };
        let entries = report.entries(
            &changed.workload.nodes,
            now.as_duration(),
            now.as_duration(),
        );
        CheckedImage {
            image,
            outcome: Ok((report.digest, entries)),
        }
    }

    #[test]
    fn end_of_life_dates_come_before_unchecked_images() {
        let changed = workload("zzz:v1");
        let names: Vec<String> = (0..40).map(|index| format!("a{index}:v1")).collect();
        let mut checked: Vec<_> = names.iter().map(|image| unchecked(image)).collect();
        checked.push(ended("zzz:v1", &changed));
        let unresolved = unresolved_warnings(&checked);
        assert_eq!(unresolved.len(), MAX_WARNINGS);
        assert_eq!(
            unresolved.first().unwrap(),
            "image a0:v1 keeps its tag: no answer: try again"
        );
        assert_eq!(unresolved.last().unwrap(), "25 more images keep their tags");
        let verdict = verdict(
            (EndOfLifeMode::Warn, UncheckedPolicy::Refuse, NO_GRACE),
            &changed,
            &checked,
        );
        assert_eq!(verdict.refusal, None);
        assert_eq!(verdict.warnings.len(), MAX_WARNINGS);
        assert_eq!(
            verdict.warnings.first().unwrap(),
            "image zzz:v1 reached end of life on 2025-03-20"
        );
        assert_eq!(
            verdict.warnings.last().unwrap(),
            "26 more warnings: see the audit log and the webhook's log"
        );
    }

    #[test]
    fn an_unchecked_image_is_refused_only_by_the_policy_and_in_enforce_mode() {
        let changed = workload("app:v1");
        for (mode, policy, refused) in [
            (EndOfLifeMode::Enforce, UncheckedPolicy::Refuse, true),
            (EndOfLifeMode::Enforce, UncheckedPolicy::Warn, false),
            (EndOfLifeMode::Warn, UncheckedPolicy::Refuse, false),
            (EndOfLifeMode::Audit, UncheckedPolicy::Refuse, false),
        ] {
            let rules = (mode, policy, NO_GRACE);
            let verdict = verdict(rules, &changed, &[unchecked("app:v1")]);
            let text = "image app:v1 was not checked for end of life: no answer: try again";
            assert_eq!(
                verdict.refusal.as_ref().map(|refusal| &*refusal.message),
                refused.then_some(text)
            );
            let warns = !refused && mode != EndOfLifeMode::Audit;
            assert_eq!(
                verdict.warnings,
                warns.then_some(text).into_iter().collect::<Vec<_>>()
            );
            assert_eq!(verdict.audit.get("unchecked").unwrap(), "app:v1");
        }
        let both = [unchecked("app:v1"), ended("app:v1", &changed)];
        let verdict = verdict(
            (EndOfLifeMode::Enforce, UncheckedPolicy::Refuse, NO_GRACE),
            &changed,
            &both,
        );
        assert_eq!(
            verdict.refusal.unwrap().message,
            "image app:v1 reached end of life on 2025-03-20; \
             image app:v1 was not checked for end of life: no answer: try again: run a newer image"
        );
    }
}
