//! The kustomize base: the same objects as the chart's, and as good an installation.

use std::path::Path;

use affix_testbed::port;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};

use crate::access::effective;
use crate::support::cluster::Cluster;
use crate::support::golden::repository;
use crate::support::helm::Helm;
use crate::support::objects;
use crate::support::operator::Job;

/// What `kubectl kustomize` renders.
pub(crate) async fn render(base: &Path) -> String {
    let tools = Tools::core().await.unwrap();
    Run::new(tools.path(Tool::Kubectl).unwrap())
        .args(["kustomize".as_ref(), base.as_os_str()])
        .output()
        .await
        .unwrap()
        .stdout()
        .unwrap()
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_base_has_the_objects_of_the_chart_s_defaults_and_their_namespace() {
    let mut base = objects::anonymous(objects::parse(&render(&repository("config/default")).await));
    assert!(base.remove("Namespace/affix-system").is_some());
    let chart: Vec<_> = Helm::new()
        .await
        .objects(&[])
        .await
        .into_iter()
        .filter(|object| !objects::is_test(object))
        .collect();
    let chart = objects::anonymous(chart);
    assert_eq!(
        base.keys().collect::<Vec<_>>(),
        chart.keys().collect::<Vec<_>>()
    );
    for (title, object) in &chart {
        assert_eq!(object, &base[title], "{title}: the chart's and the base's");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn the_operator_that_kustomize_installed_does_its_job() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    // A copy, with ports that are free here and registries that are here too.
    let dir = tempfile::tempdir().unwrap();
    let copied = Run::new("cp").args([
        "-r".into(),
        repository("config").into_os_string(),
        dir.path().join("config").into_os_string(),
    ]);
    copied.output().await.unwrap().stdout().unwrap();
    let deployment = dir.path().join("config/manager/deployment.yaml");
    let port = || port::free().unwrap();
    let text = std::fs::read_to_string(&deployment).unwrap();
    let text = text
        .replace("=:8080", &format!("=:{}", port()))
        .replace("=:9440", &format!("=:{}", port()));
    std::fs::write(
        &deployment,
        text.replace("--allow-loopback=false", "--allow-loopback=true"),
    )
    .unwrap();

    let base = dir.path().join("config/default");
    let applied = cluster
        .plane
        .kubectl(["apply", "-k", base.to_str().unwrap()])
        .await
        .unwrap();
    assert!(!applied.err.contains("PodSecurity"), "{}", applied.err);
    applied.stdout().unwrap();
    cluster.established().await;
    effective(&cluster).await;
    Job::new(&cluster, "team-a").await.run().await.unwrap();
}
