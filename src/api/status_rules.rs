//! The rules that every status at rest follows. kstatus, Flux and Argo CD rely on them.
//!
//! The check is for tests: property tests, and tests with objects of a real API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::condition::{ConditionType, MESSAGE_MAX_BYTES, find};
use super::reason::Reason;
use super::set::ImageAttachmentSet;
use super::spec::ImageAttachment;

/// Returns the rules that the status of an object breaks, one sentence each. No pass may be working on the object.
#[must_use]
pub fn check_status_rules(object: &ImageAttachment) -> Vec<String> {
    let status = object.status.as_ref();
    let status = status.map(|status| (status.observed_generation, &*status.conditions));
    check(object.metadata.generation, status)
}

/// Returns the rules that the status of a set breaks.
#[must_use]
pub fn check_set_status_rules(set: &ImageAttachmentSet) -> Vec<String> {
    let status = set.status.as_ref();
    let status = status.map(|status| (status.observed_generation, &*status.conditions));
    check(set.metadata.generation, status)
}

/// Checks the observed generation and the conditions of a status.
fn check(generation: Option<i64>, status: Option<(i64, &[Condition])>) -> Vec<String> {
    let mut wrong = Vec::new();
    let generation = generation.unwrap_or_default();
    let Some((observed_generation, conditions)) = status else {
        return vec!["there is no status".to_owned()];
    };
    let ready = find(conditions, ConditionType::Ready);
    let ready_is = |status: &str| ready.is_some_and(|ready| ready.status == status);
    let present = |kind| find(conditions, kind).is_some();
    let mut rule = |holds: bool, text: &str| {
        if !holds {
            wrong.push(text.to_owned());
        }
    };

    rule(ready.is_some(), "Ready is absent");
    rule(
        !(present(ConditionType::Reconciling) && present(ConditionType::Stalled)),
        "Reconciling and Stalled are both present",
    );
    rule(
        !(ready_is("True") && present(ConditionType::Reconciling)),
        "Ready is True although Reconciling is present",
    );
    rule(
        !present(ConditionType::Stalled) || ready_is("False"),
        "Stalled is True although Ready is not False",
    );
    rule(
        !present(ConditionType::Reconciling) || ready_is("False"),
        "Reconciling is True at rest although Ready is not False",
    );
    rule(
        observed_generation <= generation,
        "observedGeneration is greater than generation",
    );
    rule(
        observed_generation == generation || !ready_is("True"),
        "Ready is True although observedGeneration is not generation",
    );
    for condition in conditions {
        wrong.extend(condition_rules(condition, generation, ready_is("True")));
    }
    wrong
}

