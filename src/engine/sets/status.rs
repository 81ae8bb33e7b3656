//! The status of a set: its tables, the count of its children, and its conditions.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    CONFIRM_ANNOTATION, ConditionType, Conditions, ImageAttachmentSet, ImageAttachmentSetStatus,
    Reason, RepositoryStatus,
};
use crate::attachment::Problem;
use crate::attachment::sets::SetPlan;

/// The state of a child, as status counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildState {
    /// Its name.
    pub name: String,
    /// The position of its repository in the spec.
    pub repository: Option<usize>,
    /// Its progress.
    pub progress: Progress,
    /// The message of its Ready condition, if it has failed.
    pub message: String,
}

/// The progress of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is ready.
    Ready,
    /// It was not reconciled yet, or its spec has changed.
    Pending,
    /// It is being deleted.
    Deleted,
    /// It is not ready, for this reason.
    Failed(Reason),
}

/// The state of the children of a set.
#[derive(Debug, Default)]
pub struct ChildrenState {
    /// Those that exist.
    pub children: Vec<ChildState>,
    /// The number of children that are wanted and not there yet.
    pub missing: usize,
    /// The first child that could not be made or changed: whether the user must act, and the explanation.
    pub failure: Option<(Reason, String)>,
}

/// Returns the status with the tables of a plan. The count of the children and the conditions are those of `previous`.
#[must_use]
pub fn set_tables(plan: &SetPlan, previous: &ImageAttachmentSetStatus) -> ImageAttachmentSetStatus {
    let cycles = plan
        .cycles
        .iter()
        .take(ImageAttachmentSetStatus::MAX_CYCLES);
    let new_marks = i64::try_from(plan.new_marks).unwrap_or(i64::MAX);
    ImageAttachmentSetStatus {
        repositories: plan.repositories.clone(),
        cycles: cycles.cloned().collect(),
        new_marks: plan.is_held.then_some(new_marks),
        ..previous.clone()
    }
}

