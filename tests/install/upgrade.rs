//! From an older chart to this one, and away again.

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::access::effective;
use crate::cluster::Cluster;
use crate::golden::repository;
use crate::helm::NAMESPACE;
use crate::operator::{Job, values_for_here};

const DEFINITION: [&str; 2] = ["crd", "imageattachments.affix.dev"];

/// The properties of status that the API server stores.
async fn stored(cluster: &Cluster) -> Vec<String> {
    let definition = cluster.get(&DEFINITION).await;
    let status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    status.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn an_upgrade_brings_the_definition_up_to_date_and_an_uninstall_keeps_it_with_all_resources() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let older = repository("tests/install/older-chart");
    cluster.helm.run(&["install", "affix", older.to_str().unwrap(), "--namespace", NAMESPACE]).await.stdout().unwrap();
    assert_eq!(stored(&cluster).await, ["conditions", "observedGeneration"]);
    cluster.established().await;
    let old = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "old", "namespace": "team-a"},
        "spec": {"image": "registry.example.com/team/app:v1", "suspend": true, "artifact": {"artifactType": "application/vnd.demo"}},
    });
    cluster.apply(&[old]).await;

    let here = values_for_here();
    let values: Vec<&str> = here.iter().map(String::as_str).collect();
    cluster.helm.release("upgrade", &values).await.stdout().unwrap();
    assert!(stored(&cluster).await.contains(&"targets".to_owned()));
    effective(&cluster).await;
    cluster.attachments("team-a").delete("old", &DeleteParams::default()).await.unwrap();
    let job = Job::new(&cluster, "team-a").await;
    let rows = job.run_and_keep().await.unwrap();
    assert_eq!(rows, [3, 3, 3], "the rows of status are stored");

    cluster.helm.run(&["uninstall", "affix", "--namespace", NAMESPACE]).await.stdout().unwrap();
    assert!(stored(&cluster).await.contains(&"targets".to_owned()), "the definition is kept");
    let kept = cluster.attachments("team-a").list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(kept.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["account", "anonymous", "login"]);
    // Nothing of affix is left that a deletion waits for.
    job.clear().await;
    let left = cluster.get(&[
        "all,roles,clusterroles,validatingwebhookconfigurations",
        "--all-namespaces",
        "-l",
        "app.kubernetes.io/part-of=affix",
    ]);
    assert_eq!(left.await["items"], json!([]));

    // The same release can come back to what it has left.
    cluster.install(&values).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_definition_goes_with_the_release_where_it_is_not_to_be_kept() {
    let cluster = Cluster::new().await;
    cluster.install(&["crds.keep=false"]).await;
    cluster.helm.run(&["uninstall", "affix", "--namespace", NAMESPACE, "--wait"]).await.stdout().unwrap();
    let gone = cluster.plane.kubectl(["get", "crd", DEFINITION[1]]).await.unwrap().failure().unwrap();
    assert!(gone.contains("NotFound"), "{gone}");
}
