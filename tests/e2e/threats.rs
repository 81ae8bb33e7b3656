//! Threats that need a cluster to be shown: T5, T22 and T23.

use affix::api::Reason;
use affix_testbed::hostile::{Account, HostileRegistry};
use affix_testbed::registry::Registry;
use serde_json::json;

use crate::controller::Controller;
use crate::images::{END_OF_LIFE, LIFECYCLE, attachment, host, note, push, with};
use crate::namespace::Namespace;

#[tokio::test]
async fn t5_a_resource_uses_nothing_of_another_namespace_nor_of_the_operator() {
    let ours = Namespace::new("t5-ours").await;
    let theirs = Namespace::new("t5-theirs").await;
    let registry = HostileRegistry::builder().passwords([Account::new("alice", "right")]).start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    theirs.login("login", &registry.host(), "alice", "right").await;
    theirs.config_map("sigs", json!({"a": "b"})).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}, "imagePullSecrets": [{"name": "login"}]});
    theirs.apply_object(account.clone()).await;
    ours.apply_object(account).await;
    // The operator has logins of its own, which are nobody's to use.
    let home = tempfile::tempdir().unwrap();
    let config = json!({"auths": {registry.host(): {"username": "alice", "password": "right"}}}).to_string();
    std::fs::create_dir_all(home.path().join(".docker")).unwrap();
    std::fs::write(home.path().join(".docker/config.json"), &config).unwrap();
    std::fs::write(home.path().join("auth.json"), &config).unwrap();
    let (kubeconfig, auth) = (ours.plane.kubeconfig(), home.path().join("auth.json"));
    let docker = home.path().join(".docker");
    let env = [
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ("HOME", home.path().to_str().unwrap()),
        ("DOCKER_CONFIG", docker.to_str().unwrap()),
        ("REGISTRY_AUTH_FILE", auth.to_str().unwrap()),
    ];
    let both = format!("{},{}", ours.name, theirs.name);
    let _controller = Controller::start_in(&ours, &["--watch-namespaces", &both], &env).await;

    theirs.apply("theirs", with(note(&image), json!({"secretRef": {"name": "login"}}))).await;
    ours.apply("secret", with(note(&image), json!({"secretRef": {"name": "login"}}))).await;
    ours.apply("account", with(note(&image), json!({"serviceAccountName": "builder"}))).await;
    ours.apply("nothing", note(&image)).await;
    let file = json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "a"}}});
    ours.apply("file", with(note(&image), json!({"artifact": {"artifactType": "a/b", "files": [file]}}))).await;
    theirs.ready("theirs").await;
    ours.refused("secret", Reason::SecretNotFound).await;
    ours.refused("account", Reason::SecretNotFound).await;
    ours.refused("file", Reason::FileMissing).await;
    ours.refused("nothing", Reason::AuthenticationFailed).await;
    // No field leads out of the namespace: what tries to is not even kept.
    let strays = [
        ("a", with(note(&image), json!({"secretRef": {"name": "login", "namespace": theirs.name}}))),
        ("b", with(note(&image), json!({"secretRef": {"name": format!("{}/login", theirs.name)}}))),
    ];
    for (name, spec) in strays {
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": ours.name}, "spec": spec});
        let applied = ours.plane.kubectl_with(["create", "--validate=false", "-f", "-"], object.to_string()).await.unwrap();
        if applied.status.success() {
            assert!(serde_json::to_value(ours.get(name).await.spec).unwrap()["secretRef"].get("namespace").is_none());
            ours.refused(name, Reason::SecretNotFound).await;
        }
    }
    ours.check_rules().await;
    theirs.check_rules().await;
}

