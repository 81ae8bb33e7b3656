//! Timestamps of signatures with notation keys. A real authority makes them, and notation-go verifies them at the level strict.

use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::sigstore::{Part, Sigstore};
use affix_testbed::tools::{Tool, Tools};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::notation::{NOTARY, file};
use crate::runner::{Fixture, Runner};
use crate::transparency::liar;

/// A registry with an image, and a timestamp authority.
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

    /// Returns the root certificate of the authority.
    fn root(&self) -> String {
        let chain = self.sigstore.timestamp_chain().unwrap();
        let begin = chain.rfind("-----BEGIN").unwrap();
        chain[begin..].to_owned()
    }

    fn url(&mut self) -> String {
        let host = self.sigstore.url(Part::Timestamps).unwrap();
        format!("{host}/api/v1/timestamp")
    }

    fn spec(&self, timestamp: Option<&Value>) -> Value {
        let mut notation = json!({"keySecretRef": {"name": "tls"}});
        if let Some(timestamp) = timestamp {
            notation["timestamp"] = timestamp.clone();
        }
        let signature = json!({"signature": {"notation": notation}});
        let mut spec = self.fixture.spec(&self.fixture.image.pinned(), &signature);
        spec["timeout"] = json!("20s");
        spec
    }

    /// Returns a runner that signs with a key and has the signatures timestamped at `url`.
    fn runner_at(&self, url: &str, key: &[u8], chain: &[u8]) -> Runner {
        let timestamp = json!({"url": url, "certSecretRef": {"name": "tsa"}});
        let root = self.root();
        let tls = [("tls.key", key), ("tls.crt", chain)];
        let tsa = [("ca.crt", root.as_bytes())];
        let secrets: [(&str, &[(&str, &[u8])]); 2] = [("tls", &tls), ("tsa", &tsa)];
        Runner::new(&self.fixture, &self.spec(Some(&timestamp)), &secrets)
    }

    fn runner(&mut self, name: &str) -> Runner {
        let (key, chain) = (file(&format!("{name}.key")), file(&format!("{name}.crt")));
        let url = self.url();
        self.runner_at(&url, &key, &chain)
    }

    /// Verifies with notation-go, which needs a timestamp in each signature.
    async fn verify(&self, root: &[u8], digest: &str) -> Result<String, String> {
        let peer = &self.fixture.peer;
        std::fs::write(peer.file("root.pem"), root).unwrap();
        std::fs::write(peer.file("tsa.pem"), self.root()).unwrap();
        let image = self.fixture.image.at(digest);
        let args = [
            "verify",
            "-trust-root=root.pem",
            "-tsa-root=tsa.pem",
            "-plain-http",
            "-basic=ci:secret",
            &image,
        ];
        let run = peer.run(Tool::Notation).unwrap().args(args);
        let ran = run.output().await.unwrap();
        ran.clone()
            .stdout()
            .map_err(|_| ran.failure().unwrap_or_default())
    }

    async fn listed(&self) -> Vec<String> {
        let mut listed = Vec::new();
        for subject in self.fixture.signed() {
            listed.extend(self.fixture.listed(&subject, NOTARY).await);
        }
        listed
    }
}

