//! Private registries: passwords, tokens, pull secrets, certificates, proxies.

use std::sync::Arc;

use affix::api::Reason;
use affix_testbed::certificates::Authority;
use affix_testbed::proxy::Proxy;
use affix_testbed::registry::{Registry, User};
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{note, push, with};
use crate::support::namespace::Namespace;

#[tokio::test]
async fn a_corrected_secret_makes_a_resource_ready_that_nobody_touched() {
    let namespace = Namespace::new("corrected").await;
    let tools = &namespace.tools;
    let may = &["pull", "push"];
    let basic = Registry::distribution(tools)
        .basic("alice", "right")
        .start()
        .await
        .unwrap();
    let tokens = Registry::distribution(tools)
        .tokens([User::new("alice", "right").may("team/*", may)])
        .start()
        .await
        .unwrap();
    let api = Registry::ociregistry(tools)
        .basic("alice", "right")
        .start()
        .await
        .unwrap();
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in [&basic, &tokens, &api].into_iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (name, secret) = (format!("corrected-{nth}"), format!("login-{nth}"));
        namespace
            .login(&secret, registry.host(), "alice", "wrong")
            .await;
        namespace
            .apply(
                &name,
                with(
                    note(&image.tagged()),
                    json!({"secretRef": {"name": secret}}),
                ),
            )
            .await;
        namespace.refused(&name, Reason::AuthenticationFailed).await;
        let generation = namespace.get(&name).await.metadata.generation;

        namespace
            .login(&secret, registry.host(), "alice", "right")
            .await;
        assert_eq!(
            namespace.ready(&name).await.attached.as_deref(),
            Some("3/3")
        );
        assert_eq!(namespace.get(&name).await.metadata.generation, generation);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_secret_that_comes_later_makes_its_resource_ready() {
    let namespace = Namespace::new("later").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .basic("alice", "right")
        .start()
        .await
        .unwrap();
    let image = push(&registry, "team/app", "v1").await;
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply(
            "later",
            with(
                note(&image.tagged()),
                json!({"secretRef": {"name": "login"}}),
            ),
        )
        .await;
    namespace.refused("later", Reason::SecretNotFound).await;
    namespace
        .login("login", registry.host(), "alice", "right")
        .await;
    namespace.ready("later").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn the_pull_secrets_of_a_service_account_log_in() {
    let namespace = Namespace::new("account").await;
    let tools = &namespace.tools;
    let registry = Registry::distribution(tools)
        .tokens([User::new("ci", "pass").may("team/*", &["pull", "push"])])
        .start()
        .await
        .unwrap();
    let image = push(&registry, "team/app", "v1").await;
    namespace
        .login("other", "registry.example.com", "nobody", "nothing")
        .await;
    namespace.login("pull", registry.host(), "ci", "pass").await;
    // One that is not there is passed over, as the kubelet does.
    namespace
        .apply_object(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"},
            "imagePullSecrets": [{"name": "not-there"}, {"name": "other"}, {"name": "pull"}],
        }))
        .await;
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply(
            "account",
            with(
                note(&image.tagged()),
                json!({"serviceAccountName": "builder"}),
            ),
        )
        .await;
    assert_eq!(
        namespace.ready("account").await.attached.as_deref(),
        Some("3/3")
    );
    namespace
        .apply(
            "nobody",
            with(
                note(&image.tagged()),
                json!({"serviceAccountName": "absent"}),
            ),
        )
        .await;
    let message = namespace.refused("nobody", Reason::SecretNotFound).await;
    assert!(
        message.contains("spec.serviceAccountName") && message.contains("\"absent\""),
        "{message}"
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_its_certificate_is_given() {
    let namespace = Namespace::new("tls").await;
    let tools = &namespace.tools;
    let (ours, other) = (
        Arc::new(Authority::new().unwrap()),
        Authority::new().unwrap(),
    );
    let api = Registry::ociregistry(tools)
        .tls(&ours)
        .start()
        .await
        .unwrap();
    let users = [User::new("ci", "pass").may("team/*", &["pull", "push"])];
    let tokens = Registry::distribution(tools)
        .tls(&ours)
        .tokens(users)
        .start()
        .await
        .unwrap();
    namespace.login("login", tokens.host(), "ci", "pass").await;
    namespace.secret("ca", json!({"ca.crt": other.pem()})).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, name) in [(&api, "tls-api"), (&tokens, "tls-tokens")] {
        let image = push(registry, "team/app", "v1").await;
        let access = json!({"insecure": false, "certSecretRef": {"name": "ca"}, "secretRef": {"name": "login"}});
        namespace
            .apply(name, with(note(&image.tagged()), access))
            .await;
    }
    namespace
        .refused("tls-api", Reason::CertificateInvalid)
        .await;
    namespace
        .refused("tls-tokens", Reason::CertificateInvalid)
        .await;
    namespace.secret("ca", json!({"ca.crt": ours.pem()})).await;
    for name in ["tls-api", "tls-tokens"] {
        assert_eq!(namespace.ready(name).await.attached.as_deref(), Some("3/3"));
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_proxy_leads_to_registries_that_cannot_be_reached_without_it() {
    let namespace = Namespace::new("proxy").await;
    let tools = &namespace.tools;
    let authority = Arc::new(Authority::new().unwrap());
    let plain = Registry::ociregistry(tools).start().await.unwrap();
    let tls = Registry::ociregistry(tools)
        .tls(&authority)
        .start()
        .await
        .unwrap();
    let forward = Proxy::to(plain.host(), "user", "word").await.unwrap();
    let connect = Proxy::to(tls.host(), "user", "word").await.unwrap();
    namespace
        .secret("ca", json!({"ca.crt": authority.pem()}))
        .await;
    let secrets = [
        ("forward", &forward, "word"),
        ("connect", &connect, "word"),
        ("refused", &forward, "wrong"),
        ("refused-tls", &connect, "wrong"),
    ];
    for (name, proxy, password) in secrets {
        namespace
            .secret(
                name,
                json!({"address": proxy.url(), "username": "user", "password": password}),
            )
            .await;
    }
    push(&plain, "team/app", "v1").await;
    push(&tls, "team/app", "v1").await;
    let _controller = Controller::start(&namespace).await;
    // The first name exists nowhere; the second has no registry on its port.
    let by = |proxy: &str| json!({"proxySecretRef": {"name": proxy}});
    namespace
        .apply(
            "forward",
            with(note("registry.invalid/team/app:v1"), by("forward")),
        )
        .await;
    let trusted = json!({"insecure": false, "certSecretRef": {"name": "ca"}});
    namespace
        .apply(
            "connect",
            with(
                with(note("localhost:1/team/app:v1"), trusted.clone()),
                by("connect"),
            ),
        )
        .await;
    namespace
        .apply(
            "refused-tls",
            with(
                with(note("localhost:1/team/app:v1"), trusted),
                by("refused-tls"),
            ),
        )
        .await;
    namespace
        .apply(
            "refused",
            with(note("registry.invalid/team/app:v1"), by("refused")),
        )
        .await;
    for name in ["forward", "connect"] {
        assert_eq!(namespace.ready(name).await.attached.as_deref(), Some("3/3"));
    }
    assert!(
        forward
            .requests()
            .iter()
            .any(|line| line.contains("http://registry.invalid/v2/team/app/manifests/v1")),
        "{:?}",
        forward.requests()
    );
    assert!(
        connect
            .requests()
            .iter()
            .all(|line| line.starts_with("CONNECT localhost:1 ")),
        "{:?}",
        connect.requests()
    );
    for name in ["refused", "refused-tls"] {
        let message = namespace.refused(name, Reason::AuthenticationFailed).await;
        assert!(
            message.contains("proxySecretRef") && !message.contains("wrong"),
            "{name}: {message}"
        );
    }
    namespace.check_rules().await;
}
