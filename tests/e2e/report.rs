//! `affix report` on a control plane with pods.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use affix_testbed::certificates::Authority;
use affix_testbed::hostile::{Account, HostileRegistry, Image, Op};
use affix_testbed::run::{Ran, Run};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{END_OF_LIFE, LIFECYCLE, host, mark};
use crate::support::namespace::Namespace;
use crate::support::pods::{container, delete, node, run, run_pod};
use crate::support::reports::define;

/// Runs `affix report` with the marks of the tests and plain HTTP for the registry.
async fn report(kubeconfig: &Path, registry: &HostileRegistry, home: &Path, args: &[&str]) -> Ran {
    let (types, hosts) = (format!("{LIFECYCLE}={END_OF_LIFE}"), registry.host());
    let own = [
        "report",
        "--lifecycle-type",
        &types,
        "--insecure-registries",
        &hosts,
    ];
    let run = Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(own.iter().chain(args).copied())
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", home);
    run.output().await.unwrap()
}

/// The image of a container that a node has pulled by its tag.
fn pulled(registry: &HostileRegistry, image: &Image) -> Value {
    let (name, pinned) = (image.name(), image.pinned());
    container(&registry.reference(&name), &registry.reference(&pinned))
}

/// The fields of the images in the JSON, those of local images last.
fn images(report: &Value) -> Vec<Value> {
    let images = report["images"].as_array().unwrap().iter();
    let fields = ["state", "tag", "platform", "pods", "date", "signedBy"];
    let mut images: Vec<Value> = images
        .map(|image| fields.iter().map(|field| image[field].clone()).collect())
        .collect();
    images.sort_by_key(ToString::to_string);
    images
}

#[tokio::test]
async fn report_tells_by_namespace_and_platform_what_is_out_of_life_signed_or_unknown() {
    let namespace = Namespace::new("report").await;
    let registry = HostileRegistry::start().await.unwrap();
    let (old, good) = (host(&registry, "v1"), host(&registry, "v2"));
    let _controller = Controller::start(&namespace).await;
    let signer = Authority::new().unwrap();
    let days = Duration::from_hours(24 * 300);
    namespace
        .tls("key", &signer.signer_for(days).unwrap())
        .await;
    namespace
        .apply("old", mark(&registry.reference(&old.pinned())))
        .await;
    let signature = json!({
        "image": registry.reference(&good.name()), "insecure": true,
        "signature": {"notation": {"keySecretRef": {"name": "key"}}},
    });
    namespace.apply("signed", signature).await;
    for name in ["old", "signed"] {
        namespace.ready(name).await;
    }

    let (amd64, arm64) = (
        format!("{}-amd64", namespace.name),
        format!("{}-arm64", namespace.name),
    );
    node(&namespace.client, &amd64, "linux/amd64").await;
    node(&namespace.client, &arm64, "linux/arm64").await;
    for (name, node) in [("old-0", &amd64), ("old-1", &amd64), ("old-2", &arm64)] {
        run(&namespace, name, node, pulled(&registry, &old)).await;
    }
    run(&namespace, "good-0", &amd64, pulled(&registry, &good)).await;
    let local = container(
        "local/app:dev",
        &format!("docker://sha256:{}", "f".repeat(64)),
    );
    run(&namespace, "local-0", &amd64, local).await;
    let ended = json!({"metadata": {"name": "ended"}, "spec": {"containers": [{"name": "main", "image": "x"}]}});
    let status = json!({"phase": "Succeeded", "containerStatuses": [pulled(&registry, &old)]});
    run_pod(&namespace, ended, status).await;
    // A pod that waits for its image.
    let waiting = json!({"metadata": {"name": "waiting"}, "spec": {"containers": [{"name": "main", "image": "x"}]}});
    let status = json!({"phase": "Pending", "containerStatuses": [container("x", "")]});
    run_pod(&namespace, waiting, status).await;

    registry.clear();
    let (kubeconfig, home) = (namespace.plane.kubeconfig(), tempfile::tempdir().unwrap());
    let one = ["-n", &namespace.name];
    let table = report(&kubeconfig, &registry, home.path(), &one).await;
    println!("{}", table.out);
    assert_eq!(table.status.code(), Some(1), "{table:?}");
    assert_eq!(
        registry.count(Op::ManifestGet),
        2,
        "{}",
        registry.transcript()
    );
    let lines: Vec<&str> = table.out.lines().collect();
    let old_row = format!(
        "out of life since 2025-03-20T01:20:30Z  {}  ",
        namespace.name
    );
    assert!(
        lines[0].split_whitespace().eq(["STATE", "NAMESPACE", "IMAGE", "DIGEST", "PLATFORM", "PODS", "SIGNED", "BY"])
            && lines[1].contains(&old_row)
            && lines[1].contains("/team/app:v1")
            && lines[1].contains("linux/amd64  2")
            && table.out.contains(&format!("{}/signed", namespace.name))
            && table.out.contains("unknown: local/app:dev: the node reports no digest")
            && table.out.ends_with("6 pods run 3 images; by namespace and platform: 1 out of life, 0 ending soon, 1 unknown, 2 alive\n"),
        "{}", table.out
    );

    let args = ["-n", &namespace.name, "-o", "json"];
    let printed = report(&kubeconfig, &registry, home.path(), &args).await;
    let json: Value = serde_json::from_str(&printed.out).unwrap();
    let signed = format!("{}/signed", namespace.name);
    let expected = [
        json!(["Alive", "v1", "linux/arm64", 1, null, []]),
        json!(["Alive", "v2", "linux/amd64", 1, null, [signed]]),
        json!([
            "OutOfLife",
            "v1",
            "linux/amd64",
            2,
            "2025-03-20T01:20:30Z",
            []
        ]),
        json!(["Unknown", null, "linux/amd64", 1, null, []]),
    ];
    assert_eq!(images(&json), expected, "{json:#}");

    for name in ["old-0", "old-1"] {
        delete(&namespace, name).await;
    }
    let fine = report(&kubeconfig, &registry, home.path(), &one).await;
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
}

