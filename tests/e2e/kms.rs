//! Signing with a key management service: tokens of the real API server log in to the real OpenBao, and cosign verifies.

use affix::api::{ConditionType, Origin, Reason};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::openbao::OpenBao;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{attached, push, with};
use crate::support::namespace::{Namespace, is_ready, says};

const KEY: &str = "images";

/// A namespace with an OpenBao that accepts the tokens of its ServiceAccount `signer`.
struct World {
    namespace: Namespace,
    registry: Registry,
    bao: OpenBao,
    peer: Peer,
}

impl World {
    async fn new(about: &str) -> Self {
        let namespace = Namespace::new(about).await;
        let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
        let registry = Registry::ociregistry(&tools).start().await.unwrap();
        let bao = OpenBao::start(&tools).await.unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        for name in ["signer", "other"] {
            namespace
                .apply_object(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}))
                .await;
        }
        let ca = bao.ca_pem().unwrap();
        namespace.secret("bao-ca", json!({"ca.crt": ca})).await;
        bao.run(&["auth", "enable", "jwt"]).await.unwrap();
        let key = namespace.plane.token_key_pem().unwrap();
        bao.write("auth/jwt/config", &json!({"jwt_validation_pubkeys": [key]}))
            .await
            .unwrap();
        let world = Self {
            namespace,
            registry,
            bao,
            peer,
        };
        world.allow(KEY).await;
        world.role(&world.bao.url()).await;
        world
    }

    /// Gives the policy of the role the rights on a key.
    async fn allow(&self, key: &str) {
        let policy = format!(
            "path \"transit/keys/{key}\" {{ capabilities = [\"read\"] }}\n\
             path \"transit/sign/{key}\" {{ capabilities = [\"update\"] }}\n"
        );
        self.bao
            .write("sys/policies/acl/affix", &json!({"policy": policy}))
            .await
            .unwrap();
    }

    /// Binds the role to `signer` and an audience.
    async fn role(&self, audience: &str) {
        let subject = format!("system:serviceaccount:{}:signer", self.namespace.name);
        self.bao
            .write(
                "auth/jwt/role/affix",
                &json!({
                    "role_type": "jwt", "user_claim": "sub", "bound_subject": subject, "bound_audiences": [audience],
                    "token_policies": ["affix"], "token_ttl": "1h",
                }),
            )
            .await
            .unwrap();
    }

    async fn key(&self, kind: &str) {
        self.bao
            .write(&format!("transit/keys/{KEY}"), &json!({"type": kind}))
            .await
            .unwrap();
    }

    async fn delete_key(&self) {
        let config = json!({"deletion_allowed": true});
        self.bao
            .write(&format!("transit/keys/{KEY}/config"), &config)
            .await
            .unwrap();
        self.bao
            .run(&["delete", &format!("transit/keys/{KEY}")])
            .await
            .unwrap();
    }

    async fn start(&self) -> Controller {
        Controller::start_with(&self.namespace, &["--enable-workload-identity"]).await
    }

    fn kms(&self) -> Value {
        json!({
            "keyRef": format!("hashivault://{KEY}"),
            "serviceAccountName": "signer",
            "vault": {"address": self.bao.url(), "role": "affix", "certSecretRef": {"name": "bao-ca"}},
        })
    }

    fn signature(&self, image: &str) -> Value {
        json!({"image": image, "insecure": true, "signature": {"cosign": {"kms": self.kms()}}})
    }

    /// Runs cosign, which uses the same server with the token of the administrator.
    async fn cosign(&self, args: &[&str]) -> Result<String, String> {
        let run = self
            .peer
            .run(Tool::Cosign)
            .unwrap()
            .env("VAULT_ADDR", self.bao.url())
            .env("VAULT_TOKEN", self.bao.root_token())
            .env("VAULT_CACERT", self.bao.ca_file())
            .args(args.iter().copied());
        let ran = run.output().await.unwrap();
        ran.clone().stdout().map_err(|error| error.to_string())
    }

    /// Exports the public key of a version as a file for `cosign verify --key`.
    async fn export(&self, version: &str) -> String {
        let document = self
            .bao
            .run(&["read", "-format=json", &format!("transit/keys/{KEY}")])
            .await
            .unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let text = document["data"]["keys"][version]["public_key"]
            .as_str()
            .unwrap();
        let pem = if text.starts_with("-----") {
            text.to_owned()
        } else {
            // 32 bytes of Ed25519, with the header of a SubjectPublicKeyInfo.
            use base64::Engine as _;
            let raw = base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap();
            let der = [
                b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(),
                &raw,
            ]
            .concat();
            let der = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
        };
        let name = format!("version-{version}.pub");
        std::fs::write(self.peer.file(&name), pem).unwrap();
        name
    }

    async fn verify(&self, image: &Pushed, digest: &str, key: &str) -> Result<String, String> {
        let image = image.at(digest);
        self.cosign(&["verify", "--key", key, "--insecure-ignore-tlog", &image])
            .await
    }

    fn signing_requests(&self) -> Vec<Value> {
        self.bao.requests(&format!("transit/sign/{KEY}")).unwrap()
    }
}

