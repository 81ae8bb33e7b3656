//! The installed webhook: provided certificates, pull secrets, and private CAs.

use affix_testbed::certificates::Authority;
use affix_testbed::hostile::{
    Account, Authority as HostileAuthority, Certificate as ServerCertificate, HostileRegistry,
};
use serde_json::{Value, json};

use crate::access::effective;
use crate::foreign::define;
use crate::support::calls::Caller;
use crate::support::cluster::{Cluster, Permission};
use crate::support::golden::repository;
use crate::support::helm::NAMESPACE;
use crate::support::objects;
use crate::support::operator::{Operator, WEBHOOK, values_for_here};

/// Stores a serving certificate of `authority` in a Secret.
async fn store(cluster: &Cluster, authority: &Authority) {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{WEBHOOK}.{NAMESPACE}.svc");
    let files = authority
        .server_named(
            dir.path(),
            &[&name],
            std::time::Duration::from_hours(24 * 30),
        )
        .unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap();
    cluster
        .apply(&[json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "my-tls", "namespace": NAMESPACE},
            "stringData": {"tls.crt": read(files.certificate), "tls.key": read(files.key)},
        })])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn a_provided_certificate_is_served_from_its_mount_and_so_is_its_successor() {
    let cluster = Cluster::new().await;
    let here = values_for_here();
    let (first, second) = (Authority::new().unwrap(), Authority::new().unwrap());
    let values = |authority: &Authority| -> Vec<String> {
        let own = [
            "webhook.certificate.mode=\"secret\"".to_owned(),
            "webhook.certificate.secretName=\"my-tls\"".to_owned(),
        ];
        let bundle = format!("webhook.certificate.caBundle={}", json!(authority.pem()));
        here.iter().cloned().chain(own).chain([bundle]).collect()
    };
    store(&cluster, &first).await;
    let chosen = values(&first);
    cluster
        .install(&chosen.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    effective(&cluster).await;
    let webhook = Operator::start(&cluster, WEBHOOK, true).await;
    webhook.ready().await.unwrap();
    let caller = Caller::new(&cluster, webhook.webhooks()).await;
    assert_eq!(
        caller
            .pod("default", "registry.example.com/team/app:v1")
            .await
            .unwrap()["allowed"],
        true
    );

    store(&cluster, &second).await;
    let chosen = values(&second);
    let upgraded = cluster
        .helm
        .release(
            "upgrade",
            &chosen.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    upgraded.stdout().unwrap();
    let caller = Caller::new(&cluster, webhook.webhooks()).await;
    caller
        .pod("default", "registry.example.com/team/app:v1")
        .await
        .unwrap_err();
    webhook.remount(&cluster).await;
    webhook
        .wait(|| async {
            caller
                .pod("default", "registry.example.com/team/app:v1")
                .await
                .map(drop)
        })
        .await
        .unwrap();
    webhook.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_webhook_reads_pull_secrets_of_permitted_namespaces_only() {
    let cluster = Cluster::new().await;
    // A login that is not needed causes no warning.
    let registry = HostileRegistry::builder()
        .passwords([Account::new("ci", "secret")])
        .start()
        .await
        .unwrap();
    registry
        .image("team/app", "v1")
        .platforms(["linux/amd64"])
        .push();
    let config =
        json!({"auths": {registry.host(): {"username": "ci", "password": "secret"}}}).to_string();
    for namespace in ["team-a", "team-b"] {
        cluster.namespace(namespace).await;
        cluster
            .kubectl(&[
                "label",
                "namespace",
                namespace,
                "affix.dev/end-of-life=warn",
            ])
            .await;
        cluster
            .apply(&[json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": namespace},
                "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
            })])
            .await;
    }
    let mut here = values_for_here();
    here.push(format!(
        "webhook.insecureRegistries=[\"{}\"]",
        registry.host()
    ));
    // A busy machine must not cause a time-out.
    here.extend([
        "webhook.lookupTimeout=\"20s\"".to_owned(),
        "webhook.timeoutSeconds=30".to_owned(),
        "log.level=\"affix=debug,info\"".to_owned(),
    ]);
    let modes: [(&[&str], [bool; 2]); 4] = [
        (&[], [true, true]),
        (&[r#"watchNamespaces=["team-a"]"#], [true, false]),
        (
            &[
                "rbac.secrets=\"namespaces\"",
                r#"rbac.secretNamespaces=["team-b"]"#,
            ],
            [false, true],
        ),
        (&["rbac.secrets=\"none\""], [false, false]),
    ];
    for (nth, (mode, readable)) in modes.into_iter().enumerate() {
        let values: Vec<&str> = here
            .iter()
            .map(String::as_str)
            .chain(mode.iter().copied())
            .collect();
        cluster
            .helm
            .release(if nth == 0 { "install" } else { "upgrade" }, &values)
            .await
            .stdout()
            .unwrap();
        effective(&cluster).await;
        for (namespace, may) in ["team-a", "team-b"].into_iter().zip(readable) {
            let read = Permission {
                namespace: Some(namespace.to_owned()),
                group: String::new(),
                resource: "secrets".to_owned(),
                name: None,
                verb: "get".to_owned(),
            };
            cluster.until_allowed(WEBHOOK, &read, may).await;
            // A new process has an empty cache. Once it is ready, its watch has the labels.
            let webhook = Operator::start(&cluster, WEBHOOK, true).await;
            webhook.ready().await.unwrap();
            let caller = Caller::new(&cluster, webhook.webhooks()).await;
            let said = caller
                .pod(namespace, &registry.reference("team/app:v1"))
                .await
                .unwrap();
            let warned = said["warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let unread = warned
                .filter(|warning| warning.contains("pull secret \"login\" not readable"))
                .count();
            assert_eq!(
                (said["allowed"].as_bool(), unread),
                (Some(true), usize::from(!may)),
                "{mode:?} {namespace}: {said}"
            );
            let forbidden = webhook
                .log()
                .replace('\\', "")
                .contains("cannot get resource \"secrets\"");
            assert_eq!(forbidden, !may, "{mode:?} {namespace}\n{}", webhook.log());
            drop(webhook);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn both_components_trust_the_private_authorities_of_the_values() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let labels = ["namespace", "team-a", "affix.dev/end-of-life=warn"];
    cluster.kubectl(&[&["label"], &labels[..]].concat()).await;
    let authority = HostileAuthority::new().unwrap();
    let registry = HostileRegistry::builder()
        .tls_with(&authority, ServerCertificate::Good)
        .start()
        .await
        .unwrap();
    registry
        .image("team/app", "v1")
        .platforms(["linux/amd64"])
        .push();
    let image = registry.reference("team/app:v1");
    let crds = repository("crds");
    let define = ["apply", "--server-side", "-f", crds.to_str().unwrap()];
    cluster.kubectl(&define).await;
    cluster.established().await;
    let mut here = values_for_here();
    here.push("webhook.lookupTimeout=\"20s\"".to_owned());
    here.push("webhook.timeoutSeconds=30".to_owned());
    let bundle = format!("registries.caBundle={}", json!(authority.pem()));
    let existing = "registries.caBundleConfigMap=\"corporate-ca\"".to_owned();
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corporate-ca", "namespace": NAMESPACE},
        "data": {"root.crt": authority.pem()},
    });
    cluster.apply(&[config]).await;
    let note = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "note", "namespace": "team-a"},
        "spec": {"image": image, "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}},
    });
    cluster.apply(&[note]).await;
    for (nth, (more, trusted)) in [(None, false), (Some(existing), true), (Some(bundle), true)]
        .into_iter()
        .enumerate()
    {
        let values: Vec<&str> = here.iter().chain(&more).map(String::as_str).collect();
        let command = if nth == 0 { "install" } else { "upgrade" };
        let values: Vec<&str> = values.into_iter().chain(["crds.enabled=false"]).collect();
        let ran = cluster.helm.release(command, &values).await;
        ran.stdout().unwrap();
        effective(&cluster).await;
        let webhook = Operator::start(&cluster, WEBHOOK, true).await;
        webhook.ready().await.unwrap();
        let caller = Caller::new(&cluster, webhook.webhooks()).await;
        let said = caller.pod("team-a", &image).await.unwrap();
        let unchecked = said["warnings"].to_string().contains("not checked");
        assert_eq!(unchecked, !trusted, "{more:?}: {said}");
        drop(webhook);
        if !trusted {
            continue;
        }
        let controller = Operator::start(&cluster, "affix-controller", true).await;
        let attached = || async {
            let note = cluster.get(&["ia", "note", "--namespace", "team-a"]).await;
            let conditions = note["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
            if ready.any(|condition| condition["status"] == "True") {
                Ok(())
            } else {
                Err(format!("{note:#}"))
            }
        };
        controller.wait(attached).await.unwrap();
        drop(controller);
        let leases = ["delete", "leases", "--all", "--namespace", NAMESPACE];
        cluster.kubectl(&leases).await;
    }
}

/// Runs affix with the arguments and the ServiceAccount of the pod of `helm test`.
async fn run_helm_test(cluster: &Cluster, patience: &str) -> (bool, String) {
    let hooks = cluster
        .helm
        .run(&["get", "hooks", "affix", "--namespace", NAMESPACE])
        .await;
    let pod = objects::parse(&hooks.stdout().unwrap()).remove(0);
    let policy = &pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"];
    assert_eq!(policy, "before-hook-creation", "the log must stay readable");
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
    let kubeconfig = cluster
        .plane
        .service_account_kubeconfig(NAMESPACE, account)
        .await
        .unwrap();
    let args = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    let args = args.iter().map(|arg| match arg.as_str().unwrap() {
        "--self-check" => patience,
        arg => arg,
    });
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_affix"))
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    (ran.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_test_passes_once_a_refusal_arrives_and_not_before() {
    let cluster = Cluster::new().await;
    let mut here = values_for_here();
    here.push(r#"webhook.extraArgs=["--dns-names=127.0.0.1"]"#.to_owned());
    cluster
        .install(&here.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    effective(&cluster).await;
    let (passed, text) = run_helm_test(&cluster, "--self-check=1s").await;
    assert!(
        !passed && text.contains("no call of the API server arrives"),
        "{text}"
    );
    let webhook = Operator::start(&cluster, WEBHOOK, true).await;
    webhook.ready().await.unwrap();
    // No node routes to the Service here.
    let found = cluster
        .get(&["validatingwebhookconfiguration", "affix-webhook"])
        .await;
    let mut patch = Vec::new();
    for (nth, hook) in found["webhooks"].as_array().unwrap().iter().enumerate() {
        let client = &hook["clientConfig"];
        let path = client["service"]["path"].as_str().unwrap();
        let url = format!("https://127.0.0.1:{}{path}", webhook.webhooks());
        let client = json!({"url": url, "caBundle": client["caBundle"]});
        patch.push(json!({"op": "replace", "path": format!("/webhooks/{nth}/clientConfig"), "value": client}));
    }
    let patch = Value::Array(patch).to_string();
    let configuration = ["validatingwebhookconfiguration", "affix-webhook"];
    cluster
        .kubectl(
            &[
                &["patch"],
                &configuration[..],
                &["--type", "json", "--patch", &patch],
            ]
            .concat(),
        )
        .await;
    let (passed, text) = run_helm_test(&cluster, "--self-check=2m").await;
    assert!(
        passed && text.contains("it refused an invalid ImageAttachment"),
        "{text}"
    );
    webhook.stop().await.unwrap();
}

/// Creates a pod whose container has pulled an image.
async fn run(cluster: &Cluster, namespace: &str, image: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": image}]},
    });
    cluster.apply(&[pod]).await;
    let digest = "a".repeat(64);
    let container = json!({
        "name": "main", "image": image, "imageID": format!("{image}@sha256:{digest}"), "ready": true,
        "restartCount": 0,
    });
    let status =
        json!({"status": {"phase": "Running", "containerStatuses": [container]}}).to_string();
    let patch = [
        "patch",
        "pod",
        "app",
        "--namespace",
        namespace,
        "--subresource=status",
        "-p",
    ];
    cluster.kubectl(&[&patch[..], &[&status]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_permissions_of_reports_suffice_in_the_cluster_and_in_some_namespaces() {
    for (format, resource, scope) in [
        ("openreports", "reports.openreports.io", None),
        (
            "wgpolicyk8s",
            "policyreports.wgpolicyk8s.io",
            Some(r#"watchNamespaces=["team-a"]"#),
        ),
    ] {
        let cluster = Cluster::new().await;
        define(&cluster).await;
        cluster.namespace("team-a").await;
        let mut values = values_for_here();
        values.push(format!("webhook.reports.format=\"{format}\""));
        values.push("webhook.reports.interval=\"500ms\"".to_owned());
        values.extend(scope.map(str::to_owned));
        cluster
            .install(&values.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        effective(&cluster).await;
        let webhook = Operator::start(&cluster, WEBHOOK, true).await;
        webhook.ready().await.unwrap();
        run(&cluster, "team-a", "127.0.0.1:1/team/app").await;
        let list = [resource, "--namespace", "team-a"];
        let written = webhook.wait(|| async {
            let reports = cluster.get(&list).await;
            match reports["items"][0]["summary"]["error"].as_u64() {
                Some(1) => Ok(()),
                _ => Err(reports.to_string()),
            }
        });
        written.await.unwrap();
        cluster
            .kubectl(&["delete", "pod", "app", "--namespace", "team-a", "--now"])
            .await;
        let removed = webhook.wait(|| async {
            let reports = cluster.get(&list).await;
            match reports["items"].as_array() {
                Some(items) if items.is_empty() => Ok(()),
                _ => Err(reports.to_string()),
            }
        });
        removed.await.unwrap();
        let log = webhook.log();
        assert!(!log.contains("orbidden"), "{log}");
        webhook.stop().await.unwrap();
    }
}
