//! Signing without a key: tokens of the real API server get certificates from the real Fulcio, the real Rekor logs the signatures,
//! and cosign verifies with the trusted root and no option that ignores something.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use affix::api::{Origin, Reason, TargetState};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::sigstore::{AUDIENCE, Part, Sigstore};
use affix_testbed::tools::{Tool, Tools};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::push;
use crate::support::namespace::Namespace;

/// A namespace with the ServiceAccounts `signer` and `other`, and a Sigstore instance that trusts their tokens.
struct World {
    namespace: Namespace,
    registry: Registry,
    sigstore: Sigstore,
    peer: Peer,
    tools: Tools,
}

impl World {
    async fn new(about: &str) -> Self {
        let tools = Tools::sigstore().await.unwrap();
        let namespace = Namespace::new(about).await;
        for name in ["signer", "other"] {
            namespace
                .apply_object(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}))
                .await;
        }
        let registry = Registry::ociregistry(&tools).start().await.unwrap();
        let world = Self {
            sigstore: Sigstore::start(&tools, namespace.plane).await.unwrap(),
            peer: Peer::of(&tools, &registry).unwrap(),
            namespace,
            registry,
            tools,
        };
        world.describe(world.sigstore.signing_config()).await;
        world
    }

    /// Writes the ConfigMap of the instance.
    async fn describe(&self, signing_config: &str) {
        let data = json!({"trusted_root.json": self.sigstore.trusted_root(), "signing_config.json": signing_config});
        self.namespace.config_map("sigstore", data).await;
    }

    async fn start(&self) -> Controller {
        Controller::start_with(&self.namespace, &["--enable-workload-identity"]).await
    }

    fn signature(&self, image: &str) -> Value {
        let keyless = json!({"serviceAccountName": "signer", "trustRef": {"name": "sigstore"}});
        json!({"image": image, "insecure": true, "signature": {"cosign": {"keyless": keyless}}})
    }

    async fn cosign(&self, args: &[&str]) -> Result<String, String> {
        let run = self.peer.run(Tool::Cosign).unwrap();
        let ran = run.args(args.iter().copied()).output().await.unwrap();
        ran.stdout().map_err(|error| error.to_string())
    }

    fn root(&self) -> String {
        let file = self.sigstore.trusted_root_file();
        format!("--trusted-root={}", file.display())
    }

    /// Runs `cosign verify` for a ServiceAccount of a namespace.
    async fn verify(
        &self,
        image: &str,
        (namespace, account): (&str, &str),
    ) -> Result<String, String> {
        let identity = format!(
            "--certificate-identity=https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{account}"
        );
        let issuer = format!("--certificate-oidc-issuer={}", self.namespace.plane.url());
        self.cosign(&["verify", &self.root(), &identity, &issuer, image])
            .await
    }

    /// Signs with cosign as a ServiceAccount, the index and all platforms.
    async fn sign_with_cosign(&self, account: &str, image: &str) {
        let (audience, namespace) = (format!("--audience={AUDIENCE}"), &self.namespace.name);
        let token = ["create", "token", account, "-n", namespace, &audience];
        let token = self.namespace.plane.kubectl(token).await.unwrap();
        std::fs::write(self.peer.file("token"), token.stdout().unwrap().trim()).unwrap();
        let file = self.sigstore.signing_config_file();
        let config = format!("--signing-config={}", file.display());
        let sign = [
            "sign",
            "--recursive",
            "--identity-token=token",
            &config,
            &self.root(),
            "--yes",
            image,
        ];
        self.cosign(&sign).await.unwrap();
    }

    /// Returns the digests of the referrers of a subject.
    async fn listed(&self, image: &Pushed, subject: &str) -> Vec<String> {
        let at = image.at(subject);
        let tree = self.peer.oras(["discover", "--format", "json", &at]).await;
        let tree = tree.unwrap().json().unwrap();
        let found = tree["referrers"].as_array().cloned().unwrap_or_default();
        let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
        found.iter().map(digest).collect()
    }
}

async fn nine(registry: &Registry, tag: &str) -> Pushed {
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
    let index = platforms.iter().fold(Index::new(), |index, platform| {
        index.image(Image::new(platform, &format!("{platform} {tag}")))
    });
    index
        .push(&registry.raw().unwrap(), "team/app", tag)
        .await
        .unwrap()
}

