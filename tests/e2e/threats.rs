//! Threats that need a cluster to be shown: T1, T3, T5, T22, T23, T37, T38 and T39.

use affix::api::{ConditionType, Reason, find_condition};
use affix_testbed::hostile::{
    Account, Auth, Bearer, Fault, Filtering, HostileRegistry, Location, Matcher, Op, Paging,
    Quirks, Reply,
};
use affix_testbed::registry::Registry;
use kube::config::Kubeconfig;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{END_OF_LIFE, LIFECYCLE, attachment, host, note, push, with};
use crate::support::namespace::Namespace;

#[tokio::test]
async fn t1_the_api_server_of_the_kubeconfig_is_no_registry_under_any_name() {
    let namespace = Namespace::new("t1").await;
    let kubeconfig = Kubeconfig::read_from(namespace.plane.kubeconfig()).unwrap();
    let server = kubeconfig.clusters[0]
        .cluster
        .as_ref()
        .unwrap()
        .server
        .clone()
        .unwrap();
    let port = server.rsplit(':').next().unwrap().trim_end_matches('/');
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    // Where a registry of the same machine sends us is judged alike.
    let sends = HostileRegistry::start().await.unwrap();
    host(&sends, "v1");
    let opened = format!("https://localhost:{port}/upload");
    sends.fault(
        Matcher::on(Op::UploadStart),
        Reply::status(202).header("Location", &opened),
    );
    // No rule for uploads allows it either.
    let rule = ["--upload-hosts", "localhost:*"];
    let _controller = Controller::start_with(&namespace, &rule).await;
    for (name, host) in [
        ("address", "127.0.0.1"),
        ("name", "localhost"),
        ("mapped", "[::ffff:127.0.0.1]"),
    ] {
        namespace
            .apply(name, note(&format!("{host}:{port}/team/app:v1")))
            .await;
        let message = namespace.refused(name, Reason::HostNotAllowed).await;
        assert!(message.contains("the cluster's API"), "{name}: {message}");
    }
    namespace
        .apply(
            "led",
            with(
                note(&sends.reference("team/app:v1")),
                json!({"targets": {"scope": "Index"}}),
            ),
        )
        .await;
    let message = namespace.refused("led", Reason::HostNotAllowed).await;
    assert!(message.contains("the cluster's API"), "{message}");
    // Another port of the machine is another server.
    namespace.apply("beside", note(&image)).await;
    namespace.ready("beside").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn t3_each_limit_is_a_flag_of_the_operator_and_its_message_names_the_number() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let namespace = Namespace::new("t3").await;
    let flags = "--max-listing-pages 3 --max-referrers 5 --max-index-entries 6 --max-index-depth 1 --max-manifest-bytes 20000 \
                 --max-listing-bytes 4000 --max-pass-bytes 25000";
    let _controller = Controller::start_with(
        &namespace,
        &flags.split_ascii_whitespace().collect::<Vec<_>>(),
    )
    .await;
    let mut registries = Vec::new();
    for what in ["pages", "circle", "referrers", "listing"] {
        let registry = HostileRegistry::start().await.unwrap();
        let image = host(&registry, "v1");
        match what {
            "pages" => registry.quirks(|quirks| quirks.paging = Paging::EndlessEmpty),
            "circle" => registry.quirks(|quirks| quirks.paging = Paging::Circle(1)),
            "referrers" => registry.quirks(|quirks| {
                (quirks.made_up_entries, quirks.filtering) = (6, Filtering::Ignored);
            }),
            _ => {
                let large = json!({"mediaType": INDEX, "manifests": [], "annotations": {"a": "x".repeat(5000)}});
                drop(registry.fault(
                    Matcher::on(Op::ReferrersList),
                    Reply::body(200, INDEX, large.to_string()),
                ));
            }
        }
        namespace
            .apply(
                what,
                with(
                    note(&registry.reference(&image.name())),
                    json!({"targets": {"scope": "Index"}}),
                ),
            )
            .await;
        registries.push(registry);
    }
    let images = HostileRegistry::start().await.unwrap();
    let padded = |tag: &str, bytes: usize| {
        images
            .image("team/app", tag)
            .platform("linux/amd64")
            .annotation("a", &"x".repeat(bytes))
            .push()
    };
    padded("manifest", 30_000);
    images
        .image("team/app", "entries")
        .platforms(["a/a", "a/b", "a/c", "a/d", "a/e", "a/f", "a/g"])
        .push();
    let below = padded("below", 14_000);
    images
        .image("team/app", "pass")
        .platform("linux/arm64")
        .annotation("a", &"y".repeat(14_000))
        .entry(&below.descriptor())
        .push();
    // Three levels of indexes.
    let nest = |below: serde_json::Value| {
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [below]}).to_string();
        let digest = images
            .store()
            .put_manifest("team/app", None, INDEX, index.clone());
        json!({"mediaType": INDEX, "digest": digest, "size": index.len()})
    };
    let deepest = images
        .image("team/app", "deepest")
        .platform("linux/amd64")
        .push();
    let nested = nest(nest(deepest.descriptor()));
    images
        .image("team/app", "depth")
        .platform("linux/amd64")
        .entry(&nested)
        .push();
    for name in ["manifest", "entries", "depth", "pass"] {
        namespace
            .apply(name, note(&images.reference(&format!("team/app:{name}"))))
            .await;
    }
    for (name, said) in [
        ("pages", "the listing has too many pages (the limit is 3)"),
        (
            "circle",
            "the listing repeats a page: its links form a circle (the limit is 3)",
        ),
        (
            "referrers",
            "the subject has too many referrers (the limit is 5)",
        ),
        (
            "listing",
            "all pages of the listing together are too large, in bytes (the limit is 4000)",
        ),
        (
            "manifest",
            "the answer is too large, in bytes (the limit is 20000)",
        ),
        ("entries", "the index has 7 entries (the limit is 6)"),
    ] {
        let message = namespace.refused(name, Reason::LimitExceeded).await;
        assert!(message.contains(said), "{name}: {message}");
    }
    // An index in the index that cannot be read is its own row's trouble.
    for (name, said) in [
        ("depth", "nested deeper than 1 levels"),
        (
            "pass",
            "all answers of this pass together are too large, in bytes (the limit is 25000)",
        ),
    ] {
        let object = namespace
            .wait(name, "said", |object| {
                object
                    .status
                    .as_ref()
                    .is_some_and(|status| status.targets.len() > 2)
            })
            .await;
        let rows = object.status.unwrap().targets;
        let row = rows
            .iter()
            .find(|row| row.reason.as_deref() == Some("LimitExceeded"))
            .unwrap_or_else(|| panic!("{rows:#?}"));
        assert!(row.message.as_deref().unwrap().contains(said), "{row:#?}");
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn t3_a_pass_over_the_time_limit_names_both_times_and_is_retried() {
    let namespace = Namespace::new("t3-time").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").pinned());
    registry.fault(Matcher::on(Op::ManifestGet), Fault::Hang);
    let _controller = Controller::start_with(&namespace, &["--max-pass-time", "2s"]).await;
    // Neither the interval nor a new digest brings it back.
    namespace
        .apply(
            "time",
            with(note(&image), json!({"timeout": "1m", "interval": "24h"})),
        )
        .await;
    let message = namespace.refused("time", Reason::RegistryUnavailable).await;
    let said = "the pass was not done within 2 s, the operator's limit for one pass (--max-pass-time), where spec.timeout asks for 60 s";
    assert!(message.contains(said), "{message}");
    let conditions = namespace.status("time").await.conditions;
    let is_there = |kind| find_condition(&conditions, kind).is_some();
    assert!(
        is_there(ConditionType::Reconciling) && !is_there(ConditionType::Stalled),
        "{conditions:#?}"
    );
    registry.calm();
    namespace.ready("time").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn t5_a_resource_uses_nothing_of_another_namespace_nor_of_the_operator() {
    let ours = Namespace::new("t5-ours").await;
    let theirs = Namespace::new("t5-theirs").await;
    let registry = HostileRegistry::builder()
        .passwords([Account::new("alice", "right")])
        .start()
        .await
        .unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    theirs
        .login("login", &registry.host(), "alice", "right")
        .await;
    theirs.config_map("sigs", json!({"a": "b"})).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}, "imagePullSecrets": [{"name": "login"}]});
    theirs.apply_object(account.clone()).await;
    ours.apply_object(account).await;
    // The operator has logins of its own, which are nobody's to use.
    let home = tempfile::tempdir().unwrap();
    let config =
        json!({"auths": {registry.host(): {"username": "alice", "password": "right"}}}).to_string();
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

    theirs
        .apply(
            "theirs",
            with(note(&image), json!({"secretRef": {"name": "login"}})),
        )
        .await;
    ours.apply(
        "secret",
        with(note(&image), json!({"secretRef": {"name": "login"}})),
    )
    .await;
    ours.apply(
        "account",
        with(note(&image), json!({"serviceAccountName": "builder"})),
    )
    .await;
    ours.apply("nothing", note(&image)).await;
    let file = json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "a"}}});
    ours.apply(
        "file",
        with(
            note(&image),
            json!({"artifact": {"artifactType": "a/b", "files": [file]}}),
        ),
    )
    .await;
    theirs.ready("theirs").await;
    ours.refused("secret", Reason::SecretNotFound).await;
    ours.refused("account", Reason::SecretNotFound).await;
    ours.refused("file", Reason::FileMissing).await;
    ours.refused("nothing", Reason::AuthenticationFailed).await;
    // No field leads out of the namespace: what tries to is not even kept.
    let strays = [
        (
            "a",
            with(
                note(&image),
                json!({"secretRef": {"name": "login", "namespace": theirs.name}}),
            ),
        ),
        (
            "b",
            with(
                note(&image),
                json!({"secretRef": {"name": format!("{}/login", theirs.name)}}),
            ),
        ),
    ];
    for (name, spec) in strays {
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": ours.name}, "spec": spec});
        let applied = ours
            .plane
            .kubectl_with(
                ["create", "--validate=false", "-f", "-"],
                object.to_string(),
            )
            .await
            .unwrap();
        if applied.status.success() {
            assert!(
                serde_json::to_value(ours.get(name).await.spec).unwrap()["secretRef"]
                    .get("namespace")
                    .is_none()
            );
            ours.refused(name, Reason::SecretNotFound).await;
        }
    }
    ours.check_rules().await;
    theirs.check_rules().await;
}

