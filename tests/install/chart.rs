//! What the chart renders, by its values.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::golden;
use crate::support::helm::{Helm, NAMESPACE};
use crate::support::objects::{find, is_test, titles};

/// Sets of values whose rendering is kept in `snapshots/`, where a change shows in review.
pub(crate) const CASES: [(&str, &[&str]); 6] = [
    ("defaults", &["crds.enabled=false"]),
    (
        "everything",
        &[
            "crds.enabled=false",
            "controller.replicas=2",
            "controller.leaderElection=true",
            "controller.extraArgs=[\"--max-referrers=100\"]",
            r#"controller.extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy.example.com:3128"}]"#,
            r#"controller.podLabels={"team":"platform"}"#,
            r#"controller.podAnnotations={"example.com/note":"a note"}"#,
            r#"controller.tolerations=[{"key":"dedicated","operator":"Exists"}]"#,
            r#"controller.affinity={"nodeAffinity":{}}"#,
            "controller.priorityClassName=\"system-cluster-critical\"",
            r#"controller.serviceAccount.annotations={"example.com/role":"affix"}"#,
            r#"commonLabels={"example.com/owner":"platform"}"#,
            r#"imagePullSecrets=[{"name":"pull"}]"#,
            r#"image.digest="sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
            r#"registries.allowed=["registry.example.com","*.example.com:5000"]"#,
            "watchLabelSelector=\"affix.dev/shard=1\"",
            "networkPolicy.enabled=true",
            r#"networkPolicy.metricsFrom=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]"#,
            r#"webhook.lifecycleTypes=["application/vnd.demo.artifact.lifecycle"]"#,
            r#"webhook.insecureRegistries=["registry.internal:5000"]"#,
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
async fn what_is_rendered_is_what_was_looked_at() {
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
async fn the_linter_has_nothing_to_say() {
    let helm = Helm::new().await;
    for (name, values) in CASES {
        let said = helm.lint(values).await;
        assert!(
            !said.contains("[WARNING]") && !said.contains("[ERROR]"),
            "{name}: {said}"
        );
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_value_that_there_is_not_or_that_cannot_be_is_refused_by_its_name() {
    let helm = Helm::new().await;
    for (value, named) in [
        ("controler={}", "'controler' not allowed"),
        ("controller.replica=2", "'replica' not allowed"),
        ("controller.serviceAccount.nam=\"x\"", "'nam' not allowed"),
        ("webhook.certificate.mod=\"self\"", "'mod' not allowed"),
        ("rbac.secrets=\"all\"", "/rbac/secrets"),
        (
            "controller.verifyInterval=\"6 hours\"",
            "/controller/verifyInterval",
        ),
        ("webhook.warnBefore=\"30 days\"", "/webhook/warnBefore"),
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
    let refusal = helm.refusal(&["rbac.secrets=\"namespaces\""]).await;
    assert!(
        refusal.contains("rbac.secretNamespaces is empty"),
        "{refusal}"
    );
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
async fn the_definition_is_the_command_s_and_is_kept_unless_told_otherwise() {
    let helm = Helm::new().await;
    let title = "CustomResourceDefinition/imageattachments.affix.dev";
    let objects = helm.objects(&[]).await;
    let definition = find(&objects, title);
    assert_eq!(
        definition["metadata"]["annotations"],
        json!({"helm.sh/resource-policy": "keep"})
    );
    assert_eq!(
        definition["spec"],
        serde_json::to_value(affix::api::crd()).unwrap()["spec"]
    );
    let objects = helm.objects(&["crds.keep=false"]).await;
    assert_eq!(
        find(&objects, title)["metadata"]["annotations"],
        Value::Null
    );
    assert!(!titles(&helm.objects(&["crds.enabled=false"]).await).contains(&title.to_owned()));
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn without_roles_wanted_there_are_none_and_every_object_says_where_it_belongs() {
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
async fn the_notes_say_what_an_administrator_has_to_know_next() {
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
            && defaults.contains("No image of affix is published"),
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
