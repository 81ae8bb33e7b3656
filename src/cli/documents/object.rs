//! One document as one of the objects that a desk knows.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde_json::Value;

use super::{schema, spec_rules};
use crate::api::{ImageAttachment, LocalObjectReference};
use crate::cli::text::{Clean, line};
use crate::engine::SecretData;
use affix_registry::Secret;

/// The fields that every object's metadata has.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "selfLink",
];

/// What a document holds.
#[derive(Debug, Clone)]
pub(super) enum Object {
    /// What is to be attached, and the status that stands beside it, as it was given.
    Attachment(Box<ImageAttachment>, Option<Value>),
    /// `data` and `binaryData` together.
    ConfigMap(BTreeMap<String, Bytes>),
    /// Decoded.
    Secret(SecretData),
    /// The names of its `imagePullSecrets`.
    ServiceAccount(Vec<String>),
}

/// A document that was understood.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// Of a kind that a desk knows.
    Object {
        /// For messages, and to tell objects apart.
        kind: &'static str,
        /// Where it belongs; `default` where the document names none.
        namespace: String,
        /// Its name.
        name: String,
        /// The rest.
        object: Object,
    },
    /// A list of documents.
    List(Vec<Value>),
    /// Of a kind that is nothing to affix, and which one.
    PassedOver(String),
    /// No Kubernetes object: apiVersion or kind is missing.
    NoKind,
}

/// Reads one document.
///
/// # Errors
/// What is wrong, one sentence each, each beginning with the field.
pub(super) fn read(value: Value) -> Result<Read, Vec<String>> {
    let one = |error: String| vec![error];
    let Value::Object(fields) = &value else {
        return Err(one("it is no map, so it is no Kubernetes object".to_owned()));
    };
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Ok(Read::NoKind);
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let (kind, object) = match (group, version, kind) {
        ("affix.dev", "v1alpha1", "ImageAttachment") => ("ImageAttachment", attachment(&value)),
        ("affix.dev", _, "ImageAttachment") => {
            return Err(one(format!(
                "apiVersion: {} is not known to this affix: write affix.dev/v1alpha1, or upgrade affix",
                line(api_version, 80)
            )));
        }
        ("", "v1", "ConfigMap") => ("ConfigMap", config_map(&value).map_err(one)),
        ("", "v1", "Secret") => ("Secret", secret(&value).map_err(one)),
        ("", "v1", "ServiceAccount") => ("ServiceAccount", service_account(&value).map_err(one)),
        ("", "v1", "List") | ("affix.dev", "v1alpha1", "ImageAttachmentList") => {
            return list(value).map_err(one);
        }
        _ => {
            return Ok(Read::PassedOver(format!(
                "{} {}",
                line(api_version, 80),
                line(kind, 80)
            )));
        }
    };
    match (identity(&value), object) {
        (Ok((namespace, name)), Ok(mut object)) => {
            if let Object::Attachment(attachment, _) = &mut object {
                let metadata = value
                    .get("metadata")
                    .map(ObjectMeta::deserialize)
                    .transpose();
                attachment.metadata = metadata
                    .map_err(|error| one(format!("metadata: {}", Clean(&error.to_string()))))?
                    .unwrap_or_default();
            }
            Ok(Read::Object {
                kind,
                namespace,
                name,
                object,
            })
        }
        (identity, object) => Err(identity
            .err()
            .into_iter()
            .chain(object.err())
            .flatten()
            .collect()),
    }
}

/// Namespace and name.
fn identity(value: &Value) -> Result<(String, String), Vec<String>> {
    let mut wrong = Vec::new();
    let metadata = value.get("metadata").and_then(Value::as_object);
    for field in metadata
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .filter(|field| !METADATA.contains(&field.as_str()))
    {
        wrong.push(format!(
            "metadata.{}: there is no such field",
            line(field, 80)
        ));
    }
    for field in ["labels", "annotations"] {
        let texts = value
            .get("metadata")
            .map_or(Ok(Vec::new()), |metadata| texts(metadata, field));
        wrong.extend(texts.err().map(|error| format!("metadata.{error}")));
    }
    let mut text = |field: &str, default: Option<&str>| match metadata
        .and_then(|metadata| metadata.get(field))
    {
        Some(Value::String(text)) if spec_rules::is_object_name(text) => text.clone(),
        None | Some(Value::Null) if default.is_some() => default.unwrap_or_default().to_owned(),
        None | Some(Value::Null) => {
            wrong.push(format!("metadata.{field}: it is missing, and is required"));
            String::new()
        }
        Some(other) => {
            wrong.push(format!(
                "metadata.{field}: {} is no name of an object: write lower-case letters, digits, - and .",
                Clean(&other.to_string())
            ));
            String::new()
        }
    };
    let identity = (text("namespace", Some("default")), text("name", None));
    if wrong.is_empty() {
        Ok(identity)
    } else {
        Err(wrong)
    }
}

