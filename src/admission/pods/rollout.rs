//! Changes of a workload that create pods: another template (`kubectl rollout restart` and `set env`
//! included), more replicas, and the end of a suspension.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The parts of a workload that decide about its pods.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    template: Option<&'a RawValue>,
    #[serde(borrow)]
    job_template: Option<&'a RawValue>,
    replicas: Option<u64>,
    parallelism: Option<u64>,
    suspend: Option<bool>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    spec: Option<Spec<'a>>,
}

/// Returns whether the change of a workload, or of its Scale, creates pods that `old` does not have.
pub(crate) fn creates_pods(old: &RawValue, new: &RawValue) -> bool {
    let (Some(old), Some(new)) = (spec(old), spec(new)) else {
        return false;
    };
    // The API server writes both objects in the same order of fields.
    let differs = |old: Option<&RawValue>, new: Option<&RawValue>| {
        old.map(RawValue::get) != new.map(RawValue::get)
    };
    let is_suspended = |spec: &Spec<'_>| spec.suspend == Some(true);
    differs(old.template, new.template)
        || differs(old.job_template, new.job_template)
        // A Scale without the field has no replicas. Workloads always have it.
        || new.replicas.unwrap_or(0) > old.replicas.unwrap_or(0)
        || new.parallelism.unwrap_or(1) > old.parallelism.unwrap_or(1)
        || (is_suspended(&old) && !is_suspended(&new))
}

fn spec(object: &RawValue) -> Option<Spec<'_>> {
    let object: Object<'_> = serde_json::from_str(object.get()).ok()?;
    Some(object.spec.unwrap_or_default())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::value::to_raw_value;
    use serde_json::{Value, json};

    #[test]
    fn restarts_scale_ups_and_resumptions_create_pods() {
        let template = |note: &str| json!({"metadata": {"annotations": {"a": note}}, "spec": {}});
        for (old, new, expected) in [
            (
                json!({"template": template("1")}),
                json!({"template": template("2")}),
                true,
            ),
            (
                json!({"jobTemplate": template("1")}),
                json!({"jobTemplate": template("2")}),
                true,
            ),
            (json!({"replicas": 1}), json!({"replicas": 2}), true),
            (json!({}), json!({"replicas": 1}), true),
            (json!({"replicas": 2}), json!({"replicas": 1}), false),
            (json!({"parallelism": 1}), json!({"parallelism": 3}), true),
            (json!({"suspend": true}), json!({}), true),
            (json!({}), json!({"suspend": true}), false),
            (
                json!({"template": template("1"), "paused": true, "minReadySeconds": 1}),
                json!({"template": template("1"), "paused": true, "minReadySeconds": 2}),
                false,
            ),
            (Value::Null, json!({}), false),
        ] {
            let raw = |spec: &Value| to_raw_value(&json!({"spec": spec})).unwrap();
            assert_eq!(
                creates_pods(&raw(&old), &raw(&new)),
                expected,
                "{old} {new}"
            );
        }
    }
}
