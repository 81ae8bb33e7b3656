//! The kustomize bases: the objects of the chart, with names and a namespace that an overlay can change.

use std::path::{Path, PathBuf};

use affix_testbed::port;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::access::effective;
use crate::support::cluster::Cluster;
use crate::support::golden::{read, repository};
use crate::support::helm::{Helm, NAMESPACE};
use crate::support::objects;
use crate::support::operator::{Job, Operator};

/// Renders a base with `kubectl kustomize`.
pub(crate) async fn render(base: &Path) -> String {
    let tools = Tools::core().await.unwrap();
    Run::new(tools.path(Tool::Kubectl).unwrap())
        .args(["kustomize".as_ref(), base.as_os_str()])
        .output()
        .await
        .unwrap()
        .stdout()
        .unwrap()
}

/// A copy of `config/`, beside which a test writes overlays.
struct Copy {
    dir: TempDir,
}

impl Copy {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Run::new("cp").args([
            "-r".into(),
            repository("config").into_os_string(),
            dir.path().join("config").into_os_string(),
        ]);
        copied.output().await.unwrap().stdout().unwrap();
        Self { dir }
    }

    /// Gives the processes ports that are free on this machine, whose registries are on loopback addresses.
    fn for_here(&self) {
        for component in ["manager", "webhook"] {
            let path = format!("config/{component}/deployment.yaml");
            let path = self.dir.path().join(path);
            let mut text = std::fs::read_to_string(&path).unwrap();
            for fixed in ["=:8080", "=:9440", "=:9443"] {
                text = text.replace(fixed, &format!("=:{}", port::free().unwrap()));
            }
            let text = text.replace("--allow-loopback=false", "--allow-loopback=true");
            std::fs::write(&path, text).unwrap();
        }
    }

    /// Writes a kustomization into a folder of its own.
    fn overlay(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("kustomization.yaml"), text).unwrap();
        folder
    }
}

/// Renders a base to objects by title, without the labels of an installer.
async fn base(folder: &Path) -> std::collections::BTreeMap<String, Value> {
    objects::anonymous(objects::parse(&render(folder).await))
}

/// Renders the chart to objects by title, without those of `helm test`.
async fn chart(values: &[&str]) -> std::collections::BTreeMap<String, Value> {
    let objects = Helm::new().await.objects(values).await.into_iter();
    objects::anonymous(objects.filter(|object| !objects::is_test(object)).collect())
}

