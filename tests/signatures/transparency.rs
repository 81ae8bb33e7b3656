//! Signatures with keys in a transparency log. A private Sigstore instance logs and timestamps them, and the real cosign verifies them
//! with its trusted root and no option that ignores something.

use std::sync::Arc;

use affix::api::{Origin, Reason};
use affix_testbed::sigstore::{Part, Sigstore};
use affix_testbed::tools::Tools;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri, header};
use serde_json::{Value, json};

use crate::cosign::{PASSWORD, cosign, key_pair};
use crate::runner::{Crash, Fixture, Runner};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/cosign/");

/// A registry with an image, and a Sigstore instance without Fulcio.
struct Setup {
    fixture: Fixture,
    sigstore: Sigstore,
    tools: Tools,
}

impl Setup {
    async fn start() -> Self {
        let tools = Tools::sigstore().await.unwrap();
        Self {
            fixture: Fixture::both().await.remove(0),
            sigstore: Sigstore::start_without_fulcio(&tools).await.unwrap(),
            tools,
        }
    }

    /// Returns a runner that signs with `key` and logs the signatures in the instance.
    fn runner(&self, key: &[u8]) -> Runner {
        let cosign = json!({"keySecretRef": {"name": "key"}, "transparency": {"trustRef": {"name": "sigstore"}}});
        let mut runner = self.runner_of(key, &cosign);
        self.describe(&mut runner, self.sigstore.signing_config());
        runner
    }

    fn runner_of(&self, key: &[u8], cosign: &Value) -> Runner {
        let image = self.fixture.image.tagged();
        let mut spec = self
            .fixture
            .spec(&image, &json!({"signature": {"cosign": cosign}}));
        spec["timeout"] = json!("20s");
        let password = PASSWORD.as_bytes();
        let files = [("cosign.key", key), ("cosign.password", password)];
        Runner::new(&self.fixture, &spec, &[("key", &files)])
    }

    /// Puts the ConfigMap of the instance into the namespace of a runner.
    fn describe(&self, runner: &mut Runner, signing_config: &str) {
        let text = |text: &str| bytes::Bytes::from(text.to_owned());
        let files = [
            ("trusted_root.json", self.sigstore.trusted_root()),
            ("signing_config.json", signing_config),
        ];
        let files = files.map(|(name, content)| (name.to_owned(), text(content)));
        runner
            .sources
            .config_maps
            .insert("sigstore".to_owned(), files.into());
    }

    /// Runs `cosign verify` with the trusted root.
    async fn verify(&self, key: &str, digest: &str) -> Result<String, String> {
        let (key, image) = (format!("--key={key}"), self.fixture.image.at(digest));
        let root = format!(
            "--trusted-root={}",
            self.sigstore.trusted_root_file().display()
        );
        cosign(&self.fixture, &["verify", &key, &root, &image]).await
    }

    async fn listed(&self) -> Vec<String> {
        let mut listed = Vec::new();
        for subject in self.fixture.signed() {
            listed.extend(self.fixture.listed(&subject, BUNDLE).await);
        }
        listed
    }
}

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{VECTORS}{name}")).unwrap()
}

#[tokio::test]
async fn cosign_verifies_logged_signatures_without_an_option_that_ignores_the_log() {
    let setup = Setup::start().await;
    let key = key_pair(&setup.fixture, "cosign").await;
    let plain = json!({"keySecretRef": {"name": "key"}});
    let mut runner = setup.runner_of(&key, &plain);
    runner.ready().await;
    let [index, platform] = setup.fixture.signed();
    let refused = setup.verify("cosign.pub", &index).await.unwrap_err();
    assert!(!refused.is_empty());

    // A changed spec: the logged signatures replace those of this resource.
    let mut logged = plain;
    logged["transparency"] = json!({"trustRef": {"name": "sigstore"}});
    let spec = json!({"signature": {"cosign": logged}});
    runner.change_spec(&setup.fixture.spec(&setup.fixture.image.tagged(), &spec));
    setup.describe(&mut runner, setup.sigstore.signing_config());
    let outcome = runner.ready().await;
    let event = outcome
        .notes
        .iter()
        .find(|event| event.reason == Reason::SignaturesLogged);
    let message = &event.unwrap().message;
    assert!(
        message.contains("2 new signatures") && message.contains("localhost:"),
        "{message}"
    );
    for digest in [&index, &platform] {
        setup.verify("cosign.pub", digest).await.unwrap();
    }
    setup
        .verify("cosign.pub", &setup.fixture.unsigned())
        .await
        .unwrap_err();
    let listed = setup.listed().await;
    assert_eq!(listed.len(), 2);

    // The next pass, and one without status, find the signatures.
    let outcome = runner.ready().await;
    assert!(
        outcome
            .notes
            .iter()
            .all(|event| event.reason != Reason::SignaturesLogged)
    );
    let mut restored = setup.runner(&key);
    restored.ready().await;
    assert!(
        restored
            .status
            .targets
            .iter()
            .filter_map(|row| row.origin)
            .all(|origin| origin == Origin::Adopted)
    );
    assert_eq!(setup.listed().await, listed);
}

