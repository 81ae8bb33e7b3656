//! The structural part of the CRD's schema, applied without a cluster, and stricter in one way: a field that the schema does
//! not know is an error, since on a desk it is a typing error, while the API server would let it through.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool};
use serde_json::Value;

use crate::cli::text::{Clean, line};

/// The longest part of a wrong value that a message repeats, in characters.
const SHOWN: usize = 80;

/// The schema of `spec`, made once.
static SPEC: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(|| {
    let root = crate::api::crd().spec.versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
    root?.properties?.remove("spec")
});

/// What is wrong with the `spec` of an ImageAttachment, one sentence each, each beginning with the field.
pub(super) fn check_spec(spec: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(schema) = &*SPEC {
        check("spec", spec, schema, &mut wrong);
    }
    wrong
}

fn check(at: &str, value: &Value, schema: &JSONSchemaProps, wrong: &mut Vec<String>) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    for part in schema.all_of.iter().flatten() {
        check(at, value, part, wrong);
    }
    let wanted = schema.type_.as_deref().unwrap_or_default();
    if !wanted.is_empty() && !is_of(value, wanted) {
        wrong.push(format!("{at}: it is {}, and must be {}{}", shown(value), article(wanted), hint(value, wanted)));
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|allowed| allowed.0 == *value)
    {
        let names: Vec<String> =
            allowed.iter().map(|allowed| allowed.0.as_str().map_or_else(|| allowed.0.to_string(), str::to_owned)).collect();
        wrong.push(format!("{at}: {} is not one of {}", shown(value), names.join(", ")));
    }
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            bounds(at, "characters", length, schema.min_length, schema.max_length, wrong);
        }
        Value::Number(number) => {
            if let (Some(number), Some(least)) = (number.as_f64(), schema.minimum)
                && number < least
            {
                wrong.push(format!("{at}: {number} is less than {least}"));
            }
        }
        Value::Array(items) => {
            bounds(at, "items", items.len(), schema.min_items, schema.max_items, wrong);
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (nth, item) in items.iter().enumerate() {
                    check(&format!("{at}[{nth}]"), item, schema, wrong);
                }
            }
        }
        Value::Object(fields) => {
            bounds(at, "entries", fields.len(), schema.min_properties, schema.max_properties, wrong);
            check_fields(at, fields, schema, wrong);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_fields(at: &str, fields: &serde_json::Map<String, Value>, schema: &JSONSchemaProps, wrong: &mut Vec<String>) {
    for required in schema.required.iter().flatten().filter(|required| !fields.contains_key(*required)) {
        wrong.push(format!("{at}.{required}: it is missing, and is required"));
    }
    let known = schema.properties.iter().flatten();
    for (name, value) in fields {
        let below = format!("{at}.{}", line(name, SHOWN));
        let described = known.clone().find(|(known, _)| *known == name).map(|(_, schema)| schema);
        match (described, &schema.additional_properties) {
            (Some(schema), _) => check(&below, value, schema, wrong),
            (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => check(&below, value, schema, wrong),
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _) if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
            (None, _) => {
                let names: Vec<&str> = known.clone().map(|(name, _)| name.as_str()).collect();
                wrong.push(format!("{below}: there is no such field; {at} has {}", names.join(", ")));
            }
        }
    }
}

fn bounds(at: &str, what: &str, count: usize, least: Option<i64>, most: Option<i64>, wrong: &mut Vec<String>) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(least) = least.filter(|least| count < *least) {
        wrong.push(format!("{at}: {count} {what}, and at least {least} are needed"));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        wrong.push(format!("{at}: {count} {what}, and at most {most} are allowed"));
    }
}

fn is_of(value: &Value, wanted: &str) -> bool {
    match wanted {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn article(wanted: &str) -> String {
    match wanted {
        "array" => "a list".to_owned(),
        "object" => "a map".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => format!("a {other}"),
    }
}

fn hint(value: &Value, wanted: &str) -> &'static str {
    if wanted == "string" && (value.is_number() || value.is_boolean()) { ": put it in quotes" } else { "" }
}

/// A wrong value as a message names it. Maps and lists are named by their kind only.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::Null => "null".to_owned(),
        Value::String(text) => format!("\"{}\"", line(text, SHOWN)),
        other => Clean(&other.to_string()).to_string(),
    }
}
