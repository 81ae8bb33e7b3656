//! The schema on a real API server: the specs that it refuses, with its messages, and the specs that it accepts unchanged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod agreement;
mod cluster;
mod corpus;
mod documentation;
mod sets;

use std::collections::BTreeSet;

use affix::api::{ImageAttachment, ImageAttachmentSpec, crd};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use cluster::{Cluster, object};

fn spec_schema() -> Value {
    serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"]
        .as_array()
        .is_some_and(|required| required.contains(&json!(name)))
}

/// Sets every optional field that `value` lacks to null, and records its path.
fn fill_with_nulls(path: &str, schema: &Value, value: &mut Value, filled: &mut BTreeSet<String>) {
    if let Some(items) = value.as_array_mut() {
        for item in items {
            fill_with_nulls(&format!("{path}[]"), &schema["items"], item, filled);
        }
    } else if let Some(object) = value.as_object_mut() {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match object.get_mut(name) {
                Some(value) => fill_with_nulls(&path, property, value, filled),
                None if !is_required(schema, name) => {
                    object.insert(name.clone(), Value::Null);
                    filled.insert(path);
                }
                None => {}
            }
        }
    }
}

/// Collects the paths of all optional fields.
fn optional_fields(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if !is_required(schema, name) {
            found.insert(path.clone());
        }
        optional_fields(&path, property, found);
        optional_fields(&format!("{path}[]"), &property["items"], found);
    }
}

