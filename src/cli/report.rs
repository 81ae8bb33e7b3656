//! What `attach`, `plan` and `detach` print: a table a resource for people, or the resources with their status for programs.

use std::fmt::Write as _;

use clap::ValueEnum;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::desk::Done;
use super::exit::Error;
use super::table::Table;
use super::text::{Clean, clean_json, is_unsafe, line};
use crate::api::{
    ImageAttachment, ImageAttachmentStatus, Leftover, Origin, Reason, TargetState, TargetStatus,
};
use crate::attachment::artifact_type;
use crate::engine::{Outcome, Severity, status};
use affix_registry::oci::Digest;

/// The longest explanation in a table's cell, in characters.
const WHY: usize = 400;

/// How resources are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// As JSON; several as a v1 List
    Json,
    /// As YAML, one document each
    Yaml,
}

/// Whose words a table uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    /// What was done: states.
    Past,
    /// What would be done: actions.
    Future,
    /// What would be removed.
    Removal,
    /// What was removed.
    Removed,
}

impl Tense {
    const fn column(self) -> &'static str {
        match self {
            Self::Past | Self::Removed => "STATE",
            Self::Future | Self::Removal => "ACTION",
        }
    }
}

/// Whether all is as it should be, or could be.
pub(super) fn is_good(outcome: &Outcome, tense: Tense) -> bool {
    match tense {
        Tense::Past => outcome.verdict.ready,
        Tense::Future | Tense::Removal => {
            outcome.verdict.ready || outcome.verdict.reason == Reason::Planned
        }
        Tense::Removed => matches!(outcome.verdict.reason, Reason::Planned | Reason::Removed),
    }
}

/// Everything that is printed for people.
pub(super) fn tables(all: &[Done<'_>], tense: Tense) -> String {
    let tables: Vec<String> = all.iter().map(|done| table(done, tense)).collect();
    tables.join("\n")
}

fn table(done: &Done<'_>, tense: Tense) -> String {
    let spec = &done.attachment.object.spec;
    let mut text = String::new();
    let image = done
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.image.as_ref())
        .map_or(&spec.image, |image| &image.reference);
    let _ = writeln!(text, "{}  {}", done.attachment.label(), Clean(image));
    let Some(outcome) = &done.outcome else {
        let _ = writeln!(
            text,
            "  interrupted: run the command again; what is attached already is found and not attached twice"
        );
        return text;
    };
    if let Some(rows) = outcome.rows.as_ref().filter(|rows| !rows.is_empty()) {
        let mut table = Table::new(&["TARGET", "DIGEST", tense.column(), "ATTACHMENT", "WHY"]);
        for row in rows {
            let (word, why) = match tense {
                Tense::Past => past(row),
                Tense::Future => future(row),
                Tense::Removal => removal(row),
                Tense::Removed => removed(row),
            };
            let attachment = row.attachment.as_deref().map(short).unwrap_or_default();
            table.row([
                target(row),
                short(&row.digest),
                word.to_owned(),
                attachment,
                line(&why, WHY),
            ]);
        }
        for leftover in would_go(outcome).filter(|_| tense == Tense::Future) {
            let of = rows
                .iter()
                .find(|row| row.digest == leftover.subject)
                .map_or_else(|| "manifest".to_owned(), target);
            let why = "this resource made it, and does not want it any more";
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
        let mut table = Table::new(&["SUPERSEDED", "STATE", "DATE", "WHY"]);
        for image in superseded {
            let why = [&image.reason, &image.message]
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
                line(&why, WHY),
            ]);
        }
        let _ = write!(text, "{table}");
    }
    let _ = write!(text, "{}", summary(outcome, tense));
    text
}

