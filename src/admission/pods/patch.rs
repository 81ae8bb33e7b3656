//! The JSON patch that replaces the tags of a pod by digests, and keeps them when the same tags are
//! applied again. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::admission::pods::verdict::CheckedImage;
use crate::admission::pods::workload::Workload;
use crate::inventory::pinned;

/// The annotation that records the end-of-life dates in a mutated pod.
const DATES_ANNOTATION: &str = "affix.dev/end-of-life";
/// The annotation that records the digests by which affix replaced tags.
const DIGESTS_ANNOTATION: &str = "affix.dev/resolved-digests";
/// Size limit of the API server for all annotations of an object, in bytes.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// The annotations of an object.
type Annotations = BTreeMap<String, String>;

/// Returns the patch: a digest for each tag, in the order of the containers, and the annotations with
/// the dates and the digests.
pub(crate) fn patch(
    workload: &Workload,
    checked: &[CheckedImage<'_>],
    annotations: Option<&Annotations>,
) -> Vec<Value> {
    let found = |image: &str| {
        checked
            .iter()
            .find(|checked| checked.image == image)
            .and_then(|checked| checked.outcome.as_ref().ok())
    };
    let mut patch = Vec::new();
    let mut dates = serde_json::Map::new();
    let mut digests = resolved_digests(annotations);
    for used in &workload.images {
        let Some((digest, entries)) = found(&used.image) else {
            continue;
        };
        if let Some(pinned) = pinned(&used.image, digest) {
            patch.push(json!({"op": "replace", "path": used.pointer, "value": pinned}));
            digests.insert(used.image.clone(), digest.to_string());
        }
        if let Some(entry) = entries.iter().find(|entry| entry.applies) {
            dates.insert(used.image.clone(), json!(entry.date));
        }
    }
    let dates = Value::Object(dates).to_string();
    annotate(
        &mut patch,
        annotations,
        [
            (DATES_ANNOTATION, dates),
            (DIGESTS_ANNOTATION, json!(digests).to_string()),
        ],
    );
    patch
}

/// Returns the patch for an update of a pod: a tag that affix replaced by a digest keeps that digest, so
/// that a second `kubectl apply` of a pod does not change its image.
pub(crate) fn keep_digests(
    (old, old_annotations): (&Workload, Option<&Annotations>),
    (new, annotations): (&Workload, Option<&Annotations>),
) -> Vec<Value> {
    let digests = resolved_digests(old_annotations);
    let mut patch = Vec::new();
    let mut kept = resolved_digests(annotations);
    for used in &new.images {
        let Some(digest) = digests.get(&used.image) else {
            continue;
        };
        let Some(pinned) = digest
            .parse()
            .ok()
            .and_then(|digest| pinned(&used.image, &digest))
        else {
            continue;
        };
        if old.images.iter().any(|old| old.image == pinned) {
            patch.push(json!({"op": "replace", "path": used.pointer, "value": pinned}));
            kept.insert(used.image.clone(), digest.clone());
        }
    }
    if !patch.is_empty() {
        let value = json!(kept).to_string();
        annotate(&mut patch, annotations, [(DIGESTS_ANNOTATION, value)]);
    }
    patch
}

/// Returns the digests that affix recorded, by image.
fn resolved_digests(annotations: Option<&Annotations>) -> BTreeMap<String, String> {
    annotations
        .and_then(|annotations| annotations.get(DIGESTS_ANNOTATION))
        .and_then(|value| serde_json::from_str(value).ok())
        .unwrap_or_default()
}

/// Adds annotations that are not empty, that differ, and that leave the object valid.
fn annotate<const N: usize>(
    patch: &mut Vec<Value>,
    annotations: Option<&Annotations>,
    added: [(&str, String); N],
) {
    let mut all = annotations.cloned().unwrap_or_default();
    let mut has_annotations = annotations.is_some();
    for (key, value) in added {
        if value == "{}" || all.get(key) == Some(&value) {
            continue;
        }
        let before = all.insert(key.to_owned(), value.clone());
        let size: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
        // The API server would refuse a pod with larger annotations.
        if size > MAX_ANNOTATION_BYTES {
            match before {
                Some(before) => all.insert(key.to_owned(), before),
                None => all.remove(key),
            };
            continue;
        }
        if !has_annotations {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            has_annotations = true;
        }
        let path = format!("/metadata/annotations/{}", key.replace('/', "~1"));
        patch.push(json!({"op": "add", "path": path, "value": value}));
    }
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
    use crate::admission::pods::lookup::LookupFailure;
    use crate::engine::{Basis, LifecycleReport, Mark};
    use affix_registry::oci::Digest;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::value::to_raw_value;

    fn digest() -> Digest {
        Digest::sha256(b"index")
    }

    fn workload(spec: Value) -> Workload {
        Workload::read("Pod", &to_raw_value(&json!({"spec": spec})).unwrap()).unwrap()
    }

    /// Returns an image that reached its end of life in 2025.
    fn ended<'a>(image: &'a str, workload: &Workload) -> CheckedImage<'a> {
        let mark = Some(Mark {
            date: "2025-03-20".parse().unwrap(),
            created: None,
            basis: Basis::Enforced,
        });
        let now = "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_duration();
        let report = LifecycleReport {
            digest: digest(),
            marks: mark.into(),
            platforms: Vec::new(),
        };
        CheckedImage {
            image,
            outcome: Ok((digest(), report.entries(&workload.nodes, now, now))),
        }
    }

    /// Applies the patch to a copy of the object.
    fn patched(object: &Value, patch: Vec<Value>) -> Value {
        let mut object = object.clone();
        json_patch(&mut object, patch);
        object
    }

    /// Applies `add` and `replace` operations on existing paths (RFC 6902).
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
    fn every_use_of_an_image_is_patched_and_a_second_patch_changes_nothing() {
        let spec = json!({
            "containers": [{"name": "a", "image": "app:v1"}, {"name": "b"}, {"name": "c", "image": "unknown:v1"}],
            "initContainers": [{"name": "i", "image": "app:v1"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "app:v1"}}],
        });
        let before = workload(spec.clone());
        let unknown = CheckedImage {
            image: "unknown:v1",
            outcome: Err(LookupFailure::new("no answer", "try again")),
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
            after["metadata"]["annotations"][DATES_ANNOTATION],
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
    fn a_tag_that_is_applied_again_keeps_its_digest() {
        let spec = |image: &str| workload(json!({"containers": [{"image": image}]}));
        let created = patched(
            &json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "app:v1"}]}}),
            patch(&spec("app:v1"), &[ended("app:v1", &spec("app:v1"))], None)
                .into_iter()
                .filter(|operation| operation["path"] != "/spec/containers/0/image")
                .collect(),
        );
        let recorded: BTreeMap<String, String> =
            serde_json::from_value(created["metadata"]["annotations"].clone()).unwrap();
        let expected = json!({"app:v1": digest().to_string()}).to_string();
        assert_eq!(recorded[DIGESTS_ANNOTATION], expected);

        let pinned = format!("app:v1@{}", digest());
        let old = spec(&pinned);
        let keep = |image: &str, annotations| {
            keep_digests((&old, Some(&recorded)), (&spec(image), annotations))
        };
        let replace = json!({"op": "replace", "path": "/spec/containers/0/image", "value": pinned});
        assert_eq!(keep("app:v1", Some(&recorded)), vec![replace.clone()]);
        // A replaced object lacks the annotation, which is written again.
        let path = "/metadata/annotations/affix.dev~1resolved-digests";
        assert_eq!(
            keep("app:v1", None),
            [
                replace,
                json!({"op": "add", "path": "/metadata/annotations", "value": {}}),
                json!({"op": "add", "path": path, "value": expected}),
            ]
        );
        // Another tag, a chosen digest, and a digest that affix did not write.
        assert!(
            keep("app:v2", Some(&recorded)).is_empty() && keep(&pinned, Some(&recorded)).is_empty()
        );
        let foreign = keep_digests((&old, None), (&spec("app:v1"), None));
        assert!(foreign.is_empty(), "{foreign:?}");
    }

    #[test]
    fn an_annotation_that_would_make_the_pod_invalid_is_not_written() {
        let pod = workload(json!({"containers": [{"image": "app:v1"}]}));
        for (size, notes) in [(1000, 2), (MAX_ANNOTATION_BYTES - 20, 0)] {
            let annotations = BTreeMap::from([("a".to_owned(), "x".repeat(size))]);
            let patch = patch(&pod, &[ended("app:v1", &pod)], Some(&annotations));
            assert_eq!(patch.len(), 1 + notes, "{size}: {}", patch.len());
        }
    }
}
