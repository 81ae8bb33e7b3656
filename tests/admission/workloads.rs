//! Workloads with the real kube-controller-manager: their events and conditions show why pods are
//! refused.

use affix_testbed::control_plane::{ControlPlane, ControllerManager};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Registry, User};
use affix_testbed::tools::{Tool, Tools};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::marked_images::{ENDED, KINDS, login, mark, push, refused, webhook};
use crate::support::namespace::{TestNamespace, output, wait_for};
use crate::support::process::Affix;

/// A control plane with service accounts and the workload controllers.
struct Cluster {
    plane: ControlPlane,
    _manager: ControllerManager,
}

async fn namespace(about: &str) -> TestNamespace {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let tools = Tools::with(&[Tool::ControllerManager]).await.unwrap();
    let cluster = CLUSTER.get_or_init(|| async {
        let plane = ControlPlane::start_with_service_accounts(&tools)
            .await
            .unwrap();
        let manager = ControllerManager::start(&tools, &plane).await.unwrap();
        Cluster {
            plane,
            _manager: manager,
        }
    });
    let plane = &cluster.await.plane;
    let namespace = TestNamespace::on(
        plane,
        &INSTALLED,
        tools,
        about,
        json!({"affix.dev/end-of-life": "enforce"}),
    )
    .await;
    wait_for("the service account", async || {
        namespace
            .kubectl(&["get", "serviceaccount", "default"])
            .await
            .stdout()
            .is_ok()
    })
    .await;
    namespace
}

impl TestNamespace {
    /// Returns the messages of the warning events about objects of a kind.
    async fn warnings(&self, kind: &str) -> String {
        let args = [
            "get",
            "events",
            "--field-selector",
            &format!("involvedObject.kind={kind},type=Warning"),
        ];
        self.kubectl(
            &[
                &args[..],
                &[
                    "-o",
                    "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
                ],
            ]
            .concat(),
        )
        .await
        .stdout()
        .unwrap()
    }

    /// Returns the number of pods.
    async fn pods(&self) -> usize {
        self.kubectl(&["get", "pods", "-o", "name"])
            .await
            .stdout()
            .unwrap()
            .lines()
            .count()
    }
}

#[tokio::test]
async fn events_of_replica_sets_and_jobs_show_why_their_pods_are_refused() {
    for start in KINDS {
        let namespace = namespace("made").await;
        let registry = start(&namespace.tools).start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
        let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
        mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
        let _webhook = webhook(&namespace, &registry, &[]).await;
        // Cached before the controllers, which retry with increasing delays, create their pods.
        refused(&namespace, &old.tagged(), json!({})).await;

        let deployed = output(
            namespace
                .kubectl(&["create", "deployment", "app", "--image", &old.tagged()])
                .await,
        )
        .unwrap();
        assert!(
            deployed.contains(&format!("Warning: image {} {ENDED}", old.tagged())),
            "{deployed}"
        );
        let cause = format!(
            "admission webhook \"pods.affix.dev\" denied the request: image {} {ENDED}: run a newer image",
            old.tagged()
        );
        let refusal = format!("FailedCreate: Error creating: {cause}");
        let mut events = String::new();
        wait_for("the event of the ReplicaSet", async || {
            events = namespace.warnings("ReplicaSet").await;
            events.contains(&refusal)
        })
        .await;
        let condition = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        wait_for("the Deployment's condition", async || {
            namespace
                .kubectl(&["get", "deployment", "app", "-o", condition])
                .await
                .stdout()
                .unwrap()
                .contains(&cause)
        })
        .await;
        namespace
            .kubectl(&["create", "job", "once", "--image", &old.tagged()])
            .await
            .stdout()
            .unwrap();
        wait_for("the event of the Job", async || {
            namespace.warnings("Job").await.contains(&cause)
        })
        .await;
        assert_eq!(namespace.pods().await, 0, "{events}");

        // A new image, and an init container past its end of life: still no pods.
        let init = json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "first", "image": old.tagged()}], "containers": [{"name": "app", "image": good.tagged()}]
        }}}})
        .to_string();
        let patched = output(
            namespace
                .kubectl(&["patch", "deployment", "app", "-p", &init])
                .await,
        )
        .unwrap();
        assert!(patched.contains(ENDED), "{patched}");
        wait_for("both ReplicaSets' events", async || {
            namespace
                .warnings("ReplicaSet")
                .await
                .matches(&refusal)
                .count()
                >= 2
        })
        .await;
        assert_eq!(namespace.pods().await, 0);
        // All images are current.
        let without = r#"[{"op": "remove", "path": "/spec/template/spec/initContainers"}]"#;
        let patched = output(
            namespace
                .kubectl(&[
                    "patch",
                    "deployment",
                    "app",
                    "--type",
                    "json",
                    "-p",
                    without,
                ])
                .await,
        )
        .unwrap();
        assert!(!patched.contains("Warning"), "{patched}");
        wait_for("a pod", async || namespace.pods().await == 1).await;
    }
}

