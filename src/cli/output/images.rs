//! The output of `affix report`: the images that run in a cluster.

use std::fmt::Write as _;

use super::table::Table;
use super::text::{Clean, line, short};
use crate::inventory::{Assessment, Finding, State};

/// The maximum length of a cause, in characters.
const MAX_CAUSE: usize = 300;
/// The number of causes that are shown.
const MAX_CAUSES: usize = 20;

/// Returns the table, the causes of unknown states and a summary.
pub(in crate::cli) fn table(assessment: &Assessment) -> String {
    let findings = &assessment.findings;
    if findings.is_empty() {
        return "no running images\n".to_owned();
    }
    let mut table = Table::new(&[
        "STATE",
        "NAMESPACE",
        "IMAGE",
        "DIGEST",
        "PLATFORM",
        "PODS",
        "SIGNED BY",
    ]);
    for finding in findings {
        table.row(row(finding));
    }
    let mut text = table.to_string();
    let _ = write!(text, "{}", causes(findings));
    let summary = &assessment.summary;
    let states = State::ALL.map(|state| format!("{} {}", assessment.count(state), state.text()));
    let _ = writeln!(
        text,
        "\n{} pods run {} images; by namespace and platform: {}",
        summary.pods,
        summary.digests,
        states.join(", ")
    );
    if summary.not_listed > 0 {
        let _ = writeln!(
            text,
            "{} uses of images are not listed, because there are too many: report single namespaces with -n",
            summary.not_listed
        );
    }
    text
}

fn row(finding: &Finding) -> [String; 7] {
    let state = match (finding.state, &finding.date) {
        (State::OutOfLife, Some(date)) => format!("out of life since {date}"),
        (State::EndingSoon, Some(date)) => format!("ending soon, on {date}"),
        (state, _) => state.text().to_owned(),
    };
    let tag = finding.tag.as_ref().map(|tag| format!(":{tag}"));
    let digest = finding
        .digest
        .as_ref()
        .and_then(|digest| digest.parse().ok());
    [
        state,
        finding.namespace.clone(),
        format!("{}{}", finding.image, tag.unwrap_or_default()),
        digest.as_ref().map_or_else(|| "-".to_owned(), short),
        finding.platform.clone().unwrap_or_else(|| "-".to_owned()),
        finding.pods.to_string(),
        finding.signed_by.join(", "),
    ]
}

/// Returns a line for each different cause of an unknown state.
fn causes(findings: &[Finding]) -> String {
    let mut causes: Vec<(&str, &str, usize)> = Vec::new();
    for finding in findings {
        let Some(cause) = finding.cause.as_deref() else {
            continue;
        };
        match causes.iter_mut().find(|(_, other, _)| *other == cause) {
            Some((_, _, count)) => *count += 1,
            None => causes.push((&finding.image, cause, 1)),
        }
    }
    let mut text = String::new();
    for (image, cause, count) in causes.iter().take(MAX_CAUSES) {
        let more = if *count > 1 {
            format!(" and {} more", count - 1)
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "  unknown: {}{more}: {}",
            Clean(image),
            line(cause, MAX_CAUSE)
        );
    }
    if causes.len() > MAX_CAUSES {
        let _ = writeln!(text, "  and {} more causes", causes.len() - MAX_CAUSES);
    }
    text
}
