//! Signatures with cosign keys. The real cosign makes the keys and verifies the signatures of affix.

use affix::api::{Origin, Reason, TargetState};
use affix_testbed::tools::Tool;
use serde_json::{Value, json};

use crate::runner::{Crash, Fixture, Runner};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(crate) const PASSWORD: &str = "correct horse";

/// Runs cosign among the files of the peer.
pub(crate) async fn cosign(fixture: &Fixture, args: &[&str]) -> Result<String, String> {
    let run = fixture
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

/// Makes a key pair with cosign as `NAME.key` and `NAME.pub` among the files of the peer, and returns the private key.
pub(crate) async fn key_pair(fixture: &Fixture, name: &str) -> Vec<u8> {
    cosign(fixture, &["generate-key-pair", "--output-key-prefix", name])
        .await
        .unwrap();
    std::fs::read(fixture.peer.file(&format!("{name}.key"))).unwrap()
}

/// Runs `cosign verify` on a digest with a public key.
pub(crate) async fn verify(
    fixture: &Fixture,
    key: &str,
    digest: &str,
    more: &[&str],
) -> Result<String, String> {
    let (key, image) = (format!("{key}.pub"), fixture.image.at(digest));
    let args = [
        &["verify", "--key", &key, "--insecure-ignore-tlog"],
        more,
        &[image.as_str()],
    ]
    .concat();
    cosign(fixture, &args).await
}

fn wanted(annotations: &Value) -> Value {
    json!({"signature": {"cosign": {"keySecretRef": {"name": "key"}, "annotations": annotations}}})
}

fn runner(fixture: &Fixture, key: &[u8]) -> Runner {
    let spec = fixture.spec(&fixture.image.tagged(), &wanted(&json!({})));
    Runner::new(
        fixture,
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
async fn cosign_verifies_the_index_and_the_selected_platforms_only() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner
            .change_spec(&fixture.spec(&fixture.image.tagged(), &wanted(&json!({"env": "prod"}))));
        let outcome = runner.ready().await;
        assert_eq!(outcome.attached().as_deref(), Some("2/2"));
        for digest in fixture.signed() {
            verify(&fixture, "cosign", &digest, &["-a", "env=prod"])
                .await
                .unwrap();
            verify(&fixture, "cosign", &digest, &["-a", "env=test"])
                .await
                .unwrap_err();
            let listed = fixture.listed(&digest, BUNDLE).await;
            assert_eq!(listed.len(), 1);
            for other in fixture.listed_by_others(&digest, BUNDLE).await {
                assert_eq!(other, listed);
            }
            let tree = cosign(&fixture, &["tree", &fixture.image.at(&digest)])
                .await
                .unwrap();
            assert!(tree.contains(&listed[0]), "{tree}");
        }
        verify(&fixture, "cosign", &fixture.unsigned(), &[])
            .await
            .unwrap_err();
        assert!(
            fixture
                .listed(&fixture.attestation(), BUNDLE)
                .await
                .is_empty()
        );
    }
}

/// Signs the image with each kind of key, in encrypted and in plain files.
#[tokio::test]
async fn cosign_verifies_signatures_by_every_kind_of_key() {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/signing/cosign/");
    let fixture = Fixture::both().await.remove(0);
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
            fixture.peer.file(&public_file),
        )
        .unwrap();
        let key = std::fs::read(format!("{FOLDER}{file}")).unwrap();
        // An annotation of its own, so that a signature by the same key in another file is not adopted.
        let spec = fixture.spec(&fixture.image.tagged(), &wanted(&json!({"file": file})));
        let files: [(&str, &[u8]); 2] = [("cosign.key", &key), ("cosign.password", b"affix")];
        let mut runner = Runner::new(&fixture, &spec, &[("key", &files)]);
        runner.ready().await;
        runner.ready().await;
        let annotation = format!("file={file}");
        for digest in fixture.signed() {
            let verified = verify(&fixture, public, &digest, &["-a", &annotation]).await;
            verified.unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

#[tokio::test]
async fn twenty_passes_leave_one_signature_per_target_and_an_interval_costs_one_request() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner.ready().await;
        let first = runner.attachments();
        for _ in 0..10 {
            runner.advance(60);
            runner.ready().await;
            assert_eq!(runner.interval_pass().await.requests, 1);
        }
        // A restored cluster has no status.
        let mut restored = crate::cosign::runner(&fixture, &key);
        for _ in 0..9 {
            restored.ready().await;
        }
        assert_eq!(
            (runner.attachments(), restored.attachments()),
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
            assert_eq!(fixture.listed(&subject, BUNDLE).await, [attachment]);
        }
    }
}

