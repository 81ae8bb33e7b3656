//! The status of a set: its repositories, its table and the conditions over its children.

use k8s_openapi::jiff::Timestamp;

use crate::api::{ConditionType, Conditions, ImageAttachmentSetStatus, Reason, RepositoryStatus};
use crate::attachment::sets::{SetPlan, SetPolicy};

/// The state of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildState {
    /// Its name.
    pub name: String,
    /// Its repository as `host/repository`.
    pub repository: String,
    /// True if it is ready.
    pub is_ready: bool,
    /// The reason of its Ready condition; `None` before its first pass.
    pub reason: Option<Reason>,
    /// The message of its Ready condition.
    pub message: String,
}

/// Returns the status of a set after a pass. `children` are the children that exist after it.
#[must_use]
pub fn set_status(
    before: &ImageAttachmentSetStatus,
    policy: &SetPolicy,
    plan: &SetPlan,
    children: &[ChildState],
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentSetStatus {
    let repositories: Vec<RepositoryStatus> = plan
        .repositories
        .iter()
        .map(|repository| {
            let own = children
                .iter()
                .filter(|child| child.repository == repository.name);
            let (ready, all): (Vec<_>, Vec<_>) = own.partition(|child| child.is_ready);
            RepositoryStatus {
                children: count(ready.len() + all.len()),
                ready: count(ready.len()),
                ..repository.clone()
            }
        })
        .collect();
    let ready = children.iter().filter(|child| child.is_ready).count();
    let mut conditions = Conditions::from_previous(&before.conditions, generation, now);
    let unread = plan.repositories.iter().find_map(|repository| {
        let reason: Reason = repository.reason.as_deref()?.parse().ok()?;
        let message = repository.message.as_deref().unwrap_or_default();
        Some((reason, format!("{}: {message}", repository.name)))
    });
    let causes: Vec<Reason> = plan
        .repositories
        .iter()
        .filter_map(|repository| repository.reason.as_deref()?.parse().ok())
        .collect();
    match &unread {
        Some((reason, message)) => {
            conditions.set(ConditionType::Resolved, false, *reason, message);
        }
        None => {
            let message = summary(&plan.repositories);
            conditions.set(ConditionType::Resolved, true, Reason::Resolved, &message);
        }
    }
    let (reason, message, causes) = match unread {
        Some((reason, message)) => (reason, message, causes),
        None => {
            let (reason, message) = over(policy, plan, children, ready);
            (reason, message, vec![reason])
        }
    };
    conditions.conclude_for(reason, &causes, &message);
    let mut cycles = plan.cycles.clone();
    cycles.truncate(ImageAttachmentSetStatus::MAX_CYCLES);
    ImageAttachmentSetStatus {
        observed_generation: generation,
        conditions: conditions.into_list(),
        repositories,
        cycles,
        new_marks: count(plan.new_marks).filter(|_| plan.is_held),
        children: count(children.len()),
        ready: Some(format!("{ready}/{}", children.len())),
        last_handled_reconcile_at: before.last_handled_reconcile_at.clone(),
    }
}

/// Returns the reason and message of Ready where every repository was read.
fn over(
    policy: &SetPolicy,
    plan: &SetPlan,
    children: &[ChildState],
    ready: usize,
) -> (Reason, String) {
    let all = children.len();
    if plan.is_held {
        let limit = policy
            .lifecycle
            .as_ref()
            .map_or(0, |lifecycle| lifecycle.max_new_marks);
        let new = plan.new_marks;
        let message = format!(
            "{new} images would be newly marked, more than {limit} (spec.lifecycle.maxNewMarks), so none is: check status.cycles, then \
             annotate the set with affix.dev/confirm: \"{new}\""
        );
        return (Reason::TooManyMarks, message);
    }
    let open: Vec<&ChildState> = children.iter().filter(|child| !child.is_ready).collect();
    let failed = open.iter().find(|child| {
        child
            .reason
            .is_some_and(|reason| reason != Reason::Progressing)
    });
    match (open.is_empty(), failed) {
        (true, _) if all == 0 && policy.lifecycle.is_some() => (
            Reason::Watching,
            "no image of the selected tags is out of life".to_owned(),
        ),
        (true, _) => (
            Reason::Attached,
            format!("{all} ImageAttachments are ready"),
        ),
        (false, None) => (
            Reason::Progressing,
            format!("{ready} of {all} ImageAttachments are ready"),
        ),
        (false, Some(failed)) => {
            let cause = failed.reason.unwrap_or(Reason::Progressing);
            let reason = if ready > 0 {
                Reason::PartiallyAttached
            } else {
                cause
            };
            let message = format!(
                "{ready} of {all} ImageAttachments are ready; {}: {cause}: {}",
                failed.name, failed.message
            );
            (reason, message)
        }
    }
}

fn summary(repositories: &[RepositoryStatus]) -> String {
    let sum = |of: fn(&RepositoryStatus) -> Option<i64>| -> i64 {
        repositories.iter().filter_map(of).sum()
    };
    let vanished: usize = repositories
        .iter()
        .map(|repository| repository.vanished.len())
        .sum();
    let vanished = match vanished {
        0 => String::new(),
        1 => "; 1 tag vanished lately".to_owned(),
        more => format!("; {more} tags vanished lately"),
    };
    format!(
        "{} of {} tags are selected in {}{vanished}",
        sum(|repository| repository.selected),
        sum(|repository| repository.tags),
        match repositories.len() {
            1 => "1 repository".to_owned(),
            more => format!("{more} repositories"),
        }
    )
}

fn count(number: usize) -> Option<i64> {
    i64::try_from(number).ok()
}