fn attachment(value: &Value) -> Result<Object, Vec<String>> {
    let mut wrong = Vec::new();
    for field in value
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            wrong.push(format!("{}: there is no such field; an ImageAttachment has apiVersion, kind, metadata and spec", line(field, 80)));
        }
    }
    match value.get("spec") {
        Some(spec) => {
            wrong.extend(schema::check_spec(spec));
            wrong.extend(spec_rules::check_durations(spec));
        }
        None => wrong.push("spec: it is missing, and is required".to_owned()),
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut value = value.clone();
    // What is wrong with it is said where the name is read.
    if let Some(fields) = value.as_object_mut() {
        fields.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
    }
    // Only a plan reads what another pass left there; the other commands neither need nor believe it.
    let status = value
        .as_object_mut()
        .and_then(|fields| fields.remove("status"))
        .filter(|status| !status.is_null());
    let attachment: ImageAttachment = serde_json::from_value(value)
        .map_err(|error| vec![Clean(&error.to_string()).to_string()])?;
    let wrong = spec_rules::check(&attachment.spec);
    if wrong.is_empty() {
        Ok(Object::Attachment(Box::new(attachment), status))
    } else {
        Err(wrong)
    }
}

fn config_map(value: &Value) -> Result<Object, String> {
    let mut all: BTreeMap<String, Bytes> = BTreeMap::new();
    for (key, text) in texts(value, "data")? {
        all.insert(key.to_owned(), Bytes::copy_from_slice(text.as_bytes()));
    }
    for (key, text) in texts(value, "binaryData")? {
        let bytes = decoded(text)
            .ok_or_else(|| format!("binaryData.{}: it must be base64", line(key, 80)))?;
        if all.insert(key.to_owned(), bytes.into()).is_some() {
            return Err(format!(
                "binaryData.{}: the key stands in data too",
                line(key, 80)
            ));
        }
    }
    Ok(Object::ConfigMap(all))
}

fn secret(value: &Value) -> Result<Object, String> {
    let mut data = BTreeMap::new();
    for (key, text) in texts(value, "data")? {
        let bytes = decoded(text).ok_or_else(|| {
            format!(
                "data.{}: it must be base64; plain text goes to stringData",
                line(key, 80)
            )
        })?;
        data.insert(key.to_owned(), Secret::new(bytes));
    }
    // As in the API server, stringData wins.
    for (key, text) in texts(value, "stringData")? {
        data.insert(key.to_owned(), Secret::from(text));
    }
    let annotations = value
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"));
    let annotations = annotations.map_or_else(|| Ok(BTreeMap::new()), BTreeMap::deserialize);
    Ok(Object::Secret(SecretData {
        kind: value.get("type").and_then(Value::as_str).map(str::to_owned),
        data,
        annotations: annotations
            .map_err(|_| "metadata.annotations: it must be a map of texts".to_owned())?,
    }))
}

fn service_account(value: &Value) -> Result<Object, String> {
    let secrets = value
        .get("imagePullSecrets")
        .filter(|secrets| !secrets.is_null());
    let names: Option<Vec<LocalObjectReference>> =
        secrets.map(Vec::deserialize).transpose().map_err(|_| {
            "imagePullSecrets: it must be a list of maps, each with the name of a Secret".to_owned()
        })?;
    Ok(Object::ServiceAccount(
        names
            .into_iter()
            .flatten()
            .map(|reference| reference.name)
            .collect(),
    ))
}

fn list(mut value: Value) -> Result<Read, String> {
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Read::List(items)),
        None | Some(Value::Null) => Ok(Read::List(Vec::new())),
        Some(_) => Err("items: it must be a list".to_owned()),
    }
}

/// A map of texts; `1` and `true` without quotes are none, and the API server refuses them too.
fn texts<'a>(value: &'a Value, field: &str) -> Result<Vec<(&'a str, &'a str)>, String> {
    let fields = match value.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(format!("{field}: it must be a map")),
    };
    let text = |(key, value): (&'a String, &'a Value)| match value {
        Value::String(text) => Ok((key.as_str(), text.as_str())),
        _ => Err(format!(
            "{field}.{}: it must be text: put it in quotes",
            line(key, 80)
        )),
    };
    fields.iter().map(text).collect()
}

/// Base64 as the API server takes it: with line breaks, as files are often written.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .ok()
}
