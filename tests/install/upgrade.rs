//! Upgrade from an older chart, and uninstall.

use affix_testbed::run::Run;
use affix_testbed::tools::Tool;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::access::effective;
use crate::support::cluster::Cluster;
use crate::support::golden::{read, repository};
use crate::support::helm::NAMESPACE;
use crate::support::operator::{DEPLOYMENT, Job, MORTAL, Operator, values_for_here};

const DEFINITION: [&str; 2] = ["crd", "imageattachments.affix.dev"];

/// Returns the properties of status in the installed CRD.
async fn stored(cluster: &Cluster) -> Vec<String> {
    let definition = cluster.get(&DEFINITION).await;
    let status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        ["properties"];
    status.as_object().unwrap().keys().cloned().collect()
}

/// Returns the command of the chart's notes that removes finalizers, for a release with these values.
async fn release_command(cluster: &Cluster, values: &[&str]) -> String {
    let chart = repository("charts/affix");
    let mut args = vec!["install", "affix", chart.to_str().unwrap()];
    args.extend(["--namespace", NAMESPACE, "--dry-run=server"]);
    args.extend(values.iter().flat_map(|value| ["--set-json", *value]));
    let notes = cluster.helm.run(&args).await.stdout().unwrap();
    let command = notes
        .lines()
        .map(str::trim)
        .find(|line| line.contains("/metadata/finalizers/"));
    command.unwrap().to_owned()
}

