//! The CustomResourceDefinition, as `affix crd` prints it and `crds/` keeps it.
//!
//! Owns: what the derive cannot say, and the bytes of the file, which are the same on every machine. Refuses: rules and
//! descriptions of single fields, which stand at the fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::spec::ImageAttachment;
use super::status::ImageAttachmentStatus;

/// The CustomResourceDefinition of [`ImageAttachment`].
///
/// Status defaults to an `observedGeneration` of -1, so that kstatus never takes an object that no pass has seen for done.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ImageAttachment::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        mend(root);
        if let Some(status) = root
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"))
        {
            // The API server puts a default in the place of a null only where the schema does not allow the null.
            status.nullable = None;
            status.default = serde_json::to_value(ImageAttachmentStatus::default())
                .ok()
                .map(JSON);
        }
    }
    crd
}

/// The CustomResourceDefinition as a YAML document.
#[must_use]
pub fn crd_yaml() -> String {
    // Every value of the definition can be written as YAML; the unit test reads it back.
    serde_saphyr::to_string(&crd()).unwrap_or_default()
}

/// Mends a schema and all below it.
///
/// Each description becomes one line: where the source breaks its lines says nothing to a reader of `kubectl explain`.
///
/// A choice that may be null keeps its `enum` under `allOf`: the API server holds `enum` itself against a null that `nullable` lets
/// through, even where the list names null, but it does not look into `allOf` for a null. Leaving out `nullable` is no way: then
/// a POST drops the null, and a server-side apply refuses it.
fn mend(schema: &mut JSONSchemaProps) {
    if schema.nullable == Some(true)
        && let Some(choices) = schema.enum_.take()
    {
        schema.all_of = Some(vec![JSONSchemaProps {
            enum_: Some(choices),
            ..JSONSchemaProps::default()
        }]);
    }
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        mend(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => mend(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(mend),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        mend(values);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )]

    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// Where the definition is kept, for those who install without the command.
    const FILE: &str = "crds/affix.dev_imageattachments.yaml";

    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// Calls `look` with the path and the schema of each property below.
    fn each_property(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            look(&path, property);
            each_property(&path, property, look);
            each_property(&path, &property["items"], look);
        }
    }

    #[test]
    fn the_file_in_crds_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        if std::env::var_os("AFFIX_UPDATE").is_some() {
            std::fs::write(&path, crd_yaml()).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == crd_yaml(),
            "{FILE} is not current: run `AFFIX_UPDATE=1 cargo test --lib api::crd`"
        );
    }

    #[test]
    fn the_yaml_reads_back_as_the_definition_and_stays_below_100_kib() {
        let yaml = crd_yaml();
        let read: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(crd()).unwrap());
        assert!(yaml.len() < 100 * 1024, "{} bytes", yaml.len());
    }

    #[test]
    fn an_untouched_object_is_never_taken_for_done() {
        let schema = schema();
        assert_eq!(
            schema["properties"]["status"]["default"],
            serde_json::json!({"observedGeneration": -1})
        );
        assert_eq!(schema["properties"]["status"]["nullable"], Value::Null);
        assert_eq!(
            schema["properties"]["status"]["properties"]["observedGeneration"]["default"],
            -1
        );
    }

    #[test]
    fn the_spec_has_no_default_in_the_schema() {
        each_property(
            "spec",
            &schema()["properties"]["spec"],
            &mut |path, property| {
                assert_eq!(property["default"], Value::Null, "{path}");
            },
        );
    }

    #[test]
    fn every_field_of_the_spec_says_what_happens_without_it() {
        each_property("", &schema(), &mut |path, property| {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{path} has no description");
            if path.starts_with(".spec.") {
                let told = ["Required.", "Default:", "Exactly one of"]
                    .iter()
                    .any(|text| description.contains(text));
                assert!(told, "{path}: {description}");
            }
        });
    }

    #[test]
    fn every_optional_field_of_the_spec_may_be_null_and_no_enum_stands_in_its_way() {
        fn check(path: &str, schema: &Value) {
            let required: Vec<_> = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                let nullable = property["nullable"] == Value::Bool(true);
                assert_eq!(nullable, !required.contains(&name.as_str()), "{path}");
                assert!(!nullable || property["enum"].is_null(), "{path}");
                check(&path, property);
                check(&path, &property["items"]);
            }
        }
        check("spec", &schema()["properties"]["spec"]);
    }

    #[test]
    fn every_text_and_list_of_the_spec_is_bounded() {
        each_property(
            "spec",
            &schema()["properties"]["spec"],
            &mut |path, property| {
                for schema in [
                    property,
                    &property["items"],
                    &property["additionalProperties"],
                ] {
                    let bounded = match schema["type"].as_str() {
                        Some("string") => {
                            !schema["maxLength"].is_null() || !schema["allOf"][0]["enum"].is_null()
                        }
                        Some("array") => !schema["maxItems"].is_null(),
                        Some("object") if schema["properties"].is_null() => {
                            !schema["maxProperties"].is_null()
                        }
                        _ => true,
                    };
                    assert!(bounded, "{path} has no limit: {schema}");
                }
            },
        );
    }
}