fn assert_same(
    base: &std::collections::BTreeMap<String, Value>,
    chart: &std::collections::BTreeMap<String, Value>,
) {
    assert_eq!(
        base.keys().collect::<Vec<_>>(),
        chart.keys().collect::<Vec<_>>()
    );
    for (title, object) in chart {
        assert_eq!(object, &base[title], "{title}: the chart's and the base's");
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_base_has_the_objects_of_the_chart_s_defaults_and_their_namespace() {
    let mut objects = base(&repository("config/install")).await;
    assert!(objects.remove("Namespace/affix-system").is_some());
    assert_same(&objects, &chart(&[]).await);
    let crds = ["imageattachments", "imageattachmentsets"]
        .map(|plural| format!("CustomResourceDefinition/{plural}.affix.dev"));
    let without = base(&repository("config/default")).await;
    for crd in &crds {
        assert!(
            !without.contains_key(crd),
            "the CRDs are a base of their own"
        );
    }
    let definitions = base(&repository("config/crd")).await;
    assert_eq!(
        definitions.keys().collect::<Vec<_>>(),
        crds.iter().collect::<Vec<_>>()
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn components_add_what_the_chart_s_values_add() {
    let copy = Copy::new().await;
    let folder = copy.overlay(
        "overlay",
        "resources: [../config/default]\ncomponents:\n- ../config/components/cert-manager\n\
         - ../config/components/monitoring\n- ../config/components/network-policy\n",
    );
    let mut objects = base(&folder).await;
    objects.remove("Namespace/affix-system").unwrap();
    for object in objects.values_mut() {
        // Kustomize labels the objects of a base only, not those of a component.
        let name = object["metadata"]["name"].clone();
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|key, _| key == "app.kubernetes.io/component");
        assert_eq!(labels.len(), 1, "{name}");
    }
    let mut wanted = chart(&[
        "crds.enabled=false",
        "webhook.certificate.mode=\"cert-manager\"",
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
        "networkPolicy.enabled=true",
    ])
    .await;
    for object in wanted.values_mut() {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|key, _| key == "app.kubernetes.io/component");
    }
    // Aggregated roles are known by their labels; the test above compares them.
    assert_same(&objects, &wanted);
}

/// Collects the paths of a value that still have an old name or the old namespace.
fn stale(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| stale(value, &format!("{path}.{key}"), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| stale(value, &format!("{path}[{at}]"), found)),
        Value::String(text) => {
            let old = ["affix-system", "affix-webhook", "affix-controller"];
            let is_new = text.starts_with("prod-affix-");
            if old.iter().any(|old| text.contains(old)) && !is_new {
                found.push(format!("{path}: {text}"));
            }
        }
        _ => {}
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_prefix_and_a_namespace_reach_selectors_arguments_and_rbac() {
    let copy = Copy::new().await;
    copy.overlay(
        "named",
        "namespace: platform\nnamePrefix: prod-\nresources: [../config/default]\n\
         components: [../config/components/monitoring, ../config/components/network-policy]\n",
    );
    // A layer above, because overlays are layered in practice.
    let top = copy.overlay("top", "resources: [../named]\n");
    let objects = objects::parse(&render(&top).await);
    let mut found = Vec::new();
    for object in &objects {
        stale(object, &objects::title(object), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());

    let find = |title: &str| objects::find(&objects, title);
    let args =
        |title: &str| find(title)["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let value = |args: &Value, flag: &str| {
        let args = args.as_array().unwrap();
        let at = args.iter().position(|arg| arg == flag).unwrap();
        args[at + 1].clone()
    };
    let webhook = args("Deployment/platform/prod-affix-webhook");
    for flag in [
        "--owner-deployment",
        "--service-name",
        "--validating-webhook-configuration",
        "--mutating-webhook-configuration",
    ] {
        assert_eq!(value(&webhook, flag), "prod-affix-webhook", "{flag}");
    }
    let secret = value(&webhook, "--certificate-secret");
    assert_eq!(secret, "prod-affix-webhook-tls");
    let role = find("Role/platform/prod-affix-webhook-tls");
    assert_eq!(role["rules"][1]["resourceNames"], json!([secret]));
    let controller = args("Deployment/platform/prod-affix-controller");
    let lease = value(&controller, "--leader-election-name");
    assert_eq!(value(&controller, "--owner-deployment"), lease);
    let role = find("Role/platform/prod-affix-controller-lease");
    assert_eq!(role["rules"][1]["resourceNames"], json!([lease]));
    let role = find("ClusterRole/prod-affix-webhook-certificate");
    assert_eq!(
        role["rules"][0]["resourceNames"],
        json!(["prod-affix-webhook"])
    );
    for kind in ["Validating", "Mutating"] {
        let title = format!("{kind}WebhookConfiguration/prod-affix-webhook");
        for webhook in find(&title)["webhooks"].as_array().unwrap() {
            let service = &webhook["clientConfig"]["service"];
            let wanted = json!(["prod-affix-webhook", "platform"]);
            assert_eq!(json!([service["name"], service["namespace"]]), wanted);
            let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array();
            let exempt = &expressions.unwrap().last().unwrap()["values"];
            assert_eq!(exempt, &json!(["platform", "kube-system"]));
        }
    }

    // The component for cert-manager composes names, so it belongs above the layer that sets them.
    let certified = copy.overlay(
        "certified",
        "resources: [../named]\ncomponents: [../config/components/cert-manager]\n",
    );
    let objects = objects::parse(&render(&certified).await);
    let certificate = objects::find(&objects, "Certificate/platform/affix-webhook");
    let names = ["", ".cluster.local"].map(|end| format!("prod-affix-webhook.platform.svc{end}"));
    assert_eq!(certificate["spec"]["dnsNames"], json!(names));
    let title = "ValidatingWebhookConfiguration/prod-affix-webhook";
    let annotations = &objects::find(&objects, title)["metadata"]["annotations"];
    let injected = json!({"cert-manager.io/inject-ca-from": "platform/affix-webhook"});
    assert_eq!(annotations, &injected);
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn chart_output_passes_through_kustomize_unchanged() {
    let helm = Helm::new().await;
    let dir = tempfile::tempdir().unwrap();
    for (name, values) in crate::chart::CASES {
        let text = helm.text(values).await;
        std::fs::write(dir.path().join("all.yaml"), &text).unwrap();
        std::fs::write(
            dir.path().join("kustomization.yaml"),
            "resources: [all.yaml]\n",
        )
        .unwrap();
        let through = objects::anonymous(objects::parse(&render(dir.path()).await));
        assert_eq!(through, objects::anonymous(objects::parse(&text)), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_prefix_and_a_namespace_reach_the_output_of_the_chart() {
    let copy = Copy::new().await;
    let rendered = copy.overlay(
        "rendered",
        "resources: [chart.yaml, namespace.yaml]\nconfigurations: [names.yaml]\n",
    );
    let write = |file: &str, text: &str| std::fs::write(rendered.join(file), text).unwrap();
    let text = Helm::new().await.text(&["crds.enabled=false"]).await;
    write("chart.yaml", &text);
    let namespace = read("config/manager/namespace.yaml");
    write("namespace.yaml", &namespace);
    write("names.yaml", &read("config/default/names.yaml"));
    let named = copy.overlay(
        "named",
        "namespace: platform\nnamePrefix: prod-\nresources: [../rendered]\n",
    );
    let objects = objects::parse(&render(&named).await);
    let mut found = Vec::new();
    for object in objects.iter().filter(|object| !objects::is_test(object)) {
        stale(object, &objects::title(object), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
    assert!(read("docs/install.md").contains("configurations: [names.yaml]"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_operator_that_kustomize_installed_does_its_job() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let copy = Copy::new().await;
    copy.for_here();
    for base in ["config/crd", "config/default"] {
        let base = copy.dir.path().join(base);
        let applied = cluster
            .plane
            .kubectl(["apply", "-k", base.to_str().unwrap()])
            .await
            .unwrap();
        assert!(!applied.err.contains("PodSecurity"), "{}", applied.err);
        applied.stdout().unwrap();
    }
    cluster.established().await;
    effective(&cluster).await;
    let job = Job::new(&cluster, "team-a").await;
    job.run().await.unwrap();

    // The selector that docs/install.md names leaves out the CRD of the single file.
    let file = repository("config/install.yaml");
    let selector = ["--selector", "app.kubernetes.io/component!=crd"];
    let delete = ["delete", "--dry-run=client", "-f", file.to_str().unwrap()];
    let deleted = cluster.kubectl(&[&delete[..], &selector].concat()).await;
    assert!(
        deleted.contains("deployment.apps \"affix-controller\"")
            && !deleted.contains("imageattachments"),
        "{deleted}"
    );

    // Deleting the base keeps the CRD and the resources.
    cluster.apply(&job.objects()).await;
    let folder = copy.dir.path().join("config/default");
    cluster
        .kubectl(&["delete", "-k", folder.to_str().unwrap(), "--wait=false"])
        .await;
    let left = cluster
        .get(&["imageattachments", "--namespace", "team-a"])
        .await;
    assert_eq!(left["items"].as_array().unwrap().len(), 4, "{left:#}");
    let gone =
        "deployments,clusterroles,validatingwebhookconfigurations,mutatingwebhookconfigurations";
    let label = "app.kubernetes.io/part-of=affix";
    let left = cluster.get(&[gone, "--all-namespaces", "-l", label]).await;
    assert_eq!(left["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn webhook_and_controller_work_under_a_prefix_in_another_namespace() {
    let cluster = Cluster::new().await;
    let copy = Copy::new().await;
    copy.for_here();
    let overlay = copy.overlay(
        "overlay",
        "namespace: platform\nnamePrefix: prod-\nresources: [../config/default]\n",
    );
    for base in [copy.dir.path().join("config/crd"), overlay] {
        cluster
            .kubectl(&["apply", "-k", base.to_str().unwrap()])
            .await;
    }
    cluster.established().await;
    let start =
        async |deployment: &str| Operator::start_in(&cluster, "platform", deployment, true).await;
    let webhook = start("prod-affix-webhook").await;
    let controller = start("prod-affix-controller").await;
    webhook.ready().await.unwrap();
    controller.ready().await.unwrap();
    let trusted = || async {
        for kind in ["validating", "mutating"] {
            let kind = format!("{kind}webhookconfiguration");
            let found = cluster.get(&[&kind, "prod-affix-webhook"]).await;
            for webhook in found["webhooks"].as_array().unwrap() {
                if !webhook["clientConfig"]["caBundle"].is_string() {
                    return Err(format!("no caBundle: {webhook:#}"));
                }
            }
        }
        Ok(())
    };
    webhook.wait(trusted).await.unwrap();
    let leads = || async {
        let leases = cluster.get(&["leases", "--namespace", "platform"]).await;
        let named = &leases["items"][0]["metadata"]["name"];
        if *named == "prod-affix-controller" {
            Ok(())
        } else {
            Err(format!("{leases:#}"))
        }
    };
    controller.wait(leads).await.unwrap();
    // Deleted Deployments take both objects with them.
    for (object, deployment) in [
        ("lease/prod-affix-controller", "prod-affix-controller"),
        ("secret/prod-affix-webhook-tls", "prod-affix-webhook"),
    ] {
        let place = ["--namespace", "platform"];
        let object = cluster.get(&[&[object], &place[..]].concat()).await;
        let owner = &object["metadata"]["ownerReferences"][0];
        let deployment = ["deployment", deployment];
        let deployment = cluster.get(&[&deployment[..], &place[..]].concat()).await;
        assert_eq!(
            (&owner["kind"], &owner["name"], &owner["uid"]),
            (
                &json!("Deployment"),
                &deployment["metadata"]["name"],
                &deployment["metadata"]["uid"]
            )
        );
    }
    let became_leader = || async {
        let events = cluster.get(&["events", "--namespace", "platform"]).await;
        let mut events = events["items"].as_array().unwrap().iter();
        let is_announced = events.any(|event| {
            event["reason"] == "LeaderElection"
                && event["involvedObject"]["kind"] == "Lease"
                && event["message"]
                    .as_str()
                    .is_some_and(|message| message.ends_with(" became leader"))
        });
        is_announced.then_some(()).ok_or("no event".to_owned())
    };
    controller.wait(became_leader).await.unwrap();
    let secrets = cluster.get(&["secrets", "--namespace", "platform"]).await;
    let secret = &secrets["items"][0]["metadata"]["name"];
    assert_eq!(secret, "prod-affix-webhook-tls");
    assert_eq!(
        cluster.get(&["secrets", "--namespace", NAMESPACE]).await["items"],
        json!([])
    );
    webhook.stop().await.unwrap();
    controller.stop().await.unwrap();
}