#[tokio::test]
async fn t22_dates_are_written_as_given_and_what_is_no_date_is_refused() {
    let namespace = Namespace::new("t22").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
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
        let made = raw
            .manifest("team/app", attachment(&status.targets, image.digest()))
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(made["annotations"][END_OF_LIFE], *date);
        let listing = raw
            .referrers("team/app", image.digest())
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(
            listing["manifests"].as_array().map(Vec::len),
            Some(1),
            "after {} dates: {listing}",
            nth + 1
        );
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
        let applied = namespace
            .plane
            .kubectl_with(["create", "-f", "-"], object.to_string())
            .await
            .unwrap();
        if applied.status.success() {
            let message = namespace.refused(&name, Reason::InvalidSpec).await;
            assert!(
                message.contains("endOfLife.date") && message.contains(date),
                "{date}: {message}"
            );
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
    let artifact = |file: serde_json::Value| {
        with(
            note(&image),
            json!({"artifact": {"artifactType": "a/b", "files": [file]}}),
        )
    };
    let files = [
        (
            "as-map",
            json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "key"}}}),
        ),
        (
            "as-secret",
            json!({"name": "f", "valueFrom": {"secretKeyRef": {"name": "sigs", "key": "key"}}}),
        ),
        (
            "as-both",
            json!({"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "key"}, "secretKeyRef": {"name": "sigs", "key": "key"}}}),
        ),
    ];
    for (name, file) in files {
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": namespace.name}, "spec": artifact(file)});
        let applied = namespace
            .plane
            .kubectl_with(
                ["create", "--validate=false", "-f", "-"],
                object.to_string(),
            )
            .await
            .unwrap();
        match name {
            "as-secret" => assert!(applied.failure().unwrap().contains("configMapKeyRef")),
            _ => {
                applied.stdout().unwrap();
                let message = namespace.refused(name, Reason::FileMissing).await;
                assert!(
                    message.contains("ConfigMap") && message.contains("sigs"),
                    "{message}"
                );
            }
        }
    }
    let base64 = "YzRuNHJ5LTlmMjc=";
    let leaks = |text: &str| text.contains(CANARY) || text.contains(base64);
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| !leaks(&String::from_utf8_lossy(&request.body))),
        "{}",
        registry.transcript()
    );
    assert!(!leaks(&controller.log()));
    assert!(!leaks(&format!("{:?}", namespace.events("as-map").await)));
    namespace.check_rules().await;
}