#[tokio::test]
async fn cosign_verifies_signatures_by_every_kind_of_key_of_openbao() {
    let world = World::new("kms-kinds").await;
    let _controller = world.start().await;
    for kind in [
        "ecdsa-p256",
        "ecdsa-p384",
        "ecdsa-p521",
        "ed25519",
        "rsa-2048",
        "rsa-4096",
    ] {
        world.key(kind).await;
        let image = push(&world.registry, "team/app", kind).await;
        let mut spec = world.signature(&image.tagged());
        spec["signature"]["cosign"]["formats"] = json!(["Bundle", "Tag"]);
        spec["signature"]["cosign"]["annotations"] = json!({"env": "prod"});
        world.namespace.apply(kind, spec).await;
        let status = world.namespace.ready(kind).await;
        assert_eq!(status.attached.as_deref(), Some("3/3"), "{kind}");
        let key = world.export("1").await;
        for target in status.targets.iter().filter(|row| row.attachment.is_some()) {
            for more in [
                &["--new-bundle-format=true"][..],
                &["--new-bundle-format=false"],
            ] {
                let at = image.at(&target.digest);
                let args = [
                    &[
                        "verify",
                        "--key",
                        &key,
                        "--insecure-ignore-tlog",
                        "-a",
                        "env=prod",
                    ],
                    more,
                    &[&at],
                ]
                .concat();
                let verified = world.cosign(&args).await;
                assert!(verified.is_ok(), "{kind} {more:?}: {verified:?}");
            }
        }
        // cosign finds the same key by its reference, and asks the server to verify: for Ed25519 a signature of the hash, which no other
        // tool makes, and for RSA one with PSS, although cosign itself signs with PKCS#1 v1.5.
        let reference = format!("hashivault://{KEY}");
        let verified = world.verify(&image, image.digest(), &reference).await;
        assert_eq!(
            verified.is_ok(),
            kind.starts_with("ecdsa"),
            "{kind}: {verified:?}"
        );
        world.namespace.delete(kind).await;
        world.delete_key().await;
    }
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn nine_targets_are_signed_by_one_login_and_one_request() {
    let world = World::new("kms-batch").await;
    world.key("ecdsa-p256").await;
    let platforms = [
        "linux/amd64",
        "linux/arm64",
        "linux/arm/v7",
        "linux/386",
        "linux/ppc64le",
        "linux/s390x",
        "linux/riscv64",
        "linux/mips64le",
    ];
    let mut index = Index::new();
    for platform in platforms {
        index = index.image(Image::new(platform, platform));
    }
    let image = index
        .push(&world.registry.raw().unwrap(), "team/app", "nine")
        .await
        .unwrap();
    let _controller = world.start().await;
    world
        .namespace
        .apply("nine", world.signature(&image.tagged()))
        .await;
    let status = world.namespace.ready("nine").await;
    assert_eq!(status.attached.as_deref(), Some("9/9"));
    let requests = world.signing_requests();
    let [request] = &requests[..] else {
        panic!("{requests:#?}")
    };
    let batch = request.pointer("/request/data/batch_input").unwrap();
    assert_eq!(batch.as_array().unwrap().len(), 9);
    // A second resource uses the same login.
    world
        .namespace
        .apply("again", world.signature(&image.tagged()))
        .await;
    let status = world.namespace.ready("again").await;
    assert!(
        status
            .targets
            .iter()
            .all(|row| row.origin == Some(Origin::Adopted))
    );
    assert_eq!(world.signing_requests().len(), 1);
    assert_eq!(world.bao.requests("auth/jwt/login").unwrap().len(), 1);
}

#[tokio::test]
async fn t28_a_login_is_refused_for_another_service_account_and_another_audience() {
    let world = World::new("kms-refused").await;
    world.key("ecdsa-p256").await;
    let image = push(&world.registry, "team/app", "v1").await;
    let _controller = world.start().await;
    let spec = |change: &dyn Fn(&mut Value)| {
        let mut spec = world.signature(&image.tagged());
        change(&mut spec["signature"]["cosign"]["kms"]);
        spec
    };
    let refusals: [(&str, Value, &str); 3] = [
        (
            "account",
            spec(&|kms| kms["serviceAccountName"] = json!("other")),
            "sub",
        ),
        (
            "audience",
            spec(&|kms| kms["vault"]["audience"] = json!("https://elsewhere.example.com")),
            "aud",
        ),
        (
            "role",
            spec(&|kms| kms["vault"]["role"] = json!("absent")),
            "role",
        ),
    ];
    for (name, spec, word) in refusals {
        world.namespace.apply(name, spec).await;
        let message = world.namespace.refused(name, Reason::IdentityRefused).await;
        assert!(
            message.contains("refuses the role") && message.contains(word),
            "{message}"
        );
    }
    // The policy of the role lacks the right on the key.
    world.allow("another").await;
    world
        .namespace
        .apply("policy", world.signature(&image.tagged()))
        .await;
    let message = world
        .namespace
        .refused("policy", Reason::IdentityRefused)
        .await;
    assert!(message.contains("read on transit/keys/images"), "{message}");
    world.allow(KEY).await;
    world.namespace.ready("policy").await;
    // The annotation of the ServiceAccount limits the repositories.
    world
        .namespace
        .apply_object(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "signer", "annotations": {"affix.dev/repositories": "registry.example.com/team/*"}},
        }))
        .await;
    world
        .namespace
        .apply("bound", world.signature(&image.tagged()))
        .await;
    let message = world
        .namespace
        .refused("bound", Reason::RepositoryNotAllowed)
        .await;
    assert!(
        message.contains("the ServiceAccount \"signer\""),
        "{message}"
    );
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn a_rotated_key_signs_anew_and_a_sealed_server_is_waited_for() {
    let world = World::new("kms-rotated").await;
    world.key("ed25519").await;
    let image = push(&world.registry, "team/app", "v1").await;
    let controller = world.start().await;
    world
        .namespace
        .apply("app", world.signature(&image.tagged()))
        .await;
    world.namespace.ready("app").await;
    let first = world.export("1").await;
    world.verify(&image, image.digest(), &first).await.unwrap();

    // What is signed stays Ready while the server is sealed, and a new resource waits.
    world.bao.seal().await.unwrap();
    world.namespace.request("app", "sealed").await;
    assert!(is_ready(&world.namespace.get("app").await));
    let other = push(&world.registry, "team/app", "v2").await;
    world
        .namespace
        .apply("new", world.signature(&other.tagged()))
        .await;
    let message = world
        .namespace
        .refused("new", Reason::SigningUnavailable)
        .await;
    assert!(message.to_lowercase().contains("sealed"), "{message}");
    assert!(
        attached(&world.registry, "team/app", other.digest())
            .await
            .is_empty()
    );
    world.bao.unseal().await.unwrap();
    world.namespace.ready("new").await;

    world
        .bao
        .run(&["write", "-f", &format!("transit/keys/{KEY}/rotate")])
        .await
        .unwrap();
    world.namespace.request("app", "rotated").await;
    let status = world.namespace.ready("app").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    let second = world.export("2").await;
    world.verify(&image, image.digest(), &second).await.unwrap();
    world
        .verify(&image, image.digest(), &first)
        .await
        .unwrap_err();
    assert_eq!(
        attached(&world.registry, "team/app", image.digest())
            .await
            .len(),
        1
    );

    // No token and no login appears in what the controller writes.
    let log = controller.log();
    let words = log.split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
    let secrets: Vec<&str> = words
        .filter(|word| word.starts_with("eyJ") || (word.starts_with("s.") && word.len() > 20))
        .collect();
    assert!(secrets.is_empty(), "{secrets:?}");
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn signatures_that_cosign_made_with_the_same_key_are_adopted() {
    let world = World::new("kms-adopted").await;
    let _controller = world.start().await;
    // cosign does not sign with an Ed25519 key of OpenBao.
    for kind in ["ecdsa-p256", "rsa-2048"] {
        world.key(kind).await;
        let image = push(&world.registry, "team/app", kind).await;
        let reference = format!("hashivault://{KEY}");
        for digest in [image.digest(), image.digest_of("linux/amd64").unwrap()] {
            let at = image.at(digest);
            let sign = ["sign", "--key", &reference, "--tlog-upload=false"];
            let more = ["--use-signing-config=false", "--yes", &at];
            world.cosign(&[&sign[..], &more].concat()).await.unwrap();
        }
        world
            .namespace
            .apply(kind, world.signature(&image.tagged()))
            .await;
        let status = world.namespace.ready(kind).await;
        let origins: Vec<_> = status.targets.iter().filter_map(|row| row.origin).collect();
        assert_eq!(
            origins,
            [Origin::Adopted, Origin::Adopted, Origin::Made],
            "{kind}: {:#?}",
            status.targets
        );
        // The last request signs the target that has no signature yet.
        let requests = world.signing_requests();
        let batch = requests
            .last()
            .unwrap()
            .pointer("/request/data/batch_input");
        assert_eq!(batch.unwrap().as_array().unwrap().len(), 1, "{kind}");
        world.namespace.delete(kind).await;
        world.delete_key().await;
    }
}

#[tokio::test]
async fn statements_are_signed_by_a_key_of_openbao() {
    let world = World::new("kms-statement").await;
    world.key("ecdsa-p384").await;
    let image = push(&world.registry, "team/app", "v1").await;
    let _controller = world.start().await;
    let spec = json!({
        "image": image.tagged(), "insecure": true,
        "attestation": {
            "predicateType": "openvex", "predicates": [{"value": "{\"statements\": []}"}], "cosign": {"kms": world.kms()},
        },
    });
    world.namespace.apply("vex", spec).await;
    let status = world.namespace.ready("vex").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    assert_eq!(world.signing_requests().len(), 1);
    let key = world.export("1").await;
    for target in status.targets.iter().filter(|row| row.attachment.is_some()) {
        let at = image.at(&target.digest);
        world
            .cosign(&[
                "verify-attestation",
                "--key",
                &key,
                "--insecure-ignore-tlog",
                "--type",
                "openvex",
                &at,
            ])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_cannot_sign_says_so_and_pushes_nothing() {
    let world = World::new("kms-wrong").await;
    let image = push(&world.registry, "team/app", "v1").await;
    let _controller = world.start().await;
    // There is no key.
    world
        .namespace
        .apply("app", world.signature(&image.tagged()))
        .await;
    let message = world
        .namespace
        .refused("app", Reason::SigningUnavailable)
        .await;
    assert!(message.contains("has no key \"images\""), "{message}");
    // The key encrypts.
    world.key("aes256-gcm96").await;
    world.namespace.request("app", "encrypts").await;
    let message = world.namespace.refused("app", Reason::KeyInvalid).await;
    assert!(message.contains("aes256-gcm96"), "{message}");
    // The authority is unknown, and plain HTTP is refused.
    let mut spec = world.signature(&image.tagged());
    spec["signature"]["cosign"]["kms"]["vault"]
        .as_object_mut()
        .unwrap()
        .remove("certSecretRef");
    world.namespace.apply("untrusted", spec).await;
    world
        .namespace
        .refused("untrusted", Reason::CertificateInvalid)
        .await;
    let mut spec = world.signature(&image.tagged());
    spec["signature"]["cosign"]["kms"]["vault"]["address"] = json!("http://bao.example.com");
    world.namespace.apply("plain", spec).await;
    let message = world
        .namespace
        .refused("plain", Reason::InsecureNotAllowed)
        .await;
    assert!(message.contains("https"), "{message}");
    assert!(
        attached(&world.registry, "team/app", image.digest())
            .await
            .is_empty()
    );
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn a_dry_run_signs_nothing() {
    let world = World::new("kms-plan").await;
    world.key("ecdsa-p256").await;
    let image = push(&world.registry, "team/app", "v1").await;
    let _controller = world.start().await;
    let spec = with(world.signature(&image.tagged()), json!({"dryRun": true}));
    world.namespace.apply("app", spec).await;
    world.namespace.refused("app", Reason::Planned).await;
    assert!(world.signing_requests().is_empty());
    let status = world.namespace.status("app").await;
    let ready = says(&status, ConditionType::Ready);
    assert!(ready.contains("3 of 3"), "{ready}");
}