#[tokio::test]
async fn logged_signatures_of_cosign_with_the_same_key_are_adopted() {
    let setup = Setup::start().await;
    let key = key_pair(&setup.fixture, "cosign").await;
    let config = format!(
        "--signing-config={}",
        setup.sigstore.signing_config_file().display()
    );
    let root = format!(
        "--trusted-root={}",
        setup.sigstore.trusted_root_file().display()
    );
    for digest in setup.fixture.signed() {
        let image = setup.fixture.image.at(&digest);
        let sign = ["sign", "--key=cosign.key", &config, &root, "--yes", &image];
        cosign(&setup.fixture, &sign).await.unwrap();
    }
    let listed = setup.listed().await;
    let mut runner = setup.runner(&key);
    runner.ready().await;
    assert_eq!(setup.listed().await, listed);
}

/// The log keeps an entry that no bundle has.
#[tokio::test]
async fn a_pass_that_ends_after_the_log_has_the_signature_is_made_good() {
    let setup = Setup::start().await;
    for crash in [Crash::BeforePush, Crash::AfterPush] {
        let mut runner = setup.runner(&vector("p256.pem"));
        runner.pass_with(true, crash).await;
        runner.ready().await;
        std::fs::write(setup.fixture.peer.file("p256.pub"), vector("p256.pub")).unwrap();
        for digest in setup.fixture.signed() {
            setup.verify("p256.pub", &digest).await.unwrap();
        }
        assert_eq!(setup.listed().await.len(), 2);
        runner.delete().await;
        assert!(setup.listed().await.is_empty());
    }
}

#[tokio::test]
async fn keys_whose_signatures_no_log_takes_are_refused_with_the_way_out() {
    let setup = Setup::start().await;
    for key in ["rsa.pem", "p384.pem", "p521.pem", "ed25519.pem"] {
        let (reason, message) = setup.runner(&vector(key)).refused().await;
        assert_eq!(reason, "KeyInvalid", "{key}: {message}");
        assert!(
            message.contains("transparency needs a key of ECDSA P-256"),
            "{message}"
        );
    }
    let mut runner = setup.runner(&vector("p256.pem"));
    let absent = runner.sources.config_maps.remove("sigstore").unwrap();
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "FileMissing", "{message}");
    assert!(
        message.contains("spec.signature.cosign.transparency.trustRef: the ConfigMap \"sigstore\""),
        "{message}"
    );
    let mut incomplete = absent.clone();
    incomplete.remove("signing_config.json");
    runner
        .sources
        .config_maps
        .insert("sigstore".to_owned(), incomplete);
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "FileMissing", "{message}");
    assert!(message.contains("signing_config.json"), "{message}");
    let mut malformed = absent;
    malformed.insert("trusted_root.json".to_owned(), "affix".into());
    runner
        .sources
        .config_maps
        .insert("sigstore".to_owned(), malformed);
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "KeyInvalid", "{message}");
    assert!(message.contains("trusted_root.json"), "{message}");
    assert!(setup.listed().await.is_empty());
}

