//! The permissions of the installed components: each is needed, and they are enough.

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Permission};
use crate::support::golden::repository;
use crate::support::helm::NAMESPACE;
use crate::support::operator::{DEPLOYMENT, Job, Operator, WEBHOOK, values_for_here};

/// Returns the installed roles of a component.
async fn roles(cluster: &Cluster, component: &str) -> Vec<Value> {
    let label = format!("app.kubernetes.io/component={component}");
    let roles = cluster
        .get(&["clusterroles,roles", "--all-namespaces", "-l", &label])
        .await;
    roles["items"].as_array().unwrap().clone()
}

/// Returns each permission of a role, with the rules of the role without that permission.
fn permissions(role: &Value) -> Vec<(Permission, Value)> {
    let rules = role["rules"].as_array().unwrap();
    let mut found = Vec::new();
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    for (at, rule) in rules.iter().enumerate() {
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                let mut rest = rules.clone();
                rest.remove(at);
                // The rule is split, so that only one permission is removed.
                for other in texts(&rule["resources"]) {
                    for kept in texts(&rule["verbs"])
                        .iter()
                        .filter(|kept| other != resource || **kept != verb)
                    {
                        let mut part = rule.clone();
                        part["resources"] = json!([other]);
                        part["verbs"] = json!([kept]);
                        rest.push(part);
                    }
                }
                let permission = Permission {
                    namespace: role["metadata"]["namespace"].as_str().map(str::to_owned),
                    group: rule["apiGroups"][0].as_str().unwrap().to_owned(),
                    resource: resource.clone(),
                    name: rule["resourceNames"][0].as_str().map(str::to_owned),
                    verb,
                };
                found.push((permission, Value::Array(rest)));
            }
        }
    }
    found
}

/// Waits until the API server grants every installed permission.
pub(crate) async fn effective(cluster: &Cluster) {
    for (component, account) in [("controller", DEPLOYMENT), ("webhook", WEBHOOK)] {
        for role in roles(cluster, component).await {
            for (permission, _) in permissions(&role) {
                cluster.until_allowed(account, &permission, true).await;
            }
        }
    }
}

/// Installs the chart for this machine, with more values.
async fn install(values: &[&str]) -> Cluster {
    let cluster = Cluster::new().await;
    for namespace in ["team-a", "team-b"] {
        cluster.namespace(namespace).await;
    }
    let here = values_for_here();
    let values: Vec<&str> = here
        .iter()
        .map(String::as_str)
        .chain(values.iter().copied())
        .collect();
    cluster.install(&values).await;
    effective(&cluster).await;
    cluster
}

async fn set_rules(cluster: &Cluster, role: &Value, rules: &Value) {
    let patch = json!({"rules": rules}).to_string();
    let (kind, name) = (
        role["kind"].as_str().unwrap(),
        role["metadata"]["name"].as_str().unwrap(),
    );
    let namespace = role["metadata"]["namespace"].as_str().unwrap_or("default");
    cluster
        .kubectl(&[
            "patch",
            kind,
            name,
            "--namespace",
            namespace,
            "--type",
            "merge",
            "--patch",
            &patch,
        ])
        .await;
}

/// Removes the escapes of quotes from a message of the API server, which JSON and debug output add.
fn unescaped(refused: &str) -> String {
    refused.replace("\\\"", "\"")
}

