//! The output of `attach`, `plan` and `detach`: a table for each resource, or the resources with their status.

use std::fmt::Write as _;

use clap::ValueEnum;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::table::Table;
use super::text::{Clean, clean_json, is_unsafe, line};
use crate::api::{
    FormatStatus, ImageAttachment, ImageAttachmentStatus, Leftover, Origin, Reason, Superseded,
    TargetState, TargetStatus,
};
use crate::attachment::artifact_type;
use crate::cli::exit::Error;
use crate::cli::local::Finished;
use crate::cli::local::sets::PlannedSet;
use crate::engine::{Outcome, Severity, status};
use affix_registry::oci::Digest;

/// The maximum length of a reason in a table, in characters.
const MAX_REASON: usize = 400;

/// The output format of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// JSON; several resources as a v1 List
    Json,
    /// YAML, one document per resource
    Yaml,
}

/// The view of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum View {
    /// The states after `attach`.
    Attached,
    /// The actions that `attach` would take.
    Plan,
    /// The actions that `detach` would take.
    RemovalPlan,
    /// The states after `detach`.
    Removed,
    /// The states of a resource in a cluster.
    Status,
}

impl View {
    const fn column(self) -> &'static str {
        match self {
            Self::Attached | Self::Removed | Self::Status => "STATE",
            Self::Plan | Self::RemovalPlan => "ACTION",
        }
    }
}

/// Returns whether a resource succeeded, or would succeed.
pub(in crate::cli) fn is_success(outcome: &Outcome, view: View) -> bool {
    match view {
        View::Attached | View::Status => outcome.verdict.ready,
        View::Plan | View::RemovalPlan => {
            outcome.verdict.ready || outcome.verdict.reason == Reason::Planned
        }
        View::Removed => matches!(outcome.verdict.reason, Reason::Planned | Reason::Removed),
    }
}

/// Returns the tables of all resources.
pub(in crate::cli) fn tables(all: &[Finished<'_>], view: View) -> String {
    let tables: Vec<String> = all.iter().map(|finished| table(finished, view)).collect();
    let mut text = tables.join("\n");
    if all.len() > 1 {
        let count = |predicate: &dyn Fn(&Outcome) -> bool| {
            let outcomes = all.iter().filter_map(|finished| finished.outcome.as_ref());
            outcomes.filter(|outcome| predicate(outcome)).count()
        };
        let interrupted = all.iter().filter(|finished| finished.outcome.is_none());
        let done = count(&|outcome| is_success(outcome, view));
        let interrupted = interrupted.count();
        let failed = all.len() - done - interrupted;
        let _ = write!(
            text,
            "\n{} resources: {done} ok, {failed} failed",
            all.len()
        );
        if interrupted > 0 {
            let _ = write!(text, ", {interrupted} interrupted");
        }
        text.push('\n');
    }
    text
}

fn table(finished: &Finished<'_>, view: View) -> String {
    let spec = &finished.attachment.object.spec;
    let mut text = String::new();
    let image = finished
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.image.as_ref())
        .map_or(&spec.image, |image| &image.reference);
    let _ = writeln!(text, "{}  {}", finished.attachment.label(), Clean(image));
    let Some(outcome) = &finished.outcome else {
        let _ = writeln!(
            text,
            "  interrupted: run the command again; existing attachments are kept"
        );
        return text;
    };
    if let Some(rows) = outcome.rows.as_ref().filter(|rows| !rows.is_empty()) {
        let mut table = targets_table(rows, view);
        for leftover in planned_removals(outcome).filter(|_| view == View::Plan) {
            let of = rows
                .iter()
                .find(|row| row.digest == leftover.subject)
                .map_or_else(|| "manifest".to_owned(), target);
            let why = "this resource created it and no longer wants it";
            table.row([
                of,
                short(&leftover.subject),
                "remove".to_owned(),
                short(&leftover.attachment),
                why.to_owned(),
            ]);
        }
        let _ = write!(text, "{table}");
        if outcome.skipped_not_listed > 0 {
            let _ = writeln!(text, "  and {} more skipped", outcome.skipped_not_listed);
        }
    }
    if let Some(superseded) = outcome
        .superseded
        .as_ref()
        .filter(|superseded| !superseded.is_empty())
    {
        let _ = write!(text, "{}", superseded_table(superseded));
    }
    let _ = write!(text, "{}", summary(outcome, view));
    text
}

/// Returns the table of the targets.
pub(super) fn targets_table(rows: &[TargetStatus], view: View) -> Table {
    let mut table = Table::new(&["TARGET", "DIGEST", view.column(), "ATTACHMENT", "WHY"]);
    for row in rows {
        let (word, why) = state_of(row, view);
        let attachment = row.attachment.as_deref().map(short).unwrap_or_default();
        table.row([
            target(row),
            short(&row.digest),
            word.to_owned(),
            attachment,
            line(&why, MAX_REASON),
        ]);
        for format in row.formats.iter().filter(|_| row.formats.len() > 1) {
            let part = in_format(row, format);
            table.row([
                match &format.predicate_type {
                    Some(predicate_type) => format!("  {}", line(predicate_type, MAX_REASON)),
                    None => format!("  {:?}", format.format),
                },
                String::new(),
                state_of(&part, view).0.to_owned(),
                part.attachment.as_deref().map(short).unwrap_or_default(),
                format.reference.clone().unwrap_or_default(),
            ]);
        }
    }
    table
}

