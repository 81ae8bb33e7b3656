//! Images that cannot be checked, and the settings that make them checkable: policies, exemptions, logins of
//! the webhook, private authorities and proxies.

use std::sync::Arc;
use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::cloud::{Answer, Cloud};
use affix_testbed::peer::Peer;
use affix_testbed::proxy::Proxy;
use affix_testbed::registry::{Registry, User};
use affix_testbed::tools::Tools;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use affix::admission::{DefaultMode, Lookups, ServerLimits};

use crate::support::direct::{Direct, lookups, review};
use crate::support::marked_images::{ENDED, admitted, login, mark, push, refused, webhook};
use crate::support::namespace::{TestNamespace, output, wait_for};
use crate::support::process::Affix;

async fn enforcing(about: &str) -> TestNamespace {
    TestNamespace::new(about, json!({"affix.dev/end-of-life": "enforce"})).await
}

/// Waits until a pod is admitted with this warning alone. On a busy machine a look-up can exceed its time.
async fn warned(namespace: &TestNamespace, image: &str, warning: &str) {
    wait_for(warning, async || {
        let text = namespace.try_pod(image, json!({})).await.unwrap();
        println!("{text}");
        warnings(&text) == [warning]
    })
    .await;
}

/// Returns the warnings of an output of kubectl.
fn warnings(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("Warning: "))
        .collect()
}

#[tokio::test]
async fn t35_unchecked_refuse_refuses_a_new_image_that_cannot_be_checked_and_says_why() {
    let namespace = enforcing("refusing").await;
    let mut registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let good = push(&registry, "good").await;
    let webhook = webhook(&namespace, &registry, &["--unchecked", "refuse"]).await;
    namespace
        .apply(&TestNamespace::pod("running", &good.tagged(), json!({})))
        .await
        .unwrap();
    registry.stop().await.unwrap();
    let unchecked = |image: &str| {
        format!(
            "image {image} was not checked for end of life: connection refused: check the registry"
        )
    };
    // The failure is shared by the images of the repository, each under its own name.
    let other = good.tagged().replace(":good", ":other");
    for image in [good.tagged(), other.clone()] {
        wait_for("a refusal with the cause", async || {
            let refusal = namespace.try_pod(&image, json!({})).await;
            refusal.is_err_and(|text| {
                text.contains("pods.affix.dev") && text.contains(&unchecked(&image))
            })
        })
        .await;
    }
    // A new image of a running pod is refused as well. A workload gets a warning.
    let debug = ["debug", "running", "--attach=false", "--image", &other];
    wait_for("a refusal of a debug container", async || {
        let refusal = output(namespace.kubectl(&debug).await);
        refusal.is_err_and(|text| text.contains(&unchecked(&other)))
    })
    .await;
    let create = [
        "create",
        "deployment",
        "d",
        "--dry-run=server",
        "--image",
        &other,
    ];
    wait_for("a warning at the deployment", async || {
        let text = output(namespace.kubectl(&create).await).unwrap();
        text.contains("was not checked, so its pods will be refused here: ")
            && text.contains(": check the registry")
    })
    .await;
    let log = webhook.process.log().unwrap();
    let parts = [
        "WARN",
        "image was not checked",
        &namespace.name,
        registry.host(),
        "connection refused",
    ];
    assert!(
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part))),
        "{log}"
    );
}

#[tokio::test]
async fn t35_findings_count_beyond_64_images_and_the_rest_is_unchecked() {
    let namespace = enforcing("many").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    // 70 images that need a look-up, before the last one.
    let pod = |name: &str, last: &str| {
        let repository = good.tagged().replace(":good", "");
        let mut images: Vec<String> = (0..70).map(|nth| format!("{repository}:t{nth}")).collect();
        images.push(last.to_owned());
        let containers = images
            .iter()
            .enumerate()
            .map(|(nth, image)| json!({"name": format!("c{nth}"), "image": image}));
        let mut pod = TestNamespace::pod(name, "", json!({}));
        pod["spec"]["containers"] = containers.collect();
        pod
    };
    {
        let _webhook = webhook(&namespace, &registry, &[]).await;
        // The cache has the result for the last image.
        refused(&namespace, &old.pinned(), json!({})).await;
        let mut tried = 0;
        let mut apply = async |last: &str| {
            tried += 1;
            namespace.apply(&pod(&format!("p{tried}"), last)).await
        };
        wait_for("a refusal for the known image", async || {
            apply(&old.pinned())
                .await
                .is_err_and(|text| text.contains(ENDED))
        })
        .await;
        // The result for this one is unknown: with 70 others before it, it is not looked up.
        wait_for("warnings", async || {
            let text = apply(&old.tagged()).await.unwrap();
            let found = warnings(&text);
            found.len() == 16 && found[15].starts_with("56 more warnings")
        })
        .await;
    }
    let _webhook = webhook(&namespace, &registry, &["--unchecked", "refuse"]).await;
    wait_for("a refusal", async || {
        let refusal = namespace.apply(&pod("refused", &good.pinned())).await;
        refusal.is_err_and(|text| text.contains("was not checked for end of life: "))
    })
    .await;
}

