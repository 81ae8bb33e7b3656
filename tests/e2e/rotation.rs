//! Rotation: what a resource refers to changes, and nobody touches the resource.
//!
//! The operators here try again after an hour and look after an hour, so whatever they see within a test's patience they were told.

use std::collections::BTreeSet;

use affix::api::Reason;
use affix_testbed::hostile::{Account, Auth, Bearer, Denial, HostileRegistry, Matcher};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Registry, User};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{
    SIGNATURE, attachment, host, note, push, registries, scriptable, with,
};
use crate::support::namespace::{Namespace, PATIENCE, message};
use crate::support::readers;

const SELDOM: [&str; 4] = ["--min-retry-delay", "1h", "--max-retry-delay", "1h"];

fn seldom(spec: Value) -> Value {
    with(spec, json!({"interval": "1h"}))
}

/// An operator that is told of changes or sees none.
async fn controller(namespace: &Namespace) -> Controller {
    Controller::start_with(namespace, &SELDOM).await
}

/// Puts the label on.
async fn watched(namespace: &Namespace, kind: &str, name: &str) {
    let label = [
        "label",
        "-n",
        &namespace.name,
        kind,
        name,
        "reconcile.fluxcd.io/watch=Enabled",
    ];
    namespace
        .plane
        .kubectl(label)
        .await
        .unwrap()
        .stdout()
        .unwrap();
}

#[tokio::test]
async fn a_corrected_secret_is_used_at_once_if_watched_else_at_the_next_pass() {
    let namespace = Namespace::new("rotated").await;
    let tools = &namespace.tools;
    let tokens = Registry::distribution(tools)
        .tokens([User::new("ci", "right").may("team/*", &["pull", "push"])])
        .start()
        .await
        .unwrap();
    let api = Registry::ociregistry(tools)
        .basic("ci", "right")
        .start()
        .await
        .unwrap();
    let _controller = controller(&namespace).await;
    for (registry, kind) in [(&tokens, "tokens"), (&api, "api")] {
        let image = push(registry, "team/app", "v1").await;
        let (seen, unseen) = (format!("seen-{kind}"), format!("unseen-{kind}"));
        for name in [&seen, &unseen] {
            namespace.login(name, registry.host(), "ci", "wrong").await;
            namespace
                .apply(
                    name,
                    seldom(with(
                        note(&image.tagged()),
                        json!({"secretRef": {"name": name}}),
                    )),
                )
                .await;
            namespace.refused(name, Reason::AuthenticationFailed).await;
        }
        watched(&namespace, "secret", &seen).await;
        for name in [&unseen, &seen] {
            namespace.login(name, registry.host(), "ci", "right").await;
        }
        namespace.ready(&seen).await;
        namespace
            .refused(&unseen, Reason::AuthenticationFailed)
            .await;
        namespace.request(&unseen, "look").await;
        namespace.ready(&unseen).await;
    }
    namespace.check_rules().await;
}

/// What a request by this password shows.
fn basic(password: &str) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"))
    )
}

