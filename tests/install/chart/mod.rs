//! The objects of the chart for given values.

mod values;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionSpec;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::golden;
use crate::support::helm::{Helm, NAMESPACE};
use crate::support::objects::{anonymous, find, is_test, titles};

/// Sets of values with a snapshot in `snapshots/`, so that reviews show changes.
pub(crate) const CASES: [(&str, &[&str]); 6] = [
    ("defaults", &["crds.enabled=false"]),
    (
        "everything",
        &[
            "crds.enabled=false",
            "controller.replicas=2",
            "controller.leaderElection=true",
            "controller.extraArgs=[\"--max-referrers=100\"]",
            r#"controller.extraEnv=[{"name":"RUST_LOG","value":"debug"},{"name":"TZ","value":"UTC"}]"#,
            r#"controller.podLabels={"team":"platform"}"#,
            r#"controller.podAnnotations={"example.com/note":"a note"}"#,
            r#"controller.tolerations=[{"key":"dedicated","operator":"Exists"}]"#,
            r#"controller.affinity={"nodeAffinity":{}}"#,
            "controller.priorityClassName=\"system-cluster-critical\"",
            r#"controller.serviceAccount.annotations={"example.com/role":"affix"}"#,
            r#"commonLabels={"example.com/owner":"platform","app.kubernetes.io/part-of":"platform"}"#,
            r#"commonAnnotations={"example.com/note":"all"}"#,
            r#"extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"extra","labels":{"app.kubernetes.io/instance":"{{ .Release.Name }}"}}}]"#,
            "registries.caBundle=\"PEM\"",
            r#"proxy={"https":"http://proxy.example.com:3128","noProxy":".svc"}"#,
            "services.ipFamilyPolicy=\"PreferDualStack\"",
            r#"controller.deploymentAnnotations={"example.com/note":"deployment"}"#,
            r#"controller.serviceAccount.labels={"example.com/role":"affix"}"#,
            "controller.podDisruptionBudget.minAvailable=1",
            "controller.dnsPolicy=\"None\"",
            r#"controller.dnsConfig={"nameservers":["192.0.2.1"]}"#,
            r#"controller.hostAliases=[{"ip":"192.0.2.1","hostnames":["registry.example.com"]}]"#,
            "controller.runtimeClassName=\"gvisor\"",
            "controller.hostUsers=false",
            r#"controller.extraVolumes=[{"name":"scratch","emptyDir":{}}]"#,
            r#"controller.extraVolumeMounts=[{"name":"scratch","mountPath":"/scratch"}]"#,
            r#"controller.extraContainers=[{"name":"side","image":"registry.example.com/side:v1"}]"#,
            r#"controller.extraInitContainers=[{"name":"first","image":"registry.example.com/first:v1"}]"#,
            "webhook.hostNetwork=true",
            "webhook.ports.webhook=10260",
            r#"webhook.configurationAnnotations={"admissions.enforcer/disabled":"true"}"#,
            r#"webhook.namespaceSelector={"matchLabels":{"example.com/tier":"app"}}"#,
            r#"webhook.matchConditions=[{"name":"not-system","expression":"!request.userInfo.username.startsWith('system:')"}]"#,
            r#"imagePullSecrets=[{"name":"pull"}]"#,
            r#"image.digest="sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
            r#"registries.allowed=["registry.example.com","*.example.com:5000"]"#,
            r#"registries.uploadHosts=["store.example.com:9000"]"#,
            r#"registries.allowedSigningHosts=["bao.example.com:8200"]"#,
            r#"registries.clusterNetworks=["10.96.0.0/12","fd00:96::/108"]"#,
            "controller.tenantProxies=\"refuse\"",
            "controller.tenantAuthorities=\"refuse\"",
            "watchLabelSelector=\"affix.dev/shard=1\"",
            "networkPolicy.enabled=true",
            r#"networkPolicy.metricsFrom=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]"#,
            r#"webhook.lifecycleTypes=["application/vnd.demo.artifact.lifecycle"]"#,
            "webhook.lifecycleTrust=\"release-keys\"",
            r#"webhook.insecureRegistries=["registry.internal:5000"]"#,
            "webhook.unchecked=\"refuse\"",
            "webhook.defaultMode=\"warn\"",
            r#"webhook.exemptImages=["registry.example.com/platform/*"]"#,
            r#"webhook.imagePullSecrets=["registry-login"]"#,
            "webhook.reports.format=\"openreports\"",
            "webhook.provider=\"aws\"",
            "rbac.serviceAccountTokens=\"cluster\"",
            "webhook.clientCA.secretName=\"apiserver-ca\"",
            r#"networkPolicy.webhookFrom=[{"ipBlock":{"cidr":"192.0.2.10/32"}}]"#,
            "podMonitor.enabled=true",
            r#"podMonitor.labels={"release":"prometheus"}"#,
        ],
    ),
    (
        "namespaced",
        &[
            "crds.enabled=false",
            r#"watchNamespaces=["team-a","team-b"]"#,
            "rbac.secrets=\"namespaces\"",
            r#"rbac.secretNamespaces=["team-a"]"#,
            "rbac.serviceAccountTokens=\"namespaces\"",
            r#"rbac.serviceAccountTokenNamespaces=["team-a"]"#,
            "rbac.aggregate=false",
            "webhook.enabled=false",
        ],
    ),
    (
        "cert-manager",
        &[
            "crds.enabled=false",
            "webhook.certificate.mode=\"cert-manager\"",
            "webhook.failurePolicy=\"Fail\"",
            r#"webhook.excludedNamespaces=["kube-system"]"#,
            r#"webhook.trustedNamespaces=["platform"]"#,
            "networkPolicy.enabled=true",
        ],
    ),
    (
        "given-certificate",
        &[
            "crds.enabled=false",
            "webhook.certificate.mode=\"secret\"",
            "webhook.certificate.secretName=\"my-tls\"",
            "webhook.certificate.caBundle=\"PEM\"",
            "webhook.pods.enabled=false",
        ],
    ),
    (
        "no-secrets",
        &[
            "crds.enabled=false",
            "rbac.secrets=\"none\"",
            "controller.leaderElection=false",
        ],
    ),
];

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn rendered_objects_equal_their_snapshots() {
    let helm = Helm::new().await;
    for (name, values) in CASES {
        golden::hold(
            &format!("tests/install/snapshots/{name}.yaml"),
            &helm.text(values).await,
        );
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_4_renders_the_same_objects() {
    let (helm, next) = (Helm::new().await, Helm::next().await);
    let version = next.run(&["version", "--short"]).await.stdout().unwrap();
    assert!(version.starts_with("v4."), "{version}");
    for (name, values) in CASES {
        // The order of kinds that Helm does not know differs.
        let [objects, expected] = [next.objects(values).await, helm.objects(values).await];
        assert_eq!(anonymous(objects), anonymous(expected), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_lint_has_no_warnings() {
    for helm in [Helm::new().await, Helm::next().await] {
        for (name, values) in CASES {
            let said = helm.lint(values).await;
            assert!(
                !said.contains("[WARNING]") && !said.contains("[ERROR]"),
                "{name}: {said}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn unknown_and_invalid_values_are_rejected_by_name() {
    let helm = Helm::new().await;
    for (value, named) in [
        ("controler={}", "'controler' not allowed"),
        ("controller.replica=2", "'replica' not allowed"),
        ("controller.serviceAccount.nam=\"x\"", "'nam' not allowed"),
        ("webhook.certificate.mod=\"self\"", "'mod' not allowed"),
        ("rbac.secrets=\"all\"", "/rbac/secrets"),
        (
            "controller.tenantProxies=\"deny\"",
            "/controller/tenantProxies",
        ),
        (
            "controller.verifyInterval=\"6 hours\"",
            "/controller/verifyInterval",
        ),
        ("webhook.warnBefore=\"30 days\"", "/webhook/warnBefore"),
        ("webhook.unchecked=\"deny\"", "/webhook/unchecked"),
        ("webhook.defaultMode=\"audit\"", "/webhook/defaultMode"),
        (
            "registries.maxRequestsPerRegistry=0",
            "/registries/maxRequestsPerRegistry",
        ),
        ("controller.concurrent=0", "/controller/concurrent"),
        ("image.digest=\"sha256:12\"", "/image/digest"),
        (
            "image.repository=\"registry.example.com/affix:v1\"",
            "/image/repository",
        ),
        ("watchNamespaces=\"team-a\"", "/watchNamespaces"),
        (
            "controller.extraArgs=[\"concurrent\"]",
            "/controller/extraArgs/0",
        ),
    ] {
        let refusal = helm.refusal(&[value]).await;
        assert!(refusal.contains(named), "{value}: {refusal}");
    }
    let refusal = helm
        .refusal(&["controller.replicas=2", "controller.leaderElection=false"])
        .await;
    assert!(
        refusal.contains("set controller.leaderElection to true"),
        "{refusal}"
    );
    let refusal = helm.refusal(&["webhook.certificate.mode=\"secret\""]).await;
    assert!(
        refusal.contains("webhook.certificate.caBundle is empty"),
        "{refusal}"
    );
    for (values, named) in [
        (
            &["webhook.lookupTimeout=\"2s\""][..],
            "webhook.lookupTimeout (2s) must be less than webhook.timeoutSeconds (2 s)",
        ),
        (
            &[
                "controller.minRetryDelay=\"1h1m\"",
                "controller.maxRetryDelay=\"1h\"",
            ],
            "controller.minRetryDelay (1h1m) must not exceed",
        ),
        (
            &[
                "webhook.clientCA.secretName=\"a\"",
                "webhook.clientCA.configMapName=\"b\"",
            ],
            "are both set: set one",
        ),
        (
            &["podMonitor.enabled=true", "serviceMonitor.enabled=true"],
            "scrape each pod twice",
        ),
        (
            &[
                "serviceMonitor.enabled=true",
                "metricsService.enabled=false",
            ],
            "needs metricsService.enabled",
        ),
    ] {
        let refusal = helm.refusal(values).await;
        assert!(refusal.contains(named), "{values:?}: {refusal}");
    }
    for (value, named) in [
        ("rbac.secrets", "rbac.secretNamespaces is empty"),
        (
            "rbac.serviceAccountTokens",
            "rbac.serviceAccountTokenNamespaces is empty",
        ),
    ] {
        let value = format!("{value}=\"namespaces\"");
        let refusal = helm.refusal(&[&value]).await;
        assert!(refusal.contains(named), "{refusal}");
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_second_replica_brings_a_disruption_budget_and_a_spread() {
    let helm = Helm::new().await;
    let budget = "PodDisruptionBudget/affix-system/affix-controller".to_owned();
    assert!(!titles(&helm.objects(&[]).await).contains(&budget));
    let objects = helm
        .objects(&["controller.replicas=2", "controller.leaderElection=true"])
        .await;
    assert!(titles(&objects).contains(&budget));
    let pod =
        &find(&objects, "Deployment/affix-system/affix-controller")["spec"]["template"]["spec"];
    assert_eq!(
        pod["topologySpreadConstraints"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_crd_is_that_of_affix_crd_and_is_kept_by_default() {
    let helm = Helm::new().await;
    for (plural, crd) in [
        ("imageattachments", affix::api::crd()),
        ("imageattachmentsets", affix::api::set_crd()),
    ] {
        let title = &format!("CustomResourceDefinition/{plural}.affix.dev");
        let objects = helm.objects(&[]).await;
        let definition = find(&objects, title);
        assert_eq!(
            definition["metadata"]["annotations"],
            json!({"helm.sh/resource-policy": "keep"})
        );
        // As the type, since 1 and 1.0 are the same limit.
        let rendered: CustomResourceDefinitionSpec =
            serde_json::from_value(definition["spec"].clone()).unwrap();
        assert_eq!(rendered, crd.spec);
        let objects = helm.objects(&["crds.keep=false"]).await;
        assert_eq!(
            find(&objects, title)["metadata"]["annotations"],
            Value::Null
        );
        assert!(!titles(&helm.objects(&["crds.enabled=false"]).await).contains(title));
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn no_roles_without_rbac_and_every_object_has_its_labels() {
    let helm = Helm::new().await;
    let objects = helm.objects(&["rbac.create=false"]).await;
    let roles: Vec<String> = titles(&objects)
        .into_iter()
        .filter(|title| title.contains("Role"))
        .collect();
    assert_eq!(roles, Vec::<String>::new());
    for (name, values) in CASES {
        for object in helm.objects(values).await {
            let labels = &object["metadata"]["labels"];
            assert_eq!(
                labels["app.kubernetes.io/instance"], "affix",
                "{name}: {object}"
            );
            let hooks = object["metadata"]["annotations"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| key.starts_with("helm.sh/hook"));
            assert!(is_test(&object) || hooks.count() == 0, "{name}: {object}");
            assert!(object.to_string().len() < 100_000, "{name}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn notes_have_the_scope_the_secrets_and_the_next_steps() {
    let cluster = Cluster::new().await;
    let notes = async |values: &[&str]| {
        let chart = golden::repository("charts/affix");
        let mut args = vec![
            "install",
            "affix",
            chart.to_str().unwrap(),
            "--namespace",
            NAMESPACE,
            "--dry-run=server",
        ];
        args.extend(values.iter().flat_map(|value| ["--set-json", *value]));
        let printed = cluster.helm.run(&args).await.stdout().unwrap();
        printed.split_once("NOTES:").unwrap().1.to_owned()
    };
    let defaults = notes(&[]).await;
    assert!(
        defaults.contains("the ImageAttachments of every namespace")
            && defaults.contains("No image of affix is published")
            && !defaults.contains("--reuse-values"),
        "{defaults}"
    );
    let own = notes(&[
        "image.repository=\"registry.internal/affix\"",
        "rbac.secrets=\"none\"",
        r#"watchNamespaces=["a","b"]"#,
    ])
    .await;
    assert!(
        own.contains("the ImageAttachments of a, b.")
            && own.contains("may not read Secrets")
            && !own.contains("published"),
        "{own}"
    );
}