#[tokio::test]
async fn cosign_verifies_nine_keyless_targets_and_refuses_every_other_identity() {
    let world = World::new("keyless").await;
    let _controller = world.start().await;
    let image = nine(&world.registry, "ours").await;
    let began = Instant::now();
    world
        .namespace
        .apply("nine", world.signature(&image.tagged()))
        .await;
    let status = world.namespace.ready("nine").await;
    println!("affix signed nine targets in {:?}", began.elapsed());
    assert_eq!(status.attached.as_deref(), Some("9/9"));
    let namespace = world.namespace.name.as_str();
    for target in &status.targets {
        let at = image.at(&target.digest);
        world.verify(&at, (namespace, "signer")).await.unwrap();
        world.verify(&at, (namespace, "other")).await.unwrap_err();
        world.verify(&at, ("default", "signer")).await.unwrap_err();
        assert_eq!(world.listed(&image, &target.digest).await.len(), 1);
    }
    let (_, message) = world
        .namespace
        .event("nine", Reason::SignaturesLogged)
        .await;
    assert!(message.contains("9 new signatures"), "{message}");

    let theirs = nine(&world.registry, "theirs").await;
    let began = Instant::now();
    world.sign_with_cosign("signer", &theirs.tagged()).await;
    println!("cosign signed nine targets in {:?}", began.elapsed());
    // Signatures of the same identity are adopted, those of another one are not.
    world
        .namespace
        .apply("theirs", world.signature(&theirs.tagged()))
        .await;
    let status = world.namespace.ready("theirs").await;
    assert!(
        status
            .targets
            .iter()
            .all(|row| row.origin == Some(Origin::Adopted))
    );
    let others = push(&world.registry, "team/app", "others").await;
    world.sign_with_cosign("other", &others.tagged()).await;
    world
        .namespace
        .apply("others", world.signature(&others.tagged()))
        .await;
    let status = world.namespace.ready("others").await;
    let made = status.targets.iter().filter(|row| row.attachment.is_some());
    assert!(made.clone().count() > 0);
    assert!(made.clone().all(|row| row.origin == Some(Origin::Made)));
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn cosign_verifies_keyless_statements_of_the_index_and_each_platform() {
    let world = World::new("keyless-statements").await;
    let _controller = world.start().await;
    let image = push(&world.registry, "team/app", "v1").await;
    let mut spec = world.signature(&image.tagged());
    let signer = spec["signature"]["cosign"].take();
    let predicate = json!({"value": json!({"author": "team"}).to_string()});
    spec.as_object_mut().unwrap().remove("signature");
    spec["attestation"] =
        json!({"predicateType": "openvex", "predicates": [predicate], "cosign": signer});
    world.namespace.apply("stated", spec).await;
    let status = world.namespace.ready("stated").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    let (root, namespace) = (world.root(), &world.namespace.name);
    let issuer = format!("--certificate-oidc-issuer={}", world.namespace.plane.url());
    for target in status
        .targets
        .iter()
        .filter(|row| row.state == TargetState::Attached)
    {
        let at = image.at(&target.digest);
        for (account, is_verified) in [("signer", true), ("other", false)] {
            let identity = format!(
                "--certificate-identity=https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{account}"
            );
            let args = [
                "verify-attestation",
                "--type=openvex",
                &root,
                &identity,
                &issuer,
                &at,
            ];
            let verified = world.cosign(&args).await;
            assert_eq!(verified.is_ok(), is_verified, "{account}: {verified:?}");
        }
    }
}

/// A Fulcio that answers with the first certificate that it issued.
async fn certificate_of_another(target: String, first: Arc<Mutex<Option<Vec<u8>>>>) -> String {
    let client = affix_testbed::http_client::client(None).unwrap();
    let forward = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let (client, first) = (client.clone(), Arc::clone(&first));
        let url = format!("{target}{}", uri.path());
        async move {
            let recorded = first.lock().unwrap().clone();
            if let Some(recorded) = recorded {
                return recorded;
            }
            let mut request = client.post(url).body(body.to_vec());
            for name in ["content-type", "authorization"] {
                request = request.header(name, &headers[name]);
            }
            let answer = request
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap()
                .to_vec();
            *first.lock().unwrap() = Some(answer.clone());
            answer
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(forward);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::test]
async fn t31_a_certificate_for_another_key_or_identity_is_refused_and_nothing_is_pushed() {
    let mut world = World::new("keyless-lies").await;
    let _controller = world.start().await;
    let fulcio = world.sigstore.url(Part::Fulcio).unwrap();
    let first = Arc::default();
    let liar = certificate_of_another(fulcio.clone(), first).await;
    let config = world.sigstore.signing_config().replace(&fulcio, &liar);
    world.describe(&config).await;
    // The first certificate is for `other`, and recorded.
    let image = push(&world.registry, "team/app", "recorded").await;
    let mut spec = world.signature(&image.tagged());
    spec["signature"]["cosign"]["keyless"]["serviceAccountName"] = json!("other");
    world.namespace.apply("recorded", spec).await;
    world.namespace.ready("recorded").await;

    let image = push(&world.registry, "team/app", "lied").await;
    world
        .namespace
        .apply("lied", world.signature(&image.tagged()))
        .await;
    let message = world
        .namespace
        .refused("lied", Reason::SigningUnavailable)
        .await;
    // The log verifies the signature with the key of the certificate.
    assert!(message.contains("does not log the signature"), "{message}");
    assert!(world.listed(&image, image.digest()).await.is_empty());

    world.describe(world.sigstore.signing_config()).await;
    world.namespace.ready("lied").await;
}

#[tokio::test]
async fn a_refused_token_or_a_fulcio_that_is_down_gives_a_reason_and_nothing_is_pushed() {
    let mut world = World::new("keyless-down").await;
    let controller = world.start().await;
    let image = push(&world.registry, "team/app", "v1").await;
    let mut spec = world.signature(&image.tagged());
    spec["signature"]["cosign"]["keyless"]["audience"] = json!("another");
    world.namespace.apply("signed", spec.clone()).await;
    let message = world
        .namespace
        .refused("signed", Reason::IdentityRefused)
        .await;
    assert!(message.contains("issues no certificate"), "{message}");
    world.sigstore.kill(Part::Fulcio).await.unwrap();
    spec["signature"]["cosign"]["keyless"]["audience"] = json!(AUDIENCE);
    world.namespace.apply("signed", spec).await;
    let message = world
        .namespace
        .refused("signed", Reason::SigningUnavailable)
        .await;
    let url = world.sigstore.url(Part::Fulcio).unwrap();
    assert!(
        message.contains(url.trim_start_matches("http://")),
        "{message}"
    );
    assert!(world.listed(&image, image.digest()).await.is_empty());
    let tools = world.tools.clone();
    world
        .sigstore
        .start_again(&tools, Part::Fulcio)
        .await
        .unwrap();
    world.namespace.ready("signed").await;
    assert!(!controller.log().contains("eyJ"), "a token is in the log");
}
