//! The questions of an operator on call, each answered with the means that an operator has.
//!
//! Further answers have their tests elsewhere: `logs.rs` (which resource fails and why), `replicas.rs` (who leads), `alerts.rs`
//! (what needs attention), and `tests/admission/workloads.rs` (why the pod did not start).

use std::collections::BTreeSet;
use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::run::Run;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{END_OF_LIFE, LIFECYCLE, host, mark, note};
use crate::support::namespace::Namespace;
use crate::support::pods::{container, run};

/// The signatures in a registry: subject and digest.
fn signatures(registry: &HostileRegistry, subjects: &[&str]) -> BTreeSet<(String, String)> {
    let of = |subject: &str| {
        let referrers = registry.store().referrers("team/app", subject).into_iter();
        let signed = referrers.filter(|referrer| {
            let manifest = referrer.json();
            let types = [&manifest["artifactType"], &manifest["config"]["mediaType"]];
            types.contains(&&json!("application/vnd.cncf.notary.signature"))
        });
        let pairs: Vec<_> = signed
            .map(|referrer| (subject.to_owned(), referrer.digest))
            .collect();
        pairs
    };
    subjects.iter().flat_map(|subject| of(subject)).collect()
}

#[tokio::test]
async fn what_was_signed_last_night_the_info_lines_equal_the_registry() {
    let namespace = Namespace::new("night").await;
    let registry = HostileRegistry::start().await.unwrap();
    let authority = Authority::new().unwrap();
    let days = Duration::from_hours(24 * 300);
    namespace
        .tls("key", &authority.signer_for(days).unwrap())
        .await;
    let controller = Controller::start_logging(&namespace, &[], &[]).await;
    let images = ["v1", "v2", "v3"].map(|tag| host(&registry, tag));
    for image in &images {
        let reference = registry.reference(&image.name());
        let signed = json!({"image": reference, "insecure": true, "signature": {"notation": {"keySecretRef": {"name": "key"}}}});
        let signed_name = format!("signed-{}", image.tag);
        namespace.apply(&signed_name, signed).await;
        // What is attached but no signature is told apart.
        let noted_name = format!("noted-{}", image.tag);
        namespace.apply(&noted_name, note(&reference)).await;
        namespace.ready(&signed_name).await;
        namespace.ready(&noted_name).await;
    }
    let (.., log) = controller.terminate().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let made = lines.filter(|line: &Value| {
        line["level"] == "INFO"
            && line["message"] == "attachment made"
            && line["signer"]
                .as_str()
                .is_some_and(|key| key.starts_with("key "))
    });
    let told: BTreeSet<_> = made
        .map(|line| (text(&line["subject"]), text(&line["digest"])))
        .collect();
    let manifests = images.iter().flat_map(|image| {
        let children = image.children.iter().map(|child| child.digest.as_str());
        children.chain([image.digest.as_str()])
    });
    let subjects: Vec<&str> = manifests.collect();
    assert_eq!(told, signatures(&registry, &subjects), "{log}");
    assert_eq!(told.len(), 9, "{log}");
}

#[tokio::test]
async fn which_namespaces_run_what_is_out_of_life_the_report_of_all_namespaces_says() {
    let [first, second, third] = [
        Namespace::new("runs-old").await,
        Namespace::new("runs-both").await,
        Namespace::new("runs-good").await,
    ];
    let registry = HostileRegistry::start().await.unwrap();
    let (old, good) = (host(&registry, "v1"), host(&registry, "v2"));
    let _controller = Controller::start(&first).await;
    first
        .apply("old", mark(&registry.reference(&old.pinned())))
        .await;
    first.ready("old").await;
    for (namespace, name, image) in [
        (&first, "old", &old),
        (&second, "old", &old),
        (&second, "good", &good),
        (&third, "good", &good),
    ] {
        let (tag, digest) = (image.name(), image.pinned());
        let container = container(&registry.reference(&tag), &registry.reference(&digest));
        run(namespace, name, "nowhere", container).await;
    }
    let (types, hosts) = (format!("{LIFECYCLE}={END_OF_LIFE}"), registry.host());
    let home = tempfile::tempdir().unwrap();
    let report = Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(["report", "-A", "-o", "json", "--lifecycle-type", &types])
        .args(["--insecure-registries", &hosts])
        .env("KUBECONFIG", first.plane.kubeconfig())
        .env("HOME", home.path());
    let report = report.output().await.unwrap();
    assert_eq!(report.status.code(), Some(1), "{report:?}");
    let report: Value = serde_json::from_str(&report.out).unwrap();
    // Other tests run pods in the same cluster.
    let images = report["images"].as_array().unwrap().iter();
    let own = images.filter(|image| image["image"].as_str().unwrap().starts_with(&hosts));
    let old: BTreeSet<&str> = own
        .filter(|image| image["state"] == "OutOfLife")
        .map(|image| image["namespace"].as_str().unwrap())
        .collect();
    assert_eq!(
        old,
        BTreeSet::from([&*first.name, &*second.name]),
        "{report:#}"
    );
}
