//! What came of a pass: the rows, one verdict over all of them, and what to tell people.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{ImageStatus, Leftover, Reason, Superseded, SupportedMode, TargetState, TargetStatus};
use crate::attachment::Problem;

use super::failure::Failure;
use super::rows;

/// What came of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The image, where it was resolved.
    pub image: Option<ImageStatus>,
    /// How the registry lists referrers, where it was asked.
    pub referrers_mode: Option<SupportedMode>,
    /// The artifact type that was wanted.
    pub artifact_type: Option<String>,
    /// The rows of all entries; `None`: nothing was looked at, and what status says still holds.
    pub rows: Option<Vec<TargetStatus>>,
    /// Skipped entries that `rows` does not list.
    pub skipped_not_listed: usize,
    /// What this resource made and does not want any more.
    pub leftovers: Option<Vec<Leftover>>,
    /// The moves of the tag; `None`: as status says.
    pub superseded: Option<Vec<Superseded>>,
    /// When something is due that no registry tells of, such as a move that settles.
    pub due_in: Option<Duration>,
    /// Ready, and why.
    pub verdict: Verdict,
    /// Whether the image was resolved: then why not, or what a user should know about it.
    pub resolved: Result<Vec<String>, Problem>,
    /// Events.
    pub notes: Vec<Note>,
    /// How many requests the registry got, tokens not counted.
    pub requests: u64,
    /// When verifiers stop taking the signatures of the key that the resource signs with, where that is known.
    pub signatures_end: Option<Timestamp>,
}

/// The Ready condition in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether Ready is True.
    pub ready: bool,
    /// From the one table.
    pub reason: Reason,
    /// For the condition.
    pub message: String,
    /// How long the registry asked to wait.
    pub retry_after: Option<Duration>,
}

/// Whether an event is one to worry about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something was done.
    Normal,
    /// Something is wrong or was lost.
    Warning,
}

/// Something that happened once and that a user should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How bad.
    pub severity: Severity,
    /// From the one table.
    pub reason: Reason,
    /// What happened.
    pub message: String,
}

impl Verdict {
    /// Not ready, for one cause.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        Self { ready: false, reason: failure.problem.reason, message: failure.problem.message.clone(), retry_after: failure.retry_after }
    }

    /// Ready, while nothing that the tag has left is marked.
    pub(super) fn watching(moves: &[Superseded]) -> Self {
        let settling = moves.iter().filter(|left| left.state == TargetState::Pending).count();
        let message = match settling {
            0 => "the tag has left nothing behind yet".to_owned(),
            1 => "1 move of the tag is settling".to_owned(),
            more => format!("{more} moves of the tag are settling"),
        };
        Self { ready: true, reason: Reason::Watching, message, retry_after: None }
    }

    /// Judges the rows: all attached, some, or none for the first cause.
    pub(super) fn over(rows: &[TargetStatus], retry_after: Option<Duration>) -> Self {
        let selected: Vec<&TargetStatus> = rows.iter().filter(|row| row.state != TargetState::Skipped).collect();
        let attached = selected.iter().filter(|row| row.state == TargetState::Attached).count();
        let failed: Vec<&&TargetStatus> = selected.iter().filter(|row| row.state == TargetState::Failed).collect();
        let verdict = |ready, reason, message| Self { ready, reason, message, retry_after };
        match (failed.first(), attached == selected.len()) {
            (None, true) => verdict(true, Reason::Attached, format!("{} attached", targets(selected.len()))),
            (None, false) => {
                let waiting: Vec<&str> =
                    selected.iter().filter(|row| row.state != TargetState::Attached).map(|row| rows::name(row)).collect();
                verdict(
                    false,
                    Reason::Progressing,
                    format!("{attached} of {} attached; the registry does not list yet: {}", targets(selected.len()), few(&waiting)),
                )
            }
            (Some(first), _) => {
                let cause = first.reason.as_deref().and_then(|reason| reason.parse().ok()).unwrap_or(Reason::RegistryUnavailable);
                let told: Vec<String> = failed
                    .iter()
                    .map(|row| {
                        format!(
                            "{}: {}: {}",
                            rows::name(row),
                            row.reason.as_deref().unwrap_or_default(),
                            row.message.as_deref().unwrap_or_default()
                        )
                    })
                    .collect();
                if attached > 0 {
                    let message = format!("{attached} of {} attached; {}", targets(selected.len()), few(&told));
                    return verdict(false, Reason::PartiallyAttached, message);
                }
                // One cause for all reads better without the list of its victims.
                let same = failed.iter().all(|row| row.reason == first.reason && row.message == first.message);
                let message = if same && failed.len() > 1 { first.message.clone().unwrap_or_default() } else { few(&told) };
                verdict(false, cause, message)
            }
        }
    }
}

/// `1 target`, `3 targets`.
fn targets(count: usize) -> String {
    format!("{count} target{}", if count == 1 { "" } else { "s" })
}

/// The first few of a list, and how many more there are.
fn few<T: AsRef<str>>(items: &[T]) -> String {
    const MOST: usize = 4;
    let mut text = items.iter().take(MOST).map(AsRef::as_ref).collect::<Vec<_>>().join("; ");
    if items.len() > MOST {
        text.push_str(&format!("; and {} more", items.len() - MOST));
    }
    text
}

impl Outcome {
    /// A pass that ended before any row was made.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        Self { resolved: Err(failure.problem.clone()), verdict: Verdict::failed(failure), ..Self::blank() }
    }

    /// A pass that found nothing to do; status stays as it is.
    pub(super) fn unchanged(notes: Vec<String>) -> Self {
        Self { resolved: Ok(notes), ..Self::blank() }
    }

    fn blank() -> Self {
        Self {
            image: None,
            referrers_mode: None,
            artifact_type: None,
            rows: None,
            skipped_not_listed: 0,
            leftovers: None,
            superseded: None,
            due_in: None,
            verdict: Verdict { ready: true, reason: Reason::Attached, message: String::new(), retry_after: None },
            resolved: Ok(Vec::new()),
            notes: Vec::new(),
            requests: 0,
            signatures_end: None,
        }
    }

    /// Whether the pass found everything as status says.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.rows.is_none() && self.verdict.ready
    }

    /// Whether the next pass should follow soon, with back-off; otherwise the interval is soon enough. Of targets that are partly
    /// attached, those that are not decide.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        let hurried = |row: &TargetStatus| match row.state {
            TargetState::Failed => row.reason.as_deref().and_then(|reason| reason.parse().ok()).is_none_or(Reason::is_hurried),
            state => state == TargetState::Pending,
        };
        match (&self.verdict, &self.rows) {
            (Verdict { ready: true, .. }, _) => false,
            (Verdict { reason: Reason::PartiallyAttached, .. }, Some(rows)) => rows.iter().any(hurried),
            (Verdict { reason, .. }, _) => reason.is_hurried(),
        }
    }

    /// `attached/selected`, as `status.attached` shows it.
    #[must_use]
    pub fn attached(&self) -> Option<String> {
        self.rows.as_deref().map(rows::tally)
    }
}