#[tokio::test]
async fn an_earlier_signature_of_cosign_is_adopted_and_none_is_added() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let image = fixture.image.pinned();
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
        cosign(&fixture, &sign).await.unwrap();
        let before = [
            fixture.listed(&fixture.signed()[0], BUNDLE).await,
            fixture.listed(&fixture.signed()[1], BUNDLE).await,
        ];
        assert_eq!(before.each_ref().map(Vec::len), [1, 1]);
        let mut runner = runner(&fixture, &key);
        for _ in 0..2 {
            runner.ready().await;
            for (digest, before) in fixture.signed().iter().zip(&before) {
                assert_eq!(&fixture.listed(digest, BUNDLE).await, before);
                let row = runner
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
async fn a_rotated_key_signs_again_and_removes_only_its_own_old_signatures() {
    for fixture in Fixture::both().await {
        let old = key_pair(&fixture, "old").await;
        let new = key_pair(&fixture, "new").await;
        let foreign = key_pair(&fixture, "foreign").await;
        let mut other = runner(&fixture, &foreign);
        other.ready().await;
        let mut runner = runner(&fixture, &old);
        runner.ready().await;
        runner.replace_secret(
            "key",
            &[
                ("cosign.key", &new),
                ("cosign.password", PASSWORD.as_bytes()),
            ],
        );
        runner.advance(60);
        // The pass after an interval detects the other key.
        let outcome = runner.interval_pass().await;
        let deletes = outcome.verdict.ready;
        for digest in fixture.signed() {
            verify(&fixture, "new", &digest, &[]).await.unwrap();
            verify(&fixture, "foreign", &digest, &[]).await.unwrap();
            verify(&fixture, "old", &digest, &[]).await.unwrap_err();
            assert_eq!(
                fixture.listed(&digest, BUNDLE).await.len(),
                2,
                "{:#?}",
                runner.status
            );
        }
        assert!(
            deletes && runner.status.leftovers.is_empty(),
            "{:#?}",
            runner.status
        );
        assert_eq!(runner.interval_pass().await.requests, 1);
    }
}

#[tokio::test]
async fn a_crash_at_any_point_leaves_one_signature_per_target() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        for crash in [Crash::BeforePush, Crash::AfterPush] {
            let mut runner = runner(&fixture, &key);
            runner.change_spec(&fixture.spec(
                &fixture.image.tagged(),
                &wanted(&json!({"crash": (crash as u8).to_string()})),
            ));
            let before = fixture.listed(&fixture.signed()[0], BUNDLE).await.len();
            runner.pass_with(true, crash).await;
            runner.ready().await;
            assert!(
                runner.status.leftovers.is_empty(),
                "{:#?}",
                runner.status.leftovers
            );
            assert!(
                runner
                    .status
                    .targets
                    .iter()
                    .filter(|row| row.state == TargetState::Attached)
                    .all(|row| row.origin == Some(Origin::Made))
            );
            assert_eq!(runner.interval_pass().await.requests, 1);
            for digest in fixture.signed() {
                assert_eq!(fixture.listed(&digest, BUNDLE).await.len(), before + 1);
            }
        }
    }
}

#[tokio::test]
async fn a_signature_that_a_fallback_tag_lost_is_listed_again() {
    let fixture = Fixture::both().await.pop().unwrap();
    let key = key_pair(&fixture, "cosign").await;
    let mut runner = runner(&fixture, &key);
    runner.ready().await;
    let first = runner.attachments();
    let raw = fixture.registry.raw().unwrap();
    let tag = first[0].0.replace(':', "-");
    let media_type = "application/vnd.oci.image.index.v1+json";
    let empty = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).to_string();
    raw.put_manifest("team/app", &tag, media_type, empty)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let outcome = runner.ready().await;
    assert_eq!(runner.attachments(), first);
    assert!(
        outcome.notes.iter().any(
            |note| note.reason == Reason::Restored && note.message.ends_with("it was put back")
        )
    );
}

#[tokio::test]
async fn a_deleted_signature_is_made_again() {
    let fixture = Fixture::both().await.remove(0);
    let key = key_pair(&fixture, "cosign").await;
    let mut runner = runner(&fixture, &key);
    runner.ready().await;
    let first = runner.attachments();
    let raw = fixture.registry.raw().unwrap();
    raw.delete_manifest("team/app", &first[0].1)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let outcome = runner.ready().await;
    assert_ne!(runner.attachments()[0], first[0]);
    assert_eq!(runner.attachments()[1], first[1]);
    assert!(
        outcome
            .notes
            .iter()
            .any(|note| note.reason == Reason::Restored && note.message.ends_with("signed anew"))
    );
    assert_eq!(
        fixture.listed(&first[0].0, BUNDLE).await,
        [runner.attachments()[0].1.clone()]
    );
    verify(&fixture, "cosign", &first[0].0, &[]).await.unwrap();
}

#[tokio::test]
async fn a_moved_tag_gets_new_signatures_and_the_old_ones_stay() {
    use affix_testbed::images::{Image, Index};
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let mut runner = runner(&fixture, &key);
        runner.ready().await;
        let next = Index::new()
            .image(Image::new("linux/amd64", "r1r1"))
            .image(Image::new("linux/arm64", "c1c1"));
        let next = next
            .push(&fixture.registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        runner.interval_pass().await;
        let signed = [next.digest(), next.digest_of("linux/amd64").unwrap()];
        for digest in signed
            .into_iter()
            .map(str::to_owned)
            .chain(fixture.signed())
        {
            verify(&fixture, "cosign", &digest, &[]).await.unwrap();
        }
        verify(&fixture, "cosign", &fixture.unsigned(), &[])
            .await
            .unwrap_err();
    }
}