/// Returns the state of a target, or the action on it, and the cause.
fn state_of(row: &TargetStatus, view: View) -> (&'static str, String) {
    match view {
        View::Attached => attached_state(row, "created now"),
        View::Status => attached_state(row, "this resource created it"),
        View::Plan => planned_action(row),
        View::RemovalPlan => removal_action(row),
        View::Removed => removed_state(row),
    }
}

/// Returns the table of the images that the tag has left.
pub(super) fn superseded_table(superseded: &[Superseded]) -> Table {
    let mut table = Table::new(&["SUPERSEDED", "STATE", "DATE", "WHY"]);
    for image in superseded {
        let tag = image
            .tag
            .as_ref()
            .map(|tag| format!("the tag {tag} reaches it"));
        let why = [&image.reason, &image.message, &tag]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(": ");
        let date = image.date.clone().unwrap_or_default();
        table.row([
            short(&image.digest),
            format!("{:?}", image.state),
            date,
            line(&why, MAX_REASON),
        ]);
    }
    table
}

fn summary(outcome: &Outcome, view: View) -> String {
    let mut text = String::new();
    let verdict = &outcome.verdict;
    let _ = match view {
        View::Attached if verdict.ready => writeln!(text, "  Ready: {}", Clean(&verdict.message)),
        View::Plan if verdict.ready => {
            writeln!(text, "  nothing to do: {}", Clean(&verdict.message))
        }
        View::Removed if verdict.reason == Reason::Removed => {
            writeln!(text, "  {}", Clean(&verdict.message))
        }
        View::Plan | View::RemovalPlan | View::Removed if verdict.reason == Reason::Planned => {
            writeln!(
                text,
                "  {}",
                Clean(
                    verdict
                        .message
                        .strip_prefix("dry run: ")
                        .unwrap_or(&verdict.message)
                )
            )
        }
        _ => writeln!(text, "  {}: {}", verdict.reason, Clean(&verdict.message)),
    };
    for note in outcome.resolved.iter().flatten() {
        let _ = writeln!(text, "  note: {}", Clean(note));
    }
    for note in outcome
        .notes
        .iter()
        .filter(|note| note.severity == Severity::Warning)
    {
        let _ = writeln!(text, "  warning: {}: {}", note.reason, Clean(&note.message));
    }
    text
}

fn target(row: &TargetStatus) -> String {
    row.platform.clone().unwrap_or_else(|| match row.kind {
        _ if row.reason.as_deref() == Some(Reason::AttestationManifest.as_str()) => {
            "attestation".to_owned()
        }
        crate::api::TargetKind::Index => "index".to_owned(),
        crate::api::TargetKind::Platform => "manifest".to_owned(),
    })
}

/// Returns the target as if it had one format only.
fn in_format(row: &TargetStatus, format: &FormatStatus) -> TargetStatus {
    TargetStatus {
        state: format.state,
        origin: format.origin,
        attachment: format.attachment().map(str::to_owned),
        formats: Vec::new(),
        ..row.clone()
    }
}

fn short(digest: &str) -> String {
    digest
        .parse::<Digest>()
        .map_or_else(|_| digest.to_owned(), |digest| super::text::short(&digest))
}