/// Runs a command of the chart's notes in a shell.
async fn release(cluster: &Cluster, command: &str) {
    let kubectl = cluster.helm.tools().path(Tool::Kubectl).unwrap();
    let path = format!(
        "{}:{}",
        kubectl.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let home = tempfile::tempdir().unwrap();
    let run = Run::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("KUBECONFIG", cluster.plane.kubeconfig())
        .env("HOME", home.path());
    run.output().await.unwrap().stdout().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn an_upgrade_updates_the_crd_and_an_uninstall_keeps_it_and_all_resources() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let older = repository("tests/install/older-chart");
    cluster
        .helm
        .run(&[
            "install",
            "affix",
            older.to_str().unwrap(),
            "--namespace",
            NAMESPACE,
        ])
        .await
        .stdout()
        .unwrap();
    assert_eq!(stored(&cluster).await, ["conditions", "observedGeneration"]);
    cluster.established().await;
    let old = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "old", "namespace": "team-a"},
        "spec": {"image": "registry.example.com/team/app:v1", "suspend": true, "artifact": {"artifactType": "application/vnd.demo"}},
    });
    cluster.apply(&[old]).await;

    let here = values_for_here();
    let values: Vec<&str> = here.iter().map(String::as_str).collect();
    cluster
        .helm
        .release("upgrade", &values)
        .await
        .stdout()
        .unwrap();
    assert!(stored(&cluster).await.contains(&"targets".to_owned()));
    effective(&cluster).await;
    cluster
        .attachments("team-a")
        .delete("old", &DeleteParams::default())
        .await
        .unwrap();
    let job = Job::new(&cluster, "team-a").await;
    let rows = job.run_and_keep().await.unwrap();
    assert_eq!(rows, [3, 3, 3], "the rows of status are stored");

    // A resource with `deletionPolicy: Delete` has a finalizer.
    let operator = Operator::start(&cluster, DEPLOYMENT, true).await;
    cluster.apply(&job.objects()).await;
    let held = || async {
        let mortal = cluster
            .attachments("team-a")
            .get(MORTAL)
            .await
            .map_err(|error| error.to_string())?;
        if mortal.finalizers().is_empty() {
            Err("it is not held".to_owned())
        } else {
            Ok(())
        }
    };
    operator.wait(held).await.unwrap();
    operator.stop().await.unwrap();

    cluster
        .helm
        .run(&["uninstall", "affix", "--namespace", NAMESPACE])
        .await
        .stdout()
        .unwrap();
    assert!(
        stored(&cluster).await.contains(&"targets".to_owned()),
        "the definition is kept"
    );
    let kept = async || -> Vec<String> {
        let kept = cluster
            .attachments("team-a")
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        kept.iter().map(ResourceExt::name_any).collect()
    };
    assert_eq!(kept().await, ["account", "anonymous", "login", MORTAL]);
    cluster
        .attachments("team-a")
        .delete(MORTAL, &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .attachments("team-a")
        .delete("login", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(
        kept().await,
        ["account", "anonymous", MORTAL],
        "the finalizer holds one, and nothing the other"
    );
    let command = release_command(&cluster, &[]).await;
    assert!(
        read("charts/affix/README.md").contains(&command),
        "the README has another command than {command}"
    );
    release(&cluster, &command).await;
    assert_eq!(kept().await, ["account", "anonymous"]);
    // No webhook of affix is left that a deletion would wait for.
    job.clear().await;
    let left = cluster.get(&[
        "all,roles,clusterroles,validatingwebhookconfigurations",
        "--all-namespaces",
        "-l",
        "app.kubernetes.io/part-of=affix",
    ]);
    assert_eq!(left.await["items"], json!([]));

    // The same release can be installed again over the kept CRD.
    cluster.install(&values).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_crd_goes_with_the_release_without_crds_keep() {
    let cluster = Cluster::new().await;
    cluster.install(&["crds.keep=false"]).await;
    cluster
        .helm
        .run(&["uninstall", "affix", "--namespace", NAMESPACE, "--wait"])
        .await
        .stdout()
        .unwrap();
    let gone = cluster
        .plane
        .kubectl(["get", "crd", DEFINITION[1]])
        .await
        .unwrap()
        .failure()
        .unwrap();
    assert!(gone.contains("NotFound"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_notes_release_only_the_release_s_resources_from_affix_s_finalizer() {
    const OURS: &str = "affix.dev/finalizer";
    const THEIRS: &str = "example.com/finalizer";
    let cluster = Cluster::new().await;
    cluster.install(&[]).await;
    let object = |namespace: &str, name: &str, shard: &str, finalizers: &[&str]| {
        json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
            "metadata": {
                "name": name, "namespace": namespace, "labels": {"affix.dev/shard": shard}, "finalizers": finalizers,
            },
            "spec": {"image": "registry.example.com/team/app:v1", "suspend": true, "artifact": {"artifactType": "application/vnd.demo"}},
        })
    };
    for namespace in ["team-a", "team-b", "team-c"] {
        cluster.namespace(namespace).await;
        let objects = [
            object(namespace, "both", "1", &[THEIRS, OURS]),
            object(namespace, "free", "1", &[]),
            object(namespace, "other-shard", "2", &[OURS]),
        ];
        cluster.apply(&objects).await;
    }
    let finalizers = async |namespace: &str, name: &str| {
        let object = cluster.attachments(namespace).get(name).await.unwrap();
        object.finalizers().to_vec()
    };

    let values = [
        r#"watchNamespaces=["team-a","team-b"]"#,
        "watchLabelSelector=\"affix.dev/shard=1\"",
    ];
    let command = release_command(&cluster, &values).await;
    release(&cluster, &command).await;
    for namespace in ["team-a", "team-b"] {
        assert_eq!(finalizers(namespace, "both").await, [THEIRS]);
        assert_eq!(finalizers(namespace, "other-shard").await, [OURS]);
    }
    assert_eq!(finalizers("team-c", "both").await, [THEIRS, OURS]);

    let command = release_command(&cluster, &[]).await;
    release(&cluster, &command).await;
    assert_eq!(finalizers("team-c", "both").await, [THEIRS]);
    assert_eq!(finalizers("team-a", "other-shard").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_adopts_a_crd_that_was_applied_by_hand_with_take_ownership() {
    let cluster = Cluster::new().await;
    let crds = repository("crds");
    let by_hand = ["apply", "--server-side", "-f", crds.to_str().unwrap()];
    cluster.kubectl(&by_hand).await;
    let refused = cluster
        .helm
        .release("install", &[])
        .await
        .failure()
        .unwrap();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    let chart = repository("charts/affix");
    let mut install = vec!["install", "affix", chart.to_str().unwrap()];
    install.extend(["--namespace", NAMESPACE, "--take-ownership"]);
    cluster.helm.run(&install).await.stdout().unwrap();
    let owner = &cluster.get(&DEFINITION).await["metadata"]["annotations"];
    assert_eq!(owner["meta.helm.sh/release-name"], "affix");
    assert!(read("docs/install.md").contains("--take-ownership"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_4_installs_upgrades_and_uninstalls_without_a_conflict() {
    let cluster = Cluster::new().await;
    let helm = cluster.helm.next_major().await;
    let release = async |command, values: &[&str]| {
        let ran = helm.release(command, values).await;
        ran.stdout().unwrap();
    };
    release("install", &[]).await;
    cluster.established().await;
    // As the webhook writes it. Helm 4 applies on the server, with owners of fields.
    let configuration = ["validatingwebhookconfiguration", "affix-webhook"];
    let bundle = r#"[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"QQ=="}]"#;
    let patch = ["--type=json", "--field-manager=affix", "--patch", bundle];
    cluster
        .kubectl(&[&["patch"], &configuration[..], &patch[..]].concat())
        .await;
    release("upgrade", &["controller.replicas=2"]).await;
    let found = cluster.get(&configuration).await;
    assert_eq!(found["webhooks"][0]["clientConfig"]["caBundle"], "QQ==");
    let deployment = ["deployment", "affix-controller", "--namespace", NAMESPACE];
    assert_eq!(cluster.get(&deployment).await["spec"]["replicas"], 2);
    let uninstall = ["uninstall", "affix", "--namespace", NAMESPACE];
    helm.run(&uninstall).await.stdout().unwrap();
    assert!(!stored(&cluster).await.is_empty(), "the CRD stays");
}
