//! The manifests, validated against the API descriptions of three Kubernetes releases and against the schema of the CRD.

use std::collections::BTreeSet;
use std::path::Path;

use affix_testbed::go_module;
use affix_testbed::run::Run;
use affix_testbed::tools::Tool;
use serde_json::{Map, Value, json};

use crate::kustomize;
use crate::support::golden::{read, repository};
use crate::support::helm::Helm;

/// The releases, oldest first.
const RELEASES: [&str; 3] = ["1.34.2", "1.35.4", "1.36.3"];
/// Kinds of other projects, which Kubernetes does not describe. `foreign.rs` validates them against their CRDs.
const FOREIGN: &str = "PodMonitor,ServiceMonitor,PrometheusRule,Certificate,Issuer";

/// Returns the OpenAPI description of a release.
async fn description(release: &str) -> Value {
    let path = go_module::folder(&format!("k8s.io/kubernetes@v{release}"))
        .await
        .unwrap()
        .join("api/openapi-spec/swagger.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Makes a schema reject unknown fields, as the API server does with strict field validation.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("properties").is_some_and(Value::is_object)
                && !map.contains_key("additionalProperties")
            {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            if map.get("format") == Some(&json!("int-or-string")) {
                *map = Map::from_iter([("type".to_owned(), json!(["integer", "string"]))]);
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Collects the definitions that a schema refers to, directly and indirectly.
fn referred(schema: &Value, definitions: &Map<String, Value>, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            let name = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|reference| reference.strip_prefix("#/definitions/"));
            if let Some(name) = name.filter(|name| found.insert((*name).to_owned())) {
                referred(&definitions[name], definitions, found);
            }
            map.values()
                .for_each(|value| referred(value, definitions, found));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|value| referred(value, definitions, found)),
        _ => {}
    }
}

/// Returns the file name under which kubeconform looks for a schema.
fn file(group: &str, version: &str, kind: &str) -> String {
    let group = if group.is_empty() {
        String::new()
    } else {
        format!("-{}", group.split('.').next().unwrap_or_default())
    };
    format!("{}{group}-{version}.json", kind.to_lowercase())
}

/// Writes the schemas of a release for these kinds, and the schema of ImageAttachment.
async fn write_schemas(release: &str, dir: &Path, kinds: &BTreeSet<String>) {
    let mut description = description(release).await;
    strict(&mut description["definitions"]);
    let definitions = description["definitions"].as_object().unwrap();
    for definition in definitions.values() {
        for named in definition["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let [group, version, kind] =
                ["group", "version", "kind"].map(|part| named[part].as_str().unwrap());
            if !kinds.contains(kind) {
                continue;
            }
            let mut found = BTreeSet::new();
            referred(definition, definitions, &mut found);
            let mut schema = definition.clone();
            schema["definitions"] = found
                .into_iter()
                .map(|name| (name.clone(), definitions[&name].clone()))
                .collect::<Map<_, _>>()
                .into();
            std::fs::write(dir.join(file(group, version, kind)), schema.to_string()).unwrap();
        }
    }
    for (kind, crd) in [
        ("ImageAttachment", affix::api::crd()),
        ("ImageAttachmentSet", affix::api::set_crd()),
    ] {
        let mut schema =
            serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                .take();
        for part in ["apiVersion", "kind", "metadata"] {
            schema["properties"][part] = json!({});
        }
        strict(&mut schema);
        let file = dir.join(file("affix.dev", "v1alpha1", kind));
        std::fs::write(file, schema.to_string()).unwrap();
    }
}

async fn conform(helm: &Helm, release: &str, dir: &Path, what: &str, text: &str) -> String {
    let location = format!(
        "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        dir.display()
    );
    let args = [
        "-strict",
        "-summary",
        "-skip",
        FOREIGN,
        "-kubernetes-version",
        release,
        "-schema-location",
        &location,
    ];
    let ran = Run::new(helm.tools().path(Tool::Kubeconform).unwrap())
        .args(args)
        .input(text)
        .output()
        .await
        .unwrap();
    if ran.status.success() {
        String::new()
    } else {
        format!("{what} on {release}: {}{}\n", ran.out, ran.err)
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn chart_base_and_samples_conform_to_three_releases_of_kubernetes() {
    let helm = Helm::new().await;
    let mut texts = vec![(
        "the base",
        kustomize::render(&repository("config/default")).await,
    )];
    texts.push((
        "the CRD's base",
        kustomize::render(&repository("config/crd")).await,
    ));
    for (what, values) in crate::chart::CASES {
        texts.push((what, helm.text(values).await));
    }
    for sample in std::fs::read_dir(repository("config/samples")).unwrap() {
        texts.push((
            "a sample",
            std::fs::read_to_string(sample.unwrap().path()).unwrap(),
        ));
    }
    let objects = texts
        .iter()
        .flat_map(|(_, text)| crate::support::objects::parse(text));
    let kinds = objects
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();

    for release in RELEASES {
        let dir = tempfile::tempdir().unwrap();
        write_schemas(release, dir.path(), &kinds).await;
        for (what, text) in &texts {
            assert_eq!(conform(&helm, release, dir.path(), what, text).await, "");
        }
        // The schemas reject misspelt fields; otherwise the test would prove nothing.
        for (bad, field) in [
            ("replicas: 1", "replica: 1"),
            ("name: affix-system", "nam: affix-system"),
        ] {
            let misspelt = read("config/install.yaml").replacen(bad, field, 1);
            assert_ne!(
                conform(&helm, release, dir.path(), "a misspelt base", &misspelt).await,
                "",
                "{field}"
            );
        }
        let sample = read("config/samples/end-of-life.yaml").replace("platforms:", "platform:");
        assert_ne!(
            conform(&helm, release, dir.path(), "a misspelt sample", &sample).await,
            ""
        );
    }
}
