//! `affix detach`.

use affix_testbed::peer::Peer;
use affix_testbed::registry::{Quirk, Registry};
use serde_json::{Value, json};

use super::fixture::{BOTH, DATE_KEY, Fixture, LIFECYCLE, code, mark, resource, short};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const OURS: &str = include_str!("../vectors/signing/cosign/p256.pem");
const THEIRS: &str = include_str!("../vectors/signing/cosign/ed25519.pem");

#[tokio::test]
async fn equal_attachments_are_listed_and_then_removed() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let (index, amd64) = (
            fixture.image.digest(),
            fixture.image.digest_of("linux/amd64").unwrap(),
        );
        let text = mark(&fixture.image.pinned()).to_string();
        assert_eq!(code(&fixture.affix(&["attach", "-f", "-"], &text).await), 0);
        // Within the same second, oras would create the same bytes.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let peer = Peer::of(&fixture.tools, &fixture.registry).unwrap();
        let on_amd64 = fixture.image.at(amd64);
        let date = format!("{DATE_KEY}=2025-03-20T01:20:30Z");
        peer.oras([
            "attach",
            "--artifact-type",
            LIFECYCLE,
            "--annotation",
            &date,
            &on_amd64,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
        let another = format!("{DATE_KEY}=2030-01-01");
        peer.oras([
            "attach",
            "--artifact-type",
            LIFECYCLE,
            "--annotation",
            &another,
            &on_amd64,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
        peer.oras([
            "attach",
            "--artifact-type",
            "application/x.foreign",
            "--annotation",
            "a=b",
            &on_amd64,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();

        let shown = fixture.affix(&["detach", "-f", "-"], &text).await;
        assert_eq!(code(&shown), 1, "{}{}", shown.out, shown.err);
        assert!(
            shown
                .out
                .contains(&format!("index        {}  remove", short(index))),
            "{}",
            shown.out
        );
        assert!(
            shown.out.contains("2 equal ones are there")
                && shown.out.contains("3 attachments would be removed"),
            "{}",
            shown.out
        );
        assert!(
            shown
                .err
                .contains("nothing was removed, because there is no terminal to ask on: use --yes"),
            "{}",
            shown.err
        );
        assert_eq!(
            (
                fixture.attached(index).await.len(),
                fixture.attached(amd64).await.len()
            ),
            (1, 4),
            "something was removed without confirmation"
        );

        let removed = fixture.affix(&["detach", "-f", "-", "--yes"], &text).await;
        assert_eq!(code(&removed), 0, "{}{}", removed.out, removed.err);
        assert!(
            removed.out.contains("3 attachments would be removed")
                && removed.out.contains("3 attachments removed"),
            "{}",
            removed.out
        );
        assert!(fixture.attached(index).await.is_empty());
        let mut left = fixture.attached(amd64).await;
        left.sort();
        assert_eq!(left, [LIFECYCLE, "application/x.foreign"]);

        let again = fixture.affix(&["detach", "-f", "-", "--yes"], &text).await;
        assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
        assert!(
            again
                .out
                .contains("nothing to remove: no equal attachment is there"),
            "{}",
            again.out
        );
    }
}

#[tokio::test]
async fn signatures_that_the_key_verifies_are_removed() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let documents = |key: &str| {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"cosign.key": key}});
            let signature = json!({"cosign": {"keySecretRef": {"name": "key"}}});
            format!(
                "{}\n{secret}",
                resource(
                    "signed",
                    json!({"image": fixture.image.tagged(), "signature": signature})
                )
            )
        };
        for key in [OURS, THEIRS] {
            assert_eq!(
                code(&fixture.affix(&["attach", "-f", "-"], &documents(key)).await),
                0
            );
        }
        assert_eq!(
            fixture.attached(fixture.image.digest()).await,
            [BUNDLE, BUNDLE]
        );
        let removed = fixture
            .affix(
                &["detach", "-f", "-", "--yes", "-o", "json"],
                &documents(OURS),
            )
            .await;
        assert_eq!(code(&removed), 0, "{}{}", removed.out, removed.err);
        let object: Value = serde_json::from_str(&removed.out).unwrap();
        assert!(object["status"]["leftovers"].is_null(), "{object:#}");
        assert!(
            removed.err.contains("3 attachments would be removed"),
            "{}",
            removed.err
        );
        assert_eq!(fixture.attached(fixture.image.digest()).await, [BUNDLE]);
        let theirs = fixture
            .affix(&["plan", "-f", "-"], &documents(THEIRS))
            .await;
        assert_eq!(theirs.out.matches("  adopt  ").count(), 3, "{}", theirs.out);
    }
}

#[tokio::test]
async fn a_refused_removal_is_reported_and_a_dry_run_removes_nothing() {
    let fixture = Fixture::with(|tools| Registry::ociregistry(tools).quirk(Quirk::NoDelete)).await;
    let mut object = mark(&fixture.image.pinned());
    assert_eq!(
        code(
            &fixture
                .affix(&["attach", "-f", "-"], &object.to_string())
                .await
        ),
        0
    );
    let refused = fixture
        .affix(&["detach", "-f", "-", "--yes"], &object.to_string())
        .await;
    assert_eq!(code(&refused), 1, "{}{}", refused.out, refused.err);
    assert!(
        refused
            .out
            .contains("RemovalRefused: the registry refuses to delete"),
        "{}",
        refused.out
    );
    object["spec"]["dryRun"] = json!(true);
    let planned = fixture
        .affix(&["detach", "-f", "-", "--yes"], &object.to_string())
        .await;
    assert!(
        planned.out.contains("2 attachments would be removed")
            && !planned.out.contains("RemovalRefused"),
        "{}",
        planned.out
    );
    assert_eq!(fixture.attached(fixture.image.digest()).await, [LIFECYCLE]);
}

#[tokio::test]
async fn marks_of_superseded_images_cannot_be_detached_by_file() {
    let fixture = Fixture::new().await;
    let when = json!({"whenSuperseded": {"gracePeriod": "720h"}});
    let ran = fixture
        .affix(
            &["detach", "-f", "-"],
            &resource(
                "w",
                json!({"image": fixture.image.tagged(), "endOfLife": when}),
            )
            .to_string(),
        )
        .await;
    assert_eq!(code(&ran), 2, "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains(
            "spec.endOfLife.whenSuperseded: the dates of these marks are kept in the status"
        ),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("the date in spec.endOfLife.date"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn all_of_twelve_equal_marks_are_removed() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let index = fixture.image.digest();
        let mut object = mark(&fixture.image.pinned());
        object["spec"]["targets"] = json!({"scope": "Index"});
        let text = object.to_string();
        let peer = Peer::of(&fixture.tools, &fixture.registry).unwrap();
        let date = format!("{DATE_KEY}=2025-03-20T01:20:30Z");
        for nth in 0..12 {
            let created = format!("org.opencontainers.image.created=2025-01-01T00:00:{nth:02}Z");
            peer.oras([
                "attach",
                "--artifact-type",
                LIFECYCLE,
                "--annotation",
                &date,
                "--annotation",
                &created,
                &fixture.image.at(index),
            ])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        }
        assert_eq!(fixture.attached(index).await.len(), 12);
        let removed = fixture.affix(&["detach", "-f", "-", "--yes"], &text).await;
        assert_eq!(code(&removed), 0, "{}{}", removed.out, removed.err);
        assert!(
            removed.out.contains("12 attachments removed"),
            "{}",
            removed.out
        );
        assert!(fixture.attached(index).await.is_empty());
    }
}
