//! The validation rules of the spec, each written once.
//!
//! An entry holds the fields that the rule applies to, its CEL expression, the same check in Rust, and the message. [`crd`](super::crd())
//! writes the expressions into the schema, where the API server evaluates them; the command line evaluates the checks. An evaluator for
//! CEL (`kube`'s feature `cel`) would add 24 crates to the binary and would still leave the structural checks to do. `tests/schema` compares
//! both sides on a real API server.
//!
//! A rule on a list applies to its items where possible, so that the error names the wrong item. No expression compares with null: the API
//! server skips a rule on a null field, and `has(self.x)` is false where `x` is null and nullable. Every text that a rule reads has a
//! `maxLength` and every list a `maxItems`, because the API server estimates the cost of a rule from these and refuses a CRD that is over
//! its budget.
//!
//! Rules that need more than the resource itself are not here. The spelling of an image reference beyond its parts is reported by the
//! controller as `InvalidReference`.

mod access;
mod artifact;
mod attestation;
mod duration;
mod end_of_life;
mod image;
mod kms;
mod pattern;
mod set;
mod signature;
mod targets;
mod text;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use serde_json::Value;

use pattern::Pattern;

pub(crate) use text::is_object_name;

/// The rules of an ImageAttachment. Rules of the same field are reported in this order.
static ATTACHMENT_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    [
        text::rules(),
        image::rules(),
        targets::rules(),
        end_of_life::rules(),
        artifact::rules(),
        signature::rules(),
        kms::rules(),
        attestation::rules(),
        access::rules(),
        duration::rules(),
    ]
    .into_iter()
    .flatten()
    .collect()
});

/// The rules of an ImageAttachmentSet, without those of its template, which are [`ATTACHMENT_RULES`].
static SET_RULES: LazyLock<Vec<Rule>> = LazyLock::new(set::rules);

/// The field of a set that is the spec of an ImageAttachment.
const TEMPLATE: &str = "spec.template.spec";

/// One rule of the spec.
struct Rule {
    /// The fields that the rule applies to, such as `spec.targets.platforms[]` for the items of a list.
    fields: &'static [&'static str],
    /// The rule as the API server evaluates it.
    expression: String,
    /// The rule as the command line evaluates it.
    check: Check,
    /// The error message, which names the way out.
    message: &'static str,
    /// The field below that the error names, relative to the field that the rule applies to.
    field_path: Option<&'static str>,
    /// True if the rule only requires a digest in the image, which `affix pin` adds.
    needs_digest: bool,
    /// True if the rule reads fields that the template of a set does not have or that the set completes.
    not_in_templates: bool,
}

/// The Rust side of a rule.
enum Check {
    /// Returns whether a value that is not null follows the rule. A value of another type follows it: the schema reports that.
    Holds(fn(&Value) -> bool),
    /// The text matches the pattern.
    Matches(&'static Pattern),
    /// The rule compares an object with its predecessor, which only the API server has.
    Transition,
}

impl Rule {
    /// A rule whose check is written in CEL and in Rust.
    fn new(
        fields: &'static [&'static str],
        expression: impl Into<String>,
        holds: fn(&Value) -> bool,
        message: &'static str,
    ) -> Self {
        Self {
            fields,
            expression: expression.into(),
            check: Check::Holds(holds),
            message,
            field_path: None,
            needs_digest: false,
            not_in_templates: false,
        }
    }

    /// A rule that is a pattern.
    fn matches(
        fields: &'static [&'static str],
        pattern: &'static Pattern,
        message: &'static str,
    ) -> Self {
        Self {
            fields,
            expression: pattern.expression(),
            check: Check::Matches(pattern),
            message,
            field_path: None,
            needs_digest: false,
            not_in_templates: false,
        }
    }

    /// A rule on the change of an object.
    fn transition(
        fields: &'static [&'static str],
        expression: &str,
        message: &'static str,
    ) -> Self {
        Self {
            fields,
            expression: expression.to_owned(),
            check: Check::Transition,
            message,
            field_path: None,
            needs_digest: false,
            not_in_templates: false,
        }
    }

    /// Marks a rule that only requires a digest in the image.
    fn needs_digest(self) -> Self {
        Self {
            needs_digest: true,
            ..self
        }
    }

    /// Marks a rule that does not apply to the template of a set.
    fn not_in_templates(self) -> Self {
        Self {
            not_in_templates: true,
            ..self
        }
    }

    fn at(self, field_path: &'static str) -> Self {
        Self {
            field_path: Some(field_path),
            ..self
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match self.check {
            Check::Holds(holds) => holds(value),
            Check::Matches(pattern) => value.as_str().is_none_or(|text| pattern.is_match(text)),
            Check::Transition => true,
        }
    }

    fn as_schema(&self) -> ValidationRule {
        ValidationRule {
            rule: self.expression.clone(),
            message: Some(self.message.to_owned()),
            field_path: self.field_path.map(str::to_owned),
            ..ValidationRule::default()
        }
    }
}