#[tokio::test]
async fn the_pull_secrets_of_the_service_account_are_used() {
    let tools = Tools::core().await.unwrap();
    let alice = User::new("alice", "hunter2").may("team/*", &["pull"]);
    for start in [
        Registry::distribution(&tools).basic("alice", "hunter2"),
        Registry::ociregistry(&tools).tokens([alice]),
    ] {
        let namespace = namespace("account").await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
        let old = push(&registry, "old").await;
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let _webhook = webhook(&namespace, &registry, &[]).await;
        let text = namespace.try_pod(&old.tagged(), json!({})).await.unwrap();
        assert!(text.contains("was not checked for end of life"), "{text}");
        namespace.apply(&login(&registry)).await.unwrap();
        namespace
            .kubectl(&[
                "patch",
                "serviceaccount",
                "default",
                "-p",
                r#"{"imagePullSecrets": [{"name": "login"}]}"#,
            ])
            .await
            .stdout()
            .unwrap();
        let text = refused(&namespace, &old.tagged(), json!({})).await;
        assert!(text.contains(ENDED), "{text}");
    }
}

#[tokio::test]
async fn the_shipped_rbac_is_sufficient_for_all_functions_of_the_webhook() {
    let namespace = namespace("rights").await;
    let kubectl = async |args: &[&str], input: &str| {
        namespace
            .plane
            .kubectl_with(args.iter().copied(), input)
            .await
            .unwrap()
            .stdout()
            .unwrap()
    };
    kubectl(&["create", "namespace", "affix-system"], "").await;
    kubectl(
        &["apply", "-f", "-"],
        include_str!("../../config/webhook/rbac.yaml"),
    )
    .await;
    let registry = Registry::distribution(&namespace.tools)
        .basic("alice", "hunter2")
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let webhook = Affix::installed(&namespace, &["--insecure-registries", registry.host()]).await;

    // Pull secrets, and labels that change at run time.
    namespace.apply(&login(&registry)).await.unwrap();
    let with_login = json!({"imagePullSecrets": [{"name": "login"}]});
    refused(&namespace, &old.tagged(), with_login.clone()).await;
    kubectl(
        &[
            "label",
            "namespace",
            &namespace.name,
            "affix.dev/resolve-digests=enabled",
        ],
        "",
    )
    .await;
    let pinned = format!("{}@{}", good.tagged(), good.digest());
    let mut tries = 0;
    wait_for("a digest", async || {
        tries += 1;
        let name = format!("pod-{tries}");
        namespace
            .apply(&TestNamespace::pod(
                &name,
                &good.tagged(),
                with_login.clone(),
            ))
            .await
            .unwrap();
        let image = [
            "get",
            "pod",
            &name,
            "-o",
            "jsonpath={.spec.containers[0].image}",
        ];
        namespace.kubectl(&image).await.stdout().unwrap() == pinned
    })
    .await;
    // The annotation of a signing key.
    namespace
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}}))
        .await
        .unwrap();
    let signed = json!({"image": good.tagged(), "insecure": true, "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    let mut index = 0;
    wait_for("the warning about an unrestricted key", async || {
        index += 1;
        let signed = TestNamespace::attachment(&format!("signed-{index}"), &signed);
        namespace
            .apply(&signed)
            .await
            .unwrap()
            .contains("the key Secret key signs a tag in any repository: add the annotation affix.dev/repositories")
    })
    .await;
    warns_before_an_outage(&namespace, &kubectl).await;
    replaces_its_certificate(&namespace).await;
    refused(&namespace, &old.tagged(), with_login).await;
    let log = webhook.process.log().unwrap();
    assert!(!log.contains("orbidden"), "{log}");
}

/// Labels the namespace, and scales a workload, so that the webhook lists pods and reads workloads.
async fn warns_before_an_outage(
    namespace: &TestNamespace,
    kubectl: &impl AsyncFn(&[&str], &str) -> String,
) {
    for value in ["audit", "enforce"] {
        let label = format!("affix.dev/end-of-life={value}");
        let args = ["label", "--overwrite", "namespace", &namespace.name, &label];
        let said = output(namespace.kubectl(&args).await).unwrap();
        assert!(!said.contains("were not checked: "), "{said}");
    }
    let labels = json!({"app": "scaled"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "registry.example.com/a:v1"}]}});
    for (kind, version) in [
        ("Deployment", "apps/v1"),
        ("StatefulSet", "apps/v1"),
        ("ReplicaSet", "apps/v1"),
        ("ReplicationController", "v1"),
    ] {
        let selector = match version {
            "v1" => labels.clone(),
            _ => json!({"matchLabels": labels}),
        };
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "scaled", "namespace": namespace.name}, "spec": {"replicas": 0, "selector": selector, "template": template}});
        kubectl(&["apply", "-f", "-"], &object.to_string()).await;
        let name = format!("{kind}/scaled");
        let said = output(namespace.kubectl(&["scale", &name, "--replicas=1"]).await).unwrap();
        assert!(
            said.contains("not checked for end of life") && !said.contains("403"),
            "{kind}: {said}"
        );
    }
}

/// Deletes the Secret of the certificate and waits for a new one.
async fn replaces_its_certificate(namespace: &TestNamespace) {
    let kubectl =
        async |args: &[&str]| namespace.plane.kubectl(args.iter().copied()).await.unwrap();
    let of_secret = [
        "get",
        "secret",
        "affix-webhook-tls",
        "--namespace",
        "affix-system",
        "-o",
        "jsonpath={.data.tls\\.crt}",
    ];
    let first = kubectl(&of_secret).await.stdout().unwrap();
    kubectl(&[
        "delete",
        "secret",
        "affix-webhook-tls",
        "--namespace",
        "affix-system",
    ])
    .await
    .stdout()
    .unwrap();
    wait_for("a new certificate", async || {
        let found = namespace
            .plane
            .kubectl(of_secret)
            .await
            .unwrap()
            .stdout()
            .unwrap_or_default();
        !found.is_empty() && found != first
    })
    .await;
}
