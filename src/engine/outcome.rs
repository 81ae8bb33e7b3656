//! What came of a pass: the rows, one verdict over all of them, and what to tell people.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ImageStatus, Leftover, Reason, Superseded, SupportedMode, TargetState, TargetStatus,
};
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
    /// The rows of all entries; `None`: nothing was looked at, and what status says still holds.
    pub rows: Option<Vec<TargetStatus>>,
    /// Skipped entries that `rows` does not list.
    pub skipped_not_listed: usize,
    /// Selected entries that `rows` does not list: more than any pass attaches to.
    pub selected_not_listed: usize,
    /// What this resource made and does not want any more.
    pub leftovers: Option<Vec<Leftover>>,
    /// The moves of the tag; `None`: as status says.
    pub superseded: Option<Vec<Superseded>>,
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
        Self {
            ready: false,
            reason: failure.problem.reason,
            message: failure.problem.message.clone(),
            retry_after: failure.retry_after,
        }
    }

    /// Ready, while nothing that the tag has left is marked.
    pub(super) fn watching(moves: &[Superseded]) -> Self {
        let settling = moves
            .iter()
            .filter(|left| left.state == TargetState::Pending)
            .count();
        let message = match settling {
            0 => "the tag has left nothing behind yet".to_owned(),
            1 => "1 move of the tag is settling".to_owned(),
            more => format!("{more} moves of the tag are settling"),
        };
        Self {
            ready: true,
            reason: Reason::Watching,
            message,
            retry_after: None,
        }
    }

    /// Judges the rows: all attached, some, or none for the first cause.
    pub(super) fn over(rows: &[TargetStatus], retry_after: Option<Duration>) -> Self {
        let selected: Vec<&TargetStatus> = rows
            .iter()
            .filter(|row| row.state != TargetState::Skipped)
            .collect();
        let open: Vec<&TargetStatus> = selected
            .iter()
            .copied()
            .filter(|row| row.state != TargetState::Attached)
            .collect();
        let of = |state| open.iter().copied().filter(move |row| row.state == state);
        let failed: Vec<&TargetStatus> = of(TargetState::Failed).collect();
        let waiting: Vec<&str> = of(TargetState::Pending).map(rows::name).collect();
        let attached = selected.len() - open.len();
        let verdict = |ready, reason, message| Self {
            ready,
            reason,
            message,
            retry_after,
        };
        if open.is_empty() {
            return verdict(
                true,
                Reason::Attached,
                format!("{} attached", targets(selected.len())),
            );
        }
        let told: Vec<String> = failed.iter().map(|row| told(row)).collect();
        let mut parts = vec![format!(
            "{attached} of {} attached",
            targets(selected.len())
        )];
        parts.extend((!told.is_empty()).then(|| few(&told)));
        if !waiting.is_empty() {
            parts.push(format!("the registry does not list yet: {}", few(&waiting)));
        }
        match failed.first() {
            _ if attached > 0 => verdict(false, Reason::PartiallyAttached, parts.join("; ")),
            None => verdict(false, Reason::Progressing, parts.join("; ")),
            Some(first) => {
                // One cause for all reads better without the list of its victims.
                let same = failed
                    .iter()
                    .all(|row| row.reason == first.reason && row.message == first.message);
                let message = if same && failed.len() > 1 {
                    first.message.clone().unwrap_or_default()
                } else {
                    few(&told)
                };
                verdict(false, cause(first), message)
            }
        }
    }

    /// The same where `leftovers` stay of what this resource made. What a passing cause left there is work that is not done yet;
    /// what a registry refuses to remove matters where readers act on it (`speaks`).
    pub(super) fn but_for(self, leftovers: &[Leftover], speaks: bool) -> Self {
        let of = |leftover: &&Leftover, wanted: fn(Reason) -> bool| {
            wanted(reason_of(leftover.reason.as_deref(), Reason::Progressing))
        };
        let passing = leftovers
            .iter()
            .find(|leftover| of(leftover, Reason::is_hurried));
        let refused = leftovers
            .iter()
            .find(|leftover| of(leftover, is_refusal))
            .filter(|_| speaks);
        let (reason, leftover) = match (passing, refused) {
            _ if !self.ready => return self,
            (Some(passing), _) => (
                reason_of(passing.reason.as_deref(), Reason::Progressing),
                passing,
            ),
            (None, Some(refused)) => (Reason::RemovalRefused, refused),
            (None, None) => return self,
        };
        let Leftover {
            subject,
            attachment,
            message,
            ..
        } = leftover;
        let message = message
            .clone()
            .unwrap_or_else(|| format!("{attachment} is still to be removed from {subject}"));
        Self {
            ready: false,
            reason,
            message,
            ..self
        }
    }

    /// What keeps the resource from being Ready: of targets that are partly attached, the causes of those that are not.
    pub(super) fn causes(&self, rows: &[TargetStatus]) -> Vec<Reason> {
        let open = rows
            .iter()
            .filter(|row| !matches!(row.state, TargetState::Attached | TargetState::Skipped));
        let causes: Vec<Reason> = match self.reason {
            Reason::PartiallyAttached => open.map(cause).collect(),
            _ => Vec::new(),
        };
        if causes.is_empty() {
            vec![self.reason]
        } else {
            causes
        }
    }
}

