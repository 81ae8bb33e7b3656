//! Signatures with cosign's keys: the real cosign makes the keys and judges what affix signs.

use affix::api::{Origin, Reason, TargetState};
use affix_testbed::tools::Tool;
use serde_json::{Value, json};

use crate::desk::{Bench, Desk, Fate};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PASSWORD: &str = "correct horse";

async fn cosign(bench: &Bench, args: &[&str]) -> Result<String, String> {
    let run = bench
        .peer
        .run(Tool::Cosign)
        .unwrap()
        .env("COSIGN_PASSWORD", PASSWORD)
        .args(args.iter().copied());
    let ran = run.output().await.unwrap();
    ran.clone()
        .stdout()
        .map_err(|_| ran.failure().unwrap_or_default())
}

/// A key pair that cosign made, as `NAME.key` and `NAME.pub` beside the peer's files.
pub(crate) async fn key_pair(bench: &Bench, name: &str) -> Vec<u8> {
    cosign(bench, &["generate-key-pair", "--output-key-prefix", name])
        .await
        .unwrap();
    std::fs::read(bench.peer.file(&format!("{name}.key"))).unwrap()
}

/// What `cosign verify` says about a digest under a public key.
pub(crate) async fn verify(
    bench: &Bench,
    key: &str,
    digest: &str,
    more: &[&str],
) -> Result<String, String> {
    let (key, image) = (format!("{key}.pub"), bench.image.at(digest));
    let args = [
        &["verify", "--key", &key, "--insecure-ignore-tlog"],
        more,
        &[image.as_str()],
    ]
    .concat();
    cosign(bench, &args).await
}

fn wanted(annotations: &Value) -> Value {
    json!({"signature": {"cosign": {"keySecretRef": {"name": "key"}, "annotations": annotations}}})
}

fn desk(bench: &Bench, key: &[u8]) -> Desk {
    let spec = bench.spec(&bench.image.tagged(), &wanted(&json!({})));
    Desk::new(
        bench,
        &spec,
        &[(
            "key",
            &[
                ("cosign.key", key),
                ("cosign.password", PASSWORD.as_bytes()),
            ],
        )],
    )
}

#[tokio::test]
async fn the_real_cosign_verifies_the_index_and_each_selected_platform_and_nothing_else() {
    for bench in Bench::both().await {
        let key = key_pair(&bench, "cosign").await;
        let mut desk = desk(&bench, &key);
        desk.change(&bench.spec(&bench.image.tagged(), &wanted(&json!({"env": "prod"}))));
        let outcome = desk.ready().await;
        assert_eq!(outcome.attached().as_deref(), Some("2/2"));
        for digest in bench.signed() {
            verify(&bench, "cosign", &digest, &["-a", "env=prod"])
                .await
                .unwrap();
            verify(&bench, "cosign", &digest, &["-a", "env=test"])
                .await
                .unwrap_err();
            let listed = bench.listed(&digest, BUNDLE).await;
            assert_eq!(listed.len(), 1);
            for other in bench.listed_by_others(&digest, BUNDLE).await {
                assert_eq!(other, listed);
            }
            let tree = cosign(&bench, &["tree", &bench.image.at(&digest)])
                .await
                .unwrap();
            assert!(tree.contains(&listed[0]), "{tree}");
        }
        verify(&bench, "cosign", &bench.unsigned(), &[])
            .await
            .unwrap_err();
        assert!(bench.listed(&bench.attestation(), BUNDLE).await.is_empty());
    }
}

