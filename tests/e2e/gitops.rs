//! What GitOps tools make of the resources: Argo CD's scripts, kstatus, and no drift.

use std::collections::BTreeMap;
use std::path::Path;

use affix::api::{ConditionType, ImageAttachmentSet, Reason, find_condition};
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher};
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::marks::conflict;
use crate::sets::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{host, mark, note, with};
use crate::support::namespace::Namespace;

/// The kinds, and the folders of their scripts.
const KINDS: [&str; 2] = ["ImageAttachment", "ImageAttachmentSet"];
const ARGO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/argocd/affix.dev");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples");

/// What a script of Argo CD's returns for each of the objects, which are of one kind.
async fn lua(tools: &Tools, script: &str, objects: &[Value]) -> Vec<Value> {
    let kind = objects[0]["kind"].as_str().unwrap();
    let script = format!("{ARGO}/{kind}/{script}");
    let run = Run::new(tools.path(Tool::Lua).unwrap()).args([script]);
    let results = run
        .input(serde_json::to_vec(objects).unwrap())
        .output()
        .await
        .unwrap()
        .json()
        .unwrap();
    results.as_array().unwrap().clone()
}

/// What Flux says of the objects, which are of one kind, with the health check of docs/gitops.md.
async fn flux(tools: &Tools, objects: &[Value]) -> Vec<Value> {
    let page = include_str!("../../docs/gitops.md");
    let block = page
        .split("```")
        .find(|block| block.contains("healthCheckExprs:"))
        .unwrap();
    let (_, block) = block.split_once('\n').unwrap();
    let kustomization: Value = serde_saphyr::from_str(block).unwrap();
    let mut checks = kustomization["spec"]["healthCheckExprs"]
        .as_array()
        .unwrap()
        .iter();
    let check = checks
        .find(|check| check["kind"] == objects[0]["kind"])
        .unwrap();
    let request = json!({"expressions": check, "objects": objects});
    let run = Run::new(tools.path(Tool::Flux).unwrap());
    let output = run.input(request.to_string()).output().await.unwrap();
    output.json().unwrap().as_array().unwrap().clone()
}

async fn kstatus(tools: &Tools, objects: &[Value]) -> Vec<Value> {
    let run = Run::new(tools.path(Tool::Kstatus).unwrap());
    let results = run
        .input(serde_json::to_vec(objects).unwrap())
        .output()
        .await
        .unwrap()
        .json()
        .unwrap();
    results.as_array().unwrap().clone()
}

fn yaml(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As the API server has it, as JSON.
async fn dump(namespace: &Namespace, kind: &str, name: &str) -> Value {
    let args = [
        "get",
        kind,
        name,
        "--namespace",
        &namespace.name,
        "-o",
        "json",
    ];
    namespace.plane.kubectl(args).await.unwrap().json().unwrap()
}

/// Asserts what Argo CD and kstatus think of objects, by their names. With the health check of docs/gitops.md, Flux waits for none of
/// those that need no more work. Returns the answers of Argo CD.
async fn judge(
    tools: &Tools,
    namespace: &Namespace,
    kind: &str,
    expected: &[(&str, &str, &str)],
    settled: &[&str],
) -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, ..) in expected {
        objects.push(dump(namespace, kind, name).await);
    }
    let (health, status) = (
        lua(tools, "health.lua", &objects).await,
        kstatus(tools, &objects).await,
    );
    for (((name, healthy, current), health), status) in expected.iter().zip(&health).zip(&status) {
        assert_eq!(
            (health["status"].as_str(), status["status"].as_str()),
            (Some(*healthy), Some(*current)),
            "{kind} {name}: {health} {status}"
        );
    }
    for ((name, _, current), status) in expected.iter().zip(flux(tools, &objects).await) {
        let current = if settled.contains(name) {
            "Current"
        } else {
            current
        };
        assert_eq!(status, current, "{kind} {name}");
    }
    health
}

