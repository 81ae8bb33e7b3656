//! `affix detach`.

use affix_testbed::peer::Peer;
use affix_testbed::registry::{Quirk, Registry};
use serde_json::{Value, json};

use super::desk::{BOTH, DATE_KEY, Desk, LIFECYCLE, code, mark, resource, short};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const OURS: &str = include_str!("../vectors/signing/cosign/p256.pem");
const THEIRS: &str = include_str!("../vectors/signing/cosign/ed25519.pem");

#[tokio::test]
async fn what_equals_the_file_goes_once_it_was_shown_whoever_made_it_and_all_else_stays() {
    for registry in BOTH {
        let desk = Desk::with(registry).await;
        let (index, amd64) = (
            desk.image.digest(),
            desk.image.digest_of("linux/amd64").unwrap(),
        );
        let text = mark(&desk.image.pinned()).to_string();
        assert_eq!(code(&desk.affix(&["attach", "-f", "-"], &text).await), 0);
        // Within the same second oras would make the very same bytes.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let peer = Peer::of(&desk.tools, &desk.registry).unwrap();
        let on_amd64 = desk.image.at(amd64);
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

        let shown = desk.affix(&["detach", "-f", "-"], &text).await;
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
                .contains("nothing was removed: there is no terminal to ask on; say --yes"),
            "{}",
            shown.err
        );
        assert_eq!(
            (
                desk.attached(index).await.len(),
                desk.attached(amd64).await.len()
            ),
            (1, 4),
            "something was removed unasked"
        );

        let removed = desk.affix(&["detach", "-f", "-", "--yes"], &text).await;
        assert_eq!(code(&removed), 0, "{}{}", removed.out, removed.err);
        assert!(
            removed.out.contains("3 attachments would be removed")
                && removed.out.contains("3 attachments removed"),
            "{}",
            removed.out
        );
        assert!(desk.attached(index).await.is_empty());
        let mut left = desk.attached(amd64).await;
        left.sort();
        assert_eq!(left, [LIFECYCLE, "application/x.foreign"]);

        let again = desk.affix(&["detach", "-f", "-", "--yes"], &text).await;
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
async fn of_signatures_what_verifies_under_the_key_goes() {
    for registry in BOTH {
        let desk = Desk::with(registry).await;
        let documents = |key: &str| {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"cosign.key": key}});
            let signature = json!({"cosign": {"keySecretRef": {"name": "key"}}});
            format!(
                "{}\n{secret}",
                resource(
                    "signed",
                    json!({"image": desk.image.tagged(), "signature": signature})
                )
            )
        };
        for key in [OURS, THEIRS] {
            assert_eq!(
                code(&desk.affix(&["attach", "-f", "-"], &documents(key)).await),
                0
            );
        }
        assert_eq!(desk.attached(desk.image.digest()).await, [BUNDLE, BUNDLE]);
        let removed = desk
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
        assert_eq!(desk.attached(desk.image.digest()).await, [BUNDLE]);
        let theirs = desk.affix(&["plan", "-f", "-"], &documents(THEIRS)).await;
        assert_eq!(theirs.out.matches("  adopt  ").count(), 3, "{}", theirs.out);
    }
}

#[tokio::test]
async fn a_registry_that_refuses_is_told_by_target_and_a_dry_run_removes_nothing() {
    let desk = Desk::with(|tools| Registry::ociregistry(tools).quirk(Quirk::NoDelete)).await;
    let mut object = mark(&desk.image.pinned());
    assert_eq!(
        code(
            &desk
                .affix(&["attach", "-f", "-"], &object.to_string())
                .await
        ),
        0
    );
    let refused = desk
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
    let planned = desk
        .affix(&["detach", "-f", "-", "--yes"], &object.to_string())
        .await;
    assert!(
        planned.out.contains("2 attachments would be removed")
            && !planned.out.contains("RemovalRefused"),
        "{}",
        planned.out
    );
    assert_eq!(desk.attached(desk.image.digest()).await, [LIFECYCLE]);
}

#[tokio::test]
async fn marks_of_moves_cannot_be_told_from_a_file_and_are_refused_with_the_way_out() {
    let desk = Desk::new().await;
    let when = json!({"whenSuperseded": {"gracePeriod": "720h"}});
    let ran = desk
        .affix(
            &["detach", "-f", "-"],
            &resource(
                "w",
                json!({"image": desk.image.tagged(), "endOfLife": when}),
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