/// A rule that a value breaks.
pub(super) struct Violation<'a> {
    /// The field that is wrong.
    pub(super) field: String,
    /// The value of the field that the rule applies to.
    pub(super) value: &'a Value,
    /// The message of the rule.
    pub(super) message: &'static str,
    /// True if only a digest in the image is missing.
    pub(super) needs_digest: bool,
}

/// Returns the rules that the spec of an ImageAttachment breaks.
pub(super) fn check(spec: &Value) -> Vec<Violation<'_>> {
    violations(ATTACHMENT_RULES.iter(), "spec", spec)
}

/// Returns the rules that the spec of an ImageAttachmentSet breaks.
pub(super) fn check_set(spec: &Value) -> Vec<Violation<'_>> {
    let mut broken = violations(SET_RULES.iter(), "spec", spec);
    for (_, template) in values_at(spec, "spec", TEMPLATE) {
        broken.extend(violations(template_rules(), TEMPLATE, template));
    }
    broken
}

/// Returns the rules of an ImageAttachment that apply to the template of a set.
fn template_rules() -> impl Iterator<Item = &'static Rule> {
    ATTACHMENT_RULES
        .iter()
        .filter(|rule| !rule.not_in_templates)
}

fn violations<'a>(
    rules: impl Iterator<Item = &'static Rule>,
    root: &str,
    spec: &'a Value,
) -> Vec<Violation<'a>> {
    let mut violations = Vec::new();
    for rule in rules {
        for pattern in rule.fields {
            let broken = values_at(spec, root, pattern)
                .into_iter()
                .filter(|(_, value)| !value.is_null() && !rule.holds(value));
            violations.extend(broken.map(|(field, value)| Violation {
                field: field + rule.field_path.unwrap_or_default(),
                value,
                message: rule.message,
                needs_digest: rule.needs_digest,
            }));
        }
    }
    violations
}

/// Adds the rules to the schema of the spec of an ImageAttachment.
pub(super) fn add_to(schema: &mut JSONSchemaProps) {
    add(ATTACHMENT_RULES.iter(), schema);
}

/// Adds the rules to the schema of the spec of an ImageAttachmentSet.
pub(super) fn add_to_set(schema: &mut JSONSchemaProps) {
    add(SET_RULES.iter(), schema);
    if let Some(template) = schema_at(schema, TEMPLATE) {
        add(template_rules(), template);
    }
}

fn add(rules: impl Iterator<Item = &'static Rule>, schema: &mut JSONSchemaProps) {
    for rule in rules {
        for field in rule.fields {
            if let Some(schema) = schema_at(schema, field) {
                schema
                    .x_kubernetes_validations
                    .get_or_insert_default()
                    .push(rule.as_schema());
            }
        }
    }
}

/// Splits a field such as `spec.a.b[]` into the steps below the spec: `a`, `b`, `[]`.
fn steps(field: &str) -> impl Iterator<Item = &str> {
    field.split('.').skip(1).flat_map(|name| {
        let (name, items) = name
            .strip_suffix("[]")
            .map_or((name, None), |name| (name, Some("[]")));
        std::iter::once(name).chain(items)
    })
}

/// Returns the values of a field, each with its path. `root` is the path of `spec` itself.
fn values_at<'a>(spec: &'a Value, root: &str, field: &str) -> Vec<(String, &'a Value)> {
    let mut values = vec![(root.to_owned(), spec)];
    for step in steps(field) {
        values = values
            .into_iter()
            .flat_map(|(path, value)| -> Vec<(String, &'a Value)> {
                match step {
                    "[]" => value
                        .as_array()
                        .into_iter()
                        .flatten()
                        .enumerate()
                        .map(|(index, item)| (format!("{path}[{index}]"), item))
                        .collect(),
                    name => value
                        .get(name)
                        .map(|value| (format!("{path}.{name}"), value))
                        .into_iter()
                        .collect(),
                }
            })
            .collect();
    }
    values
}

