//! One document as one of the objects that a desk knows.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use serde::Deserialize;
use serde_json::Value;

use super::{schema, spec_rules};
use crate::api::ImageAttachment;
use crate::cli::text::{Clean, line};
use crate::engine::SecretData;
use crate::registry::Secret;

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
    /// What is to be attached.
    Attachment(Box<ImageAttachment>),
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
        ("affix.dev", "v1alpha1", "ImageAttachment") => ("ImageAttachment", attachment(&value)?),
        ("affix.dev", _, "ImageAttachment") => {
            return Err(one(format!(
                "apiVersion: {} is not known to this affix: write affix.dev/v1alpha1, or upgrade affix",
                line(api_version, 80)
            )));
        }
        ("", "v1", "ConfigMap") => ("ConfigMap", config_map(&value).map_err(one)?),
        ("", "v1", "Secret") => ("Secret", secret(&value)?),
        ("", "v1", "ServiceAccount") => ("ServiceAccount", service_account(&value).map_err(one)?),
        ("", "v1", "List") | ("affix.dev", "v1alpha1", "ImageAttachmentList") => return list(value).map_err(one),
        _ => return Ok(Read::PassedOver(format!("{} {}", line(api_version, 80), line(kind, 80)))),
    };
    let (namespace, name) = identity(&value)?;
    Ok(Read::Object { kind, namespace, name, object })
}

/// Namespace and name.
fn identity(value: &Value) -> Result<(String, String), Vec<String>> {
    let mut wrong = Vec::new();
    let metadata = value.get("metadata").and_then(Value::as_object);
    for field in metadata.into_iter().flat_map(serde_json::Map::keys).filter(|field| !METADATA.contains(&field.as_str())) {
        wrong.push(format!("metadata.{}: there is no such field", line(field, 80)));
    }
    let mut text = |field: &str, default: Option<&str>| match metadata.and_then(|metadata| metadata.get(field)) {
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
    if wrong.is_empty() { Ok(identity) } else { Err(wrong) }
}

fn attachment(value: &Value) -> Result<Object, Vec<String>> {
    let mut wrong = Vec::new();
    for field in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            wrong.push(format!("{}: there is no such field; an ImageAttachment has apiVersion, kind, metadata and spec", line(field, 80)));
        }
    }
    match value.get("spec") {
        Some(spec) => wrong.extend(schema::check_spec(spec)),
        None => wrong.push("spec: it is missing, and is required".to_owned()),
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut value = value.clone();
    // What another pass left there is neither needed nor believed: the command has no status.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    let attachment: ImageAttachment = serde_json::from_value(value).map_err(|error| vec![Clean(&error.to_string()).to_string()])?;
    let wrong = spec_rules::check(&attachment.spec);
    if wrong.is_empty() { Ok(Object::Attachment(Box::new(attachment))) } else { Err(wrong) }
}

fn config_map(value: &Value) -> Result<Object, String> {
    only_text(value, &["data", "binaryData"])?;
    let map: ConfigMap = typed(value, "a value of binaryData is base64")?;
    let mut all: BTreeMap<String, Bytes> = BTreeMap::new();
    for (key, text) in map.data.unwrap_or_default() {
        all.insert(key, text.into());
    }
    for (key, ByteString(bytes)) in map.binary_data.unwrap_or_default() {
        if all.contains_key(&key) {
            return Err(format!("binaryData: the key {:?} stands in data too", line(&key, 80)));
        }
        all.insert(key, bytes.into());
    }
    Ok(Object::ConfigMap(all))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretDocument {
    #[serde(default)]
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: Option<BTreeMap<String, ByteString>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, String>>,
}

fn secret(value: &Value) -> Result<Object, Vec<String>> {
    only_text(value, &["data", "stringData"]).map_err(|error| vec![error])?;
    let secret: SecretDocument = typed(value, "a value of data is base64; plain text goes to stringData").map_err(|error| vec![error])?;
    let decoded = secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, Secret::new(bytes)));
    // As in the API server, stringData wins.
    let plain = secret.string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, Secret::from(text)));
    Ok(Object::Secret(SecretData {
        kind: secret.kind,
        data: decoded.chain(plain).collect(),
        annotations: secret.metadata.annotations.unwrap_or_default(),
    }))
}

fn service_account(value: &Value) -> Result<Object, String> {
    let account: ServiceAccount = typed(value, "imagePullSecrets is a list of maps with a name")?;
    Ok(Object::ServiceAccount(account.image_pull_secrets.unwrap_or_default().into_iter().map(|reference| reference.name).collect()))
}

fn list(mut value: Value) -> Result<Read, String> {
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Read::List(items)),
        None | Some(Value::Null) => Ok(Read::List(Vec::new())),
        Some(_) => Err("items: it must be a list".to_owned()),
    }
}

/// The values of these maps are text; `1` and `true` without quotes are not, and the API server refuses them too.
fn only_text(value: &Value, maps: &[&str]) -> Result<(), String> {
    for map in maps {
        for (key, value) in value.get(map).and_then(Value::as_object).into_iter().flatten() {
            if !value.is_string() {
                return Err(format!("{map}.{}: it must be text: put it in quotes", line(key, 80)));
            }
        }
    }
    Ok(())
}

/// What the document says, in types. The parser's own message is kept back: it may repeat a Secret's value.
fn typed<T: for<'de> Deserialize<'de>>(value: &Value, hint: &str) -> Result<T, String> {
    T::deserialize(value).map_err(|_| format!("it cannot be read: {hint}"))
}
