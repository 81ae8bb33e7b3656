//! Kubernetes objects in documents.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::api::{
    ImageAttachment, ImageAttachmentSet, LocalObjectReference, Pinned, check_set_spec, check_spec,
    is_object_name,
};
use crate::cli::output::text::{Clean, line};
use crate::engine::SecretData;
use affix_registry::Secret;

/// The API group of affix.
pub(super) const GROUP: &str = "affix.dev";

/// The fields of ObjectMeta.
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

/// The content of an object.
#[derive(Debug, Clone)]
pub(super) enum Object {
    /// An ImageAttachment, and its status as it was given.
    Attachment(Box<ImageAttachment>, Option<Value>),
    /// An ImageAttachmentSet, and its status as it was given.
    Set(Box<ImageAttachmentSet>, Option<Value>),
    /// `data` and `binaryData` together.
    ConfigMap(BTreeMap<String, Bytes>),
    /// A Secret, decoded.
    Secret(SecretData),
    /// The names of the `imagePullSecrets` of a ServiceAccount.
    ServiceAccount(Vec<String>),
}

/// A parsed document.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    /// An object of a kind that affix uses.
    Object {
        /// The kind.
        kind: &'static str,
        /// The namespace, or `default`.
        namespace: String,
        /// The name.
        name: String,
        /// The content.
        object: Object,
    },
    /// A list of objects.
    List(Vec<Value>),
    /// An object of another kind, with its apiVersion and kind.
    OtherKind(String),
    /// An object whose values are encrypted with SOPS, with its kind.
    Encrypted(&'static str),
    /// A document without apiVersion or kind.
    NoKind,
}

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The errors, one sentence each. Each begins with the field.
    pub errors: Vec<String>,
    /// True if the document is of affix, or was probably meant to be.
    pub is_of_affix: bool,
}

/// Parses one document.
///
/// # Errors
/// The errors of the document.
pub(super) fn parse(value: Value, pinned: Pinned, namespace: &str) -> Result<Parsed, Refused> {
    let one = |error: String| vec![error];
    let Value::Object(fields) = &value else {
        return Err(Refused {
            errors: one("the document is not a map, so it is not a Kubernetes object".to_owned()),
            is_of_affix: false,
        });
    };
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Ok(Parsed::NoKind);
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let of_affix = group == GROUP;
    let is_encrypted = fields.contains_key("sops");
    let (kind, object) = match (group, version, kind) {
        (GROUP, "v1alpha1", "ImageAttachment") => (
            "ImageAttachment",
            resource(&value, "ImageAttachment", |spec| check_spec(spec, pinned))
                .map(|(object, status)| Object::Attachment(Box::new(object), status)),
        ),
        (GROUP, "v1alpha1", "ImageAttachmentSet") => (
            "ImageAttachmentSet",
            resource(&value, "ImageAttachmentSet", check_set_spec)
                .map(|(object, status)| Object::Set(Box::new(object), status)),
        ),
        ("", "v1", "ConfigMap") if is_encrypted => {
            return Ok(Parsed::Encrypted("ConfigMap"));
        }
        ("", "v1", "Secret") if is_encrypted => {
            return Ok(Parsed::Encrypted("Secret"));
        }
        ("", "v1", "ConfigMap") => ("ConfigMap", config_map(&value).map_err(one)),
        ("", "v1", "Secret") => ("Secret", secret(&value).map_err(one)),
        ("", "v1", "ServiceAccount") => ("ServiceAccount", service_account(&value).map_err(one)),
        ("", "v1", "List")
        | (GROUP, "v1alpha1", "ImageAttachmentList" | "ImageAttachmentSetList") => {
            return list(value).map_err(|error| Refused {
                errors: one(error),
                is_of_affix: of_affix,
            });
        }
        _ => {
            return match unsupported(api_version, kind) {
                Some(error) => Err(Refused {
                    errors: one(error),
                    is_of_affix: true,
                }),
                None => Ok(Parsed::OtherKind(format!(
                    "{} {}",
                    line(api_version, 80),
                    line(kind, 80)
                ))),
            };
        }
    };
    let is_of_affix = of_affix;
    match (identity(&value, namespace), object) {
        (Ok((namespace, name)), Ok(mut object)) => {
            let metadata = match &mut object {
                Object::Attachment(attachment, _) => Some(&mut attachment.metadata),
                Object::Set(set, _) => Some(&mut set.metadata),
                Object::ConfigMap(_) | Object::Secret(_) | Object::ServiceAccount(_) => None,
            };
            if let Some(metadata) = metadata {
                let given = value.get("metadata").map(ObjectMeta::deserialize);
                *metadata = given
                    .transpose()
                    .map_err(|error| Refused {
                        errors: one(format!("metadata: {}", Clean(&error.to_string()))),
                        is_of_affix,
                    })?
                    .unwrap_or_default();
            }
            Ok(Parsed::Object {
                kind,
                namespace,
                name,
                object,
            })
        }
        (identity, object) => Err(Refused {
            errors: identity
                .err()
                .into_iter()
                .chain(object.err())
                .flatten()
                .collect(),
            is_of_affix,
        }),
    }
}