/// Returns the status with the count of the children and the conditions. `tables` has the repositories as the last pass found them.
#[must_use]
pub fn set_status(
    set: &ImageAttachmentSet,
    tables: ImageAttachmentSetStatus,
    state: &ChildrenState,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentSetStatus {
    let mut status = tables;
    count(&mut status, &state.children);
    let mut conditions = Conditions::from_previous(&status.conditions, generation, now);
    conditions.remove(ConditionType::Attached);
    let problems: Vec<(Reason, &RepositoryStatus)> = (status.repositories.iter())
        .filter_map(|repository| Some((repository.reason.as_ref()?.parse().ok()?, repository)))
        .collect();
    match problems.first() {
        Some((reason, repository)) => conditions.set(
            ConditionType::Resolved,
            false,
            *reason,
            &problem(repository),
        ),
        None => conditions.set(
            ConditionType::Resolved,
            true,
            Reason::Resolved,
            &selection(&status),
        ),
    };
    if let Some((reason, repository)) = problems.first() {
        let causes: Vec<Reason> = problems.iter().map(|(reason, _)| *reason).collect();
        conditions.conclude_for(*reason, &causes, &problem(repository));
    } else if let Some(marks) = status.new_marks {
        conditions.conclude(Reason::TooManyMarks, &too_many_marks(set, marks));
    } else {
        let (reason, causes, message) = verdict(set, state);
        conditions.conclude_for(reason, &causes, &message);
    }
    status.conditions = conditions.into_list();
    status.observed_generation = generation;
    status
}

/// Returns the status of a set whose first pass has started.
#[must_use]
pub fn set_started(
    set: &ImageAttachmentSet,
    previous: ImageAttachmentSetStatus,
    now: Timestamp,
) -> ImageAttachmentSetStatus {
    let generation = set.metadata.generation.unwrap_or_default();
    let message = "the first pass over the repositories has started";
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    conditions
        .set_unknown(ConditionType::Ready, Reason::Progressing, message)
        .set(
            ConditionType::Reconciling,
            true,
            Reason::Progressing,
            message,
        );
    ImageAttachmentSetStatus {
        conditions: conditions.into_list(),
        ..previous
    }
}

/// Returns the status of a set for which no repository could be read.
#[must_use]
pub fn set_failed(
    set: &ImageAttachmentSet,
    previous: ImageAttachmentSetStatus,
    problem: &Problem,
    now: Timestamp,
) -> ImageAttachmentSetStatus {
    let generation = set.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    conditions
        .set(
            ConditionType::Resolved,
            false,
            problem.reason,
            &problem.message,
        )
        .conclude(problem.reason, &problem.message);
    ImageAttachmentSetStatus {
        observed_generation: generation,
        conditions: conditions.into_list(),
        ..previous
    }
}

/// Counts the children by repository, and in total.
fn count(status: &mut ImageAttachmentSetStatus, children: &[ChildState]) {
    let counted = |child: &&ChildState| child.progress != Progress::Deleted;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let all = children.iter().filter(counted).count();
    let is_ready = |child: &&ChildState| child.progress == Progress::Ready;
    let ready = children.iter().filter(is_ready).count();
    for (position, repository) in status.repositories.iter_mut().enumerate() {
        let own = children.iter().filter(counted);
        let own: Vec<_> = own
            .filter(|child| child.repository == Some(position))
            .collect();
        repository.children = Some(number(own.len()));
        repository.ready = Some(number(
            own.into_iter().filter(|child| is_ready(child)).count(),
        ));
    }
    status.children = Some(number(all));
    status.ready = Some(format!("{ready}/{all}"));
}

fn problem(repository: &RepositoryStatus) -> String {
    let message = repository.message.as_deref().unwrap_or_default();
    format!("{}: {message}", repository.name)
}

fn selection(status: &ImageAttachmentSetStatus) -> String {
    let sum = |number: fn(&RepositoryStatus) -> Option<i64>| -> i64 {
        status.repositories.iter().filter_map(number).sum()
    };
    let mut text = format!(
        "{} of {} tags selected",
        sum(|repository| repository.selected),
        sum(|repository| repository.tags)
    );
    match status.repositories.len() {
        1 => {}
        repositories => drop(write!(text, " in {repositories} repositories")),
    }
    text
}

fn too_many_marks(set: &ImageAttachmentSet, marks: i64) -> String {
    let lifecycle = set.spec.lifecycle.as_ref();
    let most = lifecycle.map_or(0, crate::api::Lifecycle::max_new_marks);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    format!(
        "{marks} images would be newly marked, more than spec.lifecycle.maxNewMarks ({most}): none is marked. Review status.cycles, then confirm \
         the number: kubectl annotate --overwrite imageattachmentset {name} {CONFIRM_ANNOTATION}={marks}"
    )
}

/// Returns the reason of Ready, its causes and its message, for a set whose repositories were read.
fn verdict(set: &ImageAttachmentSet, state: &ChildrenState) -> (Reason, Vec<Reason>, String) {
    let only = |reason, message| (reason, vec![reason], message);
    let count = |progress| {
        let children = state.children.iter();
        children.filter(|child| child.progress == progress).count()
    };
    let (deleted, ready) = (count(Progress::Deleted), count(Progress::Ready));
    let pending = count(Progress::Pending) + state.missing;
    let all = state.children.len() - deleted + state.missing;
    if let Some((reason, message)) = &state.failure {
        return only(*reason, message.clone());
    }
    let failed = |child: &ChildState| match child.progress {
        Progress::Failed(reason) => Some(reason),
        _ => None,
    };
    let failures = state.children.iter().filter_map(failed);
    let mut causes: Vec<Reason> = failures.collect::<BTreeSet<_>>().into_iter().collect();
    let first = state.children.iter().find(|child| failed(child).is_some());
    let Some((child, reason)) = first.and_then(|child| Some((child, failed(child)?))) else {
        let pending_message = || match deleted {
            0 => format!("{ready} of {all} ImageAttachments are ready"),
            _ => format!(
                "{ready} of {all} ImageAttachments are ready, and {deleted} are being deleted"
            ),
        };
        return if pending + deleted > 0 {
            only(Reason::Progressing, pending_message())
        } else if all > 0 {
            let message = match all {
                1 => "1 ImageAttachment is ready".to_owned(),
                _ => format!("{all} ImageAttachments are ready"),
            };
            only(Reason::Attached, message)
        } else if set.spec.lifecycle.is_some() {
            only(Reason::Watching, "no image is out of life".to_owned())
        } else {
            only(Reason::Watching, "no tag is selected".to_owned())
        };
    };
    if pending > 0 {
        causes.push(Reason::Progressing);
    }
    let message = format!(
        "{ready} of {all} ImageAttachments are ready; {}: {reason}: {}",
        child.name, child.message
    );
    if ready > 0 && reason != Reason::Planned {
        return (Reason::PartiallyAttached, causes, message);
    }
    (reason, causes, message)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::find_condition;

    fn set(lifecycle: bool) -> ImageAttachmentSet {
        let mut spec = json!({
            "repositories": ["r.example.com/app", "r.example.com/worker"],
            "template": {"spec": {"endOfLife": {"date": "2026-01-01"}}},
        });
        if lifecycle {
            spec["lifecycle"] = json!({"keep": {"minors": 3}, "gracePeriod": "1h"});
        }
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": "releases"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn child(name: &str, progress: Progress) -> ChildState {
        ChildState {
            name: name.to_owned(),
            repository: Some(0),
            progress,
            message: "the registry's answer".to_owned(),
        }
    }

    fn tables(change: Value) -> ImageAttachmentSetStatus {
        let mut status = json!({"repositories": [
            {"name": "r.example.com/app", "tags": 41, "selected": 38}, {"name": "r.example.com/worker", "tags": 2, "selected": 2},
        ]});
        status
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    /// Returns the types of the conditions, and status, reason and message of Ready.
    fn verdict_of(
        set: &ImageAttachmentSet,
        tables: ImageAttachmentSetStatus,
        state: &ChildrenState,
    ) -> (String, String) {
        let status = set_status(set, tables, state, 1, Timestamp::now());
        let types: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| &*condition.type_)
            .collect();
        let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap();
        (
            types.join(" "),
            format!("{} {} {}", ready.status, ready.reason, ready.message),
        )
    }

    fn of(children: Vec<ChildState>) -> ChildrenState {
        ChildrenState {
            children,
            ..ChildrenState::default()
        }
    }

    #[test]
    fn ready_is_the_state_of_all_children() {
        let says = |children, expected_types: &str, expected: &str| {
            let found = verdict_of(&set(false), tables(json!({})), &of(children));
            assert_eq!(found, (expected_types.to_owned(), expected.to_owned()));
        };
        let ready = || child("a", Progress::Ready);
        let refused = || child("b", Progress::Failed(Reason::AccessDenied));
        says(
            vec![ready(), ready()],
            "Ready Resolved",
            "True Attached 2 ImageAttachments are ready",
        );
        says(
            vec![ready()],
            "Ready Resolved",
            "True Attached 1 ImageAttachment is ready",
        );
        says(vec![], "Ready Resolved", "True Watching no tag is selected");
        says(
            vec![ready(), child("b", Progress::Pending)],
            "Ready Resolved Reconciling",
            "False Progressing 1 of 2 ImageAttachments are ready",
        );
        says(
            vec![ready(), child("b", Progress::Deleted)],
            "Ready Resolved Reconciling",
            "False Progressing 1 of 1 ImageAttachments are ready, and 1 are being deleted",
        );
        says(
            vec![ready(), refused()],
            "Ready Resolved Reconciling",
            "False PartiallyAttached 1 of 2 ImageAttachments are ready; b: AccessDenied: the registry's answer",
        );
        says(
            vec![refused(), refused()],
            "Ready Resolved Reconciling",
            "False AccessDenied 0 of 2 ImageAttachments are ready; b: AccessDenied: the registry's answer",
        );
        let stalled = child("c", Progress::Failed(Reason::KeyInvalid));
        says(
            vec![stalled],
            "Ready Resolved Stalled",
            "False KeyInvalid 0 of 1 ImageAttachments are ready; c: KeyInvalid: the registry's answer",
        );
        let planned = child("d", Progress::Failed(Reason::Planned));
        says(
            vec![planned],
            "Ready Resolved",
            "False Planned 0 of 1 ImageAttachments are ready; d: Planned: the registry's answer",
        );
    }

    #[test]
    fn a_child_that_is_wanted_and_not_there_is_not_ready() {
        let state = ChildrenState {
            missing: 2,
            ..of(vec![child("a", Progress::Ready)])
        };
        let (_, ready) = verdict_of(&set(false), tables(json!({})), &state);
        assert_eq!(ready, "False Progressing 1 of 3 ImageAttachments are ready");
    }

    #[test]
    fn the_fuse_says_how_to_confirm() {
        let marks = tables(json!({"newMarks": 90}));
        let (types, ready) = verdict_of(&set(true), marks, &of(vec![]));
        assert_eq!(types, "Ready Resolved");
        assert!(
            ready.starts_with("False TooManyMarks 90 images would be newly marked")
                && ready.ends_with(
                    "kubectl annotate --overwrite imageattachmentset releases affix.dev/confirm=90"
                ),
            "{ready}"
        );
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_named_and_the_others_are_counted() {
        let broken = tables(json!({"repositories": [
            {"name": "r.example.com/app", "tags": 41, "selected": 38},
            {"name": "r.example.com/worker", "reason": "LimitExceeded", "message": "900 tags are selected"},
        ]}));
        let state = of(vec![child("a", Progress::Ready)]);
        let status = set_status(&set(false), broken.clone(), &state, 1, Timestamp::now());
        assert_eq!(status.ready.as_deref(), Some("1/1"));
        assert_eq!(
            verdict_of(&set(false), broken, &state),
            (
                "Ready Resolved Stalled".to_owned(),
                "False LimitExceeded r.example.com/worker: 900 tags are selected".to_owned()
            )
        );
    }
}
