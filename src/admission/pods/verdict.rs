//! The verdict on the images of a pod. Pure.

use crate::admission::pods::cluster_index::Mode;
use crate::admission::pods::lifecycle_report::Finding;
use crate::admission::pods::lookup::Unknown;
use crate::admission::review::image_name::warning;
use crate::admission::review::response::{Refusal, Verdict};
use affix_registry::oci::Digest;

/// Most warnings of one answer, and findings in the audit log.
const MOST_WARNINGS: usize = 16;

/// What was found about one image.
pub(crate) struct Looked<'a> {
    pub(crate) image: &'a str,
    pub(crate) outcome: Result<(Digest, Vec<Finding>), Unknown>,
}

/// What follows from what was found.
pub(crate) fn verdict(mode: Mode, is_pod: bool, looked: &[Looked<'_>]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut digests, mut dates, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_ended = false;
    for Looked { image, outcome } in looked {
        match outcome {
            Err(why) => {
                verdict
                    .audit
                    .insert("unchecked", image.chars().take(256).collect());
                if mode != Mode::Audit {
                    verdict.warnings.push(warning(
                        "image",
                        image,
                        &format!("was not checked for end of life: {}", brief(why)),
                    ));
                }
            }
            Ok((_, findings)) => {
                for finding in findings {
                    let counts = finding.has_ended && finding.counts;
                    has_ended |= counts;
                    if counts && mode == Mode::Enforce && is_pod {
                        refused.push(finding.message(image));
                    } else if mode != Mode::Audit {
                        verdict.warnings.push(finding.message(image));
                    }
                    digests.push(finding.digest.to_string());
                    dates.push(finding.date.clone());
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
        Mode::Audit if has_ended => "audited",
        _ if !verdict.warnings.is_empty() => "warned",
        _ => "admitted",
    };
    verdict.audit.insert("decision", decision.to_owned());
    if !digests.is_empty() {
        digests.truncate(MOST_WARNINGS);
        dates.truncate(MOST_WARNINGS);
        verdict.audit.insert("digest", digests.join(","));
        verdict.audit.insert("date", dates.join(","));
    }
    verdict.warnings.truncate(MOST_WARNINGS);
    verdict
}

/// The beginning of a cause: a warning has no room for more.
fn brief(why: &str) -> String {
    const MOST: usize = 60;
    if why.chars().count() <= MOST {
        return why.to_owned();
    }
    why.chars().take(MOST - 1).chain("…".chars()).collect()
}