#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn argo_cd_and_kstatus_think_the_same_of_resources_as_the_api_server_has_them() {
    let tools = Tools::with(&[Tool::Lua, Tool::Kstatus, Tool::Flux])
        .await
        .unwrap();
    let namespace = Namespace::new("health").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let hanging = HostileRegistry::start().await.unwrap();
    hanging.fault(Matcher::any(), Fault::Hang);
    let controller = Controller::start(&namespace).await;
    namespace.apply("healthy", note(&image)).await;
    namespace
        .apply("suspended", with(note(&image), json!({"suspend": true})))
        .await;
    namespace.apply("paused", note(&image)).await;
    namespace.ready("paused").await;
    namespace
        .apply("paused", with(note(&image), json!({"suspend": true})))
        .await;
    namespace
        .apply("planned", with(note(&image), json!({"dryRun": true})))
        .await;
    namespace
        .apply(
            "degraded",
            with(
                note(&image),
                json!({"targets": {"platforms": ["linux/s390x"]}}),
            ),
        )
        .await;
    namespace
        .apply("retried", note(&registry.reference("team/app:absent")))
        .await;
    namespace.ready("healthy").await;
    // Somebody else's mark is the newest.
    let marked = host(&registry, "v2").pinned();
    let dated = |date: &str| {
        with(
            mark(&registry.reference(&marked)),
            json!({"endOfLife": {"date": date}}),
        )
    };
    namespace.apply("conflicting", dated("2027-01-01")).await;
    namespace.ready("conflicting").await;
    namespace.apply("newer", dated("2028-01-01")).await;
    namespace.ready("newer").await;
    conflict(&namespace, "conflicting").await;
    for (name, reason) in [
        ("planned", Reason::Planned),
        ("degraded", Reason::NoMatchingPlatform),
        ("retried", Reason::NotFound),
    ] {
        namespace.refused(name, reason).await;
    }
    namespace.suspended("suspended").await;
    namespace.suspended("paused").await;
    // Looked at for the first time, and again for a spec that status does not speak of yet.
    namespace
        .apply("new", note(&hanging.reference("team/app:v1")))
        .await;
    namespace.apply("changed", note(&image)).await;
    namespace.ready("changed").await;
    drop(controller);
    namespace
        .apply("changed", with(note(&image), json!({"interval": "7m"})))
        .await;

    let expected = [
        ("new", "Progressing", "InProgress"),
        ("changed", "Progressing", "InProgress"),
        ("retried", "Progressing", "InProgress"),
        ("healthy", "Healthy", "Current"),
        ("degraded", "Degraded", "Failed"),
        // kstatus has no word for these (decision 0050).
        ("conflicting", "Degraded", "InProgress"),
        ("suspended", "Suspended", "InProgress"),
        ("paused", "Suspended", "Current"),
        ("planned", "Suspended", "InProgress"),
    ];
    let settled = ["suspended", "paused", "planned"];
    let health = judge(&tools, &namespace, KINDS[0], &expected, &settled).await;
    // The message is the condition's, with its reason.
    let failing = health[4]["message"].as_str().unwrap();
    assert!(
        failing.starts_with("NoMatchingPlatform: ") && failing.contains("linux/s390x"),
        "{failing}"
    );
}