/// Returns the schema of a field.
fn schema_at<'a>(spec: &'a mut JSONSchemaProps, field: &str) -> Option<&'a mut JSONSchemaProps> {
    steps(field).try_fold(spec, |schema, step| match step {
        "[]" => match schema.items.as_mut()? {
            JSONSchemaPropsOrArray::Schema(items) => Some(&mut **items),
            JSONSchemaPropsOrArray::Schemas(_) => None,
        },
        name => schema.properties.as_mut()?.get_mut(name),
    })
}

/// Returns a field that is set, as `has()` of CEL sees it: a null counts as absent.
fn get<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// Returns whether a field is set.
fn has(object: &Value, name: &str) -> bool {
    get(object, name).is_some()
}

/// Returns whether no item of a list is there twice.
fn has_no_duplicates(list: &Value) -> bool {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    (0..items.len()).all(|n| {
        let (before, rest) = items.split_at(n);
        rest.first().is_none_or(|item| !before.contains(item))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

    use std::collections::BTreeSet;

    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use serde_json::json;

    use super::*;

    /// Returns the schema of the spec.
    fn spec_of(mut crd: CustomResourceDefinition) -> JSONSchemaProps {
        let version = crd.spec.versions.swap_remove(0);
        let root = version.schema.unwrap().open_api_v3_schema.unwrap();
        root.properties.unwrap().remove("spec").unwrap()
    }

    #[test]
    fn every_rule_applies_to_fields_that_the_schema_has() {
        let mut attachment = spec_of(super::super::crd());
        let mut set = spec_of(super::super::set_crd());
        let rules = ATTACHMENT_RULES.iter().map(|rule| (rule, false));
        for (rule, of_set) in rules.chain(SET_RULES.iter().map(|rule| (rule, true))) {
            for field in rule.fields {
                let spec = if of_set { &mut set } else { &mut attachment };
                let schema =
                    schema_at(spec, field).unwrap_or_else(|| panic!("{field}: no such field"));
                let validations = schema.x_kubernetes_validations.as_ref().unwrap();
                assert!(validations.contains(&rule.as_schema()), "{field}");
            }
        }
    }

    #[test]
    fn the_template_of_a_set_has_the_rules_of_an_attachment() {
        let mut set = spec_of(super::super::set_crd());
        let template = schema_at(&mut set, TEMPLATE).unwrap();
        let name = schema_at(template, "spec.secretRef.name").unwrap();
        assert_eq!(name.x_kubernetes_validations.as_ref().unwrap().len(), 1);
        let spec = json!({"repositories": ["r.example.com/a"], "template": {"spec": {"secretRef": {"name": "NO"},
            "signature": {"cosign": {"keySecretRef": {"name": "key"}}}}}});
        let found: Vec<String> = check_set(&spec)
            .into_iter()
            .map(|found| found.field)
            .collect();
        assert_eq!(found, ["spec.template.spec.secretRef.name"]);
    }

    #[test]
    fn no_expression_stands_in_two_entries() {
        for rules in [&*ATTACHMENT_RULES, &*SET_RULES] {
            let expressions: BTreeSet<_> = rules.iter().map(|rule| &rule.expression).collect();
            assert_eq!(expressions.len(), rules.len());
        }
    }

    #[test]
    fn every_pattern_is_a_regular_expression() {
        for rule in ATTACHMENT_RULES.iter().chain(SET_RULES.iter()) {
            if let Check::Matches(pattern) = rule.check {
                assert!(pattern.is_valid(), "{}", rule.expression);
            }
        }
    }

    #[test]
    fn a_violation_names_the_item_that_breaks_the_rule() {
        let spec = json!({"image": "r.example.com/a:1", "signature": {"cosign": {"keySecretRef": {"name": "key"}}},
            "targets": {"platforms": ["linux/amd64", "no platform", null]}});
        let found: Vec<String> = check(&spec).into_iter().map(|found| found.field).collect();
        assert_eq!(found, ["spec.targets.platforms[1]"]);
    }

    #[test]
    fn a_null_counts_as_an_absent_field() {
        let spec = json!({"image": "r.example.com/a:1", "artifact": {"artifactType": "a/b", "files": null}, "endOfLife": null, "targets": null});
        assert!(check(&spec).is_empty());
    }
}