#[tokio::test]
async fn t5_the_webhook_s_own_pull_secret_checks_images_of_pods_without_one() {
    let (namespace, own) = (
        enforcing("tenant").await,
        TestNamespace::new("platform", json!({})).await,
    );
    let alice = User::new("alice", "hunter2").may("team/*", &["pull"]);
    let registry = Registry::ociregistry(&namespace.tools)
        .tokens([alice])
        .start()
        .await
        .unwrap();
    let old = push(&registry, "old").await;
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let flags = ["--insecure-registries", registry.host()];
    {
        // A Secret of the tenant is used only by the pods that name it.
        namespace.apply(&login(&registry)).await.unwrap();
        let (webhook, _) = Affix::webhook(&namespace, &flags).await;
        let expected = format!(
            "image {} was not checked for end of life: HTTP 401: add a pull secret",
            old.tagged()
        );
        warned(&namespace, &old.tagged(), &expected).await;
        let log = webhook.process.log().unwrap();
        assert!(log.contains("image was not checked"), "{log}");
    }
    own.apply(&login(&registry)).await.unwrap();
    let with_login = [&flags[..], &["--image-pull-secrets", "login"]].concat();
    let (webhook, _) = Affix::webhook_in(&namespace, &own.name, &with_login, &[]).await;
    refused(&namespace, &old.tagged(), json!({})).await;
    let dry = TestNamespace::pod("dry", &old.pinned(), json!({}));
    let text = namespace
        .apply_with(&dry, &["--dry-run=server"])
        .await
        .unwrap_err();
    assert!(text.contains(ENDED), "{text}");
    assert!(!webhook.process.log().unwrap().contains("hunter2"));
}

#[tokio::test]
async fn t5_the_webhook_s_own_cloud_identity_checks_images_of_the_registries_of_that_cloud() {
    const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    const STS: &str = "sts.eu-west-1.amazonaws.com";
    const API: &str = "api.ecr.eu-west-1.amazonaws.com";
    let (namespace, own) = (
        enforcing("cloud").await,
        TestNamespace::new("cloud-own", json!({})).await,
    );
    let registry = Registry::ociregistry(&namespace.tools)
        .basic("AWS", "c4n4ry-password")
        .start()
        .await
        .unwrap();
    let old = push(&registry, "old").await;
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let cloud = Cloud::start().await.unwrap();
    cloud.route(ECR, registry.host().parse().unwrap());
    cloud.service(STS, |_| {
        let session = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
            <AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>c4n4ry-key</SecretAccessKey>\
            <SessionToken>c4n4ry-session</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>\
            </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        Answer::new(200, session)
    });
    cloud.service(API, |_| {
        let token = STANDARD.encode("AWS:c4n4ry-password");
        let end = Timestamp::now().as_second() + 43_200;
        let data = json!([{"authorizationToken": token, "expiresAt": end}]);
        Answer::new(200, json!({"authorizationData": data}).to_string())
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "reader", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/reader"}},
    });
    own.apply(&account).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    std::fs::write(&bundle, cloud.ca_pem()).unwrap();
    let proxy = cloud.proxy();
    let environment = [
        ("SSL_CERT_FILE", bundle.to_str().unwrap()),
        ("HTTPS_PROXY", &proxy),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let image = old.tagged().replace(registry.host(), ECR);
    {
        let (_webhook, _) = Affix::webhook_in(&namespace, &own.name, &[], &environment).await;
        let expected = format!("image {image} was not checked: HTTP 401: add a pull secret");
        warned(&namespace, &image, &expected).await;
        assert!(cloud.all_calls().is_empty());
    }
    let flags = ["--provider", "aws", "--provider-service-account", "reader"];
    let (webhook, _) = Affix::webhook_in(&namespace, &own.name, &flags, &environment).await;
    refused(&namespace, &image, json!({})).await;
    let subject = format!("system:serviceaccount:{}:reader", own.name);
    let calls = cloud.calls(STS);
    assert_eq!(calls.len(), 1, "one login for all reviews");
    let token = calls[0].form("WebIdentityToken").unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["sub"], subject);
    let log = webhook.process.log().unwrap();
    assert!(!log.contains("c4n4ry") && !log.contains(&token));
}

