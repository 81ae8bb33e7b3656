//! The JSON patch that turns the tags of a pod into digests. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::admission::pods::verdict::Looked;
use crate::admission::pods::workload::Workload;
use crate::admission::review::image_name::pinned;

/// The annotation in which a mutated pod keeps the dates that were found.
const DATES: &str = "affix.dev/end-of-life";
/// Bytes of all annotations of an object, as the API server has it.
const MOST_ANNOTATIONS: usize = 256 << 10;

/// Each tag with its digest, in the order of the containers, and the dates that were found.
pub(crate) fn patch(
    workload: &Workload,
    looked: &[Looked<'_>],
    annotations: Option<&BTreeMap<String, String>>,
) -> Vec<Value> {
    let found = |image: &str| {
        looked
            .iter()
            .find(|looked| looked.image == image)
            .and_then(|looked| looked.outcome.as_ref().ok())
    };
    let mut patch = Vec::new();
    let mut dates = serde_json::Map::new();
    for used in &workload.images {
        let Some((digest, findings)) = found(&used.image) else {
            continue;
        };
        if let Some(pinned) = pinned(&used.image, digest) {
            patch.push(json!({"op": "replace", "path": used.pointer, "value": pinned}));
        }
        if let Some(finding) = findings.iter().find(|finding| finding.counts) {
            dates.insert(used.image.clone(), json!(finding.date));
        }
    }
    let value = Value::Object(dates).to_string();
    let others = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != DATES);
    let size = others
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        + DATES.len()
        + value.len();
    // Above that the API server refuses the pod, which a note is not worth.
    if value != "{}" && size <= MOST_ANNOTATIONS {
        if annotations.is_none() {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        let path = format!("/metadata/annotations/{}", DATES.replace('/', "~1"));
        patch.push(json!({"op": "add", "path": path, "value": value}));
    }
    patch
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::pods::lifecycle_report::Facts;
    use crate::admission::pods::mark::Mark;
    use affix_registry::oci::Digest;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::value::to_raw_value;

    fn digest() -> Digest {
        Digest::sha256(b"index")
    }

    fn workload(spec: Value) -> Workload {
        Workload::read("Pod", &to_raw_value(&json!({"spec": spec})).unwrap()).unwrap()
    }

    /// An image that ended in 2025.
    fn ended<'a>(image: &'a str, workload: &Workload) -> Looked<'a> {
        let mark = Some(Mark {
            date: "2025-03-20".parse().unwrap(),
            created: None,
        });
        let now = "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_duration();
        let facts = Facts {
            digest: digest(),
            mark,
            platforms: Vec::new(),
        };
        Looked {
            image,
            outcome: Ok((digest(), facts.findings(&workload.nodes, now, now))),
        }
    }

    /// The patch as the API server applies it.
    fn patched(object: &Value, patch: Vec<Value>) -> Value {
        let mut object = object.clone();
        json_patch(&mut object, patch);
        object
    }

    /// The two operations that are used, on paths that exist (RFC 6902).
    fn json_patch(object: &mut Value, patch: Vec<Value>) {
        for operation in patch {
            let path = operation["path"].as_str().unwrap();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let key = key.replace("~1", "/").replace("~0", "~");
            let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            assert!(
                operation["op"] == "add" || parent.contains_key(&key),
                "nothing to replace: {operation}"
            );
            parent.insert(key, operation["value"].clone());
        }
    }

    #[test]
    fn each_place_of_an_image_is_patched_where_it_stands_and_a_second_time_nothing_is() {
        let spec = json!({
            "containers": [{"name": "a", "image": "app:v1"}, {"name": "b"}, {"name": "c", "image": "unknown:v1"}],
            "initContainers": [{"name": "i", "image": "app:v1"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "app:v1"}}],
        });
        let before = workload(spec.clone());
        let unknown = Looked {
            image: "unknown:v1",
            outcome: Err("no answer".into()),
        };
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let after = patched(
            &pod,
            patch(&before, &[ended("app:v1", &before), unknown], None),
        );
        let pinned = format!("app:v1@{}", digest());
        let expected = json!({
            "containers": [{"name": "a", "image": pinned}, {"name": "b"}, {"name": "c", "image": "unknown:v1"}],
            "initContainers": [{"name": "i", "image": pinned}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": pinned}}],
        });
        assert_eq!(after["spec"], expected);
        assert_eq!(
            after["metadata"]["annotations"][DATES],
            r#"{"app:v1":"2025-03-20"}"#
        );
        let again = workload(after["spec"].clone());
        let images: Vec<_> = patch(&again, &[ended(&pinned, &again)], Some(&BTreeMap::new()))
            .into_iter()
            .map(|op| op["path"].clone())
            .collect();
        assert_eq!(images, ["/metadata/annotations/affix.dev~1end-of-life"]);
    }

    #[test]
    fn a_note_that_would_make_the_pod_invalid_is_not_written() {
        let pod = workload(json!({"containers": [{"image": "app:v1"}]}));
        for (size, notes) in [(1000, 1), (MOST_ANNOTATIONS - 20, 0)] {
            let annotations = BTreeMap::from([("a".to_owned(), "x".repeat(size))]);
            let patch = patch(&pod, &[ended("app:v1", &pod)], Some(&annotations));
            assert_eq!(patch.len(), 1 + notes, "{size}: {}", patch.len());
        }
    }
}
