//! The alerts on the metrics of a running operator, judged by Prometheus's own engine.
//!
//! A second here is two minutes there: the scrapes are real, half a second apart, and the judge is told that they are a minute apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use affix::api::Reason;
use affix_testbed::certificates::Authority;
use affix_testbed::hostile::{HostileRegistry, Matcher, Reply, RetryAfter};
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::sets::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::Namespace;

const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/charts/affix/files/alerts.yaml"
);
/// Every alert of that file.
const ALERTS: [&str; 10] = [
    "AffixResourcesFailing",
    "AffixSetsFailing",
    "AffixSetNeedsConfirmation",
    "AffixRegistryThrottles",
    "AffixNoLeader",
    "AffixApiServerRefuses",
    "AffixCertificateExpires",
    "AffixWebhookCertificateExpires",
    "AffixWebhookWithoutEffect",
    "AffixWebhookFailsOpen",
];

/// Real scrapes, a minute apart by the clock of the judge.
struct Scrapes {
    begun: f64,
    all: Vec<Value>,
}

impl Scrapes {
    fn new() -> Self {
        Self {
            begun: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs_f64(),
            all: Vec::new(),
        }
    }

    /// What the instances served, each by its name.
    fn add(&mut self, texts: &[(&str, String)]) {
        let minutes = u32::try_from(self.all.len()).unwrap();
        let texts: BTreeMap<_, _> = texts.iter().cloned().collect();
        self.all
            .push(json!({"at": self.begun + 60.0 * f64::from(minutes), "texts": texts}));
    }