#[tokio::test]
async fn t22_dates_are_written_as_given_and_what_is_no_date_is_refused() {
    let namespace = Namespace::new("t22").await;
    let registry = Registry::ociregistry(&namespace.tools).start().await.unwrap();
    let image = push(&registry, "team/app", "v1").await;
    let raw = registry.raw().unwrap();
    let _controller = Controller::start(&namespace).await;
    let mark = |date: &str| {
        json!({
            "image": image.pinned(), "insecure": true, "targets": {"scope": "Index"},
            "endOfLife": {"date": date, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
        })
    };
    let good = [
        "2025-03-20T01:20:30Z",
        "2025-03-20T01:20:30+05:30",
        "2025-03-20T01:20:30-12:00",
        "2023-05-12T21:15:10.8343521Z",
        "2024-02-29",
        "2024-02-29T23:59:59Z",
        "9999-12-31",
        "9999-12-30T23:59:59Z",
        "2025-03-20",
        "1999-01-01",
    ];
    // One resource that changes its mind: each date is then the newest mark, and the only one.
    for (nth, date) in good.iter().enumerate() {
        namespace.apply("date", mark(date)).await;
        let status = namespace.ready("date").await;
        let made = raw.manifest("team/app", attachment(&status.targets, image.digest())).await.unwrap().json().unwrap();
        assert_eq!(made["annotations"][END_OF_LIFE], *date);
        let listing = raw.referrers("team/app", image.digest()).await.unwrap().json().unwrap();
        assert_eq!(listing["manifests"].as_array().map(Vec::len), Some(1), "after {} dates: {listing}", nth + 1);
    }
    let bad = [
        "2025-02-29",
        "2025-13-01",
        "2025-00-10",
        "2025-04-31",
        "20250320",
        "2025-3-20",
        "2025-03-20T01:20:30",
        "2025-03-20 01:20:30Z",
        "2025-03-20T25:00:00Z",
        "2025-03-20T01:20:30+25:00",
        "10000-01-01",
        "soon",
        "",
    ];
    for (nth, date) in bad.iter().enumerate() {
        let name = format!("bad-{nth}");
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": namespace.name}, "spec": mark(date)});
        let applied = namespace.plane.kubectl_with(["create", "-f", "-"], object.to_string()).await.unwrap();
        if applied.status.success() {
            let message = namespace.refused(&name, Reason::InvalidSpec).await;
            assert!(message.contains("endOfLife.date") && message.contains(date), "{date}: {message}");
        } else {
            assert!(applied.err.contains("date"), "{date}: {}", applied.err);
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn t23_a_secret_is_never_published_as_an_attachment() {
    const CANARY: &str = "c4n4ry-9f27";
    let namespace = Namespace::new("t23").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    namespace.secret("sigs", json!({"key": CANARY})).await;
    let controller = Controller::start(&namespace).await;
    let artifact = |file: serde_json::Value| with(note(&image), json!({"artifact": {"artifactType": "a/b", "files": [file]}}));
    let files = [
        ("as-map", json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "key"}}})),
        ("as-secret", json!({"name": "f", "valueFrom": {"secretKeyRef": {"name": "sigs", "key": "key"}}})),
        (
            "as-both",
            json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "key"}, "secretKeyRef": {"name": "sigs", "key": "key"}}}),
        ),
    ];
    for (name, file) in files {
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": namespace.name}, "spec": artifact(file)});
        let applied = namespace.plane.kubectl_with(["create", "--validate=false", "-f", "-"], object.to_string()).await.unwrap();
        match name {
            "as-secret" => assert!(applied.failure().unwrap().contains("configMapKeyRef")),
            _ => {
                applied.stdout().unwrap();
                let message = namespace.refused(name, Reason::FileMissing).await;
                assert!(message.contains("ConfigMap") && message.contains("sigs"), "{message}");
            }
        }
    }
    let base64 = "YzRuNHJ5LTlmMjc=";
    let leaks = |text: &str| text.contains(CANARY) || text.contains(base64);
    assert!(registry.requests().iter().all(|request| !leaks(&String::from_utf8_lossy(&request.body))), "{}", registry.transcript());
    assert!(!leaks(&controller.log()));
    assert!(!leaks(&format!("{:?}", namespace.events("as-map").await)));
    namespace.check_rules().await;
}
