//! T11 on the whole operator: canaries in every Secret that a resource can name, every way to fail, the log at trace level; then a
//! search through everything that leaves: the log, the events, the objects, the metrics.

use affix::api::Reason;
use affix_testbed::hostile::{
    Account, Auth, Bearer, Denial, Fault, HostileRegistry, Matcher, Op, Reply,
};
use affix_testbed::proxy::Proxy;
use affix_testbed::run::Run;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::{Namespace, ready};

/// The word that every secret is made of.
pub(crate) const CANARY: &str = "c4n4ry";

/// Where the canary stands in a text, in any clothes: plain, in base64 at each offset, percent-encoded, as bytes of a list.
pub(crate) fn leak(text: &str) -> Option<String> {
    let bytes: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
    let mut needles = vec![
        CANARY.to_owned(),
        bytes.join(", "),
        bytes.join(","),
        CANARY.bytes().map(|b| format!("%{b:02X}")).collect(),
    ];
    for offset in 0..3 {
        let encoded = STANDARD.encode(format!("{}{CANARY}", "x".repeat(offset)));
        // What depends on the neighbours is left out at both ends.
        needles.push(
            encoded
                .trim_end_matches('=')
                .get(if offset == 0 { 0 } else { offset + 1 }..8)
                .unwrap()
                .to_owned(),
        );
    }
    text.lines()
        .find(|line| needles.iter().any(|needle| line.contains(needle)))
        .map(|line| line.chars().take(2000).collect())
}

#[test]
fn a_canary_is_found_in_each_of_its_clothes() {
    for text in [
        "a c4n4ry!",
        &STANDARD.encode("user:c4n4ry-password"),
        &STANDARD.encode("u:c4n4ry"),
        &STANDARD.encode("us:c4n4ry"),
        "[99, 52, 110, 52, 114, 121]",
    ] {
        assert!(leak(text).is_some(), "{text}");
    }
    assert_eq!(leak("reconciled namespace=canary name=c4nary"), None);
}

/// What a pass with secrets may run into, on a registry that asks for a login as `auth` says.
async fn registry(auth: impl FnOnce(&HostileRegistry) -> Auth) -> HostileRegistry {
    let accounts = [Account::new("user", "c4n4ry-password").identity_token("c4n4ry-identity")];
    let registry = HostileRegistry::builder()
        .tokens(accounts)
        .start()
        .await
        .unwrap();
    let auth = auth(&registry);
    registry.set_auth(auth);
    registry
}

fn account() -> Account {
    Account::new("user", "c4n4ry-password").identity_token("c4n4ry-identity")
}