#[tokio::test]
async fn report_uses_the_user_s_logins_and_says_what_it_could_not_read() {
    let namespace = Namespace::new("report-login").await;
    let registry = HostileRegistry::builder()
        .passwords([Account::new("alice", "right")])
        .start()
        .await
        .unwrap();
    let image = host(&registry, "v1");
    run(&namespace, "app", "nowhere", pulled(&registry, &image)).await;
    let (kubeconfig, home) = (namespace.plane.kubeconfig(), tempfile::tempdir().unwrap());
    let args = ["-n", &namespace.name, "-o", "json"];
    let state = |ran: &Ran| {
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        json["images"][0].clone()
    };
    let refused = report(&kubeconfig, &registry, home.path(), &args).await;
    let unknown = state(&refused);
    assert_eq!(unknown["state"], "Unknown", "{refused:?}");
    assert!(
        unknown["cause"].as_str().unwrap().contains("401"),
        "{unknown}"
    );
    assert_eq!(refused.status.code(), Some(0), "{refused:?}");

    let login = json!({"auths": {registry.host(): {"username": "alice", "password": "right"}}});
    std::fs::create_dir_all(home.path().join(".docker")).unwrap();
    std::fs::write(home.path().join(".docker/config.json"), login.to_string()).unwrap();
    let read = report(&kubeconfig, &registry, home.path(), &args).await;
    assert_eq!(state(&read)["state"], "Alive", "{read:?}");
}

#[tokio::test]
async fn a_user_with_rights_in_one_namespace_gets_its_report_by_the_mark_of_the_index() {
    let namespace = Namespace::new("report-user").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("old", mark(&registry.reference(&image.pinned())))
        .await;
    namespace.ready("old").await;
    let node_name = format!("{}-arm64", namespace.name);
    node(&namespace.client, &node_name, "linux/arm64").await;
    run(&namespace, "app", &node_name, pulled(&registry, &image)).await;
    namespace
        .apply_object(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "affix"}}),
        )
        .await;
    namespace
        .apply_rbac(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]))
        .await;
    let kubeconfig = namespace
        .plane
        .service_account_kubeconfig(&namespace.name, "affix")
        .await
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let own = report(&kubeconfig, &registry, home.path(), &[]).await;
    assert_eq!(own.status.code(), Some(1), "{own:?}");
    assert!(
        own.out.contains("out of life since 2025-03-20T01:20:30Z")
            && own
                .err
                .contains("notice: the platforms of the nodes are unknown")
            && own
                .err
                .contains("notice: the resources that sign are unknown"),
        "{own:?}"
    );
    let all = report(&kubeconfig, &registry, home.path(), &["-A"]).await;
    assert_eq!(all.status.code(), Some(1), "{all:?}");
    assert!(all.out.is_empty() && all.err.contains("403"), "{all:?}");
}

