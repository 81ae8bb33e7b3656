//! The CustomResourceDefinitions that `affix crd` prints and `crds/` contains.
//!
//! The derive makes them from the types. This module adds the validation rules and the parts that the derive cannot express. The bytes of each
//! file are the same on every machine.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::rules;
use super::set::{ImageAttachmentSet, ImageAttachmentSetStatus, SET_FIELDS, SET_TARGETS_FIELDS};
use super::spec::ImageAttachment;
use super::status::ImageAttachmentStatus;

/// Returns the CustomResourceDefinition of [`ImageAttachment`].
///
/// The status defaults to an `observedGeneration` of -1, so that kstatus never reports an object as done before its first reconcile.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let status = serde_json::to_value(ImageAttachmentStatus::default());
    completed(ImageAttachment::crd(), status.ok().as_ref(), |spec| {
        refer_to_first_signer(spec);
        rules::add_to(spec);
    })
}

/// Returns the CustomResourceDefinition of [`ImageAttachmentSet`], with the same default of its status.
#[must_use]
pub fn set_crd() -> CustomResourceDefinition {
    let status = serde_json::to_value(ImageAttachmentSetStatus::default());
    completed(ImageAttachmentSet::crd(), status.ok().as_ref(), |spec| {
        without_set_fields(spec);
        rules::add_to_set(spec);
    })
}

/// Adds the parts of a definition that the derive cannot express. `complete` works on the schema of the spec.
fn completed(
    mut crd: CustomResourceDefinition,
    status_default: Option<&serde_json::Value>,
    complete: impl Fn(&mut JSONSchemaProps),
) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        adjust(root);
        let Some(properties) = &mut root.properties else {
            continue;
        };
        if let Some(spec) = properties.get_mut("spec") {
            complete(spec);
        }
        if let Some(status) = properties.get_mut("status") {
            if let Some(conditions) = property(status, "conditions") {
                // Kubernetes documents them at length.
                shorten(conditions, usize::MAX);
            }
            // The API server replaces a null by the default only where the schema does not allow null.
            status.nullable = None;
            status.default = status_default.cloned().map(JSON);
        }
    }
    crd
}