#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn argo_cd_and_kstatus_think_the_same_of_sets_as_the_api_server_has_them() {
    let tools = Tools::with(&[Tool::Lua, Tool::Kstatus, Tool::Flux])
        .await
        .unwrap();
    let namespace = Namespace::new("set-health").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    for tag in ["v1.0.0", "v1.1.0"] {
        release(&registry, tag);
    }
    let hanging = HostileRegistry::start().await.unwrap();
    hanging.fault(Matcher::any(), Fault::Hang);
    let set = |fields: Value| with(notes(&registry, json!({})), fields);
    let absent = json!({"repositories": [registry.reference("team/absent")]});
    let lifecycle =
        json!({"keep": {"minors": 1}, "gracePeriod": "0s", "settle": "0s", "maxNewMarks": 0});
    let marks =
        json!({"lifecycle": lifecycle, "template": {"spec": {"insecure": true, "endOfLife": {}}}});
    let controller = Controller::start(&namespace).await;
    for (name, fields) in [
        ("healthy", json!({})),
        ("suspended", json!({"suspend": true})),
        ("paused", json!({})),
        ("planned", notes(&registry, json!({"dryRun": true}))),
        ("degraded", json!({"tags": {"limit": 1}})),
        ("retried", absent),
        ("unconfirmed", marks),
        ("changed", json!({})),
    ] {
        sets.apply(name, set(fields)).await;
    }
    for name in ["healthy", "paused", "changed"] {
        sets.ready(name, "2/2").await;
    }
    sets.apply("paused", set(json!({"suspend": true}))).await;
    for (name, reason) in [
        ("planned", Reason::Planned),
        ("degraded", Reason::LimitExceeded),
        ("retried", Reason::NotFound),
        ("unconfirmed", Reason::TooManyMarks),
    ] {
        sets.refused(name, reason).await;
    }
    let is_observed = |set: &ImageAttachmentSet| {
        let status = set.status.as_ref();
        status.map(|status| status.observed_generation) == set.metadata.generation
    };
    for name in ["suspended", "paused"] {
        sets.wait(name, "suspended", is_observed).await;
    }
    // Read for the first time, and again for a spec that status does not describe yet.
    sets.apply("new", notes(&hanging, json!({}))).await;
    sets.wait("new", "started", |set| {
        let status = set.status.as_ref();
        status.is_some_and(|status| !status.conditions.is_empty())
    })
    .await;
    drop(controller);
    sets.apply("changed", set(json!({"interval": "7m"}))).await;

    let expected = [
        ("new", "Progressing", "InProgress"),
        ("changed", "Progressing", "InProgress"),
        ("retried", "Progressing", "InProgress"),
        ("healthy", "Healthy", "Current"),
        ("degraded", "Degraded", "Failed"),
        ("unconfirmed", "Degraded", "InProgress"),
        ("suspended", "Suspended", "InProgress"),
        ("paused", "Suspended", "Current"),
        ("planned", "Suspended", "InProgress"),
    ];
    let settled = ["suspended", "paused", "planned"];
    let health = judge(&tools, &namespace, KINDS[1], &expected, &settled).await;
    let message = health[5]["message"].as_str().unwrap();
    assert!(
        message.starts_with("TooManyMarks: ") && message.contains("affix.dev/confirm=1"),
        "{message}"
    );
}

#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn the_actions_of_argo_cd_suspend_resume_and_reconcile() {
    let tools = Tools::with(&[Tool::Lua]).await.unwrap();
    let namespace = Namespace::new("actions").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("acted-on", note(&image)).await;
    namespace.ready("acted-on").await;

    let sets = Sets::of(&namespace);
    release(&registry, "v1.0.0");
    sets.apply("acted-on", notes(&registry, json!({}))).await;
    sets.ready("acted-on", "1/1").await;

    for kind in KINDS {
        act(&tools, &namespace, kind, "suspend").await;
    }
    namespace.suspended("acted-on").await;
    sets.wait("acted-on", "suspended", |set| {
        let status = set.status.as_ref();
        set.spec.suspend()
            && status.map(|status| status.observed_generation) == set.metadata.generation
    })
    .await;
    for kind in KINDS {
        act(&tools, &namespace, kind, "resume").await;
    }
    namespace.ready("acted-on").await;
    sets.ready("acted-on", "1/1").await;
    for kind in KINDS {
        act(&tools, &namespace, kind, "reconcile").await;
    }
    let is_time =
        |at: Option<&String>| at.is_some_and(|at| at.ends_with('Z') && at.starts_with("20"));
    let handled = namespace.wait("acted-on", "reconciled", |object| {
        let status = object.status.as_ref();
        is_time(status.and_then(|status| status.last_handled_reconcile_at.as_ref()))
    });
    handled.await;
    let handled = sets.wait("acted-on", "reconciled", |set| {
        let status = set.status.as_ref();
        is_time(status.and_then(|status| status.last_handled_reconcile_at.as_ref()))
    });
    handled.await;
    namespace.check_rules().await;
    sets.check_rules().await;
}