#[tokio::test]
async fn t37_new_resources_use_the_token_service_that_the_registry_names_now() {
    let namespace = Namespace::new("t37").await;
    let registry = HostileRegistry::builder()
        .tokens([Account::new("ci", "canary-password")])
        .start()
        .await
        .unwrap();
    let image = registry.reference(&host(&registry, "v1").pinned());
    let former = HostileRegistry::builder()
        .issuer(&registry.issuer())
        .start()
        .await
        .unwrap();
    former.fault(Matcher::on(Op::Token), Reply::status(404));
    let bearer = Bearer::new(&registry.issuer());
    registry.set_auth(Auth::Bearer(bearer.clone().realm(former.token_url())));
    namespace
        .login("login", &registry.host(), "ci", "canary-password")
        .await;
    let _controller = Controller::start(&namespace).await;
    let resource = || with(note(&image), json!({"secretRef": {"name": "login"}}));
    namespace.apply("before", resource()).await;
    namespace.refused("before", Reason::NotFound).await;
    registry.set_auth(Auth::Bearer(bearer));
    namespace.apply("after", resource()).await;
    namespace.ready("after").await;
    namespace.ready("before").await;
    // No pass from before the change is left.
    former.clear();
    former.calm();
    registry.issuer().revoke_all();
    for name in ["before", "after"] {
        namespace.request(name, "again").await;
    }
    assert!(former.requests().is_empty(), "{}", former.transcript());
    namespace.check_rules().await;
}