#[tokio::test]
async fn notation_go_verifies_timestamped_signatures_of_each_kind_of_key() {
    let mut setup = Setup::start().await;
    for name in ["p256", "p384", "p521", "rsa-2048", "rsa-3072", "rsa-4096"] {
        let chain = String::from_utf8(file(&format!("{name}.crt"))).unwrap();
        let root = chain[chain.rfind("-----BEGIN").unwrap()..].to_owned();
        let mut runner = setup.runner(name);
        let outcome = runner.ready().await;
        assert_eq!(outcome.signatures_end, None, "{name}");
        let listed = setup.listed().await;
        assert_eq!(listed.len(), 2, "{name}");
        for digest in setup.fixture.signed() {
            let verified = setup.verify(root.as_bytes(), &digest).await.unwrap();
            assert!(listed.contains(&verified.trim().to_owned()), "{name}");
        }
        // Neither the next pass nor one without status signs again.
        runner.ready().await;
        setup.runner(name).ready().await;
        assert_eq!(setup.listed().await, listed, "{name}");
        runner.delete().await;
        assert!(setup.listed().await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_signature_without_a_timestamp_is_replaced_and_a_foreign_timestamp_is_no_obstacle() {
    let mut setup = Setup::start().await;
    let root = file("root.crt");
    let mut runner = setup.runner("p256");
    let timestamped = runner.spec.clone();
    let plain = setup.spec(None);
    runner.change_spec(&plain);
    let outcome = runner.ready().await;
    assert!(outcome.signatures_end.is_some());
    let first = setup.listed().await;
    let refused = setup.verify(&root, &setup.fixture.signed()[0]).await;
    assert!(refused.unwrap_err().contains("timestamp"));
    runner.change_spec(&serde_json::to_value(timestamped).unwrap());
    runner.ready().await;
    let second = setup.listed().await;
    assert_eq!(second.len(), 2);
    assert!(first.iter().all(|signature| !second.contains(signature)));
    for digest in setup.fixture.signed() {
        setup.verify(&root, &digest).await.unwrap();
    }
    // Without the authority a timestamp does no harm.
    runner.change_spec(&plain);
    runner.ready().await;
    assert_eq!(setup.listed().await, second);
}

#[tokio::test]
async fn a_timestamped_signature_outlives_its_certificate() {
    let mut setup = Setup::start().await;
    let url = setup.url();
    // A slow machine needs a certificate that lives longer.
    for seconds in [10, 40, 160] {
        let authority = Authority::new().unwrap();
        let signer = authority.signer_for(Duration::from_secs(seconds)).unwrap();
        let (key, chain) = (signer.key.as_bytes(), signer.chain.as_bytes());
        let mut runner = setup.runner_at(&url, key, chain);
        if !runner.pass().await.verdict.ready {
            continue;
        }
        let listed = setup.listed().await;
        sleep(Duration::from_secs(seconds + 1)).await;
        runner.now = Timestamp::now();
        // The signatures stay, and verify.
        runner.ready().await;
        assert_eq!(setup.listed().await, listed);
        let mut restored = setup.runner_at(&url, key, chain);
        restored.ready().await;
        assert_eq!(setup.listed().await, listed);
        for digest in setup.fixture.signed() {
            setup
                .verify(authority.pem().as_bytes(), &digest)
                .await
                .unwrap();
        }
        // No new one is made.
        runner.delete().await;
        let mut late = setup.runner_at(&url, key, chain);
        let (reason, message) = late.refused().await;
        assert_eq!(reason, "KeyInvalid", "{message}");
        assert!(message.contains("valid from"), "{message}");
        assert!(setup.listed().await.is_empty());
        return;
    }
    panic!("no certificate lived long enough");
}

#[tokio::test]
async fn t31_an_authority_that_lies_or_fails_gives_a_reason_and_nothing_is_pushed() {
    let mut setup = Setup::start().await;
    let stranger = Sigstore::start_without_fulcio(&setup.tools).await;
    let mut stranger = stranger.unwrap();
    let other = stranger.url(Part::Timestamps).unwrap();
    let host = setup.sigstore.url(Part::Timestamps).unwrap();
    let same = |bytes: Vec<u8>| bytes;
    let flip_last = |mut bytes: Vec<u8>| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    // The hash lies before the three bytes that ask for certificates.
    let other_hash = |mut bytes: Vec<u8>| {
        let position = bytes.len() - 4;
        bytes[position] ^= 1;
        bytes
    };
    let rejected = vec![0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02];
    let lies = [
        ("another authority", other, "not by a certificate of ca.crt"),
        (
            "another hash",
            liar(host.clone(), other_hash, same).await,
            "it is of something else",
        ),
        (
            "an altered token",
            liar(host.clone(), same, flip_last).await,
            "does not verify",
        ),
        (
            "a rejection",
            liar(host.clone(), same, move |_| rejected.clone()).await,
            "status 2 of RFC 3161",
        ),
        (
            "no token",
            liar(host.clone(), same, |_| b"affix".to_vec()).await,
            "something that is no timestamp",
        ),
    ];
    let (key, chain) = (file("p256.key"), file("p256.crt"));
    for (lie, liar, text) in lies {
        let mut runner = setup.runner_at(&format!("{liar}/api/v1/timestamp"), &key, &chain);
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, "SigningUnavailable", "{lie}: {message}");
        let is_named = message.contains("spec.signature.notation.timestamp: ");
        assert!(is_named && message.contains(text), "{lie}: {message}");
        let (_, again) = runner.refused().await;
        assert_eq!(message, again, "{lie}");
    }
    let mut runner = setup.runner("p256");
    setup.sigstore.pause(Part::Timestamps).unwrap();
    let (reason, message) = runner.refused().await;
    assert_eq!(reason, "SigningUnavailable", "{message}");
    assert!(message.contains("127.0.0.1"), "{message}");
    setup.sigstore.resume(Part::Timestamps).unwrap();
    assert!(setup.listed().await.is_empty());
    runner.ready().await;
}

#[tokio::test]
async fn the_secret_of_the_authority_and_its_address_are_checked_with_the_field_in_the_message() {
    let mut setup = Setup::start().await;
    let mut runner = setup.runner("p256");
    let field = "spec.signature.notation.timestamp.certSecretRef: the Secret \"tsa\"";
    for (data, reason, text) in [
        (vec![], "SecretNotFound", "ca.crt"),
        (
            vec![("ca.crt", b"affix".as_slice())],
            "CertificateInvalid",
            "PEM",
        ),
    ] {
        runner.replace_secret("tsa", &data);
        let (found, message) = runner.refused().await;
        assert_eq!(found, reason, "{message}");
        assert!(
            message.contains(field) && message.contains(text),
            "{message}"
        );
    }
    let (key, chain) = (file("p256.key"), file("p256.crt"));
    for url in ["http://169.254.169.254/tsa", "https://169.254.169.254"] {
        let (reason, message) = setup.runner_at(url, &key, &chain).refused().await;
        assert_eq!(reason, "HostNotAllowed", "{message}");
    }
    assert!(setup.listed().await.is_empty());
}