/// Revokes each permission of a component in turn. `run` must fail with a message that names it.
async fn each_is_needed<F: Future<Output = Result<(), String>>>(
    cluster: &Cluster,
    component: &str,
    account: &str,
    counts: impl Fn(&Permission) -> bool,
    run: impl Fn() -> F,
) {
    for role in roles(cluster, component).await {
        for (permission, rest) in permissions(&role)
            .into_iter()
            .filter(|(permission, _)| counts(permission))
        {
            set_rules(cluster, &role, &rest).await;
            cluster.until_allowed(account, &permission, false).await;
            let Err(refused) = run().await else {
                panic!("nobody needs {permission:?}")
            };
            let refused = unescaped(&refused);
            let resource = permission.resource.split('/').next().unwrap();
            let named = [
                format!("cannot {} resource \"{resource}", permission.verb),
                format!("grant list and watch on {resource}"),
            ];
            assert!(
                named.iter().any(|named| refused.contains(named)),
                "without {permission:?} it failed otherwise:\n{refused}"
            );
            set_rules(cluster, &role, &role["rules"]).await;
            cluster.until_allowed(account, &permission, true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn each_permission_of_the_installed_operator_is_needed_and_enough() {
    let cluster = install(&[]).await;
    let job = Job::new(&cluster, "team-a").await;
    job.run().await.unwrap();

    // Only API servers with OwnerReferencesPermissionEnforcement, such as OpenShift's, ask for the permission on finalizers.
    let counts = |permission: &Permission| permission.resource != "imageattachmentsets/finalizers";
    each_is_needed(&cluster, "controller", DEPLOYMENT, counts, || job.run()).await;
    job.run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn an_operator_of_two_namespaces_works_without_cluster_permissions() {
    let cluster = install(&[
        r#"watchNamespaces=["team-a","team-b"]"#,
        "rbac.aggregate=false",
        "webhook.enabled=false",
    ])
    .await;
    let cluster_wide: Vec<Value> = roles(&cluster, "controller")
        .await
        .into_iter()
        .filter(|role| role["kind"] == "ClusterRole")
        .collect();
    assert_eq!(cluster_wide, Vec::<Value>::new());
    for namespace in ["team-a", "team-b"] {
        Job::new(&cluster, namespace).await.run().await.unwrap();
    }
    let elsewhere = |resource: &str| Permission {
        namespace: Some("kube-system".to_owned()),
        group: String::new(),
        resource: resource.to_owned(),
        name: None,
        verb: "get".to_owned(),
    };
    assert!(
        !cluster.allows(DEPLOYMENT, &elsewhere("secrets")).await
            && !cluster.allows(DEPLOYMENT, &elsewhere("configmaps")).await
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn secrets_are_read_where_that_is_allowed_and_nowhere_else() {
    let cluster = install(&[
        "rbac.secrets=\"namespaces\"",
        r#"rbac.secretNamespaces=["team-a"]"#,
    ])
    .await;
    Job::new(&cluster, "team-a")
        .await
        .without_watching()
        .run()
        .await
        .unwrap();
    let refused = unescaped(
        &Job::new(&cluster, "team-b")
            .await
            .without_watching()
            .run()
            .await
            .unwrap_err(),
    );
    assert!(
        refused.contains("cannot get resource \"secrets\"") && refused.contains("team-b"),
        "{refused}"
    );
    Job::new(&cluster, "team-b")
        .await
        .without_watching()
        .without_secrets()
        .run()
        .await
        .unwrap();

    let chart = repository("charts/affix");
    let upgrade = [
        "upgrade",
        "affix",
        chart.to_str().unwrap(),
        "--namespace",
        NAMESPACE,
        "--reuse-values",
        "--set",
        "rbac.secrets=none",
    ];
    cluster.helm.run(&upgrade).await.stdout().unwrap();
    let secrets = |namespace: &str| Permission {
        namespace: Some(namespace.to_owned()),
        group: String::new(),
        resource: "secrets".to_owned(),
        name: None,
        verb: "get".to_owned(),
    };
    for namespace in ["team-a", "team-b", NAMESPACE] {
        cluster
            .until_allowed(DEPLOYMENT, &secrets(namespace), false)
            .await;
    }
    Job::new(&cluster, "team-a")
        .await
        .without_watching()
        .without_secrets()
        .run()
        .await
        .unwrap();
}

/// Starts a new webhook, which creates its certificate, repairs it, and patches the caBundle of its configurations.
async fn certify(cluster: &Cluster) -> Result<(), String> {
    const SECRET: [&str; 4] = ["secret", "affix-webhook-tls", "--namespace", NAMESPACE];
    cluster
        .kubectl(&[&["delete", "--ignore-not-found"], &SECRET[..]].concat())
        .await;
    let webhook = Operator::start(cluster, WEBHOOK, true).await;
    webhook.ready().await?;
    let certificate = async || cluster.get(&SECRET).await["data"]["tls.crt"].clone();
    cluster
        .kubectl(
            &[
                &["patch"],
                &SECRET[..],
                &["--patch", r#"{"stringData":{"tls.crt":"broken"}}"#],
            ]
            .concat(),
        )
        .await;
    let broken = certificate().await;
    webhook
        .wait(|| async {
            if certificate().await == broken {
                Err("the certificate stays broken".to_owned())
            } else {
                Ok(())
            }
        })
        .await?;
    let configurations = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
    let found = cluster
        .get(&[configurations, "-l", "app.kubernetes.io/part-of=affix"])
        .await;
    let webhooks: Vec<&Value> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|item| item["webhooks"].as_array().unwrap())
        .collect();
    assert_eq!(webhooks.len(), 5);
    assert!(
        webhooks
            .iter()
            .all(|webhook| webhook["clientConfig"]["caBundle"].is_string()),
        "{webhooks:#?}"
    );
    let deployment = cluster
        .get(&["deployment", WEBHOOK, "--namespace", NAMESPACE])
        .await;
    let owner = &cluster.get(&SECRET).await["metadata"]["ownerReferences"][0];
    if owner["uid"] != deployment["metadata"]["uid"] {
        return Err(format!(
            "the Deployment does not own the Secret\n{}",
            webhook.log()
        ));
    }
    // The webhook continues for some seconds after SIGTERM, so its log has the rejected watches.
    webhook.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn each_permission_of_the_installed_webhook_is_needed_and_enough() {
    // A permission on all Secrets would hide the one on its own Secret.
    let cluster = install(&["rbac.secrets=\"none\""]).await;
    certify(&cluster).await.unwrap();
    // The others are for reviews and for the self-check, which tests/admission proves.
    let at_start = |permission: &Permission| match permission.resource.as_str() {
        "namespaces" => permission.verb != "get",
        "imageattachments" => permission.name.is_none(),
        "pods" | "statefulsets" | "replicasets" | "replicationcontrollers" => false,
        _ => true,
    };
    each_is_needed(&cluster, "webhook", WEBHOOK, at_start, || certify(&cluster)).await;
    certify(&cluster).await.unwrap();
}
