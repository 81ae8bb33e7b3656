//! The verdict of a pass: the Ready condition with its causes.

use std::time::Duration;

use affix_registry::oci::Digest;

use crate::api::{ACCEPT_LEFTOVERS, Reason, Superseded, SupersededState, TargetState};
use crate::engine::failure::Failure;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::target::TargetRecord;

/// The Ready condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// True if Ready is True.
    pub ready: bool,
    /// A reason from the table.
    pub reason: Reason,
    /// The message of the condition.
    pub message: String,
    /// The causes of a resource that is not ready. Partly attached targets may have several.
    pub causes: Vec<Reason>,
    /// The delay that the registry asked for.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    pub(in crate::engine) fn ready(reason: Reason, message: String) -> Self {
        Self {
            ready: true,
            ..Self::not_ready(reason, message, None)
        }
    }

    /// Returns a verdict with one cause.
    pub(in crate::engine) fn not_ready(
        reason: Reason,
        message: String,
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            ready: false,
            reason,
            message,
            causes: vec![reason],
            retry_after,
        }
    }

    /// Returns the verdict of a pass that failed as a whole.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        let problem = &failure.problem;
        Self::not_ready(problem.reason, problem.message.clone(), failure.retry_after)
    }

    /// Returns the verdict while no image that the tag has left is marked.
    pub(in crate::engine) fn watching(moves: &[Superseded]) -> Self {
        let count = |state| moves.iter().filter(|image| image.state == state).count();
        let mut parts = Vec::new();
        match count(SupersededState::Pending) {
            0 => {}
            1 => parts.push("1 move of the tag is settling".to_owned()),
            more => parts.push(format!("{more} moves of the tag are settling")),
        }
        match count(SupersededState::StillInUse) {
            0 => {}
            1 => parts.push("1 image that the tag has left is still in use".to_owned()),
            more => parts.push(format!(
                "{more} images that the tag has left are still in use"
            )),
        }
        if parts.is_empty() {
            parts.push("the tag has left nothing behind yet".to_owned());
        }
        Self::ready(Reason::Watching, parts.join("; "))
    }

    /// Returns the verdict over all targets: attached, partially attached, or the first cause.
    pub(in crate::engine) fn over(targets: &[TargetRecord], retry_after: Option<Duration>) -> Self {
        let selected = targets.iter().filter(|target| target.is_selected()).count();
        let open: Vec<&TargetRecord> = targets.iter().filter(|target| !target.is_done()).collect();
        let attached = selected - open.len();
        if open.is_empty() {
            let verdict = Self::ready(
                Reason::Attached,
                format!("{} attached", count_targets(selected)),
            );
            return Self {
                retry_after,
                ..verdict
            };
        }
        let of = |state| {
            open.iter()
                .copied()
                .filter(move |target| target.state == state)
        };
        let failed: Vec<&TargetRecord> = of(TargetState::Failed).collect();
        let unlisted: Vec<String> = of(TargetState::Pending).map(TargetRecord::name).collect();
        let descriptions: Vec<String> = failed.iter().map(|target| describe(target)).collect();
        let mut parts = vec![format!(
            "{attached} of {} attached",
            count_targets(selected)
        )];
        parts.extend((!descriptions.is_empty()).then(|| shorten(&descriptions)));
        if !unlisted.is_empty() {
            parts.push(format!(
                "the registry does not list yet: {}",
                shorten(&unlisted)
            ));
        }
        match failed.first() {
            _ if attached > 0 => Self {
                causes: open.iter().map(|target| target.cause()).collect(),
                ..Self::not_ready(Reason::PartiallyAttached, parts.join("; "), retry_after)
            },
            None => Self::not_ready(Reason::Progressing, parts.join("; "), retry_after),
            Some(first) => {
                let same = failed
                    .iter()
                    .all(|target| target.reason == first.reason && target.message == first.message);
                // One cause of all targets is reported without their names.
                let message = if same && failed.len() > 1 {
                    first.text().to_owned()
                } else {
                    shorten(&descriptions)
                };
                Self::not_ready(first.cause(), message, retry_after)
            }
        }
    }

    /// Applies the leftovers to a verdict that is ready. A pending removal is unfinished work. A refused removal matters if readers act on
    /// the attachment (`matters`). `generation` is that of the spec.
    pub(in crate::engine) fn with_leftovers(
        self,
        leftovers: &[LeftoverRecord],
        matters: impl Fn(&LeftoverRecord) -> bool,
        generation: i64,
    ) -> Self {
        if !self.ready {
            return self;
        }
        if let Some(pending) = leftovers.iter().find(|leftover| leftover.is_pending()) {
            let message = pending.message.clone().unwrap_or_else(|| {
                let (attachment, subject) = (&pending.attachment, &pending.subject);
                format!("{attachment} is still to be removed from {subject}")
            });
            return Self::not_ready(pending.known_reason(), message, self.retry_after);
        }
        let refused: Vec<&LeftoverRecord> = leftovers
            .iter()
            .filter(|leftover| leftover.is_refused() && matters(leftover))
            .collect();
        match refused.first() {
            None => self,
            Some(first) => {
                let message = refused_message(&refused, first, generation);
                Self::not_ready(Reason::RemovalRefused, message, self.retry_after)
            }
        }
    }
}

/// Returns the message of refused removals: the ways out, each attachment, and the answer of the registry.
fn refused_message(refused: &[&LeftoverRecord], first: &LeftoverRecord, generation: i64) -> String {
    let attachments = match refused.len() {
        1 => "an attachment".to_owned(),
        more => format!("{more} attachments"),
    };
    let names: Vec<String> = match refused {
        [only] => vec![format!("{} on {}", only.attachment, only.subject)],
        _ => refused
            .iter()
            .map(|leftover| {
                let (attachment, subject) = (&leftover.attachment, &leftover.subject);
                format!("{} on {}", brief(attachment), brief(subject))
            })
            .collect(),
    };
    let answer = match &first.message {
        Some(answer) => format!(" ({answer})"),
        None => String::new(),
    };
    format!(
        "the registry refuses to delete {attachments} that readers still act on: let it delete manifests, or accept them with the \
         annotation {ACCEPT_LEFTOVERS}: \"{generation}\"; {}{answer}",
        names.join(", ")
    )
}

/// Returns the beginning of a digest, which is enough to find it.
fn brief(digest: &Digest) -> String {
    const HEX_DIGITS: usize = 12;
    digest.hex().chars().take(HEX_DIGITS).collect()
}

/// Returns the description of a failed target.
fn describe(target: &TargetRecord) -> String {
    let reason = target.reason.map(Reason::as_str).unwrap_or_default();
    format!("{}: {reason}: {}", target.name(), target.text())
}

/// Returns `1 target`, `3 targets`.
pub(in crate::engine) fn count_targets(count: usize) -> String {
    format!("{count} target{}", if count == 1 { "" } else { "s" })
}

/// Joins the first items of a list and counts the others.
fn shorten(items: &[String]) -> String {
    const MAX_ITEMS: usize = 4;
    let mut text = items
        .iter()
        .take(MAX_ITEMS)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if items.len() > MAX_ITEMS {
        text.push_str(&format!("; and {} more", items.len() - MAX_ITEMS));
    }
    text
}