/// Runs an action on the object `acted-on`, as Argo CD does: it sends what the script changed as a merge patch.
async fn act(tools: &Tools, namespace: &Namespace, kind: &str, action: &str) {
    let object = dump(namespace, kind, "acted-on").await;
    let object = std::slice::from_ref(&object);
    let offered = lua(tools, "actions/discovery.lua", object).await.remove(0);
    assert_eq!(
        offered[action]["disabled"],
        json!(false),
        "{action} of {offered}"
    );
    let script = format!("actions/{action}/action.lua");
    let changed = lua(tools, &script, object).await.remove(0);
    let patch = json!({
        "metadata": {"annotations": changed["metadata"]["annotations"]},
        "spec": {"suspend": changed["spec"]["suspend"]},
    });
    let patch = patch.to_string();
    let args = ["patch", kind, "acted-on", "--namespace", &namespace.name];
    let args = args.into_iter().chain(["--type=merge", "--patch", &patch]);
    let patched = namespace.plane.kubectl(args).await.unwrap();
    patched.stdout().unwrap();
}

#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn the_test_data_of_argo_cds_scripts_holds() {
    let tools = Tools::with(&[Tool::Lua]).await.unwrap();
    for kind in KINDS {
        test_data_holds(&tools, &Path::new(ARGO).join(kind)).await;
    }
}

/// Asserts the tests of one kind, in Argo CD's format.
async fn test_data_holds(tools: &Tools, folder: &Path) {
    let tests = yaml(&folder.join("health_test.yaml"));
    for test in tests["tests"].as_array().unwrap() {
        let object = yaml(&folder.join(test["inputPath"].as_str().unwrap()));
        assert_eq!(
            lua(tools, "health.lua", &[object]).await,
            [test["healthStatus"].clone()],
            "{test}"
        );
    }
    let tests = yaml(&folder.join("actions/action_test.yaml"));
    for test in tests["discoveryTests"].as_array().unwrap() {
        let object = yaml(
            &folder
                .join("actions")
                .join(test["inputPath"].as_str().unwrap()),
        );
        let offered = lua(tools, "actions/discovery.lua", &[object])
            .await
            .remove(0);
        let offered: BTreeMap<&str, &Value> = offered
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, how)| (&**name, &how["disabled"]))
            .collect();
        let expected = test["result"].as_array().unwrap().iter();
        assert_eq!(
            offered,
            expected
                .map(|action| (action["name"].as_str().unwrap(), &action["disabled"]))
                .collect(),
            "{test}"
        );
    }
    for test in tests["actionTests"].as_array().unwrap() {
        let of = |path: &str| yaml(&folder.join("actions").join(test[path].as_str().unwrap()));
        let script = format!("actions/{}/action.lua", test["action"].as_str().unwrap());
        let (mut changed, mut expected) = (
            lua(tools, &script, &[of("inputPath")]).await.remove(0),
            of("expectedOutputPath"),
        );
        // The time of an action is no part of the test.
        for object in [&mut changed, &mut expected] {
            if let Some(at) =
                object.pointer_mut("/metadata/annotations/reconcile.fluxcd.io~1requestedAt")
            {
                *at = json!("now");
            }
        }
        assert_eq!(changed, expected, "{test}");
    }
}

/// Kinds of spec that no sample has.
const SPECS: [(&str, &str); 3] = [
    (
        "notation.yaml",
        "signature: {notation: {keySecretRef: {name: key}, expiry: 8760h}}",
    ),
    (
        "files.yaml",
        "artifact: {artifactType: application/vnd.demo, annotations: {com.example.a: b}, \
         files: [{name: a, value: text}, {name: b, mediaType: text/plain, valueFrom: {configMapKeyRef: {name: files, key: b}}}], \
         filesFrom: [{configMapRef: {name: files}}]}",
    ),
    (
        "all.yaml",
        "targets: {scope: Platforms, platforms: [linux/amd64], excludePlatforms: [linux/386], missing: Ignore}\n  \
         artifact: {artifactType: application/vnd.demo}\n  dryRun: true\n  interval: 90s\n  timeout: 1m0s\n  suspend: false\n  \
         deletionPolicy: Delete\n  referrersMode: TagSchema\n  secretRef: {name: login}\n  serviceAccountName: builder\n  \
         certSecretRef: {name: authority}\n  proxySecretRef: {name: proxy}\n  insecure: true",
    ),
];