#[tokio::test]
async fn the_schema_refuses_each_bad_spec_with_a_helpful_message() {
    let cluster = Cluster::start().await;
    let mut wrong = Vec::new();
    for bad in corpus::bad() {
        let mut with_nulls = bad.spec.clone();
        fill_with_nulls(
            "spec",
            &spec_schema(),
            &mut with_nulls,
            &mut BTreeSet::new(),
        );
        for (how, spec) in [("", &bad.spec), (", the rest null", &with_nulls)] {
            match cluster.try_create(spec).await {
                Ok(_) => wrong.push(format!("{}{how}: taken", bad.sentence)),
                Err(causes) => {
                    // Refused at this field, in these words, and nothing else of the spec is wrong.
                    let here = causes.iter().all(|(field, _)| field == bad.field);
                    // An image without its registry needs no tag: what it lacks is said once.
                    let once = bad.field != "spec.image" || causes.len() == 1;
                    if !here
                        || !once
                        || !causes.iter().any(|(_, message)| message.contains(bad.says))
                    {
                        wrong.push(format!(
                            "{}{how}: expected {}: {}\n    found {causes:?}",
                            bad.sentence, bad.field, bad.says
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        corpus::bad().len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn a_null_means_the_same_as_an_absent_field() {
    let cluster = Cluster::start().await;
    let (mut filled, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for (sentence, spec) in corpus::good() {
        let plain = cluster
            .try_create(&spec)
            .await
            .unwrap_or_else(|causes| panic!("{sentence}: {causes:?}"));
        assert_eq!(
            plain.data["spec"], spec,
            "{sentence}: the API server changed the spec"
        );
        assert_eq!(
            plain.data["status"],
            json!({"observedGeneration": -1}),
            "{sentence}"
        );

        let mut nulls = spec.clone();
        fill_with_nulls("spec", &spec_schema(), &mut nulls, &mut filled);
        let taken = cluster
            .try_create(&nulls)
            .await
            .unwrap_or_else(|causes| panic!("{sentence}, the rest null: {causes:?}"));
        let read: ImageAttachmentSpec = serde_json::from_value(taken.data["spec"].clone()).unwrap();
        let expected: ImageAttachmentSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(read, expected, "{sentence}");
    }
    optional_fields("spec", &spec_schema(), &mut optional);
    // A rule requires it for each service that there is.
    optional.retain(|field| !field.ends_with(".cosign.kms.vault"));
    let untried: Vec<_> = optional.difference(&filled).collect();
    assert!(
        untried.is_empty(),
        "no good spec leaves these out: {untried:?}"
    );
}

#[tokio::test]
async fn applying_a_spec_twice_changes_nothing() {
    let cluster = Cluster::start().await;
    let list = |fill: bool| {
        let items: Vec<_> = (corpus::good().into_iter().enumerate())
            .map(|(n, (_, mut spec))| {
                if fill {
                    fill_with_nulls("spec", &spec_schema(), &mut spec, &mut BTreeSet::new());
                }
                object(&format!("good-{n}"), &spec)
            })
            .collect();
        serde_json::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap()
    };
    let apply = async |fill| -> Vec<(Value, Value)> {
        let args = [
            "apply",
            "--server-side",
            "--field-manager=gitops",
            "-f",
            "-",
            "-o",
            "json",
        ];
        let applied = cluster
            .plane
            .kubectl_with(args, list(fill))
            .await
            .unwrap()
            .json()
            .unwrap();
        let metadata = |item: &Value| {
            (
                item["metadata"]["generation"].clone(),
                item["metadata"]["resourceVersion"].clone(),
            )
        };
        applied["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(metadata)
            .collect()
    };
    apply(false).await;
    let args = ["diff", "--server-side", "--field-manager=gitops", "-f", "-"];
    let difference = cluster
        .plane
        .kubectl_with(args, list(false))
        .await
        .unwrap()
        .stdout()
        .unwrap();
    assert_eq!(difference, "");
    // The second write stores the default of the status, which the first write must not contain. Later writes change nothing.
    let second = apply(false).await;
    assert!(
        second.len() == corpus::good().len()
            && second.iter().all(|(generation, _)| *generation == json!(1)),
        "{second:?}"
    );
    assert_eq!(apply(false).await, second);
    let with_nulls = apply(true).await;
    assert_eq!(apply(true).await, with_nulls, "filled with nulls");
}

#[tokio::test]
async fn only_the_kind_of_attachment_is_immutable() {
    let cluster = Cluster::start().await;
    let api = cluster.api();
    let replace = async |name: &str, spec: &Value| {
        let mut next = object(name, spec);
        next.metadata.resource_version = api.get(name).await.unwrap().metadata.resource_version;
        api.replace(name, &PostParams::default(), &next)
            .await
            .map_err(|error| error.to_string())
    };
    let kinds = [
        ("mark", corpus::mark()),
        ("artifact", corpus::artifact()),
        ("cosign", corpus::cosign()),
        ("attestation", corpus::attestation()),
    ];
    for (name, spec) in &kinds {
        api.create(&PostParams::default(), &object(name, spec))
            .await
            .unwrap();
        for (other, next) in kinds.iter().filter(|(other, _)| other != name) {
            let refusal = replace(name, next)
                .await
                .expect_err("a kind that changes is refused");
            assert!(
                refusal.contains(
                    "which one of endOfLife, artifact, signature, attestation is set never changes"
                ),
                "{name} to {other}: {refusal}"
            );
        }
    }
    let mut nulls = corpus::cosign();
    nulls["endOfLife"] = Value::Null;
    nulls["artifact"] = Value::Null;
    replace("cosign", &nulls)
        .await
        .expect("a null of another kind is no change");
    replace("cosign", &corpus::notation())
        .await
        .expect("the same kind, another signer");
    replace("attestation", &corpus::from_build())
        .await
        .expect("the same kind, the statements of the build");
    replace("mark", &corpus::watch())
        .await
        .expect("the same kind, another way");
}

#[tokio::test]
async fn unknown_fields_are_pruned_not_refused() {
    let cluster = Cluster::start().await;
    let mut spec = corpus::cosign();
    spec["secretRef"] = json!({"name": "login", "namespace": "team-b"});
    spec["verify"] = json!({"provider": "cosign"});
    let taken = cluster.try_create(&spec).await.unwrap();
    assert_eq!(taken.data["spec"]["secretRef"], json!({"name": "login"}));
    assert_eq!(taken.data["spec"]["verify"], Value::Null);
}

#[tokio::test]
async fn kubectl_explains_every_field_and_shows_the_columns() {
    let cluster = Cluster::start().await;
    let explained = cluster
        .explain(&["explain", "imageattachment", "--recursive"])
        .await;
    let document: Value = cluster
        .client
        .request(
            http::Request::get("/openapi/v3/apis/affix.dev/v1alpha1")
                .body(Vec::new())
                .unwrap(),
        )
        .await
        .unwrap();
    let schema = &document["components"]["schemas"]["dev.affix.v1alpha1.ImageAttachment"];
    let mut fields = Vec::new();
    for part in ["spec", "status"] {
        described(
            &format!(".{part}"),
            &schema["properties"][part],
            &mut fields,
        );
    }
    assert!(fields.len() > 80, "{} fields", fields.len());
    for field in fields {
        let name = field.rsplit('.').next().unwrap().trim_end_matches("[]");
        assert!(
            explained
                .lines()
                .any(|line| line.split_whitespace().next() == Some(name)),
            "{field}: not in\n{explained}"
        );
    }

    let mut enums = Vec::new();
    enumerations(
        "imageattachment.spec",
        &schema["properties"]["spec"],
        &mut enums,
    );
    assert!(enums.len() >= 7, "{enums:?}");
    for (path, values) in enums {
        let explained = cluster.explain(&["explain", &path]).await;
        // In the description: a null is no value of an `enum`, and kubectl shows no `allOf`.
        let (_, described) = explained.split_once("\nDESCRIPTION:\n").unwrap();
        let words: Vec<&str> = described
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .collect();
        for value in &values {
            assert!(
                words.contains(&value.as_str()),
                "{path}: no {value} in\n{explained}"
            );
        }
    }

    let status = json!({
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Attached", "message": "2 of 2 attached", "observedGeneration": 1,
            "lastTransitionTime": "2025-03-20T01:20:30Z"
        }],
        "image": {"reference": corpus::PINNED, "digest": corpus::DIGEST, "mediaType": "application/vnd.oci.image.index.v1+json"},
        "artifactType": "application/vnd.demo.artifact.lifecycle",
        "referrersMode": "API",
        "attached": "2/2",
        "targets": [
            {"kind": "Index", "digest": corpus::DIGEST, "state": "Attached", "attachment": corpus::DIGEST, "origin": "Made",
             "created": "2025-03-20T01:20:30Z", "content": corpus::DIGEST},
            {"kind": "Platform", "platform": "linux/arm64", "digest": corpus::DIGEST, "state": "Skipped", "reason": "PlatformNotSelected"}
        ],
        "superseded": [{"digest": corpus::DIGEST, "movedAt": "2025-03-20T01:20:30Z", "state": "StillInUse", "tag": "v1.0.1"}],
        "leftovers": [{"subject": corpus::DIGEST, "attachment": corpus::DIGEST, "reason": "RemovalRefused"}],
        "lastHandledReconcileAt": "now"
    });
    let api = cluster.api();
    api.create(&PostParams::default(), &object("app-v1", &corpus::mark()))
        .await
        .unwrap();
    let params = PatchParams::apply("affix").force();
    let mut applied = object("app-v1", &Value::Null);
    applied.data = json!({"status": status});
    let kept = api
        .patch_status("app-v1", &params, &Patch::Apply(&applied))
        .await
        .unwrap();
    assert_eq!(kept.data["status"], status);
    let typed: ImageAttachment =
        serde_json::from_value(serde_json::to_value(&kept).unwrap()).unwrap();
    assert_eq!(affix::api::check_status_rules(&typed), Vec::<String>::new());
    assert_eq!(serde_json::to_value(typed.status).unwrap(), status);

    let columns = async |args: &[&str]| {
        let table = cluster
            .plane
            .kubectl(args.iter().copied())
            .await
            .unwrap()
            .stdout()
            .unwrap();
        (
            table
                .lines()
                .next()
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            table,
        )
    };
    let (header, table) = columns(&["get", "ia"]).await;
    assert_eq!(header, "NAME IMAGE ATTACHED READY SUSPENDED STATUS AGE");
    for cell in ["app-v1", "2/2", "True", "Attached"] {
        assert!(table.contains(cell), "{cell}: not in\n{table}");
    }
    let (header, table) = columns(&["get", "affix", "-o", "wide"]).await;
    assert_eq!(
        header,
        "NAME IMAGE ATTACHED READY SUSPENDED STATUS AGE TYPE DIGEST MESSAGE"
    );
    for cell in [
        "application/vnd.demo.artifact.lifecycle",
        corpus::DIGEST,
        "2 of 2 attached",
    ] {
        assert!(table.contains(cell), "{cell}: not in\n{table}");
    }
}

/// Collects the values of each enumeration below, as `kubectl explain` names it.
fn enumerations(path: &str, schema: &Value, found: &mut Vec<(String, Vec<String>)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let values = [&property["enum"], &property["allOf"][0]["enum"]];
        let values = values.into_iter().filter_map(Value::as_array).flatten();
        let values: Vec<String> = values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        if !values.is_empty() {
            found.push((path.clone(), values));
        }
        enumerations(&path, property, found);
        enumerations(&path, &property["items"], found);
    }
}

/// Returns whether the description refers to another field, which has the descriptions of the fields below.
fn refers(property: &Value) -> bool {
    let description = property["description"].as_str().unwrap_or_default();
    description.ends_with("As in signature.cosign.")
}

/// Asserts that each field below has a description, and collects their paths.
fn described(path: &str, schema: &Value, fields: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(
            property["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{path} has no description"
        );
        fields.push(path.clone());
        if refers(property) {
            continue;
        }
        described(&path, property, fields);
        described(&format!("{path}[]"), &property["items"], fields);
    }
}

#[tokio::test]
async fn each_sample_applied_twice_shows_no_difference() {
    let cluster = Cluster::start().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples");
    let samples: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    // Like `affix pin`.
    let pinned = format!("team/app:v1@sha256:{}", "a".repeat(64));
    let samples = samples.join("\n---\n").replace("team/app:v1", &pinned);
    for _ in 0..2 {
        let apply = [
            "apply",
            "--server-side",
            "--field-manager=gitops",
            "-f",
            "-",
        ];
        cluster
            .plane
            .kubectl_with(apply, samples.clone())
            .await
            .unwrap()
            .stdout()
            .unwrap();
    }
    let diff = ["diff", "--server-side", "--field-manager=gitops", "-f", "-"];
    assert_eq!(
        cluster
            .plane
            .kubectl_with(diff, samples)
            .await
            .unwrap()
            .stdout()
            .unwrap(),
        ""
    );
}
