//! Generated files: `make generate` writes them, and these tests check that they are current.

mod reference;

use serde_json::{Map, Value};

use crate::kustomize;
use crate::support::golden::{hold, read, repository};

const VALUES: &str = "charts/affix/values.yaml";
const SCHEMA: &str = "charts/affix/values.schema.json";
const README: &str = "charts/affix/README.md";

/// A documented value of the chart.
struct Documented {
    path: Vec<String>,
    about: String,
}

/// Returns the values of the chart in their order, each with the `# --` comment above it.
fn documented() -> Vec<Documented> {
    let mut found = Vec::new();
    let mut about: Option<String> = None;
    let mut path: Vec<(usize, String)> = Vec::new();
    for line in read(VALUES).lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(begun) = text.strip_prefix("# -- ") {
            about = Some(begun.to_owned());
        } else if let Some(more) = text.strip_prefix("# ") {
            if let Some(about) = &mut about {
                about.push(' ');
                about.push_str(more);
            }
        } else if let Some((key, _)) = text.split_once(':') {
            path.retain(|(above, _)| *above < depth);
            path.push((depth, key.to_owned()));
            if let Some(about) = about.take() {
                found.push(Documented {
                    path: path.iter().map(|(_, key)| key.clone()).collect(),
                    about,
                });
            }
        } else {
            about = None;
        }
    }
    found
}

/// Returns the schema of a value.
fn schema_of<'a>(schema: &'a mut Value, path: &[String]) -> &'a mut Map<String, Value> {
    let value = path
        .iter()
        .fold(schema, |schema, key| &mut schema["properties"][key]);
    value
        .as_object_mut()
        .unwrap_or_else(|| panic!("{SCHEMA} does not know {}", path.join(".")))
}

/// Collects the paths of all values in a schema, without the groups of values.
fn described(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        // An issuer is one value with three parts.
        if schema["properties"].is_object() && path != "webhook.certificate.issuerRef" {
            described(schema, &path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_value_has_a_default_a_schema_and_a_description() {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let values: Value = serde_saphyr::from_str(&read(VALUES)).unwrap();
    let mut expected = Vec::new();
    described(&schema, "", &mut expected);
    let mut found: Vec<String> = documented()
        .iter()
        .map(|value| value.path.join("."))
        .collect();
    for path in &found {
        assert!(
            values
                .pointer(&format!("/{}", path.replace('.', "/")))
                .is_some(),
            "{path} has no default"
        );
    }
    found.sort();
    expected.sort();
    assert_eq!(
        found, expected,
        "documented in {VALUES}, and known to {SCHEMA}"
    );
}

#[test]
fn the_schema_has_the_descriptions_of_the_values() {
    let mut schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    for value in documented() {
        schema_of(&mut schema, &value.path).insert("description".to_owned(), value.about.into());
    }
    hold(
        SCHEMA,
        &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()),
    );
}

/// Returns the table of all values.
fn values_table() -> String {
    let values: Value = serde_saphyr::from_str(&read(VALUES)).unwrap();
    let mut table = "| value | default | |\n| --- | --- | --- |\n".to_owned();
    for value in documented() {
        let default = &values[value.path[0].as_str()];
        let default = value.path[1..]
            .iter()
            .fold(default, |values, key| &values[key]);
        table.push_str(&format!(
            "| `{}` | `{default}` | {} |\n",
            value.path.join("."),
            value.about
        ));
    }
    table
}

#[test]
fn the_chart_s_readme_lists_every_value() {
    const BEGIN: &str = "<!-- values: make generate -->\n";
    let table = values_table();
    let readme = read(README);
    let (text, _) = readme
        .split_once(BEGIN)
        .unwrap_or_else(|| panic!("{README} has no line {BEGIN}"));
    hold(README, &format!("{text}{BEGIN}\n{table}"));
}

#[test]
fn copies_of_the_crd_are_equal() {
    for copy in ["charts/affix/files/crds", "config/crd/bases"] {
        hold(
            &format!("{copy}/affix.dev_imageattachments.yaml"),
            &affix::api::crd_yaml(),
        );
        hold(
            &format!("{copy}/affix.dev_imageattachmentsets.yaml"),
            &affix::api::set_crd_yaml(),
        );
    }
}

#[test]
fn the_alerts_of_the_kustomize_component_are_those_of_the_chart() {
    const RULE: &str = "config/components/monitoring/prometheus-rule.yaml";
    let alerts = read("charts/affix/files/alerts.yaml");
    let groups = &alerts[alerts.find("\ngroups:").unwrap() + 1..];
    let indented: String = groups.lines().map(|line| format!("  {line}\n")).collect();
    let rule = read(RULE);
    let (head, _) = rule.split_once("\nspec:\n").unwrap();
    hold(RULE, &format!("{head}\nspec:\n{indented}"));
}

#[tokio::test]
async fn install_yaml_is_the_rendered_base() {
    let text = kustomize::render(&repository("config/install")).await;
    hold(
        "config/install.yaml",
        &format!("# Made from config/install: make generate\n{text}"),
    );
}
