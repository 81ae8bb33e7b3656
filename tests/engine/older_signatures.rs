//! Tags `.sig` and `.att` by other keys, which verifiers stop reading at the first bundle.

use affix::api::{ConditionType, Reason, find_condition};
use affix_testbed::hostile::{Fault, HostileRegistry, Image, Matcher, Op};
use serde_json::{Value, json};

use crate::resource::Resource;

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");
const OTHER: &[u8] = include_bytes!("../vectors/signing/cosign/ed25519.pem");

fn spec(registry: &HostileRegistry, formats: &Value) -> Value {
    json!({
        "image": registry.reference("team/app:v1"),
        "signature": {"cosign": {"keySecretRef": {"name": "key"}, "formats": formats}},
    })
}

fn resource(registry: &HostileRegistry, key: &[u8], formats: &Value) -> Resource {
    let mut resource = Resource::new(spec(registry, formats));
    resource.secret("key", &[("cosign.key", key)]);
    resource
}

async fn image() -> (HostileRegistry, Image) {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    (registry, image)
}

/// Tags a copy of the image's manifest as attestations, whose content does not matter.
fn attested(registry: &HostileRegistry, digest: &str) -> String {
    let tag = format!("{}.att", digest.replace(':', "-"));
    registry.store().put_tag("team/app", &tag, digest);
    tag
}

#[tokio::test]
async fn the_first_bundle_tells_before_and_after_which_tags_it_hides() {
    let (registry, image) = image().await;
    resource(&registry, OTHER, &json!(["Tag"])).ready().await;
    let attested = attested(&registry, image.platform("linux/amd64"));
    let signed = format!("{}.sig", image.digest.replace(':', "-"));
    let tells = |text: &str| {
        [attested.as_str(), &signed, "formats: [Tag]", "cosign attest"]
            .iter()
            .all(|part| text.contains(part))
    };
    // The plan says it, and writes nothing.
    let mut dry = spec(&registry, &json!(["Bundle"]));
    dry["dryRun"] = json!(true);
    let mut ours = Resource::new(dry);
    ours.secret("key", &[("cosign.key", KEY)]);
    let outcome = ours.pass().await;
    assert!(tells(ours.resolved()), "{}", ours.resolved());
    assert!(outcome.notes.is_empty());
    // The status before the push says it.
    ours.change(spec(&registry, &json!(["Bundle", "Tag"])));
    let outcome = ours.ready().await;
    let saved = ours.saved.clone().unwrap();
    let resolved = find_condition(&saved.conditions, ConditionType::Resolved).unwrap();
    assert!(tells(&resolved.message), "{resolved:?}");
    // An event says it after the push, once.
    let told: Vec<_> = outcome
        .notes
        .iter()
        .filter(|note| note.reason == Reason::OlderSignaturesHidden)
        .collect();
    assert!(
        told.len() == 1 && tells(&told[0].message),
        "{:#?}",
        outcome.notes
    );
    ours.later(60);
    registry.clear();
    assert!(ours.ready().await.notes.is_empty());
    assert_eq!(registry.count(Op::TagList), 0);
}

#[tokio::test]
async fn signatures_of_the_same_key_and_the_tag_format_alone_hide_nothing() {
    let (registry, image) = image().await;
    resource(&registry, KEY, &json!(["Tag"])).ready().await;
    let outcome = resource(&registry, KEY, &json!(["Bundle"])).ready().await;
    assert!(outcome.notes.is_empty(), "{:#?}", outcome.notes);
    attested(&registry, &image.digest);
    let mut other = resource(&registry, OTHER, &json!(["Tag"]));
    let outcome = other.ready().await;
    assert!(outcome.notes.is_empty(), "{:#?}", outcome.notes);
    assert!(!other.resolved().contains(".att"), "{}", other.resolved());
    // A bundle is listed already.
    let outcome = resource(&registry, OTHER, &json!(["Bundle"])).ready().await;
    assert!(outcome.notes.is_empty(), "{:#?}", outcome.notes);
}

#[tokio::test]
async fn a_first_signature_lists_the_tags_once_and_goes_on_without_them() {
    let (registry, _) = image().await;
    let outcome = resource(&registry, KEY, &json!(["Bundle"])).ready().await;
    let blobs = registry
        .requests()
        .iter()
        .filter(|request| request.path.contains("/blobs/") && request.method == "POST")
        .count();
    assert_eq!(registry.count(Op::TagList), 1);
    assert!(
        outcome.requests <= (2 * 2 + 4 + 1 + blobs) as u64,
        "{}",
        registry.transcript()
    );
    let (registry, _) = image().await;
    registry.fault(Matcher::on(Op::TagList), Fault::status(401));
    let mut resource = resource(&registry, KEY, &json!(["Bundle"]));
    resource.ready().await;
    assert!(
        resource.resolved().contains("is unknown"),
        "{}",
        resource.resolved()
    );
}