/// Removes the fields of the template that the set writes.
fn without_set_fields(spec: &mut JSONSchemaProps) {
    let Some(template) = property(spec, "template").and_then(|template| property(template, "spec"))
    else {
        return;
    };
    // The definition of ImageAttachment has the whole descriptions. With both, this one would be larger than 100 KiB.
    for (_, field) in properties(Some(template)) {
        shorten(field, TEMPLATE_LEVELS - 1);
    }
    remove(template, &SET_FIELDS);
    if let Some(targets) = property(template, "targets") {
        remove(targets, &SET_TARGETS_FIELDS);
    }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn remove(schema: &mut JSONSchemaProps, names: &[&str]) {
    for name in names {
        schema
            .properties
            .as_mut()
            .and_then(|properties| properties.remove(*name));
    }
    if let Some(required) = &mut schema.required {
        required.retain(|name| !names.contains(&name.as_str()));
    }
    schema.required.take_if(|required| required.is_empty());
}

/// Returns the CustomResourceDefinition of [`ImageAttachment`] as a YAML document.
#[must_use]
pub fn crd_yaml() -> String {
    yaml(&crd())
}

/// Returns the CustomResourceDefinition of [`ImageAttachmentSet`] as a YAML document.
#[must_use]
pub fn set_crd_yaml() -> String {
    yaml(&set_crd())
}

/// Returns all definitions as a stream of YAML documents.
#[must_use]
pub fn crds_yaml() -> String {
    format!("{}---\n{}", crd_yaml(), set_crd_yaml())
}

fn yaml(crd: &CustomResourceDefinition) -> String {
    // Long texts stay on one line: folded ones would be indented again and again.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    // Every value of the definition has a YAML form. A unit test reads it back.
    serde_saphyr::to_string_with_options(crd, options).unwrap_or_default()
}

/// The signer whose fields have their whole descriptions.
const FIRST_SIGNER: [&str; 2] = ["signature", "cosign"];
/// The signers with the same fields.
const OTHER_SIGNERS: [&[&str]; 2] = [
    &["attestation", "cosign"],
    &["endOfLife", "statement", "cosign"],
];

/// Lets the fields that another signer has in common with `signature.cosign` refer to it, without descriptions below them. The repetitions
/// would be a tenth of the definition, which is to stay below 100 KiB.
fn refer_to_first_signer(spec: &mut JSONSchemaProps) {
    let Some(first) = at(spec, &FIRST_SIGNER).cloned() else {
        return;
    };
    for path in OTHER_SIGNERS {
        for (name, field) in properties(at(spec, path)) {
            let same = first.properties.as_ref().and_then(|of| of.get(name));
            if same.is_some_and(|same| same.description == field.description) {
                shorten(field, 0);
                field.description = field
                    .description
                    .take()
                    .map(|text| format!("{text} As in signature.cosign."));
            }
        }
    }
}

/// The levels of a template whose fields have a description.
const TEMPLATE_LEVELS: usize = 2;

/// Shortens the descriptions of a schema and everything below it to their first sentence. Fields that are more than `levels` levels below the
/// schema lose their descriptions.
fn shorten(schema: &mut JSONSchemaProps, levels: usize) {
    if let Some(description) = &mut schema.description
        && let Some((first, _)) = description.split_once(". ")
    {
        *description = format!("{first}.");
    }
    for (_, property) in properties(Some(schema)) {
        match levels.checked_sub(1) {
            Some(levels) => shorten(property, levels),
            None => remove_descriptions(property),
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        shorten(items, levels);
    }
}

fn remove_descriptions(schema: &mut JSONSchemaProps) {
    schema.description = None;
    for (_, property) in properties(Some(schema)) {
        remove_descriptions(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        remove_descriptions(items);
    }
}

/// Returns the schema of a field below `schema`.
fn at<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter()
        .try_fold(schema, |schema, name| property(schema, name))
}

fn properties(
    schema: Option<&mut JSONSchemaProps>,
) -> impl Iterator<Item = (&String, &mut JSONSchemaProps)> {
    schema
        .and_then(|schema| schema.properties.as_mut())
        .into_iter()
        .flatten()
}

/// Adjusts a schema and everything below it.
///
/// Each description becomes one line, because `kubectl explain` would show the line breaks of the source.
///
/// A nullable enum moves to `allOf`. The API server compares a null with `enum` although `nullable` allows it, but skips `allOf` for a
/// null (docs/decisions/0150). Without `nullable`, a POST would drop the null and a server-side apply would refuse it.
fn adjust(schema: &mut JSONSchemaProps) {
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
        adjust(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => adjust(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(adjust),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        adjust(values);
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

    /// The definitions, and their files for installations without the command.
    fn all() -> [(&'static str, CustomResourceDefinition); 2] {
        [
            ("crds/affix.dev_imageattachments.yaml", crd()),
            ("crds/affix.dev_imageattachmentsets.yaml", set_crd()),
        ]
    }

    fn schemas() -> [Value; 2] {
        all().map(|(_, crd)| {
            let crd = serde_json::to_value(crd).unwrap();
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
        })
    }

    /// Calls `visit` with the path and the schema of each property.
    fn each_property(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            visit(&path, property);
            each_property(&path, property, visit);
            each_property(&path, &property["items"], visit);
        }
    }

    #[test]
    fn the_files_in_crds_are_current() {
        for (file, crd) in all() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            if std::env::var_os("AFFIX_UPDATE").is_some() {
                std::fs::write(&path, yaml(&crd)).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == yaml(&crd),
                "{file} is not current: run `AFFIX_UPDATE=1 cargo test --lib api::crd`"
            );
        }
    }

    #[test]
    fn the_yaml_is_the_definition_and_smaller_than_100_kib() {
        for (file, crd) in all() {
            let yaml = yaml(&crd);
            let read: Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(read, serde_json::to_value(crd).unwrap());
            assert!(yaml.len() < 100 * 1024, "{file}: {} bytes", yaml.len());
        }
    }

    #[test]
    fn the_template_has_every_field_of_an_attachment_that_the_set_does_not_write() {
        let [attachment, set] = schemas();
        let spec = &attachment["properties"]["spec"]["properties"];
        let template = &set["properties"]["spec"]["properties"]["template"]["properties"]["spec"];
        let names = |fields: &Value| -> Vec<String> {
            fields.as_object().unwrap().keys().cloned().collect()
        };
        let mut expected = names(spec);
        expected.retain(|name| !SET_FIELDS.contains(&name.as_str()));
        assert_eq!(names(&template["properties"]), expected);
        assert_eq!(template["required"], Value::Null);
        let mut expected = names(&spec["targets"]["properties"]);
        expected.retain(|name| !SET_TARGETS_FIELDS.contains(&name.as_str()));
        assert_eq!(
            names(&template["properties"]["targets"]["properties"]),
            expected
        );
    }

    #[test]
    fn an_object_is_not_done_before_its_first_reconcile() {
        for schema in schemas() {
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
    }

    #[test]
    fn the_spec_has_no_default_in_the_schema() {
        for schema in schemas() {
            each_property(
                "spec",
                &schema["properties"]["spec"],
                &mut |path, property| {
                    assert_eq!(property["default"], Value::Null, "{path}");
                },
            );
        }
    }

    #[test]
    fn every_field_has_a_description_and_that_of_the_spec_its_default() {
        let [attachment, set] = schemas();
        each_property("", &attachment, &mut |path, property| {
            let below_signer = OTHER_SIGNERS
                .iter()
                .find_map(|signer| path.strip_prefix(&format!(".spec.{}.", signer.join("."))));
            if below_signer.is_some_and(|path| path.contains('.')) {
                assert_eq!(property["description"], Value::Null, "{path}");
            } else {
                check_description(path, property, below_signer.is_some());
            }
        });
        each_property("", &set, &mut |path, property| {
            let levels = path
                .strip_prefix(".spec.template.spec.")
                .map(|path| path.split('.').count());
            if levels.is_none_or(|levels| levels <= TEMPLATE_LEVELS) {
                check_description(path, property, levels.is_some());
            } else {
                assert_eq!(property["description"], Value::Null, "{path}");
            }
        });
    }

    fn check_description(path: &str, property: &Value, repeated: bool) {
        let description = property["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{path} has no description");
        if path.starts_with(".spec.") && !repeated {
            let documented = ["Required.", "Default:", "Exactly one of"]
                .iter()
                .any(|text| description.contains(text));
            assert!(documented, "{path}: {description}");
        }
    }

    #[test]
    fn a_repeated_field_has_the_first_sentence_of_its_description() {
        let [attachment, set] = schemas();
        let about = |schema: &Value, path: &str| {
            path.split('.')
                .fold(&schema["properties"]["spec"], |schema, name| {
                    &schema["properties"][name]
                })["description"]
                .clone()
        };
        assert_eq!(
            about(&attachment, "attestation.cosign.kms"),
            "The key of a key management service. As in signature.cosign."
        );
        assert_eq!(
            about(&set, "template.spec.signature.cosign"),
            "Signs as cosign does, with a Sigstore bundle."
        );
    }

    #[test]
    fn every_optional_field_of_the_spec_may_be_null() {
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
        for schema in schemas() {
            check("spec", &schema["properties"]["spec"]);
        }
    }

    #[test]
    fn every_text_and_list_of_the_spec_is_bounded() {
        for schema in schemas() {
            let spec = &schema["properties"]["spec"];
            each_property("spec", spec, &mut |path, property| {
                for schema in [
                    property,
                    &property["items"],
                    &property["additionalProperties"],
                ] {
                    let bounded = match schema["type"].as_str() {
                        Some("string") => {
                            !schema["maxLength"].is_null()
                                || !schema["enum"].is_null()
                                || !schema["allOf"][0]["enum"].is_null()
                        }
                        Some("array") => !schema["maxItems"].is_null(),
                        Some("object") if schema["properties"].is_null() => {
                            !schema["maxProperties"].is_null()
                        }
                        _ => true,
                    };
                    assert!(bounded, "{path} has no limit: {schema}");
                }
            });
        }
    }
}
