//! The output of sets: the table of the lifecycle, the repositories and the children.

use std::fmt::Write as _;

use super::report::View;
use super::table::Table;
use super::text::{Clean, line};
use crate::api::{CycleStatus, ImageAttachment, RepositoryStatus, TAGS_ANNOTATION};
use crate::attachment::sets::ExistingChild;
use crate::cli::documents::Attachment;
use crate::cli::local::sets::PlannedSet;
use crate::engine::Mode;

/// The maximum length of a list of tags and of a message, in characters.
const MAX_TEXT: usize = 400;

/// Returns the tables of all sets.
pub(in crate::cli) fn tables(sets: &[PlannedSet], mode: Mode) -> String {
    let tables: Vec<String> = sets.iter().map(|set| table(set, mode) + "\n").collect();
    tables.concat()
}

fn table(set: &PlannedSet, mode: Mode) -> String {
    let mut text = format!("{}  set\n", set.document.label());
    let plan = &set.plan;
    text.push_str(&cycles(&plan.cycles));
    text.push_str(&repositories(&plan.repositories, View::Plan));
    text.push_str(&children(set, mode));
    if plan.is_held {
        let limit = (set.policy.lifecycle.as_ref()).map_or(0, |lifecycle| lifecycle.max_new_marks);
        let _ = writeln!(
            text,
            "  TooManyMarks: {new} images would be newly marked, more than {limit} (spec.lifecycle.maxNewMarks), so none is: check the table, \
             then annotate the set with affix.dev/confirm: \"{new}\"",
            new = plan.new_marks
        );
    } else if set.policy.lifecycle.is_some() {
        let _ = writeln!(text, "  {} images are newly marked", plan.new_marks);
    }
    text
}

/// Returns the table of the lifecycle, or nothing for a set without one.
pub(super) fn cycles(cycles: &[CycleStatus]) -> String {
    if cycles.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["REPOSITORY", "CYCLE", "NEWEST", "TAGS", "STATE", "DATE"]);
    for cycle in cycles {
        table.row([
            cycle.repository.clone(),
            cycle.cycle.clone(),
            cycle.newest.clone(),
            cycle.tags.to_string(),
            format!("{:?}", cycle.state),
            cycle.date.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

/// Returns the table of the repositories. Only in a cluster it is known how many images are ready.
pub(super) fn repositories(repositories: &[RepositoryStatus], view: View) -> String {
    let images = match view {
        View::Status => "READY",
        _ => "IMAGES",
    };
    let mut table = Table::new(&["REPOSITORY", "TAGS", "SELECTED", images, "WHY"]);
    for repository in repositories {
        let number = |number: Option<i64>| number.map(|n| n.to_string()).unwrap_or_default();
        let images = number(repository.children);
        let images = match (view, repository.ready) {
            (View::Status, Some(ready)) => format!("{ready}/{images}"),
            _ => images,
        };
        let why = [&repository.reason, &repository.message];
        let why: Vec<&str> = why.into_iter().flatten().map(String::as_str).collect();
        table.row([
            repository.name.clone(),
            number(repository.tags),
            number(repository.selected),
            images,
            line(&why.join(": "), MAX_TEXT),
        ]);
    }
    table.to_string()
}

fn children(set: &PlannedSet, mode: Mode) -> String {
    let mut table = Table::new(&["CHILD", "IMAGE", "TAGS", "DATE", "MANIFESTS", "ACTION"]);
    let mut count = 0;
    let mut row = |object: &ImageAttachment, action: &str| {
        count += 1;
        let child = ExistingChild::of(object);
        let digests = child.as_ref().and_then(|child| child.digests.as_ref());
        let date = child.as_ref().and_then(|child| child.date.as_ref());
        let annotations = object.metadata.annotations.as_ref();
        let tags = annotations.and_then(|annotations| annotations.get(TAGS_ANNOTATION));
        let image = child.as_ref().map(|child| {
            let root = super::text::short(&child.root);
            format!("{}@{root}", child.repository)
        });
        table.row([
            object.metadata.name.clone().unwrap_or_default(),
            image.unwrap_or_default(),
            line(tags.map_or("", String::as_str), MAX_TEXT),
            date.map(ToString::to_string).unwrap_or_default(),
            digests.map_or_else(|| "all".to_owned(), |digests| digests.len().to_string()),
            action.to_owned(),
        ]);
    };
    for child in &set.plan.children {
        let name = child.object.metadata.name.as_deref().unwrap_or_default();
        let action = match (mode, set.existing.contains(name)) {
            (Mode::Detach, _) => "detach",
            (_, false) => "create",
            (_, true) => "keep",
        };
        row(&child.object, action);
    }
    for kept in &set.kept {
        row(&kept.object, "keep");
    }
    let mut failures = String::new();
    for (removed, deleted) in &set.removed {
        row(&removed.object, action_of(set, removed));
        if let Some(failed) = deleted.as_ref().and_then(|deleted| deleted.failed.as_ref()) {
            let _ = writeln!(
                failures,
                "  {}: {}: {}",
                removed.label(),
                failed.problem.reason,
                Clean(&failed.problem.message)
            );
        }
    }
    if count == 0 {
        return String::new();
    }
    format!("{table}{failures}")
}

/// Returns the action on a child that is no longer wanted.
fn action_of(set: &PlannedSet, removed: &Attachment) -> &'static str {
    let name = removed.object.metadata.name.as_deref().unwrap_or_default();
    let removal = set
        .plan
        .removals
        .iter()
        .find(|removal| removal.name == name);
    match removal {
        Some(removal) if removal.withdraws => "withdraw",
        _ => "delete",
    }
}
