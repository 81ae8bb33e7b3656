//! The rules that every status follows at rest, whatever happened: kstatus, Flux and Argo CD rely on them.
//!
//! Owns: the check, for property tests and for objects that tests leave in a real API server. Refuses: to say what a status
//! should be; it only says what it must never be.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::condition::{ConditionType, MESSAGE_MAX_BYTES, find};
use super::reason::Reason;
use super::spec::ImageAttachment;

/// What is wrong with the status of an object that no pass is working on, one sentence each; empty when nothing is.
#[must_use]
pub fn check_status_rules(object: &ImageAttachment) -> Vec<String> {
    let mut wrong = Vec::new();
    let generation = object.metadata.generation.unwrap_or_default();
    let Some(status) = &object.status else {
        return vec!["there is no status".to_owned()];
    };
    let conditions = &status.conditions;
    let ready = find(conditions, ConditionType::Ready);
    let ready_is = |status: &str| ready.is_some_and(|ready| ready.status == status);
    let present = |kind| find(conditions, kind).is_some();
    let mut rule = |holds: bool, text: &str| {
        if !holds {
            wrong.push(text.to_owned());
        }
    };

    rule(ready.is_some(), "Ready is absent");
    rule(!(present(ConditionType::Reconciling) && present(ConditionType::Stalled)), "Reconciling and Stalled are both present");
    rule(!(ready_is("True") && present(ConditionType::Reconciling)), "Ready is True although Reconciling is present");
    rule(!present(ConditionType::Stalled) || ready_is("False"), "Stalled is True although Ready is not False");
    rule(!present(ConditionType::Reconciling) || ready_is("False"), "Reconciling is True at rest although Ready is not False");
    rule(status.observed_generation <= generation, "observedGeneration is greater than generation");
    rule(status.observed_generation == generation || !ready_is("True"), "Ready is True although observedGeneration is not generation");
    for condition in conditions {
        wrong.extend(condition_rules(condition, generation, ready_is("True")));
    }
    wrong
}

fn condition_rules(condition: &Condition, generation: i64, ready: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let kind = condition.type_.as_str();
    let only_while_true = [ConditionType::Reconciling, ConditionType::Stalled].iter().any(|kind| kind.as_str() == condition.type_);
    if only_while_true && condition.status != "True" {
        wrong.push(format!("{kind} is present although it is {}", condition.status));
    }
    match condition.observed_generation {
        None => wrong.push(format!("{kind} carries no observedGeneration")),
        Some(observed) if observed > generation => {
            wrong.push(format!("{kind} carries observedGeneration {observed}, greater than generation {generation}"));
        }
        Some(observed) if ready && observed != generation => {
            wrong.push(format!("Ready is True although {kind} carries observedGeneration {observed}, not {generation}"));
        }
        Some(_) => {}
    }
    match condition.reason.parse::<Reason>() {
        Err(error) => wrong.push(format!("{kind}: {error}")),
        Ok(reason) if kind == "Ready" && (condition.status == "True") != Reason::READY.contains(&reason) => {
            wrong.push(format!("Ready is {} with reason {reason}", condition.status));
        }
        Ok(Reason::ProgressingWithRetry) if kind != "Reconciling" => {
            wrong.push(format!("{kind} carries ProgressingWithRetry, a reason of Reconciling only"));
        }
        Ok(reason) if kind == "Stalled" && !reason.is_stalled() => {
            wrong.push(format!("Stalled carries {reason}, which is retried"));
        }
        Ok(_) => {}
    }
    if condition.message.is_empty() {
        wrong.push(format!("{kind} says nothing"));
    }
    if condition.message.len() > MESSAGE_MAX_BYTES {
        wrong.push(format!("{kind} has a message of {} bytes, more than {MESSAGE_MAX_BYTES}", condition.message.len()));
    }
    wrong
}
