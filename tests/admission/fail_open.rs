//! Configurations that admit every object without a review: the webhook reports them.

use std::process::Stdio;

use affix_testbed::certificates::Authority;
use affix_testbed::port;
use serde_json::{Value, json};

use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

/// Returns a ValidatingWebhookConfiguration with the webhook for ImageAttachments of the namespace.
fn configuration(namespace: &TestNamespace, address: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace.name},
        "webhooks": [{
            "name": "imageattachments.affix.dev", "sideEffects": "None", "failurePolicy": "Ignore", "timeoutSeconds": 2,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{address}/validate-imageattachment")},
            "rules": [{"apiGroups": ["affix.dev"], "apiVersions": ["*"], "resources": ["imageattachments"], "operations": ["CREATE", "UPDATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        }],
    })
}

/// Starts a webhook that expects the configuration and checks itself in the namespace.
fn start(namespace: &TestNamespace, kubeconfig: &std::path::Path, more: &[&str]) -> Affix {
    let own = [
        "webhook",
        "--listen-addr",
        "127.0.0.1:0",
        "--validating-webhook-configuration",
        &namespace.name,
        "--mutating-webhook-configuration",
        "",
        "--self-check-namespace",
        &namespace.name,
    ];
    Affix::start_with(namespace, kubeconfig, &[&own[..], more].concat())
}

/// The probes of a webhook.
struct Probes {
    health: String,
    metrics: String,
}

impl Probes {
    async fn of(webhook: &mut Affix) -> Self {
        Self {
            health: webhook.serves("health").await,
            metrics: webhook.serves("metrics").await,
        }
    }

    /// Waits until `/readyz` is ok and has a line with `expected`, or no further line.
    async fn says(&self, expected: Option<&str>) {
        let mut last = String::new();
        wait_for(&format!("{expected:?} on /readyz"), async || {
            let answer = reqwest::get(format!("http://{}/readyz", self.health))
                .await
                .unwrap();
            let status = answer.status().as_u16();
            last = answer.text().await.unwrap();
            match expected {
                Some(part) => status == 200 && last.starts_with("ok\n") && last.contains(part),
                None => status == 200 && last == "ok\n",
            }
        })
        .await;
    }

    async fn problem(&self, problem: &str) -> bool {
        let url = format!("http://{}/metrics", self.metrics);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let series = format!(
            "affix_webhook_configuration_problems{{configuration=\"validating\",problem=\"{problem}\"}} "
        );
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("{text}")) == "1"
    }
}

/// Asserts that a warning in the log has `text`.
fn warns_of(webhook: &Affix, text: &str) {
    let log = webhook.process.log().unwrap();
    let is_warning = |line: &str| line.contains("WARN") && line.contains(text);
    assert!(log.lines().any(is_warning), "{text}: {log}");
}

/// Runs `affix webhook --self-check` as the test of the chart does.
async fn self_check(namespace: &TestNamespace, kubeconfig: &std::path::Path) -> (bool, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_affix"))
        .args(["webhook", "--self-check=1s", "--self-check-namespace"])
        .args([&namespace.name, "--log-format", "text"])
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    (ran.status.success(), text)
}

#[tokio::test]
async fn a_configuration_without_effect_is_reported_until_it_has_one() {
    let namespace = TestNamespace::new("silent", json!({})).await;
    let kubeconfig = namespace.plane.kubeconfig();
    let flags = ["--namespace", &namespace.name, "--dns-names", "127.0.0.1"];
    let mut webhook = start(&namespace, &kubeconfig, &flags);
    let (probes, address) = (
        Probes::of(&mut webhook).await,
        webhook.serves("webhooks").await,
    );

    // No configuration of that name, as after a renaming or a deletion.
    let missing = format!(
        "the ValidatingWebhookConfiguration {:?} does not exist: the API server admits everything without a review",
        namespace.name
    );
    probes.says(Some(&missing)).await;
    assert!(probes.problem("missing").await && !probes.problem("not_called").await);
    warns_of(&webhook, &missing);

    // The API server cannot reach the webhook.
    let closed = format!("127.0.0.1:{}", port::free().unwrap());
    namespace
        .apply(&configuration(&namespace, &closed))
        .await
        .unwrap();
    probes.says(Some("no call of the API server for")).await;
    assert!(probes.problem("not_called").await && !probes.problem("missing").await);
    warns_of(&webhook, "no call of the API server for");
    let (passed, text) = self_check(&namespace, &kubeconfig).await;
    assert!(
        !passed && text.contains("no call of the API server arrives"),
        "{text}"
    );

    // It can.
    namespace
        .apply(&configuration(&namespace, &address))
        .await
        .unwrap();
    probes.says(None).await;
    assert!(!probes.problem("not_called").await);
    wait_for("a self-check that passes", async || {
        self_check(&namespace, &kubeconfig).await.0
    })
    .await;
    let metrics = reqwest::get(format!("http://{}/metrics", probes.metrics));
    let metrics = metrics.await.unwrap().text().await.unwrap();
    assert!(
        !metrics.contains("affix_admission_reviews_total{webhook=\"validate-imageattachment\""),
        "self-checks count as reviews: {metrics}"
    );

    // It was deleted.
    let delete = ["delete", "validatingwebhookconfiguration", &namespace.name];
    namespace.kubectl(&delete).await.stdout().unwrap();
    probes.says(Some(&missing)).await;
    assert!(probes.problem("missing").await);
}

#[tokio::test]
async fn a_configuration_without_a_ca_bundle_is_reported() {
    let namespace = TestNamespace::new("bundle", json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    Authority::new().unwrap().server(dir.path()).unwrap();
    let flags = ["--certificate-dir", dir.path().to_str().unwrap()];
    let mut webhook = start(&namespace, &namespace.plane.kubeconfig(), &flags);
    let (probes, address) = (
        Probes::of(&mut webhook).await,
        webhook.serves("webhooks").await,
    );
    namespace
        .apply(&configuration(&namespace, &address))
        .await
        .unwrap();
    probes
        .says(Some("has no caBundle for imageattachments.affix.dev"))
        .await;
    wait_for("both problems", async || {
        probes.problem("no_ca_bundle").await && probes.problem("not_called").await
    })
    .await;
    warns_of(&webhook, "has no caBundle for imageattachments.affix.dev");
}

#[tokio::test]
async fn the_self_check_needs_a_permission_on_one_name_only() {
    let namespace = TestNamespace::new("checked", json!({})).await;
    let account = ["create", "serviceaccount", "webhook"];
    namespace.kubectl(&account).await.stdout().unwrap();
    let kubeconfig = namespace
        .plane
        .service_account_kubeconfig(&namespace.name, "webhook")
        .await
        .unwrap();
    let (passed, text) = self_check(&namespace, &kubeconfig).await;
    assert!(
        !passed && text.contains("the self-check is not possible: the API server answered 403"),
        "{text}"
    );
    // The Role of `config/`, for this namespace and account.
    let shipped = include_str!("../../config/webhook/rbac.yaml");
    for document in shipped.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document).unwrap();
        if object["metadata"]["name"] != "affix-webhook-self-check" {
            continue;
        }
        object["metadata"]["namespace"] = json!(namespace.name);
        if object["kind"] == "RoleBinding" {
            object["subjects"][0]["name"] = json!("webhook");
            object["subjects"][0]["namespace"] = json!(namespace.name);
        }
        namespace.apply(&object).await.unwrap();
    }
    wait_for("an admitted dry run", async || {
        let (_, text) = self_check(&namespace, &kubeconfig).await;
        text.contains("no call of the API server arrives: the API server admitted")
    })
    .await;
    // Another name is refused, and so is a creation without a name in its URL.
    let attachment = TestNamespace::attachment(
        "other",
        &json!({"image": "r.example.com/a:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}}),
    );
    for (name, args) in [
        ("other", &["apply", "--server-side"][..]),
        ("affix-self-check", &["create"][..]),
    ] {
        let mut object = attachment.clone();
        object["metadata"]["name"] = json!(name);
        let own = ["--kubeconfig", kubeconfig.to_str().unwrap()];
        let place = ["--namespace", &namespace.name, "-f", "-"];
        let all = [&own[..], args, &place[..]].concat();
        let ran = namespace.plane.kubectl_with(all, object.to_string());
        let refused = ran.await.unwrap().failure().unwrap();
        assert!(refused.contains("orbidden"), "{name}: {refused}");
    }
}
