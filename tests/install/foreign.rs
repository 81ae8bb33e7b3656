//! Objects for tools of other projects. The API server validates them against the CRDs of those projects and rejects unknown fields.

use std::time::Instant;

use affix_testbed::go_module;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::cluster::{Cluster, PATIENCE, POLL};
use crate::support::golden::read;
use crate::support::objects::is_test;

/// The Go modules of the projects, and the CRDs in them.
const DEFINITIONS: [(&str, &str, &[&str]); 6] = [
    (
        "github.com/cert-manager/cert-manager@v1.21.2",
        "deploy/crds",
        &[
            "cert-manager.io_certificates.yaml",
            "cert-manager.io_issuers.yaml",
            "cert-manager.io_clusterissuers.yaml",
        ],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.90.1",
        "example/prometheus-operator-crd",
        &[
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
        ],
    ),
    (
        "github.com/fluxcd/kustomize-controller@v1.9.6",
        "config/crd/bases",
        &["kustomize.toolkit.fluxcd.io_kustomizations.yaml"],
    ),
    (
        "github.com/argoproj/argo-cd/v3@v3.3.2",
        "manifests/crds",
        &["application-crd.yaml"],
    ),
    (
        "github.com/openreports/reports-api@v0.2.1",
        "config/crd",
        &["openreports.io_reports.yaml"],
    ),
    (
        "github.com/kyverno/kyverno@v1.19.1",
        "config/crds/policyreport",
        &["wgpolicyk8s.io_policyreports.yaml"],
    ),
];

/// Values that enable all objects for other projects, except for the ServiceMonitor.
const VALUES: [&str; 13] = [
    "webhook.certificate.duration=\"2160h\"",
    "webhook.certificate.renewBefore=\"360h\"",
    r#"podMonitor.relabelings=[{"sourceLabels":["__meta_kubernetes_pod_node_name"],"targetLabel":"node"}]"#,
    r#"podMonitor.metricRelabelings=[{"sourceLabels":["le"],"regex":"0.005","action":"drop"}]"#,
    "webhook.certificate.mode=\"cert-manager\"",
    "podMonitor.enabled=true",
    r#"podMonitor.labels={"release":"prometheus"}"#,
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "networkPolicy.enabled=true",
    "controller.replicas=2",
    "crds.enabled=true",
    r#"commonLabels={"example.com/owner":"platform"}"#,
];

pub(crate) async fn define(cluster: &Cluster) {
    for (path, folder, files) in DEFINITIONS {
        let folder = go_module::folder(path).await.unwrap().join(folder);
        for file in files {
            let definition = folder.join(file);
            cluster
                .kubectl(&["apply", "--server-side", "-f", definition.to_str().unwrap()])
                .await;
        }
    }
    // kubectl fails on a CRD that has no conditions yet, hence the repetition.
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waited = cluster.plane.kubectl(wait).await.unwrap();
        if waited.status.success() {
            break;
        }
        assert!(Instant::now() < deadline, "{}", waited.err);
        sleep(POLL).await;
    }
}

/// Applies objects with strict field validation. The error is the rejection of the API server.
async fn apply(cluster: &Cluster, objects: &[Value]) -> Result<(), String> {
    let list =
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let arguments = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    let ran = cluster.plane.kubectl_with(arguments, list).await.unwrap();
    if ran.status.success() && !ran.err.to_lowercase().contains("warning") {
        Ok(())
    } else {
        Err(format!("{}{}", ran.out, ran.err))
    }
}

/// Returns the YAML blocks of a page.
fn examples(page: &str) -> Vec<String> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// Returns the object with one misspelt field in its spec.
fn misspelt(object: &Value) -> Value {
    let mut wrong = object.clone();
    let spec = wrong["spec"].as_object_mut().unwrap();
    let field = spec.keys().next().unwrap().clone();
    let value = spec[&field].clone();
    spec.insert(format!("{field}Misspelt"), value);
    wrong
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build, and the modules of others"]
async fn chart_and_gitops_objects_of_other_projects_have_only_known_fields() {
    let cluster = Cluster::new().await;
    define(&cluster).await;
    for namespace in ["team-a", "argocd"] {
        cluster.namespace(namespace).await;
    }
    // The CRD first, because kubectl reads the known kinds before it applies a list.
    let objects: Vec<Value> = cluster
        .helm
        .objects(&VALUES)
        .await
        .into_iter()
        .filter(|object| !is_test(object))
        .collect();
    let (definitions, objects): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| object["kind"] == "CustomResourceDefinition");
    apply(&cluster, &definitions).await.unwrap();
    cluster.established().await;
    apply(&cluster, &objects).await.unwrap();

    let mut examples: Vec<Value> = examples(&read("docs/gitops.md"))
        .iter()
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        .collect();
    // A block without a kind belongs to the example before it.
    let ignored = examples.pop().unwrap();
    let application = examples.last_mut().unwrap();
    assert!(
        ignored["kind"].is_null() && application["kind"] == "Application",
        "{ignored} {application}"
    );
    application["spec"]
        .as_object_mut()
        .unwrap()
        .extend(ignored.as_object().unwrap().clone());
    apply(&cluster, &examples).await.unwrap();

    // The check itself: an unknown field is rejected.
    let mut values = VALUES.to_vec();
    values.retain(|value| !value.starts_with("podMonitor.enabled"));
    values.extend([
        "serviceMonitor.enabled=true",
        "serviceMonitor.namespace=\"team-a\"",
        "serviceMonitor.scrapeTimeout=\"10s\"",
        "serviceMonitor.honorLabels=true",
        r#"serviceMonitor.relabelings=[{"sourceLabels":["__meta_kubernetes_pod_node_name"],"targetLabel":"node"}]"#,
        r#"serviceMonitor.metricRelabelings=[{"sourceLabels":["le"],"regex":"0.005","action":"drop"}]"#,
    ]);
    let monitor = cluster.helm.objects(&values).await;
    let monitor = monitor
        .into_iter()
        .filter(|object| object["kind"] == "ServiceMonitor");
    let monitors: Vec<Value> = monitor.collect();
    apply(&cluster, &monitors).await.unwrap();

    let ours = [
        "Certificate",
        "Issuer",
        "PodMonitor",
        "PrometheusRule",
        "ServiceMonitor",
    ];
    let theirs: Vec<&Value> = objects
        .iter()
        .filter(|object| ours.contains(&object["kind"].as_str().unwrap()))
        .chain(&monitors)
        .chain(&examples)
        .collect();
    assert_eq!(theirs.len(), ours.len() + 2, "{theirs:#?}");
    for object in theirs {
        let refusal = apply(&cluster, &[misspelt(object)]).await.unwrap_err();
        assert!(refusal.contains("Misspelt"), "{refusal}");
    }
}
