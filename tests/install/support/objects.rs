//! Kubernetes objects as text and as values.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Parses the objects of a YAML stream.
pub(crate) fn parse(text: &str) -> Vec<Value> {
    let documents = text
        .split("\n---")
        .map(|document| document.trim_start_matches("---"));
    let values = documents.map(|document| {
        serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
    });
    values.filter(|value: &Value| !value.is_null()).collect()
}

/// Returns `kind/name`, or `kind/namespace/name`.
pub(crate) fn title(object: &Value) -> String {
    let metadata = &object["metadata"];
    let parts = [&object["kind"], &metadata["namespace"], &metadata["name"]];
    parts
        .into_iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join("/")
}

/// Returns the object with a title.
pub(crate) fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let titles: Vec<String> = objects.iter().map(title).collect();
    let position = titles
        .iter()
        .position(|title| title == wanted)
        .unwrap_or_else(|| panic!("no {wanted} in {titles:#?}"));
    &objects[position]
}

/// Returns the titles of all objects.
pub(crate) fn titles(objects: &[Value]) -> Vec<String> {
    objects.iter().map(title).collect()
}

/// Returns true for an object of `helm test`.
pub(crate) fn is_test(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"] == "test"
}

/// Returns the objects by title, without labels and annotations of an installer.
pub(crate) fn anonymous(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named = objects.into_iter().map(|mut object| {
        for labels in ["/metadata/labels", "/metadata/annotations"] {
            if let Some(map) = object.pointer_mut(labels).and_then(Value::as_object_mut) {
                map.retain(|key, _| {
                    !key.starts_with("helm.sh/") && key != "app.kubernetes.io/managed-by"
                });
                if map.is_empty() {
                    *object.pointer_mut(labels).unwrap() = json!(null);
                }
            }
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|_, value| !value.is_null());
        }
        (title(&object), object)
    });
    named.collect()
}
