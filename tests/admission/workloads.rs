//! What makes pods, by the real kube-controller-manager: people read there why theirs do not start.

use affix_testbed::control_plane::{ControlPlane, ControllerManager};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Registry, User};
use affix_testbed::tools::{Tool, Tools};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::place::{Place, said, wait};
use crate::pods::{ENDED, KINDS, login, mark, push, refused, webhook};
use crate::webhook::Affix;

/// A control plane whose pods get a service account, with the controllers that make pods.
struct Cluster {
    plane: ControlPlane,
    _manager: ControllerManager,
}

async fn place(about: &str) -> Place {
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
    let place = Place::on(
        plane,
        &INSTALLED,
        tools,
        about,
        json!({"affix.dev/end-of-life": "enforce"}),
    )
    .await;
    wait("the service account", async || {
        place
            .kubectl(&["get", "serviceaccount", "default"])
            .await
            .stdout()
            .is_ok()
    })
    .await;
    place
}

impl Place {
    /// The messages of the warnings about objects of a kind.
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

    /// How many pods there are.
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
async fn the_events_of_a_replica_set_and_of_a_job_say_why_their_pods_are_refused() {
    for start in KINDS {
        let place = place("made").await;
        let registry = start(&place.tools).start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
        mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
        let _webhook = webhook(&place, &registry, &[]).await;
        // Known before the controllers, which ask again ever more rarely, come to it.
        refused(&place, &old.tagged(), json!({})).await;

        let deployed = said(
            place
                .kubectl(&["create", "deployment", "app", "--image", &old.tagged()])
                .await,
        )
        .unwrap();
        assert!(
            deployed.contains(&format!("Warning: image {} {ENDED}", old.tagged())),
            "{deployed}"
        );
        let why = format!(
            "admission webhook \"pods.affix.dev\" denied the request: image {} {ENDED}: run a newer image",
            old.tagged()
        );
        let refusal = format!("FailedCreate: Error creating: {why}");
        let mut events = String::new();
        wait("the event of the ReplicaSet", async || {
            events = place.warnings("ReplicaSet").await;
            events.contains(&refusal)
        })
        .await;
        let condition = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        wait("the Deployment's condition", async || {
            place
                .kubectl(&["get", "deployment", "app", "-o", condition])
                .await
                .stdout()
                .unwrap()
                .contains(&why)
        })
        .await;
        place
            .kubectl(&["create", "job", "once", "--image", &old.tagged()])
            .await
            .stdout()
            .unwrap();
        wait("the event of the Job", async || {
            place.warnings("Job").await.contains(&why)
        })
        .await;
        assert_eq!(place.pods().await, 0, "{events}");

        // A newer image, and an init container that is out of life: still none.
        let aside = json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "first", "image": old.tagged()}], "containers": [{"name": "app", "image": good.tagged()}]
        }}}})
        .to_string();
        let patched = said(
            place
                .kubectl(&["patch", "deployment", "app", "-p", &aside])
                .await,
        )
        .unwrap();
        assert!(patched.contains(ENDED), "{patched}");
        wait("both ReplicaSets' events", async || {
            place.warnings("ReplicaSet").await.matches(&refusal).count() >= 2
        })
        .await;
        assert_eq!(place.pods().await, 0);
        // And now all of it is good.
        let without = r#"[{"op": "remove", "path": "/spec/template/spec/initContainers"}]"#;
        let patched = said(
            place
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
        wait("a pod", async || place.pods().await == 1).await;
    }
}

#[tokio::test]
async fn the_pull_secrets_of_a_pods_service_account_are_used() {
    let tools = Tools::core().await.unwrap();
    let alice = User::new("alice", "hunter2").may("team/*", &["pull"]);
    for start in [
        Registry::distribution(&tools).basic("alice", "hunter2"),
        Registry::ociregistry(&tools).tokens([alice]),
    ] {
        let place = place("account").await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let old = push(&registry, "old").await;
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let _webhook = webhook(&place, &registry, &[]).await;
        let text = place.try_pod(&old.tagged(), json!({})).await.unwrap();
        assert!(text.contains("was not checked for end of life"), "{text}");
        place.apply(&login(&registry)).await.unwrap();
        place
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
        let text = refused(&place, &old.tagged(), json!({})).await;
        assert!(text.contains(ENDED), "{text}");
    }
}

#[tokio::test]
async fn the_rights_that_ship_are_enough_for_all_that_the_webhook_does() {
    let place = place("rights").await;
    let kubectl = async |args: &[&str], input: &str| {
        place
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
    let registry = Registry::distribution(&place.tools)
        .basic("alice", "hunter2")
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&place.tools, &registry).unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let webhook = Affix::installed(&place, &["--insecure-registries", registry.host()]).await;

    // Pull secrets, and labels that change while it runs.
    place.apply(&login(&registry)).await.unwrap();
    let with_login = json!({"imagePullSecrets": [{"name": "login"}]});
    refused(&place, &old.tagged(), with_login.clone()).await;
    kubectl(
        &[
            "label",
            "namespace",
            &place.name,
            "affix.dev/resolve-digests=enabled",
        ],
        "",
    )
    .await;
    let pinned = format!("{}@{}", good.tagged(), good.digest());
    let mut tries = 0;
    wait("a digest", async || {
        tries += 1;
        let name = format!("pod-{tries}");
        place
            .apply(&Place::pod(&name, &good.tagged(), with_login.clone()))
            .await
            .unwrap();
        let image = [
            "get",
            "pod",
            &name,
            "-o",
            "jsonpath={.spec.containers[0].image}",
        ];
        place.kubectl(&image).await.stdout().unwrap() == pinned
    })
    .await;
    // The annotation of a key.
    place
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}}))
        .await
        .unwrap();
    let signed = json!({"image": good.tagged(), "insecure": true, "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    let mut nth = 0;
    wait("the warning of a key that signs anywhere", async || {
        nth += 1;
        let signed = Place::attachment(&format!("signed-{nth}"), &signed);
        place
            .apply(&signed)
            .await
            .unwrap()
            .contains("a tag is signed with the key")
    })
    .await;
    // Its certificate.
    let of_secret = [
        "get",
        "secret",
        "affix-webhook-tls",
        "--namespace",
        "affix-system",
        "-o",
        "jsonpath={.data.tls\\.crt}",
    ];
    let first = kubectl(&of_secret, "").await;
    kubectl(
        &[
            "delete",
            "secret",
            "affix-webhook-tls",
            "--namespace",
            "affix-system",
        ],
        "",
    )
    .await;
    wait("a new certificate", async || {
        let found = place
            .plane
            .kubectl(of_secret)
            .await
            .unwrap()
            .stdout()
            .unwrap_or_default();
        !found.is_empty() && found != first
    })
    .await;
    refused(&place, &old.tagged(), with_login).await;
    let log = webhook.process.log().unwrap();
    assert!(!log.contains("orbidden"), "{log}");
}
