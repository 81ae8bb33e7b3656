//! The schema of ImageAttachmentSet: the API server and the command line refuse the same specs, with the same messages.

use affix::api::check_set_spec;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::corpus;

/// A set that signs every release.
fn signed() -> Value {
    json!({
        "repositories": ["registry.example.com/team/app"],
        "template": {"spec": {"signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}}}},
    })
}

/// A set that marks what is out of life.
fn marked() -> Value {
    json!({
        "repositories": ["registry.example.com/team/app"],
        "lifecycle": {"keep": {"minors": 3}, "gracePeriod": "720h"},
        "template": {"spec": {"endOfLife": {}}},
    })
}

/// Returns a spec with one field set. `path` is a JSON pointer.
fn with(mut spec: Value, path: &str, value: Value) -> Value {
    let mut at = &mut spec;
    for name in path.split('/').skip(1) {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    *at = value;
    spec
}

fn good() -> Vec<Value> {
    let calendar = json!({"cycles": [
        {"versions": "1.6.x", "date": "2026-06-30"}, {"versions": ">=1.0.0-0 <1.5 || ~2.1", "date": "2026-06-30T12:00:00Z"},
    ]});
    let several = json!([
        "registry.example.com/team/app",
        "localhost:5000/app",
        "registry:5000/team/app__two",
        "[2001:db8::1]:5000/app",
        "docker.io/library/nginx"
    ]);
    let tags = json!({"semver": ">=1.0.0-0", "include": ["v*", "1.?"], "exclude": ["*-rc.*", "latest"], "limit": 4000});
    vec![
        signed(),
        marked(),
        with(signed(), "/repositories", several),
        with(signed(), "/tags", tags),
        with(signed(), "/immutable", json!(true)),
        with(signed(), "/suspend", json!(true)),
        with(signed(), "/interval", json!("1s")),
        with(
            signed(),
            "/template/metadata",
            json!({"labels": {"team": "a"}, "annotations": {"example.com/why": "signed"}}),
        ),
        with(
            signed(),
            "/template/spec/targets",
            json!({"platforms": ["linux/amd64"]}),
        ),
        with(marked(), "/lifecycle", calendar),
        with(marked(), "/lifecycle/alive", json!(["v1.8.*"])),
        with(marked(), "/lifecycle/settle", json!("0s")),
        with(marked(), "/lifecycle/unlessTagged", json!([])),
        with(
            marked(),
            "/lifecycle/unlessTagged",
            json!(["latest", "!nightly-*"]),
        ),
        with(marked(), "/lifecycle/maxNewMarks", json!(0)),
        with(
            marked(),
            "/lifecycle/keep",
            json!({"majors": 2, "minors": 3, "patches": 1}),
        ),
        with(
            marked(),
            "/template/spec/targets",
            json!({"excludePlatforms": ["linux/s390x"]}),
        ),
        {
            let mut dated = marked();
            dated.as_object_mut().unwrap().remove("lifecycle");
            with(dated, "/template/spec/endOfLife/date", json!("2026-06-30"))
        },
    ]
}

/// Specs that are refused, with the field and a part of the message.
fn bad() -> Vec<(Value, &'static str, &'static str)> {
    let repository = |text: &str| with(signed(), "/repositories/0", json!(text));
    let tags = |field: &str, value: Value| with(signed(), &format!("/tags/{field}"), value);
    let lifecycle =
        |field: &str, value: Value| with(marked(), &format!("/lifecycle/{field}"), value);
    let cycle = |versions: &str, date: &str| {
        lifecycle("cycles", json!([{"versions": versions, "date": date}]))
    };
    let without = |mut spec: Value, name: &str| {
        spec.as_object_mut().unwrap().remove(name);
        spec
    };
    let mut refused = vec![
        (
            with(signed(), "/repositories", json!([])),
            "spec.repositories",
            "name at least one repository",
        ),
        (
            with(
                signed(),
                "/repositories",
                json!(["r.example.com/a", "r.example.com/a"]),
            ),
            "spec.repositories",
            "listed twice",
        ),
        (
            tags("semver", json!("every")),
            "spec.tags.semver",
            "not a range of semantic versions",
        ),
        (
            tags("semver", json!("")),
            "spec.tags.semver",
            "not a range of semantic versions",
        ),
        (
            tags("include", json!([])),
            "spec.tags.include",
            "must not be an empty list",
        ),
        (
            tags("include", json!(["a/b"])),
            "spec.tags.include[0]",
            "not a pattern of tags",
        ),
        (
            tags("exclude", json!(["v1", "v1"])),
            "spec.tags.exclude",
            "listed twice",
        ),
        (
            tags("exclude", json!(["!v1"])),
            "spec.tags.exclude[0]",
            "not a pattern of tags",
        ),
        (
            tags("limit", json!(0)),
            "spec.tags.limit",
            "greater than or equal to 1",
        ),
        (
            tags("limit", json!(4001)),
            "spec.tags.limit",
            "less than or equal to 4000",
        ),
        (
            with(signed(), "/interval", json!("10")),
            "spec.interval",
            "not a duration",
        ),
        (
            with(signed(), "/interval", json!("10ms")),
            "spec.interval",
            "at least 1s",
        ),
        (
            with(marked(), "/lifecycle", json!({"settle": "1h"})),
            "spec.lifecycle",
            "set keep, cycles or both",
        ),
        (
            with(marked(), "/lifecycle", json!({"cycles": []})),
            "spec.lifecycle",
            "set keep, cycles or both",
        ),
        (
            lifecycle("keep", json!({})),
            "spec.lifecycle.keep",
            "at least one of majors, minors, patches",
        ),
        (
            lifecycle("keep", json!({"minors": 0})),
            "spec.lifecycle.keep.minors",
            "greater than or equal to 1",
        ),
        (
            with(marked(), "/lifecycle", json!({"keep": {"minors": 3}})),
            "spec.lifecycle",
            "keep needs gracePeriod",
        ),
        (
            lifecycle("gracePeriod", json!("30d")),
            "spec.lifecycle.gracePeriod",
            "not a duration",
        ),
        (
            lifecycle("gracePeriod", json!("876001h")),
            "spec.lifecycle.gracePeriod",
            "at most 876000h",
        ),
        (
            lifecycle("settle", json!("-1h")),
            "spec.lifecycle.settle",
            "not a duration",
        ),
        (
            lifecycle("alive", json!(["v1.8/*"])),
            "spec.lifecycle.alive[0]",
            "not a pattern of tags",
        ),
        (
            lifecycle("unlessTagged", json!(["a b"])),
            "spec.lifecycle.unlessTagged[0]",
            "not a pattern of tags",
        ),
        (
            lifecycle("maxNewMarks", json!(-1)),
            "spec.lifecycle.maxNewMarks",
            "greater than or equal to 0",
        ),
        (
            cycle("newest", "2026-06-30"),
            "spec.lifecycle.cycles[0].versions",
            "not a range of semantic versions",
        ),
        (
            cycle("1.6.x", "30.06.2026"),
            "spec.lifecycle.cycles[0].date",
            "not a date",
        ),
        (
            with(signed(), "/lifecycle", marked()["lifecycle"].clone()),
            "spec",
            "template.spec must be an endOfLife",
        ),
        (
            with(
                marked(),
                "/template/spec/endOfLife/date",
                json!("2026-06-30"),
            ),
            "spec.template.spec.endOfLife.date",
            "lifecycle gives each image its date",
        ),
        (
            without(marked(), "lifecycle"),
            "spec.template.spec.endOfLife",
            "needs lifecycle",
        ),
        (
            with(
                marked(),
                "/template/spec/endOfLife/whenSuperseded",
                json!({"gracePeriod": "720h"}),
            ),
            "spec.template.spec.endOfLife.whenSuperseded",
            "does not go into a set",
        ),
        (
            with(
                marked(),
                "/template/spec/targets",
                json!({"platforms": ["linux"]}),
            ),
            "spec.template.spec.targets.platforms",
            "excludePlatforms",
        ),
        (
            with(
                signed(),
                "/template/metadata",
                json!({"labels": {"affix.dev/set": "other"}}),
            ),
            "spec.template.metadata.labels",
            "are written by affix",
        ),
        (
            with(
                signed(),
                "/template/metadata",
                json!({"annotations": {"a b": "c"}}),
            ),
            "spec.template.metadata.annotations",
            "not a key of Kubernetes",
        ),
        (
            with(
                signed(),
                "/template/metadata",
                json!({"labels": {"a": "b c"}}),
            ),
            "spec.template.metadata.labels",
            "not a value of a label",
        ),
        // The rules of an ImageAttachment hold in the template.
        (
            with(signed(), "/template/spec", json!({})),
            "spec.template.spec",
            "exactly one of",
        ),
        (
            with(signed(), "/template/spec/timeout", json!("soon")),
            "spec.template.spec.timeout",
            "not a duration",
        ),
    ];
    refused.extend(
        [
            "app",
            "team/app",
            "registry.example.com/team/app:v1",
            "registry.example.com/team/App",
            "https://registry.example.com/team/app",
            "registry.example.com/team/app/",
            &format!("registry.example.com/team/app@{}", corpus::DIGEST),
        ]
        .map(|text| (repository(text), "spec.repositories[0]", "not a repository")),
    );
    refused
}

#[tokio::test]
async fn the_api_server_and_the_command_line_accept_the_same_sets() {
    let cluster = Cluster::start().await;
    for spec in good() {
        let taken = cluster.try_set(&spec).await;
        let taken = taken.unwrap_or_else(|causes| panic!("{spec}: {causes:?}"));
        assert_eq!(taken.data["spec"], spec, "the API server changed the spec");
        assert_eq!(taken.data["status"], json!({"observedGeneration": -1}));
        assert_eq!(check_set_spec(&spec), Vec::<String>::new(), "{spec}");
    }
}

#[tokio::test]
async fn the_api_server_and_the_command_line_refuse_the_same_sets() {
    let cluster = Cluster::start().await;
    let mut wrong = Vec::new();
    for (spec, field, says) in bad() {
        match cluster.try_set(&spec).await {
            Ok(_) => wrong.push(format!("{spec}: taken")),
            Err(causes)
                if !causes
                    .iter()
                    .any(|(at, text)| at == field && text.contains(says)) =>
            {
                wrong.push(format!(
                    "{spec}: expected {field}: {says}\n    found {causes:?}"
                ));
            }
            Err(_) => {}
        }
        // The messages of the limits of a schema are those of the API server.
        let errors = check_set_spec(&spec);
        if !errors
            .iter()
            .any(|error| error.starts_with(&format!("{field}: ")))
        {
            wrong.push(format!(
                "{spec}: the command line says {errors:?}, not {field}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