/// A set with every field.
const SET: &str = "repositories: [registry.example.com/team/app]\n  \
    tags: {semver: '>=1.0.0-0', include: ['v*'], exclude: ['*-rc.*'], limit: 100}\n  immutable: true\n  interval: 90s\n  suspend: false\n  \
    lifecycle: {keep: {majors: 2, minors: 3, patches: 1}, alive: ['v1.8.*'], cycles: [{versions: 1.6.x, date: '2026-06-30'}], \
    gracePeriod: 720h, settle: 1h, unlessTagged: ['*', '!nightly-*'], maxNewMarks: 10}\n  \
    template: {metadata: {labels: {team: a}, annotations: {example.com/a: b}}, \
    spec: {deletionPolicy: Delete, endOfLife: {annotations: {com.example.a: b}}}}";

/// The samples, and the kinds of spec that they leave out, with names of their own for each way of applying them, pinned as
/// `affix pin` does.
fn samples(suffix: &str) -> Vec<(String, String)> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut files: Vec<_> = std::fs::read_dir(SAMPLES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let needs_digest = !text.contains("whenSuperseded") && !text.contains("sha256:");
        let text = if needs_digest {
            text.replace("team/app:v1", &format!("team/app:v1@{digest}"))
        } else {
            text
        };
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            text.replace("\n  name: ", &format!("\n  name: {suffix}-"))
                .replace("{name: ", &format!("{{name: {suffix}-")),
        )
    };
    let kinds = SPECS.iter().map(|(file, spec)| {
        let head = format!(
            "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata:\n  name: {suffix}-{}\n",
            file.trim_end_matches(".yaml")
        );
        ((*file).to_owned(), format!("{head}spec:\n  image: registry.example.com/team/app:v1\n  {spec}\n"))
    });
    let set = format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachmentSet\nmetadata:\n  name: {suffix}-set\nspec:\n  {SET}\n"
    );
    let set = ("set.yaml".to_owned(), set);
    files.iter().map(read).chain(kinds).chain([set]).collect()
}

#[tokio::test]
#[ignore = "needs helm"]
async fn applying_a_sample_again_changes_nothing_after_status_was_written() {
    let tools = Tools::with(&[Tool::Helm]).await.unwrap();
    let namespace = Namespace::new("drift").await;
    let controller = Controller::start(&namespace).await;
    let kubectl = async |args: &[&str], text: &str| {
        let args = args
            .iter()
            .copied()
            .chain(["--namespace", &namespace.name, "-f", "-"]);
        namespace.plane.kubectl_with(args, text).await.unwrap()
    };
    let ways: [(&str, &[&str]); 2] = [
        ("client", &[]),
        ("server", &["--server-side", "--field-manager=gitops"]),
    ];
    let mut applied = Vec::new();
    for (way, flags) in ways {
        for (file, text) in samples(way) {
            let apply = [&["apply"], flags].concat();
            kubectl(&apply, &text)
                .await
                .stdout()
                .unwrap_or_else(|error| panic!("{way} {file}: {error:#}"));
            applied.push((way, flags, file, text));
        }
    }
    // The third way is Helm's three-way merge.
    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: samples\nversion: 0.1.0\n",
    )
    .unwrap();
    for (file, text) in samples("helm") {
        std::fs::write(chart.path().join("templates").join(file), text).unwrap();
    }
    let helm = async || {
        let args = [
            "upgrade",
            "--install",
            "samples",
            chart.path().to_str().unwrap(),
            "--namespace",
            &namespace.name,
        ];
        let run = Run::new(tools.path(Tool::Helm).unwrap())
            .args(args)
            .env("KUBECONFIG", namespace.plane.kubeconfig());
        run.env("HOME", chart.path())
            .output()
            .await
            .unwrap()
            .stdout()
            .unwrap();
    };
    helm().await;

    let sets: Api<ImageAttachmentSet> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let count = |kind: &str| {
        let samples = samples("count").into_iter();
        samples
            .filter(|(_, text)| text.contains(&format!("kind: {kind}\n")))
            .count()
    };
    assert!(count(KINDS[0]) >= 4 + SPECS.len() && count(KINDS[1]) >= 3);
    let is_said = |conditions: &[Condition]| {
        find_condition(conditions, ConditionType::Ready)
            .is_some_and(|ready| ready.status != "Unknown")
    };
    // Once while affix is at work, and once when it has said what it has to say.
    for _ in 0..2 {
        for (way, flags, file, text) in &applied {
            // kubectl reads the object twice. A new resource version between the two is a status write of affix, no drift.
            let mut diff = kubectl(&[&["diff"], *flags].concat(), text).await;
            for _ in 0..20 {
                if !diff.out.contains("  resourceVersion:") {
                    break;
                }
                diff = kubectl(&[&["diff"], *flags].concat(), text).await;
            }
            let silent = diff.status.success() && diff.out.is_empty();
            assert!(silent, "{way} {file} drifts:\n{}{}", diff.out, diff.err);
            let again = kubectl(&[&["apply"], *flags].concat(), text)
                .await
                .stdout()
                .unwrap();
            assert!(
                !again.contains("configured") && !again.contains("created"),
                "{way} {file}: {again}"
            );
        }
        let resources = namespace
            .attachments()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let found = sets.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(
            (resources.len(), found.len()),
            (3 * count(KINDS[0]), 3 * count(KINDS[1]))
        );
        for set in &found {
            let name = set.metadata.name.as_deref().unwrap();
            Sets::of(&namespace)
                .wait(name, "spoken of", |set| {
                    set.status.as_ref().is_some_and(|status| {
                        status.observed_generation >= 0 && is_said(&status.conditions)
                    })
                })
                .await;
        }
        for resource in &resources {
            let spoken_of = |object: &affix::api::ImageAttachment| {
                object.status.as_ref().is_some_and(|status| {
                    status.observed_generation >= 0 && is_said(&status.conditions)
                })
            };
            namespace
                .wait(
                    resource.metadata.name.as_deref().unwrap(),
                    "spoken of",
                    spoken_of,
                )
                .await;
        }
    }
    drop(controller);
    let versions = async || -> BTreeMap<Option<String>, Option<String>> {
        let resources = namespace
            .attachments()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter();
        let found = sets.list(&ListParams::default()).await.unwrap().items;
        resources
            .map(|object| object.metadata)
            .chain(found.into_iter().map(|set| set.metadata))
            .map(|metadata| (metadata.name, metadata.resource_version))
            .collect()
    };
    let before = versions().await;
    helm().await;
    for (_, flags, _, text) in &applied {
        kubectl(&[&["apply"], *flags].concat(), text)
            .await
            .stdout()
            .unwrap();
    }
    assert_eq!(versions().await, before, "something was written");
    assert!(before.values().all(Option::is_some));
    namespace.check_rules().await;
}