    /// Scrapes the instances, and the count of fail-open admissions from the API server.
    async fn of(
        &mut self,
        namespace: &Namespace,
        instances: &[(&'static str, &Controller)],
        count: usize,
    ) {
        for _ in 0..count {
            let mut texts = vec![("apiserver", fail_open_count(namespace).await)];
            for (name, instance) in instances {
                texts.push((*name, instance.metrics().await));
            }
            self.add(&texts);
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// The names of the alerts that fire at each scrape.
    async fn judge(&self, tools: &Tools) -> Vec<BTreeSet<String>> {
        let rules = Run::new(tools.path(Tool::Rules).unwrap())
            .args([RULES])
            .input(serde_json::to_vec(&self.all).unwrap());
        let firing = rules.output().await.unwrap().json().unwrap();
        let names = |alerts: &Value| {
            let alerts = alerts.as_array().unwrap().iter();
            for alert in alerts.clone() {
                let words = alert["annotations"].to_string();
                assert!(
                    !words.contains("error expanding") && !words.contains("<no value>"),
                    "{words}"
                );
            }
            alerts
                .map(|alert| alert["name"].as_str().unwrap().to_owned())
                .collect()
        };
        firing.as_array().unwrap().iter().map(names).collect()
    }
}

/// Returns the metric of the API server in the OpenMetrics format.
async fn fail_open_count(namespace: &Namespace) -> String {
    let metrics = namespace.plane.kubectl(["get", "--raw", "/metrics"]);
    let metrics = metrics.await.unwrap().stdout().unwrap();
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_admission_webhook_fail_open_count"))
        .map(|line| format!("{line}\n"));
    counts.chain(["# EOF\n".to_owned()]).collect()
}

/// Creates a webhook configuration for pods of the namespace that calls a closed port.
async fn configure(namespace: &Namespace, name: &str) {
    let address = format!("127.0.0.1:{}", affix_testbed::port::free().unwrap());
    let authority = Authority::new().unwrap();
    let bundle =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, authority.pem());
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "pods.affix.dev", "sideEffects": "None", "failurePolicy": "Ignore", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{address}/validate-pods"), "caBundle": bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        }],
    });
    let apply = namespace
        .plane
        .kubectl_with(["apply", "-f", "-"], configuration.to_string());
    apply.await.unwrap().stdout().unwrap();
}

/// A ServiceAccount that may do all that the operator needs, but for reading ConfigMaps.
async fn without_config_maps(namespace: &Namespace) -> std::path::PathBuf {
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "affix"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "affix"}, "rules": [
            {"apiGroups": ["affix.dev"], "resources": ["imageattachments"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
            {"apiGroups": ["affix.dev"], "resources": ["imageattachmentsets"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["affix.dev"], "resources": ["imageattachments/status", "imageattachmentsets/status"], "verbs": ["patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "affix"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "affix"},
         "subjects": [{"kind": "ServiceAccount", "name": "affix", "namespace": namespace.name}]},
    ]});
    let apply = namespace.plane.kubectl_with(
        ["apply", "--namespace", &namespace.name, "-f", "-"],
        role.to_string(),
    );
    apply.await.unwrap().stdout().unwrap();
    namespace
        .plane
        .service_account_kubeconfig(&namespace.name, "affix")
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn each_alert_fires_on_a_troubled_operator_and_none_on_a_healthy_one() {
    let tools = Tools::with(&[Tool::Rules]).await.unwrap();
    let namespace = Namespace::new("alerts").await;
    let kubeconfig = without_config_maps(&namespace).await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let signed = |key: &str| json!({"image": image, "insecure": true, "signature": {"notation": {"keySecretRef": {"name": key}}}});
    let authority = Authority::new().unwrap();
    let controller = Controller::start_in(
        &namespace,
        &[],
        &[("KUBECONFIG", kubeconfig.to_str().unwrap())],
    )
    .await;
    let mounted = tempfile::tempdir().unwrap();
    let certify = |days: u64| {
        authority
            .server_named(
                mounted.path(),
                &["127.0.0.1"],
                Duration::from_hours(24 * days),
            )
            .unwrap()
    };
    certify(90);
    configure(&namespace, &namespace.name).await;
    let (webhook, _) = Controller::start_webhook(&namespace, mounted.path()).await;
    let both = [("controller", &controller), ("webhook", &webhook)];
    let mut scrapes = Scrapes::new();

    namespace
        .tls(
            "fresh",
            &authority
                .signer_for(Duration::from_hours(24 * 300))
                .unwrap(),
        )
        .await;
    namespace.apply("signed", signed("fresh")).await;
    namespace.apply("noted", note(&image)).await;
    for name in ["signed", "noted"] {
        namespace.ready(name).await;
    }
    let absent = note(&registry.reference("team/app:absent"));
    namespace.apply("held", absent.clone()).await;
    namespace.refused("held", Reason::NotFound).await;
    namespace
        .apply("held", with(absent, json!({"suspend": true})))
        .await;
    namespace.suspended("held").await;
    let sets = Sets::of(&namespace);
    for tag in ["v1.0.0", "v1.1.0"] {
        release(&registry, tag);
    }
    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "2/2").await;
    sets.apply("planned", notes(&registry, json!({"dryRun": true})))
        .await;
    sets.refused("planned", Reason::Planned).await;
    // Longer than any alert waits.
    scrapes.of(&namespace, &both, 20).await;
    let healthy = scrapes.all.len();

    // A configuration that is gone, an API server that fails open, certificates about to end, a resource that fails, an API server that refuses, a registry that throttles.
    let delete = ["delete", "validatingwebhookconfiguration", &namespace.name];
    let deleted = namespace.plane.kubectl(delete).await.unwrap();
    deleted.stdout().unwrap();
    let unreachable = format!("{}-unreachable", namespace.name);
    configure(&namespace, &unreachable).await;
    certify(1);
    namespace
        .tls(
            "ending",
            &authority.signer_for(Duration::from_hours(24 * 5)).unwrap(),
        )
        .await;
    namespace.apply("ending", signed("ending")).await;
    namespace.ready("ending").await;
    namespace
        .apply("absent", note(&registry.reference("team/app:absent")))
        .await;
    namespace.refused("absent", Reason::NotFound).await;
    let gone = json!({"repositories": [registry.reference("team/gone")]});
    let unconfirmed = json!({
        "lifecycle": {"keep": {"minors": 1}, "gracePeriod": "0s", "settle": "0s", "maxNewMarks": 0},
        "template": {"spec": {"insecure": true, "endOfLife": {}}},
    });
    for (name, fields, reason) in [
        ("gone", gone, Reason::NotFound),
        ("unconfirmed", unconfirmed, Reason::TooManyMarks),
    ] {
        sets.apply(name, with(notes(&registry, json!({})), fields))
            .await;
        sets.refused(name, reason).await;
    }
    let mut refused = note(&image);
    refused["artifact"]["files"] =
        json!([{"name": "a", "valueFrom": {"configMapKeyRef": {"name": "any", "key": "a"}}}]);
    namespace.apply("refused", refused).await;
    let message = namespace.refused("refused", Reason::FileMissing).await;
    assert!(
        message.contains("configmaps \"any\" is forbidden")
            && message.contains("grant affix the permission to get it"),
        "{message}"
    );
    let throttling = HostileRegistry::start().await.unwrap();
    throttling.fault(
        Matcher::any(),
        Reply::status(429).retry_after(RetryAfter::Seconds(600)),
    );
    namespace
        .apply("throttled", note(&throttling.reference("team/app:v1")))
        .await;
    namespace.refused("throttled", Reason::RateLimited).await;
    let troubled: BTreeSet<String> = ALERTS
        .iter()
        .filter(|name| **name != "AffixNoLeader")
        .map(|name| (*name).to_owned())
        .collect();
    let deadline = Instant::now() + Duration::from_mins(5);
    loop {
        for _ in 0..10 {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "any-", "namespace": namespace.name},
                "spec": {"containers": [{"name": "any", "image": "registry.example.com/any:v1"}]},
            });
            let create = ["create", "--dry-run=server", "-f", "-"];
            let created = namespace.plane.kubectl_with(create, pod.to_string());
            created.await.unwrap().stdout().unwrap();
            scrapes.of(&namespace, &both, 1).await;
        }
        let fired: BTreeSet<String> = scrapes.judge(&tools).await.into_iter().flatten().collect();
        if fired == troubled {
            break;
        }
        assert!(
            fired.is_subset(&troubled) && Instant::now() < deadline,
            "only {fired:?} fired"
        );
    }

    assert!(
        scrapes
            .judge(&tools)
            .await
            .iter()
            .take(healthy)
            .all(BTreeSet::is_empty)
    );

    // Nobody leads where the only replica may not have the Lease, and where none runs, whatever the webhook does. Prometheus looks back
    // for five minutes.
    let nobody_leads = BTreeSet::from(["AffixNoLeader".to_owned()]);
    certify(90);
    configure(&namespace, &namespace.name).await;
    let deadline = Instant::now() + Duration::from_mins(5);
    let missing = "configuration=\"validating\",problem=\"missing\"} 1";
    while webhook.metrics().await.contains(missing) {
        assert!(Instant::now() < deadline, "the configuration stays missing");
        sleep(Duration::from_millis(100)).await;
    }
    controller.kill().await;
    for name in [
        "signed",
        "noted",
        "ending",
        "absent",
        "refused",
        "throttled",
        "held",
    ] {
        namespace.delete(name).await;
    }
    for name in ["releases", "planned", "gone", "unconfirmed"] {
        sets.delete(name, DeleteParams::default()).await;
    }
    let election = [
        "--leader-elect",
        "--leader-election-namespace",
        &namespace.name,
    ];
    let controller = Controller::start_in(
        &namespace,
        &election,
        &[("KUBECONFIG", kubeconfig.to_str().unwrap())],
    )
    .await;
    let mut scrapes = Scrapes::new();
    scrapes
        .of(
            &namespace,
            &[("controller", &controller), ("webhook", &webhook)],
            8,
        )
        .await;
    assert_eq!(scrapes.judge(&tools).await.pop().unwrap(), nobody_leads);
    controller.kill().await;
    let mut scrapes = Scrapes::new();
    scrapes.of(&namespace, &[("webhook", &webhook)], 12).await;
    assert_eq!(scrapes.judge(&tools).await.pop().unwrap(), nobody_leads);
}

