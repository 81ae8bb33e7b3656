//! ImageAttachments get the same verdict with and without the webhook.

use affix::api::{ConditionType, ImageAttachment, find_condition};
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use kube::Api;
use serde_json::{Value, json};

use crate::corpus;
use crate::support::invalid_specs::beyond_the_schema;
use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

const ALLOWED: &[&str] = &[
    "--insecure-allow-http=false",
    "--allowed-registries",
    "registry.example.com,*.example.com,169.254.169.254,metadata.google.internal,127.0.0.1:*,2852039166:443,0251.0376.0251.0376",
];

#[tokio::test]
async fn an_invalid_resource_is_refused_with_the_webhook_and_stalled_without_it() {
    let (on, off) = (
        TestNamespace::new("on", json!({})).await,
        TestNamespace::new("off", json!({})).await,
    );
    let (_webhook, _) = Affix::webhook(&on, ALLOWED).await;
    let _controller = Affix::controller(&off, ALLOWED);
    let mut wrong = Vec::new();
    // The schema refuses with the same text in both namespaces.
    for bad in corpus::bad() {
        for namespace in [&on, &off] {
            match namespace.try_create(&bad.spec).await {
                Err(output) if output.contains(bad.says) => {}
                other => wrong.push(format!(
                    "{} in {}: expected {:?}, found {other:?}",
                    bad.sentence, namespace.name, bad.says
                )),
            }
        }
    }
    let rows = beyond_the_schema();
    println!(
        "{} that the schema refuses, {} that code refuses",
        corpus::bad().len(),
        rows.len()
    );
    assert!(corpus::bad().len() + rows.len() >= 60 && rows.len() >= 30);
    // Every reason that depends neither on the cluster nor on a registry.
    for reason in [
        "InvalidReference",
        "InvalidSpec",
        "InsecureNotAllowed",
        "HostNotAllowed",
    ] {
        assert!(
            rows.iter().any(|(_, _, of, _)| *of == reason),
            "{reason} has no row"
        );
    }
    for (index, (sentence, spec, _, says)) in rows.iter().enumerate() {
        let object = TestNamespace::attachment(&format!("bad-{index}"), spec);
        for more in [&[] as &[&str], &["--dry-run=server"]] {
            match on.apply_with(&object, more).await {
                Err(output)
                    if output.contains(says)
                        && output.contains("spec.")
                        && output.contains("imageattachments.affix.dev") => {}
                other => wrong.push(format!("{sentence}: expected {says:?}, found {other:?}")),
            }
        }
        off.apply(&object).await.unwrap();
    }
    let api: Api<ImageAttachment> = Api::namespaced(off.client.clone(), &off.name);
    for (index, (sentence, _, reason, says)) in rows.iter().enumerate() {
        let mut found = String::new();
        wait_for(sentence, async || {
            let status = api
                .get(&format!("bad-{index}"))
                .await
                .unwrap()
                .status
                .unwrap_or_default();
            found = find_condition(&status.conditions, ConditionType::Stalled)
                .map(|c| format!("{}: {}", c.reason, c.message))
                .unwrap_or_default();
            !found.is_empty()
        })
        .await;
        if !found.starts_with(reason) || !found.contains(says) {
            wrong.push(format!(
                "{sentence}, without the webhook: expected {reason}: {says:?}, found {found:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        output(&on).await,
        "",
        "a refused resource or a dry run was stored"
    );
}

#[tokio::test]
async fn valid_resources_are_admitted_and_a_dry_run_stores_nothing() {
    let namespace = TestNamespace::new("good", json!({})).await;
    let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
    let mut refused = Vec::new();
    for (sentence, spec) in corpus::good() {
        if let Err(output) = namespace
            .apply_with(
                &TestNamespace::attachment("good", &spec),
                &["--dry-run=server"],
            )
            .await
        {
            refused.push(format!("{sentence}: {output}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(!output(&namespace).await.contains("good"));
}

#[tokio::test]
async fn an_existing_resource_can_be_suspended_after_its_registry_is_disallowed() {
    let namespace = TestNamespace::new("tightened", json!({})).await;
    let artifact = json!({"artifactType": "application/vnd.demo", "annotations": {"a": "b"}});
    let spec = json!({"image": "old.example.com/team/app:v1", "artifact": artifact});
    {
        let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
        let resource = TestNamespace::attachment("existing", &spec);
        namespace.apply(&resource).await.unwrap();
    }
    let allowed = ["--allowed-registries", "registry.example.com"];
    let (_webhook, _) = Affix::webhook(&namespace, &allowed).await;
    let patch = async |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        let args = ["patch", "ia", "existing", "--type=merge", "-p", &patch];
        crate::support::namespace::output(namespace.kubectl(&args).await)
    };
    for change in [
        json!({"suspend": true}),
        json!({"deletionPolicy": "Retain"}),
    ] {
        let text = patch(change).await.unwrap();
        assert!(
            text.contains("Warning: admitted, but still invalid: spec.image: ")
                && text.contains("old.example.com"),
            "{text}"
        );
    }
    let text = patch(json!({"image": "old.example.com/team/app:v2"}))
        .await
        .unwrap_err();
    assert!(
        text.contains("denied the request: spec.image: ") && text.contains("--allowed-registries"),
        "{text}"
    );
}

#[tokio::test]
async fn risky_resources_are_admitted_with_a_warning() {
    let namespace = TestNamespace::new("risky", json!({})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let push = async |seed: &str| {
        let index = Index::new()
            .image(Image::new("linux/amd64", seed))
            .image(Image::new("linux/arm64", seed));
        index
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap()
    };
    let (old, new) = (push("old").await, push("new").await);
    let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
    let secret = |annotations: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cosign-key", "annotations": annotations}});
    namespace.apply(&secret(json!({}))).await.unwrap();
    let signed = json!({"image": new.tagged(), "insecure": true, "signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}}});
    let pinned = format!("{}@{}", old.tagged(), old.digest());
    let moved = json!({"image": pinned, "insecure": true, "endOfLife": {"date": "2025-03-20"}});
    let mut excluded = moved.clone();
    excluded["image"] = json!(new.pinned());
    excluded["targets"] = json!({"excludePlatforms": ["linux/386"]});
    for (spec, says) in [
        (
            &signed,
            "Warning: the key Secret cosign-key signs a tag in any repository: add the annotation affix.dev/repositories",
        ),
        (&moved, "Warning: the tag v1 now resolves to sha256:"),
        (
            &excluded,
            "Warning: the excluded platform \"linux/386\" matches no entry",
        ),
    ] {
        // On a busy machine the look-up may exceed its time limit, which suppresses the warning.
        let mut index = 0;
        wait_for(says, async || {
            index += 1;
            let mut spec = spec.clone();
            spec["interval"] = json!(format!("{index}h"));
            namespace
                .apply(&TestNamespace::attachment("risky", &spec))
                .await
                .unwrap()
                .contains(says)
        })
        .await;
        namespace
            .kubectl(&["delete", "ia", "risky"])
            .await
            .stdout()
            .unwrap();
    }
    namespace
        .apply(&secret(json!({"affix.dev/repositories": "127.0.0.1:*/*"})))
        .await
        .unwrap();
    let text = namespace
        .apply(&TestNamespace::attachment("safe", &signed))
        .await
        .unwrap();
    assert!(!text.contains("Warning"), "{text}");
}

#[tokio::test]
async fn t39_fields_that_expose_a_login_cause_a_warning() {
    let namespace = TestNamespace::new("exposed", json!({})).await;
    let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
    let proxy = "Warning: spec.proxySecretRef: with insecure: true, the proxy can read the login for the registry";
    let authority = "Warning: spec.certSecretRef: a server with a certificate of its ca.crt can read the login of";
    for (fields, expected) in [
        (
            json!({"proxySecretRef": {"name": "p"}, "insecure": true}),
            Some(proxy),
        ),
        (
            json!({"certSecretRef": {"name": "c"}, "secretRef": {"name": "s"}}),
            Some(authority),
        ),
        (
            json!({"certSecretRef": {"name": "c"}, "serviceAccountName": "a"}),
            Some(authority),
        ),
        (
            json!({"proxySecretRef": {"name": "p"}, "secretRef": {"name": "s"}}),
            None,
        ),
        (json!({"certSecretRef": {"name": "c"}}), None),
        (json!({"insecure": true}), None),
    ] {
        let mut spec = fields.clone();
        spec["image"] = json!("registry.example.com/team/app:v1");
        spec["artifact"] =
            json!({"artifactType": "application/vnd.demo", "annotations": {"a": "b"}});
        let applied = namespace
            .apply_with(
                &TestNamespace::attachment("exposed", &spec),
                &["--dry-run=server"],
            )
            .await
            .unwrap();
        assert_eq!(
            (applied.contains(proxy), applied.contains(authority)),
            (expected == Some(proxy), expected == Some(authority)),
            "{fields}: {applied}"
        );
    }
}

async fn output(namespace: &TestNamespace) -> String {
    crate::support::namespace::output(
        namespace
            .kubectl(&["get", "imageattachments", "-o", "name"])
            .await,
    )
    .unwrap()
}