#[tokio::test]
async fn reports_of_the_command_are_valid_by_the_definition_of_openreports() {
    let namespace = Namespace::new("report-apply").await;
    define(&namespace).await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    run(&namespace, "app", "nowhere", pulled(&registry, &image)).await;
    run(
        &namespace,
        "local",
        "nowhere",
        container("local/app:dev", "docker://sha256:0"),
    )
    .await;
    let (kubeconfig, home) = (namespace.plane.kubeconfig(), tempfile::tempdir().unwrap());
    let args = ["-n", &namespace.name, "-o", "openreports"];
    let printed = report(&kubeconfig, &registry, home.path(), &args).await;
    let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    let applied = namespace
        .plane
        .kubectl_with(apply, printed.out.clone())
        .await
        .unwrap();
    applied.stdout().unwrap();
    let get = [
        "get",
        "reports.openreports.io",
        "--namespace",
        &namespace.name,
        "-o",
        "json",
    ];
    let stored = namespace.plane.kubectl(get).await.unwrap().json().unwrap();
    let summary = json!({"pass": 1, "fail": 0, "warn": 0, "error": 1, "skip": 0});
    assert_eq!(stored["items"][0]["summary"], summary, "{stored:#}");
    assert_eq!(
        stored["items"][0]["results"].as_array().unwrap().len(),
        2,
        "{stored:#}"
    );
}

/// Runs `affix report -A` on this number of pods and of images in `spread` namespaces, and prints its time and its memory. The memory
/// may not exceed `most` MiB.
async fn measure(pods: usize, images: usize, spread: usize, most: u64) {
    let mut namespaces = Vec::new();
    for _ in 0..spread {
        namespaces.push(Namespace::new("report-crowd").await);
    }
    let registry = HostileRegistry::start().await.unwrap();
    let all: Vec<Image> = (0..images)
        .map(|nth| host(&registry, &format!("v{nth}")))
        .collect();
    // A pod of a real cluster has environment variables, probes and annotations.
    let filler = "x".repeat(4 << 10);
    let created = (0..pods).map(|nth| {
        let (namespace, image) = (&namespaces[nth / images % spread], &all[nth % images]);
        let container = pulled(&registry, image);
        let pod = json!({
            "metadata": {"name": format!("pod-{nth}"), "annotations": {"example.com/filler": filler}},
            "spec": {"nodeName": "nowhere", "containers": [{"name": "main", "image": container["image"]}]},
        });
        run_pod(namespace, pod, json!({"phase": "Running", "containerStatuses": [container]}))
    });
    futures::stream::iter(created)
        .buffer_unordered(32)
        .collect::<Vec<()>>()
        .await;

    registry.clear();
    let home = tempfile::tempdir().unwrap();
    let out = std::fs::File::create(home.path().join("out")).unwrap();
    let begun = Instant::now();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_affix"))
        .args([
            "report",
            "-A",
            "-o",
            "json",
            "--insecure-registries",
            &registry.host(),
        ])
        .env_clear()
        .env("KUBECONFIG", namespaces[0].plane.kubeconfig())
        .env("HOME", home.path())
        .stdout(Stdio::from(out))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut peak = 0;
    let exit = loop {
        // The kernel keeps the peak, so the last look before the end has all but the last moment.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default());
        if let Some(exit) = child.try_wait().unwrap() {
            break exit;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let took = begun.elapsed();
    let report: Value =
        serde_json::from_slice(&std::fs::read(home.path().join("out")).unwrap()).unwrap();
    let listed = report["images"].as_array().unwrap().iter();
    let own = listed.filter(|image| {
        image["image"]
            .as_str()
            .unwrap()
            .starts_with(&registry.host())
    });
    let counts: Vec<u64> = own.map(|image| image["pods"].as_u64().unwrap()).collect();
    println!(
        "{pods} pods of {images} images in {spread} namespaces: {took:.1?}, {} MiB, {} rows",
        peak >> 10,
        counts.len()
    );
    assert!(exit.success(), "{exit}");
    assert_eq!(counts.iter().sum::<u64>(), u64::try_from(pods).unwrap());
    assert_eq!(
        registry.count(Op::ManifestGet),
        images,
        "each image is read once"
    );
    assert!(peak >> 10 <= most, "{} MiB", peak >> 10);
}

#[tokio::test]
async fn memory_of_the_report_follows_images_and_not_pods() {
    measure(600, 20, 2, 96).await;
}

#[tokio::test]
#[ignore = "creates 10,000 pods, which takes minutes"]
async fn t36_the_report_on_10000_pods_of_400_images_needs_little_memory() {
    measure(10_000, 400, 20, 96).await;
}