#[tokio::test]
async fn t20_default_mode_checks_unlabelled_namespaces_and_a_label_does_not_exempt() {
    let namespace = TestNamespace::new("unlabelled", json!({})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (old, exempt) = (
        push(&registry, "old").await,
        push(&registry, "exempt").await,
    );
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    mark(&peer, &exempt.pinned(), "2025-03-20").await;
    let pattern = format!("{}/team/*:ex*", registry.host());
    let _webhook = webhook(
        &namespace,
        &registry,
        &["--default-mode", "enforce", "--exempt-images", &pattern],
    )
    .await;
    // As the chart writes it with `webhook.defaultMode`.
    let names = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace.name]}
    ]});
    let configuration = namespace
        .kubectl(&[
            "get",
            "validatingwebhookconfiguration",
            &namespace.name,
            "-o",
            "json",
        ])
        .await
        .json()
        .unwrap();
    let hooks = configuration["webhooks"].as_array().unwrap();
    let patch: Vec<Value> = (0..hooks.len())
        .map(|index| json!({"op": "replace", "path": format!("/webhooks/{index}/namespaceSelector"), "value": names}))
        .collect();
    let patch = json!(patch).to_string();
    namespace
        .kubectl(&[
            "patch",
            "validatingwebhookconfiguration",
            &namespace.name,
            "--type=json",
            "--patch",
            &patch,
        ])
        .await
        .stdout()
        .unwrap();
    wait_for("the selector", async || {
        namespace.try_pod(&old.tagged(), json!({})).await.is_err()
    })
    .await;
    assert!(
        warnings(&admitted(&namespace, &exempt.tagged(), json!({})).await).is_empty(),
        "an exempt image"
    );
    let label = async |value: &str| {
        let label = format!("affix.dev/end-of-life={value}");
        namespace
            .kubectl(&["label", "--overwrite", "namespace", &namespace.name, &label])
            .await
            .stdout()
            .unwrap();
    };
    label("warn").await;
    wait_for("the label", async || {
        let text = namespace.try_pod(&old.tagged(), json!({})).await;
        text.is_ok_and(|text| text.contains(ENDED))
    })
    .await;
}

#[tokio::test]
async fn a_registry_with_a_private_authority_and_one_behind_a_proxy_are_checked() {
    let namespace = enforcing("behind").await;
    let authority = Arc::new(Authority::new().unwrap());
    let private = Registry::ociregistry(&namespace.tools)
        .tls(&authority)
        .start()
        .await
        .unwrap();
    let plain = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (old, other) = (push(&private, "old").await, push(&plain, "old").await);
    for (registry, image) in [(&private, &old), (&plain, &other)] {
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        mark(&peer, &image.pinned(), "2025-03-20").await;
    }
    {
        let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
        let expected = format!(
            "image {} was not checked for end of life: certificate not trusted: add its CA",
            old.tagged()
        );
        warned(&namespace, &old.tagged(), &expected).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    std::fs::write(&bundle, authority.pem()).unwrap();
    let proxy = Proxy::to(plain.host(), "user", "password").await.unwrap();
    let url = proxy.url().replace("://", "://user:password@");
    let (_webhook, _) = Affix::webhook_in(
        &namespace,
        &namespace.name,
        &["--insecure-registries", "registry.example.com"],
        &[
            ("SSL_CERT_FILE", bundle.to_str().unwrap()),
            ("HTTP_PROXY", &url),
        ],
    )
    .await;
    refused(&namespace, &old.tagged(), json!({})).await;
    // The proxy leads to the registry under this name.
    let proxied = other.tagged().replace(plain.host(), "registry.example.com");
    refused(&namespace, &proxied, json!({})).await;
    assert!(!proxy.requests().is_empty());
}

#[tokio::test]
async fn a_review_ends_before_the_time_out_of_the_api_server() {
    let namespace = enforcing("patient").await;
    let mut registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let old = push(&registry, "old").await;
    // The API server waits for two seconds, and would then admit the pod without a warning.
    let _webhook = webhook(&namespace, &registry, &["--lookup-timeout", "1m"]).await;
    registry.pause();
    let expected = format!(
        "image {} was not checked for end of life: no answer within 1.8s: try again",
        old.tagged()
    );
    warned(&namespace, &old.tagged(), &expected).await;
    registry.resume();
}

#[tokio::test]
async fn the_audit_annotations_have_the_decision_digests_dates_and_unchecked_images() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::ociregistry(&tools).start().await.unwrap();
    let old = push(&registry, "old").await;
    let peer = Peer::of(&tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
    let webhook = Direct::start(
        ServerLimits::default(),
        Lookups {
            insecure_registries: vec![registry.host().parse().unwrap()],
            default_mode: DefaultMode::Enforce,
            timeout: Duration::from_secs(30),
            ..lookups()
        },
    )
    .await;
    let dead = "127.0.0.1:1/team/app:v1";
    let mut pod = TestNamespace::pod("p", &old.tagged(), json!({}));
    pod["spec"]["initContainers"] = json!([{"name": "init", "image": dead}]);
    let answer: Value = webhook
        .client()
        .post(webhook.url("validate-pods"))
        .body(review("Pod", &pod))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        answer["response"]["auditAnnotations"],
        json!({
            "decision": "refused", "digest": old.digest(), "date": "2025-03-20T01:20:30Z", "unchecked": dead
        }),
        "{answer:#}"
    );
}