fn document(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_no_canary_secret_appears_in_logs_events_objects_or_metrics() {
    let namespace = Namespace::new("secrets").await;
    let kubeconfig = namespace.plane.kubeconfig();
    let env = [
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ("RUST_LOG", "trace"),
    ];
    let controller = Controller::start_in(&namespace, &[], &env).await;

    let mut kept = Vec::new();
    let mut names: Vec<(String, Option<Reason>)> = Vec::new();
    for (kind, bearer) in [("bearer", true), ("basic", false)] {
        for echo in [0_u16, 400, 401, 403, 503] {
            let registry = registry(|registry| {
                if bearer {
                    Auth::Bearer(Bearer::new(&registry.issuer()))
                } else {
                    Auth::Basic(vec![account()], Denial::Forbidden)
                }
            })
            .await;
            let image = registry.reference(&host(&registry, "v1").name());
            if echo != 0 {
                registry.fault(Matcher::any().authorized(true), Reply::echo(echo));
                registry.fault(Matcher::on(Op::Token), Reply::echo(echo));
            }
            let logins = [
                (
                    "right",
                    json!({"username": "user", "password": "c4n4ry-password"}),
                ),
                (
                    "wrong",
                    json!({"username": "user", "password": "c4n4ry-wrong"}),
                ),
                ("identity", json!({"identitytoken": "c4n4ry-identity"})),
                ("given", json!({"registrytoken": "c4n4ry-given"})),
                ("broken", json!({"auth": "c4n4ry!"})),
            ];
            for (which, login) in logins {
                let name = format!("{kind}-{echo}-{which}");
                let config = json!({"auths": {registry.host(): login}}).to_string();
                namespace
                    .apply_object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}))
                    .await;
                namespace
                    .apply(
                        &name,
                        with(
                            note(&image),
                            json!({"secretRef": {"name": name}, "timeout": "10s"}),
                        ),
                    )
                    .await;
                names.push((name, None));
            }
            kept.push(registry);
        }
    }
    // Keys, certificates and proxies.
    let open = HostileRegistry::start().await.unwrap();
    let image = open.reference(&host(&open, "v1").name());
    let key = include_str!("../vectors/signing/cosign/p256.key");
    namespace
        .secret(
            "cosign-password",
            json!({"cosign.key": key, "cosign.password": "c4n4ry-password"}),
        )
        .await;
    namespace.secret("cosign-key", json!({"cosign.key": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nYzRuNHJ5\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "cosign.password": "c4n4ry"})).await;
    namespace.secret("notation", json!({"tls.key": "c4n4ry", "tls.crt": include_str!("../vectors/signing/notary/p256.crt")})).await;
    namespace
        .secret(
            "certificate",
            json!({"ca.crt": "c4n4ry", "tls.crt": "c4n4ry", "tls.key": "c4n4ry"}),
        )
        .await;
    let proxy = Proxy::to(&open.host(), "user", "c4n4ry-proxy")
        .await
        .unwrap();
    namespace
        .secret(
            "proxy",
            json!({"address": proxy.url(), "username": "user", "password": "c4n4ry-proxy"}),
        )
        .await;
    namespace
        .secret(
            "proxy-wrong",
            json!({"address": proxy.url(), "username": "user", "password": "c4n4ry-other"}),
        )
        .await;
    namespace
        .secret(
            "proxy-login",
            json!({"address": "http://user:c4n4ry@127.0.0.1:1"}),
        )
        .await;
    namespace
        .secret("proxy-words", json!({"address": "c4n4ry proxy"}))
        .await;
    let spec = |fields: Value| with(json!({"image": image, "insecure": true}), fields);
    let artifact = json!({"artifactType": "a/b", "annotations": {"k": "v"}});
    for (name, fields, reason) in [
        (
            "cosign-password",
            json!({"signature": {"cosign": {"keySecretRef": {"name": "cosign-password"}}}}),
            Some(Reason::KeyInvalid),
        ),
        (
            "cosign-key",
            json!({"signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}}}),
            Some(Reason::KeyInvalid),
        ),
        (
            "notation",
            json!({"signature": {"notation": {"keySecretRef": {"name": "notation"}}}}),
            Some(Reason::KeyInvalid),
        ),
        (
            "certificate",
            json!({"artifact": artifact, "insecure": false, "certSecretRef": {"name": "certificate"}}),
            Some(Reason::CertificateInvalid),
        ),
        (
            "proxy",
            json!({"artifact": artifact, "proxySecretRef": {"name": "proxy"}}),
            None,
        ),
        (
            "proxy-wrong",
            json!({"artifact": artifact, "proxySecretRef": {"name": "proxy-wrong"}}),
            None,
        ),
        (
            "proxy-login",
            json!({"artifact": artifact, "proxySecretRef": {"name": "proxy-login"}}),
            None,
        ),
        (
            "proxy-words",
            json!({"artifact": artifact, "proxySecretRef": {"name": "proxy-words"}}),
            None,
        ),
    ] {
        namespace.apply(name, spec(fields)).await;
        names.push((name.to_owned(), reason));
    }
    let (mut good, mut bad) = (0, 0);
    for (name, reason) in &names {
        let object = namespace
            .wait(name, "said", |object| {
                ready(object).is_some_and(|(status, why)| status == "True" || why != "Progressing")
            })
            .await;
        match ready(&object) {
            Some(("True", _)) => good += 1,
            _ => bad += 1,
        }
        if let Some(reason) = reason {
            namespace.refused(name, *reason).await;
        }
    }
    assert!(
        good >= 3 && bad >= 30,
        "{good} Ready and {bad} not, so not every kind of way was met"
    );

    let log = controller.log();
    assert!(
        log.contains("TRACE") && log.len() > 1_000_000,
        "a log of {} bytes is not one at trace level",
        log.len()
    );
    assert_eq!(leak(&log), None);
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert!(events.len() >= 20, "{} events", events.len());
    assert_eq!(leak(&serde_json::to_string_pretty(&events).unwrap()), None);
    let objects = namespace
        .attachments()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(leak(&serde_json::to_string_pretty(&objects).unwrap()), None);
    assert_eq!(leak(&controller.metrics().await), None);
    drop(controller);
    namespace.check_rules().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_no_canary_leaves_the_command_at_trace_level() {
    for echo in [0_u16, 401, 403, 503] {
        let registry = registry(|registry| Auth::Bearer(Bearer::new(&registry.issuer()))).await;
        let image = registry.reference(&host(&registry, "v1").name());
        if echo != 0 {
            registry.fault(Matcher::any().authorized(true), Reply::echo(echo));
            registry.fault(Matcher::on(Op::Token), Reply::echo(echo));
        }
        registry.fault(Matcher::on(Op::ManifestPut).nth(1), Fault::Reset);
        for password in ["c4n4ry-password", "c4n4ry-wrong"] {
            let home = tempfile::tempdir().unwrap();
            let auth = home.path().join("auth.json");
            std::fs::write(
                &auth,
                json!({"auths": {registry.host(): {"username": "user", "password": password}}})
                    .to_string(),
            )
            .unwrap();
            let run =
                Run::new(env!("CARGO_BIN_EXE_affix")).args(["attach", "-f", "-", "-o", "json"]);
            let run = run
                .env("HOME", home.path())
                .env("REGISTRY_AUTH_FILE", &auth)
                .env("RUST_LOG", "trace");
            let ran = run
                .input(document("command", note(&image)).to_string())
                .output()
                .await
                .unwrap();
            assert!(ran.err.contains("TRACE"), "{}", ran.err);
            assert_eq!(
                (leak(&ran.out), leak(&ran.err)),
                (None, None),
                "{echo} {password}"
            );
        }
    }
}
