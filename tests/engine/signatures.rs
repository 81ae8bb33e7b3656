//! Signatures that cannot be pushed, or whose listing lacks their type.

use std::time::Duration;

use affix_testbed::hostile::{Deletion, Fault, HostileRegistry, Matcher, Op, Quirks};
use serde_json::json;

use crate::resource::{Resource, attach};

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");

#[tokio::test]
async fn a_signature_whose_push_always_fails_leaves_no_record_in_status() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let spec = json!({"image": registry.reference(&image.name()), "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    let mut resource = Resource::new(spec);
    resource.secret("key", &[("cosign.key", KEY)]);
    let faults = [Fault::status(403), Fault::status(400), Fault::status(503)];
    for (nth, fault) in faults.into_iter().cycle().take(6).enumerate() {
        let fault = registry.fault(Matcher::on(Op::ManifestPut), fault);
        let outcome = resource.pass().await;
        assert!(!outcome.verdict.ready);
        assert!(
            resource.status.leftovers.is_empty(),
            "pass {nth}: {:#?}",
            resource.status.leftovers
        );
        fault.lift();
        resource.later(60);
    }
    resource.ready().await;
    assert!(
        resource.status.leftovers.is_empty(),
        "{:#?}",
        resource.status.leftovers
    );
    for digest in [&image.digest, image.platform("linux/amd64")] {
        assert_eq!(registry.store().referrers("team/app", digest).len(), 1);
    }
}

#[tokio::test]
async fn a_key_rotation_while_pushes_fail_leaves_no_record_of_unpushed_signatures() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let spec = json!({"image": registry.reference(&image.name()), "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    let mut resource = Resource::new(spec);
    let fault = registry.fault(Matcher::on(Op::ManifestPut), Fault::status(403));
    let other = include_bytes!("../vectors/signing/cosign/ed25519.pem");
    for key in [KEY, other, KEY, other] {
        resource.secret("key", &[("cosign.key", key)]);
        resource.pass().await;
        resource.later(60);
    }
    assert!(
        resource.status.leftovers.is_empty(),
        "an attachment that was never in the registry has no record: {:#?}",
        resource.status.leftovers
    );
    fault.lift();
    resource.ready().await;
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        1
    );
}

#[tokio::test]
async fn a_signature_listed_without_its_type_is_found_without_status() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::go_containerregistry())
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let spec = json!({"image": registry.reference(&image.name()), "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    for pass in 0..3 {
        let mut resource = Resource::new(spec.clone());
        resource.secret("key", &[("cosign.key", KEY)]);
        resource.later(60 * pass);
        resource.ready().await;
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            1,
            "{}",
            registry.transcript()
        );
    }
}

/// Both kinds of registry, with listings that show no annotations.
fn both() -> [Quirks; 2] {
    let silent = Quirks {
        entry_annotations: false,
        ..Quirks::default()
    };
    let without_api = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [silent, without_api]
}

#[tokio::test]
async fn bundles_whose_listing_shows_no_predicate_do_not_block_signing() {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    for quirks in both() {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let image = registry
            .image("team/app", "v1")
            .platform("linux/amd64")
            .push();
        for nth in 0..25 {
            let annotations = json!({"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1", "nth": nth.to_string()});
            let digest = attach(&registry, &image, BUNDLE, annotations);
            let store = registry.store();
            let mut entry = store.manifest("team/app", &digest).unwrap().descriptor();
            entry["artifactType"] = json!(BUNDLE);
            store.append_fallback("team/app", &image.digest, entry);
        }
        let spec = json!({"image": registry.reference(&image.name()), "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
        for _ in 0..2 {
            let mut resource = Resource::new(spec.clone());
            resource.secret("key", &[("cosign.key", KEY)]);
            resource.ready().await;
            let referrers = registry.store().referrers("team/app", &image.digest);
            assert_eq!(referrers.len(), 26, "{}", registry.transcript());
        }
    }
}

#[tokio::test]
async fn the_previous_signature_stays_for_the_overlap_after_a_rotation() {
    let other = include_bytes!("../vectors/signing/cosign/ed25519.pem");
    for quirks in both() {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let image = registry
            .image("team/app", "v1")
            .platform("linux/amd64")
            .push();
        let spec = json!({
            "image": registry.reference(&image.name()),
            "signature": {"overlap": "1h", "cosign": {"keySecretRef": {"name": "key"}}},
        });
        let mut resource = Resource::new(spec);
        resource.secret("key", &[("cosign.key", KEY)]);
        resource.ready().await;
        assert_eq!(resource.due_in(), None);
        let old = resource.attachment(&image.digest).to_owned();
        resource.later(600);
        resource.secret("key", &[("cosign.key", other)]);
        resource.ready().await;
        let count = || registry.store().referrers("team/app", &image.digest).len();
        assert_eq!((count(), resource.status.leftovers.len()), (2, 2));
        assert!(
            resource
                .status
                .leftovers
                .iter()
                .all(|left| left.reason.as_deref() == Some("Overlap")),
            "{:#?}",
            resource.status.leftovers
        );
        assert_ne!(resource.attachment(&image.digest), old);
        assert_eq!(resource.due_in(), Some(Duration::from_secs(3600)));
        // A pass before the end changes nothing.
        resource.later(3599);
        resource.ready().await;
        let at_rest = registry.requests().len();
        resource.look().await;
        assert_eq!((count(), resource.status.leftovers.len()), (2, 2));
        assert!(
            registry.requests().len() <= at_rest + 1,
            "{}",
            registry.transcript()
        );
        // The pass at the interval after the end removes it.
        resource.later(1);
        assert!(resource.look().await.verdict.ready);
        assert_eq!((count(), resource.status.leftovers.len()), (1, 0));
        assert!(registry.store().manifest("team/app", &old).is_none());
        assert_eq!(resource.due_in(), None);
    }
}
