//! The structural part of a CRD's schema: types, required and unknown fields, enums and limits.
//!
//! Patterns are not checked, because each of them also stands in a rule, whose message is better.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

/// The longest part of a wrong value that an error repeats, in characters.
const EXCERPT_MAX: usize = 80;

/// The treatment of fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownFields {
    /// They are errors.
    Refused,
    /// They are left alone.
    Ignored,
}

/// Checks a value and everything below it. `at` is its path in errors.
pub(super) fn check(
    at: &str,
    value: &Value,
    schema: &JSONSchemaProps,
    unknown: UnknownFields,
    errors: &mut Vec<String>,
) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    for part in schema.all_of.iter().flatten() {
        check(at, value, part, unknown, errors);
    }
    if let Some(wanted) = schema.type_.as_deref().filter(|type_| !is_of(value, type_)) {
        errors.push(format!(
            "{at}: it is {}, and must be {}{}",
            excerpt(value),
            type_name(wanted),
            hint(value, wanted)
        ));
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|allowed| allowed.0 == *value)
    {
        let names: Vec<String> = allowed
            .iter()
            .map(|allowed| match &allowed.0 {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        errors.push(format!(
            "{at}: {} is not one of {}",
            excerpt(value),
            names.join(", ")
        ));
    }
    let limits = match value {
        Value::String(text) => Some((
            "characters",
            text.chars().count(),
            schema.min_length,
            schema.max_length,
        )),
        Value::Array(items) => Some(("items", items.len(), schema.min_items, schema.max_items)),
        Value::Object(fields) => Some((
            "entries",
            fields.len(),
            schema.min_properties,
            schema.max_properties,
        )),
        _ => None,
    };
    if let Some((unit, count, min, max)) = limits {
        check_count(at, unit, count, min, max, errors);
    }
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(min) = schema.minimum.filter(|min| number < *min) {
                errors.push(format!("{at}: {number} is less than {min}"));
            }
            if let Some(max) = schema.maximum.filter(|max| number > *max) {
                errors.push(format!("{at}: {number} is more than {max}"));
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    check(&format!("{at}[{index}]"), item, schema, unknown, errors);
                }
            }
        }
        Value::Object(fields) => check_fields(at, fields, schema, unknown, errors),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn check_fields(
    at: &str,
    fields: &Map<String, Value>,
    schema: &JSONSchemaProps,
    unknown: UnknownFields,
    errors: &mut Vec<String>,
) {
    for required in schema.required.iter().flatten() {
        if !fields.contains_key(required) {
            errors.push(format!("{at}.{required}: it is missing, and is required"));
        }
    }
    for (name, value) in fields {
        let below = format!("{at}.{}", cut(name));
        let known = schema.properties.as_ref().and_then(|all| all.get(name));
        match (known, &schema.additional_properties) {
            (Some(schema), _) => check(&below, value, schema, unknown, errors),
            (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                check(&below, value, schema, unknown, errors);
            }
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            (None, _)
                if unknown == UnknownFields::Ignored
                    || schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
            (None, _) => {
                let names: Vec<&str> = schema
                    .properties
                    .iter()
                    .flat_map(|all| all.keys())
                    .map(String::as_str)
                    .collect();
                errors.push(format!(
                    "{below}: there is no such field; {at} has {}",
                    names.join(", ")
                ));
            }
        }
    }
}

fn check_count(
    at: &str,
    unit: &str,
    count: usize,
    min: Option<i64>,
    max: Option<i64>,
    errors: &mut Vec<String>,
) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(min) = min.filter(|min| count < *min) {
        errors.push(format!(
            "{at}: {count} {unit}, and at least {min} are needed"
        ));
    }
    if let Some(max) = max.filter(|max| count > *max) {
        errors.push(format!(
            "{at}: {count} {unit}, and at most {max} are allowed"
        ));
    }
}

fn is_of(value: &Value, type_: &str) -> bool {
    match type_ {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn type_name(type_: &str) -> String {
    match type_ {
        "array" => "a list".to_owned(),
        "object" => "a map".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => format!("a {other}"),
    }
}

fn hint(value: &Value, type_: &str) -> &'static str {
    if type_ == "string" && (value.is_number() || value.is_boolean()) {
        ": put it in quotes"
    } else {
        ""
    }
}

/// Returns a wrong value as an error shows it. Of maps and lists it shows the type only.
pub(super) fn excerpt(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        Value::String(text) => format!("\"{}\"", cut(text)),
        other => other.to_string(),
    }
}

/// Cuts a text to [`EXCERPT_MAX`] characters.
fn cut(text: &str) -> String {
    let kept: String = text.chars().take(EXCERPT_MAX).collect();
    let ellipsis = if kept.len() < text.len() { "…" } else { "" };
    kept + ellipsis
}
