//! The structural part of the CRD's schema, applied without a cluster, and stricter in one way: a field of the spec that the schema
//! does not know is an error, since on a desk it is a typing error, while the API server would let it through.
//!
//! The schema of the spec is kept beside this file as JSON, with nothing in it but what is applied here: to make the definition from the
//! types takes a process longer than all else that it does before its first request. A status is seldom read.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::text::{Clean, line};

/// The longest part of a wrong value that a message repeats, in characters.
const SHOWN: usize = 80;

/// The schema of `spec`, read once. A test holds the file to what the types say.
static SPEC: LazyLock<Option<Schema>> =
    LazyLock::new(|| serde_json::from_str(include_str!("spec.schema.json")).ok());

/// The schema of `status`, made where a status is read.
static STATUS: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let root = crate::api::crd()
        .spec
        .versions
        .into_iter()
        .find_map(|version| version.schema?.open_api_v3_schema)?;
    serde_json::to_value(root.properties?.remove("status")?)
        .and_then(serde_json::from_value)
        .ok()
});

/// What a field is that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// A typing error.
    Wrong,
    /// Of a newer affix, or of another tool.
    Fine,
}

/// A schema, as far as it is applied here.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    type_: String,
    #[serde(skip_serializing_if = "is_default")]
    nullable: bool,
    #[serde(rename = "enum", skip_serializing_if = "is_default")]
    enum_: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_of: Vec<Schema>,
    #[serde(skip_serializing_if = "is_default")]
    min_length: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    max_length: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    minimum: Option<f64>,
    #[serde(skip_serializing_if = "is_default")]
    min_items: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    max_items: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    min_properties: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    max_properties: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    items: Option<Box<Schema>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<String, Schema>,
    #[serde(skip_serializing_if = "is_default")]
    additional_properties: Option<Others>,
    #[serde(
        rename = "x-kubernetes-preserve-unknown-fields",
        skip_serializing_if = "is_default"
    )]
    preserves_unknown_fields: bool,
}

/// What fields may be that are not named.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Others {
    Any(bool),
    Each(Box<Schema>),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is wrong with the `spec` of an ImageAttachment, one sentence each, each beginning with the field.
pub(super) fn check_spec(spec: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(schema) = &*SPEC {
        check("spec", spec, schema, Unknown::Wrong, &mut wrong);
    }
    wrong
}

/// The same of its `status`.
pub(super) fn check_status(status: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(schema) = &*STATUS {
        check("status", status, schema, Unknown::Fine, &mut wrong);
    }
    wrong
}

fn check(at: &str, value: &Value, schema: &Schema, unknown: Unknown, wrong: &mut Vec<String>) {
    if value.is_null() && schema.nullable {
        return;
    }
    for part in &schema.all_of {
        check(at, value, part, unknown, wrong);
    }
    let wanted = schema.type_.as_str();
    if !wanted.is_empty() && !is_of(value, wanted) {
        wrong.push(format!(
            "{at}: it is {}, and must be {}{}",
            shown(value),
            article(wanted),
            hint(value, wanted)
        ));
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed
            .iter()
            .map(|allowed| {
                allowed
                    .as_str()
                    .map_or_else(|| allowed.to_string(), str::to_owned)
            })
            .collect();
        wrong.push(format!(
            "{at}: {} is not one of {}",
            shown(value),
            names.join(", ")
        ));
    }
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            bounds(
                at,
                "characters",
                length,
                schema.min_length,
                schema.max_length,
                wrong,
            );
        }
        Value::Number(number) => {
            if let (Some(number), Some(least)) = (number.as_f64(), schema.minimum)
                && number < least
            {
                wrong.push(format!("{at}: {number} is less than {least}"));
            }
        }
        Value::Array(items) => {
            bounds(
                at,
                "items",
                items.len(),
                schema.min_items,
                schema.max_items,
                wrong,
            );
            if let Some(schema) = &schema.items {
                for (nth, item) in items.iter().enumerate() {
                    check(&format!("{at}[{nth}]"), item, schema, unknown, wrong);
                }
            }
        }
        Value::Object(fields) => {
            bounds(
                at,
                "entries",
                fields.len(),
                schema.min_properties,
                schema.max_properties,
                wrong,
            );
            check_fields(at, fields, schema, unknown, wrong);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_fields(
    at: &str,
    fields: &serde_json::Map<String, Value>,
    schema: &Schema,
    unknown: Unknown,
    wrong: &mut Vec<String>,
) {
    for required in schema
        .required
        .iter()
        .filter(|required| !fields.contains_key(*required))
    {
        wrong.push(format!("{at}.{required}: it is missing, and is required"));
    }
    for (name, value) in fields {
        let below = format!("{at}.{}", line(name, SHOWN));
        match (schema.properties.get(name), &schema.additional_properties) {
            (Some(schema), _) => check(&below, value, schema, unknown, wrong),
            (None, Some(Others::Each(schema))) => check(&below, value, schema, unknown, wrong),
            (None, Some(Others::Any(true))) => {}
            (None, _) if schema.preserves_unknown_fields || unknown == Unknown::Fine => {}
            (None, _) => {
                let names: Vec<&str> = schema.properties.keys().map(String::as_str).collect();
                wrong.push(format!(
                    "{below}: there is no such field; {at} has {}",
                    names.join(", ")
                ));
            }
        }
    }
}

fn bounds(
    at: &str,
    what: &str,
    count: usize,
    least: Option<i64>,
    most: Option<i64>,
    wrong: &mut Vec<String>,
) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(least) = least.filter(|least| count < *least) {
        wrong.push(format!(
            "{at}: {count} {what}, and at least {least} are needed"
        ));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        wrong.push(format!(
            "{at}: {count} {what}, and at most {most} are allowed"
        ));
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
    if wanted == "string" && (value.is_number() || value.is_boolean()) {
        ": put it in quotes"
    } else {
        ""
    }
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Where the schema is kept.
    const FILE: &str = "src/cli/documents/spec.schema.json";

    #[test]
    fn the_schema_that_is_kept_is_what_the_types_say() {
        let root = crate::api::crd()
            .spec
            .versions
            .into_iter()
            .find_map(|version| version.schema?.open_api_v3_schema)
            .unwrap();
        let spec = root.properties.unwrap().remove("spec").unwrap();
        let schema: Schema = serde_json::from_value(serde_json::to_value(spec).unwrap()).unwrap();
        let current = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        if std::env::var_os("AFFIX_UPDATE").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == current,
            "{FILE} is not current: run `AFFIX_UPDATE=1 cargo test --lib documents::schema`"
        );
        assert_eq!(serde_json::from_str::<Schema>(&kept).unwrap(), schema);
        assert!(std::env::var_os("AFFIX_UPDATE").is_some() || SPEC.as_ref() == Some(&schema));
    }
}
