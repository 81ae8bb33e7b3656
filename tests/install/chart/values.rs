//! Values that merge with others, replace others, or come from a parent chart.

use serde_json::{Value, json};

use crate::support::golden;
use crate::support::helm::{Helm, NAMESPACE};
use crate::support::objects::{find, parse, titles};

/// Returns the first container of a component of the chart.
async fn container(helm: &Helm, component: &str, values: &[&str]) -> Value {
    let objects = helm.objects(values).await;
    let title = format!("Deployment/affix-system/affix-{component}");
    find(&objects, &title)["spec"]["template"]["spec"]["containers"][0].clone()
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn extra_arguments_and_variables_replace_the_chart_s_own() {
    let helm = Helm::new().await;
    for component in ["controller", "webhook"] {
        let extra_args = format!(
            r#"{component}.extraArgs=["--log-format=text","--health-addr=:9999","--insecure-allow-http=false"]"#
        );
        let extra_env = format!(
            r#"{component}.extraEnv=[{{"name":"RUST_LOG","value":"trace"}},{{"name":"A","value":"1"}},{{"name":"A","value":"2"}}]"#
        );
        let container = container(&helm, component, &[&extra_args, &extra_env]).await;
        let mut flags: Vec<&str> = container["args"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|arg| arg.as_str().unwrap().split('=').next())
            .filter(|arg| arg.starts_with("--"))
            .collect();
        let all = flags.len();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), all, "{container:#}");
        let args = container["args"].to_string();
        assert!(
            args.contains("--log-format=text") && args.contains("--health-addr=:9999"),
            "{args}"
        );
        let variables = container["env"].as_array().unwrap();
        let value = |name: &str| {
            let found: Vec<&Value> = variables
                .iter()
                .filter(|variable| variable["name"] == name)
                .collect();
            assert_eq!(found.len(), 1, "{name}: {variables:#?}");
            found[0]["value"].clone()
        };
        assert_eq!(
            (value("RUST_LOG"), value("A")),
            (json!("trace"), json!("2"))
        );
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn labels_merge_and_never_change_a_selector() {
    let helm = Helm::new().await;
    let labels = r#"{"app.kubernetes.io/name":"other","app.kubernetes.io/component":"other","app.kubernetes.io/part-of":"platform","rbac.authorization.k8s.io/aggregate-to-view":"false"}"#;
    let values = [
        &format!("commonLabels={labels}")[..],
        &format!("controller.podLabels={labels}"),
        "podMonitor.enabled=true",
        &format!("podMonitor.labels={labels}"),
        "crds.enabled=false",
    ];
    // The parser rejects duplicate keys.
    let objects = helm.objects(&values).await;
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "platform", "{object}");
        assert_eq!(labels["app.kubernetes.io/name"], "affix", "{object}");
    }
    let view = &find(&objects, "ClusterRole/affix-view")["metadata"]["labels"];
    assert_eq!(view["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    let spec = &find(&objects, "Deployment/affix-system/affix-controller")["spec"];
    for (key, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&spec["template"]["metadata"]["labels"][key], value);
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn webhooks_that_only_warn_never_fail_a_request() {
    let helm = Helm::new().await;
    let policies = async |values: &[&str]| {
        let objects = helm.objects(values).await;
        let mut found = Vec::new();
        for kind in ["Validating", "Mutating"] {
            let title = format!("{kind}WebhookConfiguration/affix-webhook");
            for webhook in find(&objects, &title)["webhooks"].as_array().unwrap() {
                found.push(webhook["failurePolicy"].as_str().unwrap().to_owned());
                if kind == "Mutating" {
                    assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
                }
            }
        }
        found
    };
    // The order is imageattachments, pods, workloads, namespaces, resolve-digests.
    assert_eq!(policies(&[]).await, ["Ignore"; 5]);
    let fail = "webhook.failurePolicy=\"Fail\"";
    assert_eq!(
        policies(&[fail]).await,
        ["Fail", "Fail", "Ignore", "Ignore", "Fail"]
    );
    let own = [
        fail,
        "webhook.imageAttachments.failurePolicy=\"Ignore\"",
        "webhook.resolveDigests.failurePolicy=\"Ignore\"",
    ];
    assert_eq!(
        policies(&own).await,
        ["Ignore", "Fail", "Ignore", "Ignore", "Ignore"]
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn t20_watched_and_excluded_namespaces_scope_every_webhook_by_name() {
    let helm = Helm::new().await;
    let values = [
        r#"watchNamespaces=["team-a"]"#,
        r#"webhook.trustedNamespaces=["platform"]"#,
        r#"webhook.namespaceSelector={"matchExpressions":[{"key":"tier","operator":"Exists"}]}"#,
    ];
    let objects = helm.objects(&values).await;
    for kind in ["Validating", "Mutating"] {
        let title = format!("{kind}WebhookConfiguration/affix-webhook");
        for webhook in find(&objects, &title)["webhooks"].as_array().unwrap() {
            let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array();
            let expressions = expressions.unwrap();
            let name = "kubernetes.io/metadata.name";
            for wanted in [
                json!({"key": name, "operator": "In", "values": ["team-a"]}),
                json!({"key": name, "operator": "NotIn", "values": [NAMESPACE, "kube-system"]}),
                json!({"key": "tier", "operator": "Exists"}),
            ] {
                assert!(expressions.contains(&wanted), "{expressions:#?}");
            }
        }
    }
    // So do the roles.
    let mut granted = Vec::new();
    for object in &objects {
        let of_webhook = object["metadata"]["labels"]["app.kubernetes.io/component"] == "webhook";
        let kind = object["kind"].as_str().unwrap();
        if of_webhook && ["ClusterRole", "Role"].contains(&kind) {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("*");
            for rule in object["rules"].as_array().unwrap() {
                for resource in rule["resources"].as_array().unwrap() {
                    granted.push(format!("{namespace} {}", resource.as_str().unwrap()));
                }
            }
        }
    }
    granted.sort();
    granted.dedup();
    let everywhere: Vec<&String> = granted
        .iter()
        .filter(|rule| rule.starts_with('*'))
        .collect();
    assert_eq!(
        everywhere,
        [
            "* mutatingwebhookconfigurations",
            "* namespaces",
            "* validatingwebhookconfigurations"
        ]
    );
    for rule in [
        "platform imageattachments",
        "team-a imageattachments",
        "team-a pods",
    ] {
        assert!(granted.contains(&rule.to_owned()), "{granted:#?}");
    }
    assert!(!granted.contains(&"platform pods".to_owned()));
    let webhook = container(&helm, "webhook", &values).await;
    let args = webhook["args"].to_string();
    assert!(
        args.contains("--watch-namespaces=team-a")
            && args.contains("--self-check-namespace=team-a"),
        "{args}"
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn an_image_registry_replaces_the_repository_s_own() {
    let helm = Helm::new().await;
    for (values, wanted) in [
        (
            &["image.registry=\"mirror.example.com:5000\""][..],
            "mirror.example.com:5000/affix/affix:0.1.0",
        ),
        (
            &[
                "image.registry=\"mirror.example.com/cache\"",
                "image.repository=\"team/affix\"",
            ],
            "mirror.example.com/cache/team/affix:0.1.0",
        ),
        (
            &["global.imageRegistry=\"mirror.example.com\""],
            "mirror.example.com/affix/affix:0.1.0",
        ),
        (
            &[
                "global.imageRegistry=\"other.example.com\"",
                "image.registry=\"mirror.example.com\"",
            ],
            "mirror.example.com/affix/affix:0.1.0",
        ),
    ] {
        for component in ["controller", "webhook"] {
            assert_eq!(container(&helm, component, values).await["image"], wanted);
        }
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_parent_chart_can_switch_the_chart_off_and_share_values() {
    let helm = Helm::new().await;
    let dir = tempfile::tempdir().unwrap();
    let chart = golden::repository("charts/affix");
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    std::fs::create_dir(dir.path().join("charts")).unwrap();
    std::os::unix::fs::symlink(&chart, dir.path().join("charts/affix")).unwrap();
    write(
        "Chart.yaml",
        "apiVersion: v2\nname: platform\nversion: 1.0.0\ndependencies:\n- {name: affix, version: 0.1.0, condition: affix.enabled}\n",
    );
    write(
        "values.yaml",
        "global: {imagePullSecrets: [login], other: {deep: true}}\naffix: {enabled: true, namespaceOverride: elsewhere}\n",
    );
    let render = async |more: &[&str]| {
        let mut args = vec!["template", "p", dir.path().to_str().unwrap()];
        args.extend(["--kube-version", "1.36.3"]);
        args.extend(more);
        helm.run(&args).await.stdout().unwrap()
    };
    let objects = parse(&render(&[]).await);
    let pod =
        &find(&objects, "Deployment/elsewhere/p-affix-controller")["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "login"}]));
    let off = render(&["--set", "affix.enabled=false"]).await;
    assert!(!off.contains("kind:"), "{off}");
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn t19_callers_of_the_webhook_are_limited_by_certificate_or_by_address() {
    let helm = Helm::new().await;
    let policy = "NetworkPolicy/affix-system/affix-webhook";
    let own = helm.objects(&[]).await;
    assert!(!titles(&own).contains(&policy.to_owned()));
    let values = [
        r#"networkPolicy.webhookFrom=[{"ipBlock":{"cidr":"192.0.2.10/32"}}]"#,
        "webhook.clientCA.configMapName=\"clients\"",
    ];
    let objects = helm.objects(&values).await;
    // Without `networkPolicy.enabled` nothing else changes: egress and the controller stay open.
    let policies: Vec<String> = titles(&objects)
        .into_iter()
        .filter(|title| title.starts_with("NetworkPolicy/"))
        .collect();
    assert_eq!(policies, [policy]);
    let spec = &find(&objects, policy)["spec"];
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    assert_eq!(
        spec["ingress"],
        json!([
            {"ports": [{"protocol": "TCP", "port": "metrics"}]},
            {"ports": [{"protocol": "TCP", "port": "health"}]},
            {
                "ports": [{"protocol": "TCP", "port": "webhook"}],
                "from": [{"ipBlock": {"cidr": "192.0.2.10/32"}}]
            },
        ])
    );
    let pod = &find(&objects, "Deployment/affix-system/affix-webhook")["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].to_string();
    assert!(
        args.contains("--client-ca=/etc/affix/client-ca/ca.crt"),
        "{args}"
    );
    assert_eq!(
        pod["volumes"],
        json!([{"name": "client-ca", "configMap": {"name": "clients"}}])
    );
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([{"name": "client-ca", "mountPath": "/etc/affix/client-ca", "readOnly": true}])
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_keys_of_lifecycle_statements_come_from_a_config_map() {
    let helm = Helm::new().await;
    let own = helm.text(&[]).await;
    assert!(!own.contains("lifecycle-trust"), "{own}");
    let objects = helm
        .objects(&["webhook.lifecycleTrust=\"release-keys\""])
        .await;
    let pod = &find(&objects, "Deployment/affix-system/affix-webhook")["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].to_string();
    assert!(
        args.contains("--lifecycle-trust=/etc/affix/lifecycle-trust"),
        "{args}"
    );
    assert_eq!(
        pod["volumes"],
        json!([{"name": "lifecycle-trust", "configMap": {"name": "release-keys"}}])
    );
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([{"name": "lifecycle-trust", "mountPath": "/etc/affix/lifecycle-trust", "readOnly": true}])
    );
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_default_mode_calls_the_webhooks_for_namespaces_without_a_label() {
    let helm = Helm::new().await;
    let key = "affix.dev/end-of-life";
    for (value, labelled) in [("\"off\"", true), ("false", true), ("\"warn\"", false)] {
        let objects = helm
            .objects(&[&format!("webhook.defaultMode={value}")])
            .await;
        let configuration = find(&objects, "ValidatingWebhookConfiguration/affix-webhook");
        for hook in configuration["webhooks"].as_array().unwrap() {
            let selector = hook["namespaceSelector"].to_string();
            let name = hook["name"].as_str().unwrap();
            let is_labelled = ["pods.affix.dev", "workloads.affix.dev"].contains(&name);
            let expected = labelled && is_labelled;
            assert_eq!(selector.contains(key), expected, "{value}: {hook}");
            assert!(selector.contains("kube-system"), "{hook}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn t5_the_webhook_may_read_its_own_pull_secrets_by_name_only() {
    let helm = Helm::new().await;
    let values = [
        "rbac.secrets=\"none\"",
        r#"webhook.imagePullSecrets=["registry-login"]"#,
    ];
    let objects = helm.objects(&values).await;
    let role = find(&objects, "Role/affix-system/affix-webhook-pull");
    assert_eq!(
        role["rules"],
        json!([{
            "apiGroups": [""], "resources": ["secrets"],
            "resourceNames": ["registry-login"], "verbs": ["get"]
        }])
    );
    let binding = find(&objects, "RoleBinding/affix-system/affix-webhook-pull");
    assert_eq!(binding["subjects"][0]["name"], "affix-webhook");
}
