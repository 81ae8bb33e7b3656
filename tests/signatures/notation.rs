//! Signatures with notation's keys, judged by notation-go at the level strict, revocation aside.

use affix_testbed::tools::Tool;
use serde_json::json;

use crate::desk::{Bench, Desk};

const NOTARY: &str = "application/vnd.cncf.notary.signature";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/notary/");

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FOLDER}{name}")).unwrap()
}

async fn verify(bench: &Bench, digest: &str) -> Result<String, String> {
    std::fs::write(bench.peer.file("root.pem"), file("root.crt")).unwrap();
    let image = bench.image.at(digest);
    let args = [
        "verify",
        "-trust-root=root.pem",
        "-plain-http",
        "-basic=ci:secret",
        &image,
    ];
    let ran = bench
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

fn desk(bench: &Bench, key: &str, chain: &str, roots: Option<&str>, expiry: Option<&str>) -> Desk {
    let mut notation = json!({"keySecretRef": {"name": "tls"}});
    if let Some(expiry) = expiry {
        notation["expiry"] = json!(expiry);
    }
    let spec = bench.spec(
        &bench.image.pinned(),
        &json!({"signature": {"notation": notation}}),
    );
    let (key, chain, roots) = (file(key), file(chain), roots.map(file));
    let mut data = vec![("tls.key", key.as_slice()), ("tls.crt", chain.as_slice())];
    data.extend(roots.as_ref().map(|roots| ("ca.crt", roots.as_slice())));
    Desk::new(bench, &spec, &[("tls", &data)])
}

#[tokio::test]
async fn notation_go_verifies_rsa_and_ecdsa_signatures_under_a_chain_of_three() {
    for (key, chain) in [("p256", "p256.crt"), ("rsa-2048", "rsa-2048.crt")] {
        for bench in Bench::both().await {
            let mut desk = desk(&bench, &format!("{key}.key"), chain, None, None);
            for _ in 0..3 {
                desk.ready().await;
            }
            for digest in bench.signed() {
                let listed = bench.listed(&digest, NOTARY).await;
                assert_eq!(listed.len(), 1);
                for other in bench.listed_by_others(&digest, NOTARY).await {
                    assert_eq!(other, listed);
                }
                assert_eq!(verify(&bench, &digest).await.unwrap().trim(), listed[0]);
            }
            let refused = verify(&bench, &bench.unsigned()).await.unwrap_err();
            assert!(refused.contains("no signature"), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_chain_that_stops_at_the_intermediate_is_completed_from_ca_crt_and_refused_without() {
    for bench in Bench::both().await {
        let mut desk = desk(&bench, "p256.key", "p256.short.crt", None, None);
        let (reason, message) = desk.refused().await;
        assert_eq!(reason, "KeyInvalid");
        assert!(
            message.contains("ca.crt") && message.contains("root"),
            "{message}"
        );
        assert!(bench.listed(&bench.signed()[0], NOTARY).await.is_empty());
        let mut desk =
            crate::notation::desk(&bench, "p256.key", "p256.short.crt", Some("root.crt"), None);
        desk.ready().await;
        for digest in bench.signed() {
            verify(&bench, &digest).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_signature_in_the_last_third_of_its_life_is_renewed_and_the_old_one_goes() {
    for bench in Bench::both().await {
        let mut desk = desk(&bench, "p256.key", "p256.crt", None, Some("900h"));
        desk.ready().await;
        let first = desk.attachments();
        desk.later(599 * 3600);
        assert_eq!(desk.look().await.requests, 0);
        desk.ready().await;
        assert_eq!(desk.attachments(), first);
        desk.later(2 * 3600);
        let outcome = desk.look().await;
        assert!(outcome.verdict.ready, "{:?}", outcome.verdict);
        let second = desk.attachments();
        assert!(
            first
                .iter()
                .zip(&second)
                .all(|(first, second)| first.0 == second.0 && first.1 != second.1)
        );
        for (subject, attachment) in second {
            assert_eq!(bench.listed(&subject, NOTARY).await, [attachment]);
        }
        assert_eq!(desk.look().await.requests, 0);
    }
}