fn condition_rules(condition: &Condition, generation: i64, ready: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let kind = condition.type_.as_str();
    let only_while_true = [ConditionType::Reconciling, ConditionType::Stalled]
        .iter()
        .any(|kind| kind.as_str() == condition.type_);
    if only_while_true && condition.status != "True" {
        wrong.push(format!(
            "{kind} is present although it is {}",
            condition.status
        ));
    }
    match condition.observed_generation {
        None => wrong.push(format!("{kind} has no observedGeneration")),
        Some(observed) if observed > generation => {
            wrong.push(format!(
                "{kind} has observedGeneration {observed}, greater than generation {generation}"
            ));
        }
        Some(observed) if ready && observed != generation => {
            wrong.push(format!(
                "Ready is True although {kind} has observedGeneration {observed}, not {generation}"
            ));
        }
        Some(_) => {}
    }
    match condition.reason.parse::<Reason>() {
        Err(error) => wrong.push(format!("{kind}: {error}")),
        Ok(reason)
            if kind == "Ready"
                && (condition.status == "True") != Reason::READY.contains(&reason) =>
        {
            wrong.push(format!(
                "Ready is {} with reason {reason}",
                condition.status
            ));
        }
        Ok(Reason::ProgressingWithRetry) if kind != "Reconciling" => {
            wrong.push(format!(
                "{kind} has ProgressingWithRetry, a reason of Reconciling only"
            ));
        }
        Ok(reason) if kind == "Stalled" && !reason.is_stalled() => {
            wrong.push(format!("Stalled has {reason}, which is retried"));
        }
        Ok(_) => {}
    }
    if condition.message.is_empty() {
        wrong.push(format!("{kind} has no message"));
    }
    if condition.message.len() > MESSAGE_MAX_BYTES {
        wrong.push(format!(
            "{kind} has a message of {} bytes, more than {MESSAGE_MAX_BYTES}",
            condition.message.len()
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )]

    use serde_json::{Value, json};

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str, generation: i64) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "text",
            "observedGeneration": generation, "lastTransitionTime": "2025-03-20T01:20:30Z"
        })
    }

    fn violations(observed: i64, conditions: &[Value]) -> Vec<String> {
        let object: ImageAttachment = serde_json::from_value(json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
            "metadata": {"name": "app", "generation": 2},
            "spec": {"image": "registry.example.com/team/app:v1"},
            "status": {"observedGeneration": observed, "conditions": conditions}
        }))
        .unwrap();
        check_status_rules(&object)
    }

    #[test]
    fn a_valid_status_breaks_no_rule() {
        let ready = condition("Ready", "True", "Attached", 2);
        assert_eq!(violations(2, &[ready]), Vec::<String>::new());
        let failed = condition("Ready", "False", "RateLimited", 2);
        let retried = condition("Reconciling", "True", "ProgressingWithRetry", 2);
        assert_eq!(violations(2, &[failed, retried]), Vec::<String>::new());
        let stalled = [
            condition("Ready", "False", "InvalidSpec", 2),
            condition("Stalled", "True", "InvalidSpec", 2),
        ];
        assert_eq!(violations(2, &stalled), Vec::<String>::new());
    }

    #[test]
    fn each_rule_has_a_status_that_breaks_it() {
        let ready = || condition("Ready", "True", "Attached", 2);
        let failed = || condition("Ready", "False", "RateLimited", 2);
        let reconciling = || condition("Reconciling", "True", "ProgressingWithRetry", 2);
        let stalled = || condition("Stalled", "True", "InvalidSpec", 2);
        let unknown = condition("Ready", "Unknown", "Progressing", 2);
        let mut silent = failed();
        silent["message"] = json!("");
        let mut bare = failed();
        bare.as_object_mut().unwrap().remove("observedGeneration");
        let mut long = failed();
        long["message"] = json!("x".repeat(1025));
        let cases: Vec<(i64, Vec<Value>, &str)> = vec![
            (2, vec![], "Ready is absent"),
            (
                2,
                vec![failed(), reconciling(), stalled()],
                "Reconciling and Stalled are both present",
            ),
            (
                2,
                vec![ready(), reconciling()],
                "Ready is True although Reconciling is present",
            ),
            (
                2,
                vec![unknown, stalled()],
                "Stalled is True although Ready is not False",
            ),
            (
                3,
                vec![failed()],
                "observedGeneration is greater than generation",
            ),
            (
                1,
                vec![ready()],
                "Ready is True although observedGeneration is not generation",
            ),
            (
                2,
                vec![failed(), condition("Stalled", "False", "InvalidSpec", 2)],
                "Stalled is present although it is False",
            ),
            (2, vec![bare], "Ready has no observedGeneration"),
            (
                2,
                vec![condition("Ready", "False", "NotFound", 3)],
                "Ready has observedGeneration 3, greater than generation 2",
            ),
            (
                2,
                vec![ready(), condition("Resolved", "True", "Resolved", 1)],
                "Ready is True although Resolved has observedGeneration 1, not 2",
            ),
            (
                2,
                vec![condition("Ready", "False", "Bogus", 2)],
                r#"Ready: "Bogus" is not a reason of affix"#,
            ),
            (
                2,
                vec![condition("Ready", "True", "NotFound", 2)],
                "Ready is True with reason NotFound",
            ),
            (
                2,
                vec![condition("Ready", "False", "ProgressingWithRetry", 2)],
                "Ready has ProgressingWithRetry, a reason of Reconciling only",
            ),
            (
                2,
                vec![failed(), condition("Stalled", "True", "NotFound", 2)],
                "Stalled has NotFound, which is retried",
            ),
            (2, vec![silent], "Ready has no message"),
            (
                2,
                vec![long],
                "Ready has a message of 1025 bytes, more than 1024",
            ),
        ];
        for (observed, conditions, expected) in cases {
            let found = violations(observed, &conditions);
            assert!(
                found.iter().any(|text| text == expected),
                "expected {expected:?}, found {found:?}"
            );
        }
    }
}
