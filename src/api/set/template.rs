//! The template of the children of a set.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::api::annotations::Annotations;
use crate::api::attachment::null_is_empty;
use crate::api::spec::ImageAttachmentSpec;
use crate::api::targets::Targets;

/// The fields of an ImageAttachment's spec that a template does not have, because the set writes them.
pub(in crate::api) const SET_FIELDS: [&str; 2] = ["image", "interval"];
/// The fields of `targets` that a template does not have.
pub(in crate::api) const SET_TARGETS_FIELDS: [&str; 1] = ["digests"];

/// The ImageAttachments of a set.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SetTemplate {
    /// Labels and annotations of the ImageAttachments. Default: none but those of affix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,

    /// The spec of the ImageAttachments, without image, interval and targets.digests, which the set writes. kubectl explain
    /// imageattachment.spec describes its fields. Required.
    pub spec: TemplateSpec,
}

/// The metadata of the ImageAttachments.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels. Keys of affix.dev are refused. Default: none. At most 64.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub labels: BTreeMap<String, String>,

    /// Annotations. Keys of affix.dev are refused. Default: none. At most 64; keys of at most 256, values of at most 4096 characters.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: BTreeMap<String, String>,
}

/// The spec of an ImageAttachment without the fields that the set writes.
///
/// It wraps the type itself, so that each field of an ImageAttachment is a field of the template too.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateSpec(ImageAttachmentSpec);

impl TemplateSpec {
    /// Returns the fields that all children share. The image is empty.
    #[must_use]
    pub const fn shared(&self) -> &ImageAttachmentSpec {
        &self.0
    }

    /// Returns the spec of a child. `digests` are the manifests that are selected, or `None` for every manifest. `date` is the end-of-life
    /// date of a mark that has none of its own.
    #[must_use]
    pub fn child(
        &self,
        image: String,
        digests: Option<Vec<String>>,
        date: Option<String>,
    ) -> ImageAttachmentSpec {
        let mut spec = ImageAttachmentSpec {
            image,
            ..self.0.clone()
        };
        if digests.is_some() {
            spec.targets.get_or_insert_with(Targets::default).digests = digests;
        }
        if let (Some(mark), Some(date)) = (&mut spec.end_of_life, date) {
            mark.date = Some(date);
        }
        spec
    }
}

impl<'de> Deserialize<'de> for TemplateSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        for name in SET_FIELDS {
            fields.remove(name);
        }
        if let Some(Value::Object(targets)) = fields.get_mut("targets") {
            for name in SET_TARGETS_FIELDS {
                targets.remove(name);
            }
        }
        fields.insert("image".to_owned(), Value::String(String::new()));
        serde_json::from_value(Value::Object(fields))
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for TemplateSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(&self.0).map_err(serde::ser::Error::custom)?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("image");
        }
        value.serialize(serializer)
    }
}

impl JsonSchema for TemplateSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TemplateSpec".into()
    }

    /// Returns the schema of the whole spec. [`set_crd`](crate::api::set_crd) takes the fields out that the set writes.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ImageAttachmentSpec::json_schema(generator)
    }
}
