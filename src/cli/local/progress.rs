//! Progress messages on stderr: one line that changes on a terminal, one line for each target elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::TargetStatus;
use crate::cli::documents::Attachment;
use crate::cli::exit::message;
use crate::cli::output::text::line;

/// The progress of a run.
pub(super) struct Progress {
    is_terminal: bool,
    activity: &'static str,
    resources: usize,
    done: Mutex<Done>,
}

/// The number of finished resources and targets.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    resources: usize,
    targets: usize,
}

impl Progress {
    /// Starts with no resource done. `activity` is a word such as `attaching`.
    pub(super) fn new(activity: &'static str, resources: usize) -> Self {
        let progress = Self {
            is_terminal: std::io::stderr().is_terminal(),
            activity,
            resources,
            done: Mutex::default(),
        };
        progress.show("");
        progress
    }

    /// Reports that work on a resource begins.
    pub(super) fn resource_started(&self, attachment: &Attachment) {
        if !self.is_terminal {
            let image = line(&attachment.object.spec.image, 1024);
            message(&format!(
                "{}: {} {image}",
                attachment.label(),
                self.activity
            ));
        }
    }

    /// Reports that a resource is still in work after a long time.
    pub(super) fn waiting(&self, attachment: &Attachment) {
        let image = line(&attachment.object.spec.image, 1024);
        if self.is_terminal {
            self.show(&format!(", waiting for the registry of {image}"));
        } else {
            message(&format!(
                "{}: waiting for the registry of {image}",
                attachment.label()
            ));
        }
    }

    /// Reports that a resource is done.
    pub(super) fn resource_done(&self) {
        self.done().resources += 1;
        self.show("");
    }

    /// Reports that a target is done.
    pub(super) fn target_done(&self, label: &str, row: &TargetStatus) {
        self.done().targets += 1;
        let target = row.platform.as_deref().unwrap_or("index");
        if self.is_terminal {
            self.show(&format!(", {} of {label}", line(target, 40)));
        } else {
            let reason = row.reason.as_deref().unwrap_or_default();
            let text = format!(
                "{label}: {} {} {:?} {reason}",
                line(target, 80),
                row.digest,
                row.state
            );
            message(text.trim_end());
        }
    }

    /// Clears the line of a terminal.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            write_line("");
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, latest: &str) {
        if self.is_terminal {
            let Done { resources, targets } = *self.done();
            write_line(&format!(
                "{}: {resources} of {} resources, {targets} targets done{latest}",
                self.activity, self.resources
            ));
        }
    }
}

/// Replaces the current line of the terminal.
fn write_line(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}");
    let _ = stderr.flush();
}