fn summary(outcome: &Outcome, tense: Tense) -> String {
    let mut text = String::new();
    let verdict = &outcome.verdict;
    let _ = match tense {
        Tense::Past if verdict.ready => writeln!(text, "  Ready: {}", Clean(&verdict.message)),
        Tense::Future if verdict.ready => {
            writeln!(text, "  nothing to do: {}", Clean(&verdict.message))
        }
        Tense::Removed if verdict.reason == Reason::Removed => {
            writeln!(text, "  {}", Clean(&verdict.message))
        }
        Tense::Future | Tense::Removal | Tense::Removed if verdict.reason == Reason::Planned => {
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
    for word in outcome.resolved.iter().flatten() {
        let _ = writeln!(text, "  note: {}", Clean(word));
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

fn short(digest: &str) -> String {
    digest
        .parse::<Digest>()
        .map_or_else(|_| digest.to_owned(), |digest| super::text::short(&digest))
}

fn past(row: &TargetStatus) -> (&'static str, String) {
    let origin = match row.origin {
        Some(Origin::Made) => "made now",
        Some(Origin::Adopted) => "an equal one was there",
        None => "",
    };
    match row.state {
        TargetState::Attached => ("Attached", origin.to_owned()),
        TargetState::Pending => (
            "Pending",
            cause(row).unwrap_or_else(|| "pushed, and not listed by the registry yet".to_owned()),
        ),
        TargetState::Planned => ("Planned", "spec.dryRun is set".to_owned()),
        TargetState::Failed => ("Failed", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("Skipped", skipped(row)),
    }
}

fn future(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached if row.origin == Some(Origin::Made) => {
            ("keep", "this resource made it".to_owned())
        }
        TargetState::Attached => ("adopt", "an equal one is there".to_owned()),
        TargetState::Planned => ("attach", "no equal one is there".to_owned()),
        TargetState::Pending => ("wait", cause(row).unwrap_or_default()),
        TargetState::Failed => ("fail", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("skip", skipped(row)),
    }
}

fn removal(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached => (
            "remove",
            cause(row).unwrap_or_else(|| "an equal one is there".to_owned()),
        ),
        TargetState::Pending | TargetState::Planned => ("none", cause(row).unwrap_or_default()),
        TargetState::Failed => ("fail", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("skip", skipped(row)),
    }
}

fn removed(row: &TargetStatus) -> (&'static str, String) {
    match row.state {
        TargetState::Attached => ("Kept", "spec.dryRun is set".to_owned()),
        TargetState::Pending | TargetState::Planned => ("Absent", cause(row).unwrap_or_default()),
        TargetState::Failed => ("Failed", cause(row).unwrap_or_default()),
        TargetState::Skipped => ("Skipped", skipped(row)),
    }
}

/// What a plan would remove.
fn would_go(outcome: &Outcome) -> impl Iterator<Item = &Leftover> {
    outcome
        .leftovers
        .iter()
        .flatten()
        .filter(|leftover| leftover.reason.as_deref() == Some(Reason::Planned.as_str()))
}

/// Reason and message, as far as there are any.
fn cause(row: &TargetStatus) -> Option<String> {
    let parts: Vec<&str> = [&row.reason, &row.message]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The reason for a skip, and what it means.
fn skipped(row: &TargetStatus) -> String {
    let meaning = match row.reason.as_deref().and_then(|reason| reason.parse().ok()) {
        Some(Reason::IndexNotSelected) => "spec.targets.scope leaves the index out",
        Some(Reason::PlatformNotSelected) => "spec.targets leaves the platform out",
        Some(Reason::AttestationManifest) => "a build attestation is never a target",
        Some(Reason::StillInUse) => "an image in use still reaches it",
        Some(Reason::UnsupportedMediaType) => "it is neither an image nor an index",
        _ => return cause(row).unwrap_or_default(),
    };
    format!("{}: {meaning}", row.reason.as_deref().unwrap_or_default())
}

/// The resources with the status that a cluster would show.
///
/// # Errors
/// None in practice: every resource can be written.
pub(super) fn resources(all: &[Done<'_>], format: Format, now: Timestamp) -> Result<String, Error> {
    let mut values = Vec::new();
    for done in all {
        values.push(
            serde_json::to_value(with_status(done, now))
                .map_err(|error| Error::Failed(error.to_string()))?,
        );
    }
    match format {
        Format::Json => json(&as_one(values)),
        Format::Yaml => {
            let documents: Result<Vec<String>, Error> = values.iter().map(yaml).collect();
            Ok(documents?.join("---\n"))
        }
    }
}

/// A JSON document for a terminal, with a line's end.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Failed(error.to_string()))?;
    Ok(format!("{}\n", clean_json(&text)))
}

/// A YAML document for a terminal; where a terminal would act upon it, its JSON, which is YAML too.
fn yaml(value: &Value) -> Result<String, Error> {
    // A long text stays on one line, as kubectl has it: what is folded cannot be searched.
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

fn with_status(done: &Done<'_>, now: Timestamp) -> ImageAttachment {
    let mut object = done.attachment.object.clone();
    let generation = object.metadata.generation.unwrap_or_default();
    let before = object.status.take().unwrap_or_default();
    object.status = done.outcome.as_ref().map(|outcome| ImageAttachmentStatus {
        artifact_type: artifact_type(&object.spec).map(|kind| kind.to_string()),
        ..status(&before, outcome, generation, now)
    });
    object
}