#[tokio::test]
async fn t10_an_old_credential_is_never_used_again_nor_what_was_got_by_it() {
    let namespace = Namespace::new("revoked").await;
    let _controller = controller(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        for tokens in [false, true] {
            let auth = |password: &str| {
                let accounts = vec![Account::new("ci", password)];
                if !tokens {
                    return Auth::Basic(accounts, Denial::Forbidden);
                }
                // A token that was given out stays good: only affix can see to it that it is not used.
                registry.issuer().terms(|terms| terms.accounts = accounts);
                Auth::Bearer(Bearer::new(&registry.issuer()))
            };
            registry.set_auth(auth("old"));
            let image =
                registry.reference(&host(registry, &format!("v{}", u8::from(tokens))).name());
            let name = format!("one-{nth}-{tokens}");
            namespace.login(&name, &registry.host(), "ci", "old").await;
            watched(&namespace, "secret", &name).await;
            namespace
                .apply(
                    &name,
                    seldom(with(note(&image), json!({"secretRef": {"name": name}}))),
                )
                .await;
            namespace.ready(&name).await;
            let shown = |from: usize| -> BTreeSet<String> {
                let requests = registry.requests().into_iter().skip(from);
                requests
                    .filter_map(|request| request.header("authorization").map(ToOwned::to_owned))
                    .collect()
            };
            let old = shown(0);
            assert!(
                old.contains(&basic("old"))
                    && (!tokens || old.iter().any(|value| value.starts_with("Bearer "))),
                "{old:?}"
            );

            registry.set_auth(auth("new"));
            let before = registry.requests().len();
            namespace.login(&name, &registry.host(), "ci", "new").await;
            let by_new = Matcher::any()
                .when(|request| request.header("authorization") == Some(&basic("new")));
            registry.wait_for(&by_new, 1, PATIENCE).await.unwrap();
            namespace.request(&name, "again").await;
            namespace.ready(&name).await;
            let stale: Vec<String> = shown(before).intersection(&old).cloned().collect();
            assert!(
                stale.is_empty(),
                "{stale:?} came after the rotation:\n{}",
                registry.transcript()
            );
            registry.clear();
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn new_config_map_content_is_attached_at_once_if_watched_else_next_pass() {
    let namespace = Namespace::new("content").await;
    let registries = registries(&namespace.tools).await;
    let _controller = controller(&namespace).await;
    for (registry, mode) in &registries {
        let mode = mode.to_lowercase();
        let image = push(registry, "team/app", "v1").await;
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        let (keys, whole, name) = (
            format!("keys-{mode}"),
            format!("whole-{mode}"),
            format!("content-{mode}"),
        );
        for map in [&keys, &whole] {
            namespace.config_map(map, json!({"a": "old"})).await;
        }
        watched(&namespace, "configmap", &keys).await;
        let artifact = json!({
            "artifactType": SIGNATURE,
            "files": [{"name": "f", "valueFrom": {"configMapKeyRef": {"name": keys, "key": "a"}}}],
            "filesFrom": [{"configMapRef": {"name": whole}}],
        });
        namespace
            .apply(
                &name,
                seldom(json!({"image": image.pinned(), "insecure": true, "artifact": artifact})),
            )
            .await;
        let mut before = namespace.ready(&name).await;
        for map in [&keys, &whole] {
            let was = attachment(&before.targets, image.digest()).to_owned();
            namespace.config_map(map, json!({"a": "new"})).await;
            if map == &whole {
                // Nothing tells of it, so it is seen at the next pass.
                namespace.request(&name, "look").await;
            }
            let object = namespace
                .wait(&name, "attached anew", |object| {
                    let status = object.status.as_ref();
                    crate::support::namespace::is_ready(object)
                        && status.is_some_and(|status| {
                            attachment(&status.targets, image.digest()) != was
                        })
                })
                .await;
            before = object.status.unwrap();
            assert!(
                before.leftovers.is_empty(),
                "{}",
                message(&namespace.get(&name).await)
            );
            // The old one is gone, since this resource had made it.
            readers::see_what_status_names(&peer, &image, &before, SIGNATURE).await;
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_watched_pull_secret_of_a_service_account_is_noticed_when_it_changes() {
    let namespace = Namespace::new("pulls").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .basic("ci", "right")
        .start()
        .await
        .unwrap();
    let image = push(&registry, "team/app", "v1").await;
    namespace
        .apply_object(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}, "imagePullSecrets": [{"name": "pull"}],
        }))
        .await;
    let _controller = controller(&namespace).await;
    namespace
        .apply(
            "account",
            seldom(with(
                note(&image.tagged()),
                json!({"serviceAccountName": "builder"}),
            )),
        )
        .await;
    namespace.refused("account", Reason::SecretNotFound).await;
    namespace
        .login("pull", registry.host(), "ci", "wrong")
        .await;
    watched(&namespace, "secret", "pull").await;
    namespace
        .refused("account", Reason::AuthenticationFailed)
        .await;
    namespace
        .login("pull", registry.host(), "ci", "right")
        .await;
    namespace.ready("account").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn without_the_right_to_watch_secrets_the_operator_says_so_once_and_works() {
    let namespace = Namespace::new("unwatched").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let name = &namespace.name;
    namespace
        .apply_object(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "affix"}}),
        )
        .await;
    namespace
        .apply_rbac(json!([
            {"apiGroups": ["affix.dev"], "resources": ["imageattachments"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["affix.dev"], "resources": ["imageattachments/status"], "verbs": ["get", "patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        ]))
        .await;
    let kubeconfig = namespace
        .plane
        .service_account_kubeconfig(name, "affix")
        .await
        .unwrap();
    let controller = Controller::start_in(
        &namespace,
        &[],
        &[("KUBECONFIG", kubeconfig.to_str().unwrap())],
    )
    .await;
    namespace.apply("one", note(&image)).await;
    namespace.ready("one").await;
    let told = |log: &str| log.matches("watch of secrets with the label").count();
    let deadline = Instant::now() + PATIENCE;
    while told(&controller.log()) == 0 {
        assert!(Instant::now() < deadline, "{}", controller.log());
        sleep(std::time::Duration::from_millis(50)).await;
    }
    // Long enough for a loop that says it again to do so.
    sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(told(&controller.log()), 1, "{}", controller.log());
    assert!(!controller.log().contains("watch of configmaps"));
    assert_eq!(controller.health("/readyz").await.0, 200);
    namespace.check_rules().await;
}