/// A server that changes the requests to a service, or its answers.
pub(crate) async fn liar(
    target: String,
    change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    replace: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> String {
    let (change, replace) = (Arc::new(change), Arc::new(replace));
    let client = affix_testbed::http_client::client(None).unwrap();
    let forward = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let (client, change, replace) = (client.clone(), Arc::clone(&change), Arc::clone(&replace));
        let url = format!("{target}{}", uri.path());
        async move {
            let answer = client
                .post(url)
                .header(header::CONTENT_TYPE, &headers[header::CONTENT_TYPE])
                .body(change(body.to_vec()))
                .send()
                .await
                .unwrap();
            let status = answer.status();
            (status, replace(answer.bytes().await.unwrap().to_vec()))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(forward);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::test]
async fn t31_a_service_that_lies_gives_a_reason_and_nothing_is_pushed() {
    let mut setup = Setup::start().await;
    let mut other = Sigstore::start_without_fulcio(&setup.tools).await.unwrap();
    let (log, authority) = (
        setup.sigstore.url(Part::Rekor).unwrap(),
        setup.sigstore.url(Part::Timestamps).unwrap(),
    );
    let same = |bytes: Vec<u8>| bytes;
    let flip_last = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let first = std::sync::Mutex::new(None);
    let lies = [
        (
            "a log with another key",
            &log,
            other.url(Part::Rekor).unwrap(),
        ),
        (
            "an authority with another key",
            &authority,
            other.url(Part::Timestamps).unwrap(),
        ),
        (
            "a timestamp of another hash",
            &authority,
            liar(authority.clone(), flip_last, same).await,
        ),
        (
            "an altered timestamp",
            &authority,
            liar(authority.clone(), same, flip_last).await,
        ),
        (
            "the entry of another signature",
            &log,
            liar(log.clone(), same, move |bytes| {
                first.lock().unwrap().get_or_insert(bytes).clone()
            })
            .await,
        ),
        (
            "an altered proof",
            &log,
            liar(log.clone(), same, |bytes| {
                let mut entry: Value = serde_json::from_slice(&bytes).unwrap();
                entry["logIndex"] = json!("7000");
                entry.to_string().into_bytes()
            })
            .await,
        ),
        (
            "no entry at all",
            &log,
            liar(log.clone(), same, |_| b"{}".to_vec()).await,
        ),
    ];
    for (lie, service, liar) in lies {
        let mut runner = setup.runner(&vector("p256.pem"));
        let config = setup
            .sigstore
            .signing_config()
            .replace(service.as_str(), &liar);
        assert!(config.contains(&liar));
        setup.describe(&mut runner, &config);
        let (reason, message) = runner.refused().await;
        assert!(
            reason == "SigningUnavailable" || reason == "PartiallyAttached",
            "{lie}: {reason}: {message}"
        );
        let says = [
            "does not verify with trusted_root.json",
            "something that is no log entry",
        ];
        assert!(
            says.iter().any(|text| message.contains(text)),
            "{lie}: {message}"
        );
        let (_, again) = runner.refused().await;
        assert_eq!(message, again, "{lie}: a message is the same each time");
        let listed = setup.listed().await;
        // The first entry is that of its signature.
        let most = usize::from(lie == "the entry of another signature");
        assert!(listed.len() <= most, "{lie}: {message}");
        println!("{lie}: {message}");
        runner.delete().await;
    }
    setup.runner(&vector("p256.pem")).ready().await;
}

#[tokio::test]
async fn a_service_that_is_down_or_slow_gives_a_reason_and_is_retried() {
    let mut setup = Setup::start().await;
    let tools = setup.tools.clone();
    let mut runner = setup.runner(&vector("p256.pem"));
    for part in [Part::Rekor, Part::Timestamps] {
        setup.sigstore.pause(part).unwrap();
        let url = setup.sigstore.url(part).unwrap();
        let host = url.strip_prefix("http://").unwrap();
        let mut said = Vec::new();
        // A log that runs again may first end the requests of before.
        while said.len() < 5 && !said.last().is_some_and(|last: &String| last.contains(host)) {
            let (reason, message) = runner.refused().await;
            assert_eq!(reason, "SigningUnavailable", "{message}");
            said.push(message);
        }
        assert!(said.last().unwrap().contains(host), "{said:#?}");
        assert!(setup.listed().await.is_empty());
        setup.sigstore.resume(part).unwrap();
    }
    setup.sigstore.kill(Part::Rekor).await.unwrap();
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "SigningUnavailable", "{message}");
    assert!(setup.listed().await.is_empty());
    setup
        .sigstore
        .start_again(&tools, Part::Rekor)
        .await
        .unwrap();
    runner.ready().await;
    assert_eq!(setup.listed().await.len(), 2);
}

/// The services are reached under the address rules of the operator.
#[tokio::test]
async fn t27_services_are_reached_by_https_or_on_loopback_where_that_is_allowed() {
    let setup = Setup::start().await;
    let mut runner = setup.runner(&vector("p256.pem"));
    let url = "http://log.example.com";
    let mut config: Value = serde_json::from_str(setup.sigstore.signing_config()).unwrap();
    config["rekorTlogUrls"][0]["url"] = json!(url);
    setup.describe(&mut runner, &config.to_string());
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "InsecureNotAllowed", "{message}");
    assert!(message.contains("log.example.com"), "{message}");
    config["rekorTlogUrls"][0]["url"] = json!("https://169.254.169.254");
    setup.describe(&mut runner, &config.to_string());
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "HostNotAllowed", "{message}");
    assert!(setup.listed().await.is_empty());
}
