//! Repeated applies of the manifests to a real API server, and applies by a second field manager.

use serde_json::{Value, json};

use crate::chart::CASES;
use crate::foreign;
use crate::kustomize;
use crate::support::cluster::Cluster;
use crate::support::golden::repository;
use crate::support::objects::{self, is_test};

/// Values whose objects a second `kubectl apply` could report as changed, besides those of the snapshots.
const PLATFORM: [&str; 16] = [
    "crds.enabled=false",
    "namespaceOverride=\"elsewhere\"",
    "controller.hostNetwork=true",
    "webhook.hostNetwork=true",
    r#"controller.dnsConfig={"nameservers":["192.0.2.1"]}"#,
    r#"controller.hostAliases=[{"ip":"192.0.2.1","hostnames":["registry.example.com"]}]"#,
    r#"controller.extraEnv=[{"name":"NODE","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}]"#,
    r#"controller.extraVolumes=[{"name":"scratch","emptyDir":{}}]"#,
    r#"controller.extraVolumeMounts=[{"name":"scratch","mountPath":"/scratch"}]"#,
    r#"controller.extraContainers=[{"name":"side","image":"registry.example.com/side:v1"}]"#,
    r#"webhook.strategy={"rollingUpdate":{"maxSurge":2}}"#,
    r#"webhook.podDisruptionBudget={"minAvailable":"50%"}"#,
    "registries.caBundle=\"PEM\"",
    "proxy.https=\"http://proxy.example.com:3128\"",
    "services.ipFamilyPolicy=\"SingleStack\"",
    "serviceMonitor.enabled=true",
];

/// Starts a cluster with the CRDs of other projects, and returns it with the objects of each case.
async fn prepared() -> (Cluster, Vec<(&'static str, Vec<Value>)>) {
    let cluster = Cluster::new().await;
    foreign::define(&cluster).await;
    for namespace in ["team-a", "team-b", "elsewhere"] {
        cluster.namespace(namespace).await;
    }
    let mut cases = Vec::new();
    for base in ["config/crd", "config/default"] {
        let text = kustomize::render(&repository(base)).await;
        cases.push((base, objects::parse(&text)));
    }
    for (name, values) in CASES.into_iter().chain([("platform", &PLATFORM[..])]) {
        let objects = cluster.helm.objects(values).await.into_iter();
        cases.push((name, objects.filter(|object| !is_test(object)).collect()));
    }
    (cluster, cases)
}

/// Applies objects and returns the output of kubectl.
async fn apply(cluster: &Cluster, objects: &[Value], more: &[&str]) -> Result<String, String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let args = [&["apply", "-f", "-"], more].concat();
    let ran = cluster.plane.kubectl_with(args, list).await.unwrap();
    if ran.status.success() {
        Ok(ran.out)
    } else {
        Err(format!("{}{}", ran.out, ran.err))
    }
}

/// Returns the generation of each object, or its resource version if it has no generation.
async fn versions(cluster: &Cluster, objects: &[Value]) -> Vec<String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let args = ["get", "-f", "-", "-o", "json"];
    let ran = cluster.plane.kubectl_with(args, list).await.unwrap();
    let found: Value = serde_json::from_str(&ran.stdout().unwrap()).unwrap();
    let items = found["items"].as_array().unwrap().iter();
    items
        .map(|object| {
            let metadata = &object["metadata"];
            // Controllers write the status of objects that have a generation.
            let version = match &metadata["generation"] {
                Value::Null => &metadata["resourceVersion"],
                generation => generation,
            };
            format!("{} {version}", objects::title(object))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build, and the modules of others"]
async fn a_second_kubectl_apply_says_unchanged_for_every_object() {
    let (cluster, cases) = prepared().await;
    for (name, objects) in &cases {
        apply(&cluster, objects, &[]).await.unwrap();
        let before = versions(&cluster, objects).await;
        let printed = apply(&cluster, objects, &[]).await.unwrap();
        // kubectl sends the selector of a PodDisruptionBudget each time: its patch strategy is "replace".
        let changed: Vec<&str> = printed
            .lines()
            .filter(|line| !line.ends_with(" unchanged"))
            .filter(|line| !line.starts_with("poddisruptionbudget.policy/"))
            .collect();
        assert_eq!(changed, Vec::<&str>::new(), "{name}");
        assert_eq!(versions(&cluster, objects).await, before, "{name}");
        assert_eq!(printed.lines().count(), objects.len(), "{name}: {printed}");
    }
    // The check itself: without the type, kubectl finds a change each time.
    let mut deployment = cases[1].1.clone();
    deployment.retain(|object| {
        object["metadata"]["name"] == "affix-webhook" && object["kind"] == "Deployment"
    });
    let strategy = deployment[0]["spec"]["strategy"].as_object_mut().unwrap();
    strategy.remove("type");
    for _ in 0..2 {
        let printed = apply(&cluster, &deployment, &[]).await.unwrap();
        assert!(printed.ends_with(" configured\n"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build, and the modules of others"]
async fn two_server_side_appliers_of_the_same_manifests_have_no_conflict() {
    let (cluster, cases) = prepared().await;
    for (name, objects) in &cases {
        for manager in ["--field-manager=first", "--field-manager=second"] {
            let applied = apply(&cluster, objects, &["--server-side", manager]).await;
            applied.unwrap_or_else(|refused| panic!("{name} {manager}: {refused}"));
        }
        let removed = cluster.plane.kubectl_with(
            ["delete", "--ignore-not-found", "--wait=true", "-f", "-"],
            json!({"apiVersion": "v1", "kind": "List", "items": removable(objects)}).to_string(),
        );
        removed.await.unwrap().stdout().unwrap();
    }
    // The check itself: a field reference without its version conflicts with the default of the API server.
    let mut deployment = cases[1].1.clone();
    deployment.retain(|object| {
        object["metadata"]["name"] == "affix-webhook" && object["kind"] == "Deployment"
    });
    let reference = &mut deployment[0]["spec"]["template"]["spec"]["containers"][0]["env"][1]["valueFrom"]
        ["fieldRef"];
    reference
        .as_object_mut()
        .unwrap()
        .remove("apiVersion")
        .unwrap();
    let first = ["--server-side", "--field-manager=first"];
    apply(&cluster, &deployment, &first).await.unwrap();
    let second = ["--server-side", "--field-manager=second"];
    let refused = apply(&cluster, &deployment, &second).await.unwrap_err();
    assert!(refused.contains("conflict with \"first\""), "{refused}");
}

/// Returns the objects without namespaces and CRDs, whose deletion takes long.
fn removable(objects: &[Value]) -> Vec<&Value> {
    let stays = |object: &&Value| {
        !["Namespace", "CustomResourceDefinition"].contains(&object["kind"].as_str().unwrap())
    };
    objects.iter().filter(stays).collect()
}
