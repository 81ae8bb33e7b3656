//! Signatures with notation keys, verified by notation-go at the level strict without revocation.

use affix_testbed::tools::Tool;
use serde_json::json;

use crate::runner::{Fixture, Runner};

pub(crate) const NOTARY: &str = "application/vnd.cncf.notary.signature";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/notary/");

pub(crate) fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FOLDER}{name}")).unwrap()
}

async fn verify(fixture: &Fixture, digest: &str) -> Result<String, String> {
    std::fs::write(fixture.peer.file("root.pem"), file("root.crt")).unwrap();
    let image = fixture.image.at(digest);
    let args = [
        "verify",
        "-trust-root=root.pem",
        "-plain-http",
        "-basic=ci:secret",
        &image,
    ];
    let ran = fixture
        .peer
        .run(Tool::Notation)
        .unwrap()
        .args(args)
        .output()
        .await
        .unwrap();
    ran.clone()
        .stdout()
        .map_err(|_| ran.failure().unwrap_or_default())
}

fn runner(
    fixture: &Fixture,
    key: &str,
    chain: &str,
    roots: Option<&str>,
    expiry: Option<&str>,
) -> Runner {
    let mut notation = json!({"keySecretRef": {"name": "tls"}});
    if let Some(expiry) = expiry {
        notation["expiry"] = json!(expiry);
    }
    let spec = fixture.spec(
        &fixture.image.pinned(),
        &json!({"signature": {"notation": notation}}),
    );
    let (key, chain, roots) = (file(key), file(chain), roots.map(file));
    let mut data = vec![("tls.key", key.as_slice()), ("tls.crt", chain.as_slice())];
    data.extend(roots.as_ref().map(|roots| ("ca.crt", roots.as_slice())));
    Runner::new(fixture, &spec, &[("tls", &data)])
}

#[tokio::test]
async fn notation_go_verifies_rsa_and_ecdsa_signatures_with_a_chain_of_three() {
    for (key, chain) in [("p256", "p256.crt"), ("rsa-2048", "rsa-2048.crt")] {
        for fixture in Fixture::both().await {
            let mut runner = runner(&fixture, &format!("{key}.key"), chain, None, None);
            for _ in 0..3 {
                runner.ready().await;
            }
            for digest in fixture.signed() {
                let listed = fixture.listed(&digest, NOTARY).await;
                assert_eq!(listed.len(), 1);
                for other in fixture.listed_by_others(&digest, NOTARY).await {
                    assert_eq!(other, listed);
                }
                assert_eq!(verify(&fixture, &digest).await.unwrap().trim(), listed[0]);
            }
            let refused = verify(&fixture, &fixture.unsigned()).await.unwrap_err();
            assert!(refused.contains("no signature"), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_chain_without_its_root_is_completed_from_ca_crt_or_refused() {
    for fixture in Fixture::both().await {
        let mut runner = runner(&fixture, "p256.key", "p256.short.crt", None, None);
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, "KeyInvalid");
        assert!(
            message.contains("ca.crt") && message.contains("root"),
            "{message}"
        );
        assert!(
            fixture
                .listed(&fixture.signed()[0], NOTARY)
                .await
                .is_empty()
        );
        let mut runner = crate::notation::runner(
            &fixture,
            "p256.key",
            "p256.short.crt",
            Some("root.crt"),
            None,
        );
        runner.ready().await;
        for digest in fixture.signed() {
            verify(&fixture, &digest).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_signature_in_the_last_third_of_its_life_is_renewed_and_replaced() {
    for fixture in Fixture::both().await {
        let mut runner = runner(&fixture, "p256.key", "p256.crt", None, Some("900h"));
        runner.ready().await;
        let first = runner.attachments();
        runner.advance(599 * 3600);
        assert_eq!(runner.interval_pass().await.requests, 0);
        runner.ready().await;
        assert_eq!(runner.attachments(), first);
        runner.advance(2 * 3600);
        let outcome = runner.interval_pass().await;
        assert!(outcome.verdict.ready, "{:?}", outcome.verdict);
        let second = runner.attachments();
        assert!(
            first
                .iter()
                .zip(&second)
                .all(|(first, second)| first.0 == second.0 && first.1 != second.1)
        );
        for (subject, attachment) in second {
            assert_eq!(fixture.listed(&subject, NOTARY).await, [attachment]);
        }
        assert_eq!(runner.interval_pass().await.requests, 0);
    }
}