#[tokio::test]
async fn t38_a_registry_writes_a_tenant_s_bytes_only_to_hosts_of_a_rule() {
    let namespace = Namespace::new("t38").await;
    let registry = HostileRegistry::start().await.unwrap();
    let inside = HostileRegistry::builder()
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    let image = registry.reference(&host(&registry, "v1").pinned());
    registry.quirks(|quirks| {
        *quirks = Quirks {
            upload_location: Location::Under(inside.url()),
            ..Quirks::distribution()
        }
    });
    let files = json!({
        "image": image, "insecure": true, "targets": {"scope": "Index"},
        "artifact": {
            "artifactType": "application/vnd.demo.thing",
            "files": [{"name": "a.txt", "value": "bytes of the tenant"}],
        },
    });
    {
        let _controller = Controller::start(&namespace).await;
        namespace.apply("files", files).await;
        let message = namespace.refused("files", Reason::HostNotAllowed).await;
        assert!(
            message.contains(&inside.host()) && message.contains("--upload-hosts"),
            "{message}"
        );
        assert_eq!(inside.connections(), 0);
    }
    let rule = ["--upload-hosts", &inside.host()];
    let _controller = Controller::start_with(&namespace, &rule).await;
    namespace.ready("files").await;
    assert!(
        inside.count(Op::UploadPut) > 0 && inside.with_credentials().is_empty(),
        "{}",
        inside.transcript()
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn t39_proxies_and_authorities_of_resources_are_refused_by_flag() {
    let namespace = Namespace::new("t39").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").pinned());
    let own = HostileRegistry::builder().tls().start().await.unwrap();
    let proxy = json!({"address": own.url()});
    namespace.secret("proxy", proxy).await;
    namespace
        .secret("ca", json!({"ca.crt": own.ca_pem()}))
        .await;
    namespace
        .login("login", &registry.host(), "ci", "canary-password")
        .await;
    let flags = ["--tenant-proxies=refuse", "--tenant-authorities=refuse"];
    let _controller = Controller::start_with(&namespace, &flags).await;
    for (name, field) in [("proxy", "proxySecretRef"), ("ca", "certSecretRef")] {
        let access = json!({"secretRef": {"name": "login"}, field: {"name": name}});
        namespace.apply(name, with(note(&image), access)).await;
    }
    for (name, expected) in [
        (
            "proxy",
            "spec.proxySecretRef: proxies of resources are ruled out by --tenant-proxies=refuse",
        ),
        (
            "ca",
            "spec.certSecretRef: certificate authorities of resources are ruled out by --tenant-authorities=refuse",
        ),
    ] {
        let message = namespace.refused(name, Reason::InvalidSpec).await;
        assert!(message.contains(expected), "{name}: {message}");
        let conditions = namespace.status(name).await.conditions;
        assert!(find_condition(&conditions, ConditionType::Stalled).is_some());
    }
    assert!(registry.requests().is_empty() && own.connections() == 0);
    let login = json!({"secretRef": {"name": "login"}});
    namespace.apply("plain", with(note(&image), login)).await;
    namespace.ready("plain").await;
    namespace.check_rules().await;
}