/// An alert that is due after 15 minutes fires as long as a resource fails, whatever its retries do to its conditions, and never on a
/// suspended one.
#[tokio::test]
#[ignore = "needs the judges of the testbed"]
async fn an_alert_fires_after_20_minutes_of_retries_and_is_silent_on_a_suspended_resource() {
    let tools = Tools::with(&[Tool::Rules]).await.unwrap();
    let (failing, suspended) = (
        Namespace::new("retried").await,
        Namespace::new("suspended").await,
    );
    let registry = HostileRegistry::start().await.unwrap();
    let absent = note(&registry.reference("team/app:absent"));
    let flags = ["--min-retry-delay", "50ms", "--max-retry-delay", "300ms"];
    let retries = Controller::start_with(&failing, &flags).await;
    let rests = Controller::start_with(&suspended, &flags).await;
    failing.apply("absent", absent.clone()).await;
    failing.refused("absent", Reason::NotFound).await;
    suspended.apply("held", absent.clone()).await;
    suspended.refused("held", Reason::NotFound).await;
    let held = with(absent, json!({"suspend": true}));
    suspended.apply("held", held).await;
    suspended.suspended("held").await;
    registry.clear();
    let (mut of_failing, mut of_suspended) = (Scrapes::new(), Scrapes::new());
    for _ in 0..21 {
        of_failing
            .of(&failing, &[("controller", &retries)], 1)
            .await;
        of_suspended
            .of(&suspended, &[("controller", &rests)], 1)
            .await;
    }
    assert!(
        registry.requests().len() >= 20,
        "a retry in each minute: {}",
        registry.transcript()
    );
    // The API server of the tests fails open for the webhooks of other tests.
    let fires = |alerts: &BTreeSet<String>| alerts.contains("AffixResourcesFailing");
    let fired: Vec<bool> = of_failing.judge(&tools).await.iter().map(fires).collect();
    let expected: Vec<bool> = (0..21).map(|minute| minute >= 15).collect();
    assert_eq!(fired, expected);
    let fired = of_suspended.judge(&tools).await;
    assert!(!fired.iter().any(fires), "{fired:?}");
}

#[test]
fn the_page_about_metrics_lists_each_alert_and_each_has_its_rehearsal() {
    let rules = std::fs::read_to_string(RULES).unwrap();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(alerts, ALERTS);
    let page = include_str!("../../docs/metrics.md");
    let runbook = include_str!("../../docs/troubleshooting.md");
    let headings: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let explained: BTreeSet<&str> = reasons.chain(ALERTS).collect();
    assert_eq!(headings, explained, "docs/troubleshooting.md");
    for alert in alerts {
        let url = format!(
            "runbook_url: https://affix.dev/troubleshooting#{}",
            alert.to_lowercase()
        );
        assert!(rules.contains(&url), "{url}");
        assert!(
            page.contains(&format!("| `{alert}` |")),
            "{alert} is not in docs/metrics.md"
        );
    }
}