/// Signs the image with each kind of key, in encrypted and in plain files.
#[tokio::test]
async fn cosign_verifies_signatures_by_every_kind_of_key() {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/cosign/");
    let bench = Bench::both().await.remove(0);
    for (file, public) in [
        ("rsa.key", "rsa"),
        ("rsa-3072.key", "rsa-3072"),
        ("rsa-3072.pkcs1.pem", "rsa-3072"),
        ("rsa-4096.key", "rsa-4096"),
        ("p256.sec1.pem", "p256"),
        ("p384.key", "p384"),
        ("p384.sec1.pem", "p384"),
        ("p521.key", "p521"),
        ("p521.pem", "p521"),
        ("ed25519.key", "ed25519"),
    ] {
        let public_file = format!("{public}.pub");
        std::fs::copy(
            format!("{FOLDER}{public_file}"),
            bench.peer.file(&public_file),
        )
        .unwrap();
        let key = std::fs::read(format!("{FOLDER}{file}")).unwrap();
        // An annotation of its own, so that a signature by the same key in another file is not adopted.
        let spec = bench.spec(&bench.image.tagged(), &wanted(&json!({"file": file})));
        let files: [(&str, &[u8]); 2] = [("cosign.key", &key), ("cosign.password", b"affix")];
        let mut desk = Desk::new(&bench, &spec, &[("key", &files)]);
        desk.ready().await;
        desk.ready().await;
        let annotation = format!("file={file}");
        for digest in bench.signed() {
            let verified = verify(&bench, public, &digest, &["-a", &annotation]).await;
            verified.unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

#[tokio::test]
async fn twenty_passes_leave_one_signature_a_target_and_a_look_costs_one_request() {
    for bench in Bench::both().await {
        let key = key_pair(&bench, "cosign").await;
        let mut desk = desk(&bench, &key);
        desk.ready().await;
        let first = desk.attachments();
        for _ in 0..10 {
            desk.later(60);
            desk.ready().await;
            assert_eq!(desk.look().await.requests, 1);
        }
        // A restored cluster has no status.
        let mut restored = crate::cosign::desk(&bench, &key);
        for _ in 0..9 {
            restored.ready().await;
        }
        assert_eq!(
            (desk.attachments(), restored.attachments()),
            (first.clone(), first.clone())
        );
        assert!(
            restored
                .status
                .targets
                .iter()
                .filter(|row| row.state == TargetState::Attached)
                .all(|row| row.origin == Some(Origin::Adopted))
        );
        for (subject, attachment) in first {
            assert_eq!(bench.listed(&subject, BUNDLE).await, [attachment]);
        }
    }
}

#[tokio::test]
async fn what_the_real_cosign_signed_before_is_adopted_and_none_is_added() {
    for bench in Bench::both().await {
        let key = key_pair(&bench, "cosign").await;
        let image = bench.image.pinned();
        let sign = [
            "sign",
            "--recursive",
            "--key",
            "cosign.key",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
            &image,
        ];
        cosign(&bench, &sign).await.unwrap();
        let before = [
            bench.listed(&bench.signed()[0], BUNDLE).await,
            bench.listed(&bench.signed()[1], BUNDLE).await,
        ];
        assert_eq!(before.each_ref().map(Vec::len), [1, 1]);
        let mut desk = desk(&bench, &key);
        for _ in 0..2 {
            desk.ready().await;
            for (digest, before) in bench.signed().iter().zip(&before) {
                assert_eq!(&bench.listed(digest, BUNDLE).await, before);
                let row = desk
                    .status
                    .targets
                    .iter()
                    .find(|row| row.digest == *digest)
                    .unwrap();
                assert_eq!(
                    (row.origin, row.attachment.as_ref()),
                    (Some(Origin::Adopted), before.first())
                );
            }
        }
    }
}

#[tokio::test]
async fn a_rotated_key_signs_again_and_takes_its_old_signatures_away_but_nobody_elses() {
    for bench in Bench::both().await {
        let old = key_pair(&bench, "old").await;
        let new = key_pair(&bench, "new").await;
        let foreign = key_pair(&bench, "foreign").await;
        let mut other = desk(&bench, &foreign);
        other.ready().await;
        let mut desk = desk(&bench, &old);
        desk.ready().await;
        desk.put(
            "key",
            &[
                ("cosign.key", &new),
                ("cosign.password", PASSWORD.as_bytes()),
            ],
        );
        desk.later(60);
        // An interval's look sees that the key is another one.
        let outcome = desk.look().await;
        let deletes = outcome.verdict.ready;
        for digest in bench.signed() {
            verify(&bench, "new", &digest, &[]).await.unwrap();
            verify(&bench, "foreign", &digest, &[]).await.unwrap();
            verify(&bench, "old", &digest, &[]).await.unwrap_err();
            assert_eq!(
                bench.listed(&digest, BUNDLE).await.len(),
                2,
                "{:#?}",
                desk.status
            );
        }
        assert!(
            deletes && desk.status.leftovers.is_empty(),
            "{:#?}",
            desk.status
        );
        assert_eq!(desk.look().await.requests, 1);
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_point_leaves_one_signature_a_target() {
    for bench in Bench::both().await {
        let key = key_pair(&bench, "cosign").await;
        for fate in [Fate::DiesBeforeThePush, Fate::DiesAfterThePush] {
            let mut desk = desk(&bench, &key);
            desk.change(&bench.spec(
                &bench.image.tagged(),
                &wanted(&json!({"fate": (fate as u8).to_string()})),
            ));
            let before = bench.listed(&bench.signed()[0], BUNDLE).await.len();
            desk.pass_with(true, fate).await;
            desk.ready().await;
            assert!(
                desk.status.leftovers.is_empty(),
                "{:#?}",
                desk.status.leftovers
            );
            assert!(
                desk.status
                    .targets
                    .iter()
                    .filter(|row| row.state == TargetState::Attached)
                    .all(|row| row.origin == Some(Origin::Made))
            );
            assert_eq!(desk.look().await.requests, 1);
            for digest in bench.signed() {
                assert_eq!(bench.listed(&digest, BUNDLE).await.len(), before + 1);
            }
        }
    }
}

#[tokio::test]
async fn a_signature_that_a_fallback_tag_lost_is_listed_again() {
    let bench = Bench::both().await.pop().unwrap();
    let key = key_pair(&bench, "cosign").await;
    let mut desk = desk(&bench, &key);
    desk.ready().await;
    let first = desk.attachments();
    let raw = bench.registry.raw().unwrap();
    let tag = first[0].0.replace(':', "-");
    let media_type = "application/vnd.oci.image.index.v1+json";
    let empty = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).to_string();
    raw.put_manifest("team/app", &tag, media_type, empty)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let outcome = desk.ready().await;
    assert_eq!(desk.attachments(), first);
    assert!(
        outcome.notes.iter().any(
            |note| note.reason == Reason::Restored && note.message.ends_with("it was put back")
        )
    );
}

#[tokio::test]
async fn a_signature_that_was_deleted_is_made_anew() {
    let bench = Bench::both().await.remove(0);
    let key = key_pair(&bench, "cosign").await;
    let mut desk = desk(&bench, &key);
    desk.ready().await;
    let first = desk.attachments();
    let raw = bench.registry.raw().unwrap();
    raw.delete_manifest("team/app", &first[0].1)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let outcome = desk.ready().await;
    assert_ne!(desk.attachments()[0], first[0]);
    assert_eq!(desk.attachments()[1], first[1]);
    assert!(
        outcome
            .notes
            .iter()
            .any(|note| note.reason == Reason::Restored && note.message.ends_with("signed anew"))
    );
    assert_eq!(
        bench.listed(&first[0].0, BUNDLE).await,
        [desk.attachments()[0].1.clone()]
    );
    verify(&bench, "cosign", &first[0].0, &[]).await.unwrap();
}

#[tokio::test]
async fn an_image_whose_tag_moves_is_signed_anew_and_the_old_signatures_stay() {
    use affix_testbed::images::{Image, Index};
    for bench in Bench::both().await {
        let key = key_pair(&bench, "cosign").await;
        let mut desk = desk(&bench, &key);
        desk.ready().await;
        let next = Index::new()
            .image(Image::new("linux/amd64", "r1r1"))
            .image(Image::new("linux/arm64", "c1c1"));
        let next = next
            .push(&bench.registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        desk.look().await;
        let signed = [next.digest(), next.digest_of("linux/amd64").unwrap()];
        for digest in signed.into_iter().map(str::to_owned).chain(bench.signed()) {
            verify(&bench, "cosign", &digest, &[]).await.unwrap();
        }
        verify(&bench, "cosign", &bench.unsigned(), &[])
            .await
            .unwrap_err();
    }
}
