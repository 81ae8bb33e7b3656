//! The output of `affix status`: for each resource of a cluster the table of its targets and the conditions.

use std::fmt::Write as _;

use kube::ResourceExt as _;

use super::report::{View, superseded_table, targets_table};
use super::text::{Clean, line};
use crate::api::{ConditionType, ImageAttachment, Reason, find_condition};

/// The maximum length of a message, in characters.
const MAX_MESSAGE: usize = 1000;

/// Returns the tables of all resources, and a summary if there are several.
pub(in crate::cli) fn tables(all: &[ImageAttachment]) -> String {
    let tables: Vec<String> = all.iter().map(table).collect();
    let mut text = tables.join("\n");
    if all.len() > 1 {
        let count =
            |kind: &dyn Fn(&ImageAttachment) -> bool| all.iter().filter(|it| kind(it)).count();
        let suspended = count(&|object| object.spec.suspend());
        let ready = count(&|object| !object.spec.suspend() && is_ready(object));
        let rest = all.len() - suspended - ready;
        let _ = writeln!(
            text,
            "\n{} resources: {ready} ready, {rest} not ready, {suspended} suspended",
            all.len()
        );
    }
    text
}

/// Returns whether a resource needs no attention: it is ready, suspended, or a dry run whose plan is complete.
pub(in crate::cli) fn is_settled(object: &ImageAttachment) -> bool {
    object.spec.suspend() || is_ready(object) || reason(object) == Some(Reason::Planned.as_str())
}

fn is_ready(object: &ImageAttachment) -> bool {
    is_observed(object) && condition(object).is_some_and(|(status, ..)| status == "True")
}

/// Returns whether status describes the current spec.
fn is_observed(object: &ImageAttachment) -> bool {
    let observed = object
        .status
        .as_ref()
        .map(|status| status.observed_generation);
    observed == object.metadata.generation
}

fn reason(object: &ImageAttachment) -> Option<&str> {
    condition(object)
        .filter(|_| is_observed(object))
        .map(|(_, reason, _)| reason)
}

/// Returns status, reason and message of Ready.
fn condition(object: &ImageAttachment) -> Option<(&str, &str, &str)> {
    let conditions = &object.status.as_ref()?.conditions;
    let ready = find_condition(conditions, ConditionType::Ready)?;
    Some((&ready.status, &ready.reason, &ready.message))
}

fn table(object: &ImageAttachment) -> String {
    let mut text = String::new();
    let status = object.status.clone().unwrap_or_default();
    let image = status
        .image
        .as_ref()
        .map_or(&object.spec.image, |image| &image.reference);
    let _ = writeln!(
        text,
        "{}/{}  {}",
        object.namespace().unwrap_or_default(),
        object.name_any(),
        Clean(image)
    );
    if !status.targets.is_empty() {
        let _ = write!(text, "{}", targets_table(&status.targets, View::Status));
        if let Some(more) = status.skipped_not_listed {
            let _ = writeln!(text, "  and {more} more skipped");
        }
    }
    if !status.superseded.is_empty() {
        let _ = write!(text, "{}", superseded_table(&status.superseded));
    }
    for leftover in &status.leftovers {
        let why = [&leftover.reason, &leftover.message];
        let why: Vec<&str> = why.into_iter().flatten().map(String::as_str).collect();
        let _ = writeln!(
            text,
            "  left over: {} on {}: {}",
            Clean(&leftover.attachment),
            Clean(&leftover.subject),
            line(&why.join(": "), MAX_MESSAGE)
        );
    }
    if object.spec.suspend() {
        let _ = writeln!(
            text,
            "  suspended; the conditions are those of the last pass"
        );
    }
    if !is_observed(object) {
        let _ = writeln!(text, "  affix has not seen the current spec yet");
    }
    let _ = match condition(object) {
        Some(("True", _, message)) => writeln!(text, "  Ready: {}", line(message, MAX_MESSAGE)),
        Some((_, reason, message)) => {
            writeln!(text, "  {}: {}", Clean(reason), line(message, MAX_MESSAGE))
        }
        None => writeln!(text, "  no conditions yet: is the controller running?"),
    };
    text
}
