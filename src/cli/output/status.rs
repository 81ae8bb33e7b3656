//! The output of `affix status`: for each resource of a cluster the table of its targets and the conditions, and for each set the tables of
//! its lifecycle and its repositories.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::report::{View, superseded_table, targets_table};
use super::sets::{cycles, repositories};
use super::text::{Clean, line};
use crate::api::{ConditionType, ImageAttachment, ImageAttachmentSet, Reason, find_condition};

/// The maximum length of a message, in characters.
const MAX_MESSAGE: usize = 1000;

/// The resources of a cluster.
#[derive(Debug, Default)]
pub(in crate::cli) struct Resources {
    pub sets: Vec<ImageAttachmentSet>,
    pub attachments: Vec<ImageAttachment>,
}

impl Resources {
    /// Returns whether no resource needs attention.
    pub(in crate::cli) fn is_settled(&self) -> bool {
        self.states().iter().all(State::is_settled)
    }

    /// Returns whether there is no resource.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.attachments.is_empty()
    }

    fn states(&self) -> Vec<State<'_>> {
        let sets = self.sets.iter().map(State::of_set);
        sets.chain(self.attachments.iter().map(State::of)).collect()
    }
}

/// Returns the tables of all resources, and a summary if there are several.
pub(in crate::cli) fn tables(all: &Resources) -> String {
    let sets = all.sets.iter().map(set_table);
    let tables: Vec<String> = sets.chain(all.attachments.iter().map(table)).collect();
    let mut text = tables.join("\n");
    let states = all.states();
    if states.len() > 1 {
        let count = |kind: &dyn Fn(&State<'_>) -> bool| states.iter().filter(|it| kind(it)).count();
        let suspended = count(&|state| state.is_suspended);
        let ready = count(&|state| !state.is_suspended && state.is_ready());
        let rest = states.len() - suspended - ready;
        let _ = writeln!(
            text,
            "\n{} resources: {ready} ready, {rest} not ready, {suspended} suspended",
            states.len()
        );
    }
    text
}

/// The state of a resource of either kind.
struct State<'a> {
    is_suspended: bool,
    /// Status describes the current spec.
    is_observed: bool,
    ready: Option<&'a Condition>,
}

impl<'a> State<'a> {
    fn of(object: &'a ImageAttachment) -> Self {
        let status = object.status.as_ref();
        Self::new(
            object.spec.suspend(),
            status.map(|status| status.observed_generation) == object.metadata.generation,
            status.map(|status| &*status.conditions),
        )
    }

    fn of_set(set: &'a ImageAttachmentSet) -> Self {
        let status = set.status.as_ref();
        Self::new(
            set.spec.suspend(),
            status.map(|status| status.observed_generation) == set.metadata.generation,
            status.map(|status| &*status.conditions),
        )
    }

    fn new(is_suspended: bool, is_observed: bool, conditions: Option<&'a [Condition]>) -> Self {
        let ready =
            conditions.and_then(|conditions| find_condition(conditions, ConditionType::Ready));
        Self {
            is_suspended,
            is_observed,
            ready,
        }
    }

    fn is_ready(&self) -> bool {
        self.is_observed && self.ready.is_some_and(|ready| ready.status == "True")
    }

    /// Returns whether the resource needs no attention: it is ready, suspended, or a dry run whose plan is complete.
    fn is_settled(&self) -> bool {
        let is_planned = |ready: &Condition| ready.reason == Reason::Planned.as_str();
        self.is_suspended
            || self.is_ready()
            || (self.is_observed && self.ready.is_some_and(is_planned))
    }

    /// Returns the lines below the tables.
    fn lines(&self) -> String {
        let mut text = String::new();
        if self.is_suspended {
            text.push_str("  suspended; the conditions are those of the last pass\n");
        }
        if !self.is_observed {
            text.push_str("  affix has not seen the current spec yet\n");
        }
        let _ = match self.ready {
            Some(ready) => {
                let word = match ready.status.as_str() {
                    "True" => "Ready",
                    _ => &ready.reason,
                };
                let message = line(&ready.message, MAX_MESSAGE);
                writeln!(text, "  {}: {message}", Clean(word))
            }
            None => writeln!(text, "  no conditions yet: is the controller running?"),
        };
        text
    }
}

fn set_table(set: &ImageAttachmentSet) -> String {
    let status = set.status.clone().unwrap_or_default();
    let mut text = format!(
        "{}/{}  set\n",
        set.namespace().unwrap_or_default(),
        set.name_any()
    );
    text.push_str(&cycles(&status.cycles));
    if !status.repositories.is_empty() {
        text.push_str(&repositories(&status.repositories, View::Status));
    }
    text.push_str(&State::of_set(set).lines());
    text
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
    text.push_str(&State::of(object).lines());
    text
}