/// Why a target is not attached.
fn cause(row: &TargetStatus) -> Reason {
    match row.state {
        TargetState::Failed => reason_of(row.reason.as_deref(), Reason::RegistryUnavailable),
        _ => Reason::Progressing,
    }
}

/// A reason as status has it; one that this version does not know is taken for `unknown`.
fn reason_of(text: Option<&str>, unknown: Reason) -> Reason {
    text.and_then(|text| text.parse().ok()).unwrap_or(unknown)
}

/// Whether a leftover of this reason is one that was to go and could not: the others rest where they are.
fn is_refusal(reason: Reason) -> bool {
    !reason.is_hurried()
        && !matches!(
            reason,
            Reason::TagMoved | Reason::StillInUse | Reason::Planned
        )
}

/// A failed target in a message.
fn told(row: &TargetStatus) -> String {
    format!(
        "{}: {}: {}",
        rows::name(row),
        row.reason.as_deref().unwrap_or_default(),
        row.message.as_deref().unwrap_or_default()
    )
}

/// `1 target`, `3 targets`.
fn targets(count: usize) -> String {
    format!("{count} target{}", if count == 1 { "" } else { "s" })
}

/// The first few of a list, and how many more there are.
fn few<T: AsRef<str>>(items: &[T]) -> String {
    const MOST: usize = 4;
    let mut text = items
        .iter()
        .take(MOST)
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join("; ");
    if items.len() > MOST {
        text.push_str(&format!("; and {} more", items.len() - MOST));
    }
    text
}

impl Outcome {
    /// A pass that ended before any row was made.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        Self {
            resolved: Err(failure.problem.clone()),
            verdict: Verdict::failed(failure),
            ..Self::blank()
        }
    }

    /// A pass that found nothing to do; status stays as it is.
    pub(super) fn unchanged(notes: Vec<String>) -> Self {
        Self {
            resolved: Ok(notes),
            ..Self::blank()
        }
    }

    fn blank() -> Self {
        Self {
            image: None,
            referrers_mode: None,
            rows: None,
            skipped_not_listed: 0,
            selected_not_listed: 0,
            leftovers: None,
            superseded: None,
            verdict: Verdict {
                ready: true,
                reason: Reason::Attached,
                message: String::new(),
                retry_after: None,
            },
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

    /// Whether the next pass should follow soon, with back-off; otherwise the interval is soon enough.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        let causes = self
            .verdict
            .causes(self.rows.as_deref().unwrap_or_default());
        !self.verdict.ready && causes.into_iter().any(Reason::is_hurried)
    }

    /// `attached/selected`, as `status.attached` shows it.
    #[must_use]
    pub fn attached(&self) -> Option<String> {
        self.rows
            .as_deref()
            .map(|rows| rows::tally(rows, self.selected_not_listed))
    }
}
