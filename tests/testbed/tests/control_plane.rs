//! The control plane as tests use it.

#![allow(clippy::unwrap_used, reason = "a test's failure is its message")]

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::tools::Tools;

#[tokio::test]
async fn a_control_plane_starts_serves_kubectl_and_keeps_its_data_over_a_kill() {
    let tools = Tools::core().await.unwrap();
    let mut cluster = ControlPlane::start(&tools).await.unwrap();

    let namespaces = cluster
        .kubectl(["get", "namespaces", "-o", "name"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    assert!(namespaces.contains("namespace/default"), "{namespaces}");
    let version = cluster
        .kubectl(["version", "-o", "json"])
        .await
        .unwrap()
        .json()
        .unwrap();
    let version_of = |which: &str| {
        version
            .pointer(&format!("/{which}/gitVersion"))
            .and_then(|v| v.as_str())
            .map(str::to_owned)
    };
    assert!(
        version_of("serverVersion").unwrap().starts_with("v1."),
        "{version}"
    );
    assert_eq!(
        version_of("serverVersion"),
        version_of("clientVersion"),
        "{version}"
    );

    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}";
    cluster
        .kubectl_with(["apply", "-f", "-"], map)
        .await
        .unwrap()
        .stdout()
        .unwrap();
    cluster.kill().await.unwrap();
    let refused = cluster
        .kubectl(["get", "configmap", "kept"])
        .await
        .unwrap()
        .failure()
        .unwrap();
    assert!(refused.contains("refused"), "{refused}");
    cluster.start_again().await.unwrap();
    let kept = cluster
        .kubectl(["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    assert_eq!(kept, "b");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_account_gets_a_token_and_only_the_rights_that_it_was_given() {
    let tools = Tools::core().await.unwrap();
    let cluster = ControlPlane::shared(&tools).await.unwrap();
    for args in [
        vec![
            "create",
            "serviceaccount",
            "reader",
            "--namespace",
            "default",
        ],
        vec![
            "create",
            "role",
            "reader",
            "--verb=get,list",
            "--resource=configmaps",
            "--namespace",
            "default",
        ],
        vec![
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            "--serviceaccount=default:reader",
            "--namespace",
            "default",
        ],
    ] {
        cluster.kubectl(args).await.unwrap().stdout().unwrap();
    }
    let kubeconfig = cluster
        .service_account_kubeconfig("default", "reader")
        .await
        .unwrap();
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let who = cluster
        .kubectl([
            &kubeconfig,
            "auth",
            "whoami",
            "-o",
            "jsonpath={.status.userInfo.username}",
        ])
        .await
        .unwrap();
    assert_eq!(
        who.stdout().unwrap(),
        "system:serviceaccount:default:reader"
    );
    cluster
        .kubectl([&kubeconfig, "get", "configmaps"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let refused = cluster
        .kubectl([&kubeconfig, "get", "secrets"])
        .await
        .unwrap()
        .failure()
        .unwrap();
    assert!(refused.contains("Forbidden"), "{refused}");
}