#[tokio::test]
#[ignore = "needs helm 4"]
async fn helm_4_waits_for_reconciled_resources_and_legacy_for_no_other() {
    let tools = Tools::with(&[Tool::Helm4]).await.unwrap();
    let namespace = Namespace::new("waiting").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let _controller = Controller::start(&namespace).await;
    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    let write = |file: &str, text: &str| std::fs::write(chart.path().join(file), text).unwrap();
    write(
        "Chart.yaml",
        "apiVersion: v2\nname: waiting\nversion: 0.1.0\n",
    );
    let add = |name: &str, fields: Value| {
        let object = json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name},
            "spec": with(note(&image), fields),
        });
        write(&format!("templates/{name}.yaml"), &object.to_string());
    };
    let helm = async |wait: &str| {
        let args = ["upgrade", "--install", "waiting", "--timeout", "1m", wait];
        let run = Run::new(tools.path(Tool::Helm4).unwrap()).args(args);
        let run = run.args([chart.path().to_str().unwrap(), "--namespace"]);
        let run = run.args([&namespace.name]).env("HOME", chart.path());
        let run = run.env("KUBECONFIG", namespace.plane.kubeconfig());
        run.output().await.unwrap().stdout().unwrap()
    };
    add("healthy", json!({}));
    add("paused", json!({}));
    helm("--wait").await;
    assert!(crate::support::namespace::is_ready(
        &namespace.attachments().get("healthy").await.unwrap()
    ));
    add("paused", json!({"suspend": true}));
    helm("--wait").await;
    // kstatus has no state for these.
    add("planned", json!({"dryRun": true}));
    add("suspended", json!({"suspend": true}));
    helm("--wait=legacy").await;
    namespace.refused("planned", Reason::Planned).await;
    namespace.suspended("suspended").await;
    assert!(include_str!("../../docs/gitops.md").contains("`--wait=legacy`"));
}