/// Returns an error for an object that was probably meant for affix: silently skipping it would leave an image unsigned.
fn unsupported(api_version: &str, kind: &str) -> Option<String> {
    let (group, _) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let kinds = ["ImageAttachment", "ImageAttachmentSet"];
    let is_kind = kinds.contains(&kind.strip_suffix("List").unwrap_or(kind));
    let (version, shown) = (line(api_version, 80), line(kind, 80));
    if group == GROUP && is_kind {
        Some(format!(
            "apiVersion: {version} is not supported by this version of affix: write affix.dev/v1alpha1, or upgrade affix"
        ))
    } else if group == GROUP {
        Some(format!(
            "kind: {shown} is not a kind of {GROUP}: write ImageAttachment or ImageAttachmentSet, or upgrade affix"
        ))
    } else if is_kind || is_near(group, GROUP) {
        Some(format!(
            "apiVersion: {version} is not the group of affix: write affix.dev/v1alpha1"
        ))
    } else {
        None
    }
}

/// Returns whether a text is at most two edits away from another one, in any case.
fn is_near(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.to_lowercase(), wanted.to_lowercase());
    let mut row: Vec<usize> = (0..=wanted.chars().count()).collect();
    for (n, from) in text.chars().enumerate() {
        let mut next = vec![n + 1];
        for ((to, pair), left_above) in wanted.chars().zip(row.windows(2)).zip(&row) {
            let above = pair.last().copied().unwrap_or_default();
            let left = next.last().copied().unwrap_or_default();
            next.push(
                (left_above + usize::from(from != to))
                    .min(above + 1)
                    .min(left + 1),
            );
        }
        row = next;
    }
    row.last().is_some_and(|edits| *edits <= 2)
}

/// Returns namespace and name.
fn identity(value: &Value, namespace: &str) -> Result<(String, String), Vec<String>> {
    let mut errors = Vec::new();
    let metadata = value.get("metadata").and_then(Value::as_object);
    for field in metadata
        .into_iter()
        .flat_map(Map::keys)
        .filter(|field| !METADATA.contains(&field.as_str()))
    {
        errors.push(format!(
            "metadata.{}: there is no such field",
            line(field, 80)
        ));
    }
    for field in ["labels", "annotations"] {
        let texts = value
            .get("metadata")
            .map_or(Ok(Vec::new()), |metadata| texts(metadata, field));
        errors.extend(texts.err().map(|error| format!("metadata.{error}")));
    }
    let mut text = |field: &str, default: Option<&str>| match metadata
        .and_then(|metadata| metadata.get(field))
    {
        Some(Value::String(text)) if is_object_name(text) => text.clone(),
        None | Some(Value::Null) if default.is_some() => default.unwrap_or_default().to_owned(),
        None | Some(Value::Null) => {
            errors.push(format!("metadata.{field}: it is missing, and is required"));
            String::new()
        }
        Some(other) => {
            errors.push(format!(
                "metadata.{field}: {} is not a name of an object: write lower-case letters, digits, - and .",
                Clean(&other.to_string())
            ));
            String::new()
        }
    };
    let identity = (text("namespace", Some(namespace)), text("name", None));
    if errors.is_empty() {
        Ok(identity)
    } else {
        Err(errors)
    }
}

/// Returns a resource of affix without its metadata, and its status.
fn resource<T: serde::de::DeserializeOwned>(
    value: &Value,
    kind: &str,
    check: impl Fn(&Value) -> Vec<String>,
) -> Result<(T, Option<Value>), Vec<String>> {
    let mut errors = Vec::new();
    for field in value.as_object().into_iter().flat_map(Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            errors.push(format!(
                "{}: there is no such field; an {kind} has apiVersion, kind, metadata and spec",
                line(field, 80)
            ));
        }
    }
    match value.get("spec") {
        Some(spec) => errors.extend(check(spec).iter().map(|error| Clean(error).to_string())),
        None => errors.push("spec: it is missing, and is required".to_owned()),
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut value = value.clone();
    // The caller checks the metadata and reads it afterwards.
    if let Some(fields) = value.as_object_mut() {
        fields.insert("metadata".to_owned(), Value::Object(Map::new()));
    }
    // The status of an earlier pass is read by the caller, where it matters.
    let status = value
        .as_object_mut()
        .and_then(|fields| fields.remove("status"))
        .filter(|status| !status.is_null());
    let object = serde_json::from_value(value)
        .map_err(|error| vec![Clean(&error.to_string()).to_string()])?;
    Ok((object, status))
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
                "binaryData.{}: the key is also in data",
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

fn list(mut value: Value) -> Result<Parsed, String> {
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Parsed::List(items)),
        None | Some(Value::Null) => Ok(Parsed::List(Vec::new())),
        Some(_) => Err("items: it must be a list".to_owned()),
    }
}

/// Returns the entries of a map of texts. Like the API server, it refuses numbers and booleans without quotes.
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

/// Decodes base64. Like the API server, it accepts line breaks.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .ok()
}