fn attached_state(row: &TargetStatus, made: &'static str) -> (&'static str, String) {
    let origin = match row.origin {
        Some(Origin::Made) => made,
        Some(Origin::Adopted) => "an equal attachment existed",
        None => "",
    };
    match row.state {
        TargetState::Attached => ("Attached", origin.to_owned()),
        TargetState::Pending => (
            "Pending",
            cause(row).unwrap_or_else(|| "pushed, but not listed by the registry yet".to_owned()),
        ),
        TargetState::Planned => ("Planned", "spec.dryRun is set".to_owned()),
        TargetState::Failed => ("Failed", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("Skipped", skipped(row)),
    }
}

fn planned_action(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached if row.origin == Some(Origin::Made) => {
            ("keep", "this resource created it".to_owned())
        }
        TargetState::Attached => ("adopt", "an equal attachment exists".to_owned()),
        TargetState::Planned => match cause(row) {
            Some(why) => ("unknown", why),
            None => ("attach", "no equal attachment exists".to_owned()),
        },
        TargetState::Pending => ("wait", cause(row).unwrap_or_default()),
        TargetState::Failed => ("fail", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("skip", skipped(row)),
    }
}

fn removal_action(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached => (
            "remove",
            cause(row).unwrap_or_else(|| "an equal attachment exists".to_owned()),
        ),
        TargetState::Pending | TargetState::Planned => ("none", cause(row).unwrap_or_default()),
        TargetState::Failed => ("fail", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("skip", skipped(row)),
    }
}

fn removed_state(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached => ("Kept", "spec.dryRun is set".to_owned()),
        TargetState::Pending | TargetState::Planned => ("Absent", cause(row).unwrap_or_default()),
        TargetState::Failed => ("Failed", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("Skipped", skipped(row)),
    }
}

/// Returns the attachments that a plan would remove.
fn planned_removals(outcome: &Outcome) -> impl Iterator<Item = &Leftover> {
    outcome
        .leftovers
        .iter()
        .flatten()
        .filter(|leftover| leftover.reason.as_deref() == Some(Reason::Planned.as_str()))
}

/// Returns reason and message, if there are any.
fn cause(row: &TargetStatus) -> Option<String> {
    let parts: Vec<&str> = [&row.reason, &row.message]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// Returns the reason for a skip, and its meaning.
fn skipped(row: &TargetStatus) -> String {
    let meaning = match row.reason.as_deref().and_then(|reason| reason.parse().ok()) {
        Some(Reason::IndexNotSelected) => "spec.targets.scope excludes the index",
        Some(Reason::PlatformNotSelected) => "spec.targets excludes the platform",
        Some(Reason::DigestNotSelected) => "spec.targets.digests excludes the manifest",
        Some(Reason::AttestationManifest) => "a build attestation is never a target",
        Some(Reason::StillInUse) => "an image in use still contains it",
        Some(Reason::UnsupportedMediaType) => "it is neither an image nor an index",
        _ => return cause(row).unwrap_or_default(),
    };
    format!("{}: {meaning}", row.reason.as_deref().unwrap_or_default())
}

/// Returns the resources with the status that they would have in a cluster.
///
/// # Errors
/// If a resource cannot be serialized, which does not happen in practice.
pub(in crate::cli) fn resources(
    all: &[Finished<'_>],
    format: Format,
    now: Timestamp,
) -> Result<String, Error> {
    let mut values = Vec::new();
    for finished in all {
        values.push(
            serde_json::to_value(with_status(finished, now))
                .map_err(|error| Error::Failed(error.to_string()))?,
        );
    }
    objects(&values, format)
}

/// Returns the sets with their status, each with its children, and then the other resources.
///
/// # Errors
/// If a resource cannot be serialized, which does not happen in practice.
pub(in crate::cli) fn with_sets(
    sets: &[PlannedSet],
    all: &[Finished<'_>],
    format: Format,
    now: Timestamp,
) -> Result<String, Error> {
    let failed = |error: serde_json::Error| Error::Failed(error.to_string());
    let mut values = Vec::new();
    for set in sets {
        let mut object = set.document.object.clone();
        object.status = Some(set.status(all, now));
        values.push(serde_json::to_value(object).map_err(failed)?);
        for kept in &set.kept {
            values.push(serde_json::to_value(&kept.object).map_err(failed)?);
        }
    }
    for finished in all {
        values.push(serde_json::to_value(with_status(finished, now)).map_err(failed)?);
    }
    objects(&values, format)
}

/// Returns objects as text.
///
/// # Errors
/// If an object cannot be serialized, which does not happen in practice.
pub(in crate::cli) fn objects(values: &[Value], format: Format) -> Result<String, Error> {
    match format {
        Format::Json => json(&as_one(values.to_vec())),
        Format::Yaml => {
            let documents: Result<Vec<String>, Error> = values.iter().map(yaml).collect();
            Ok(documents?.join("---\n"))
        }
    }
}

/// Returns a JSON document that is safe for a terminal.
pub(in crate::cli) fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Failed(error.to_string()))?;
    Ok(format!("{}\n", clean_json(&text)))
}

/// Returns a YAML document that is safe for a terminal. With control characters it is written as JSON, which is YAML too.
fn yaml(value: &Value) -> Result<String, Error> {
    // Like kubectl, it keeps long texts on one line, so that they can be searched.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let text = serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| Error::Failed(error.to_string()))?;
    if text.chars().any(|c| is_unsafe(c) && c != '\n') {
        json(value)
    } else {
        Ok(text)
    }
}

fn as_one(mut values: Vec<Value>) -> Value {
    match (values.len(), values.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            values.extend(last);
            serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values})
        }
    }
}

fn with_status(finished: &Finished<'_>, now: Timestamp) -> ImageAttachment {
    let mut object = finished.attachment.object.clone();
    let generation = object.metadata.generation.unwrap_or_default();
    let before = object.status.take().unwrap_or_default();
    object.status = finished
        .outcome
        .as_ref()
        .map(|outcome| ImageAttachmentStatus {
            artifact_type: artifact_type(&object.spec).map(|kind| kind.to_string()),
            ..status(&before, outcome, generation, now)
        });
    object
}
