//! Signatures that cannot be pushed, or whose listing lacks their type.

use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Quirks};
use serde_json::json;

use crate::resource::Resource;

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
