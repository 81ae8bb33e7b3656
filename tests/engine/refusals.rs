//! Selections that do not fit the image: the pass attaches nothing, and status lists every manifest.

use affix::api::{ConditionType, find_condition};
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op};
use serde_json::json;

use crate::resource::{Resource, note};

#[tokio::test]
async fn a_missing_platform_keeps_a_record_for_each_entry_and_owned_attachment() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .attestation("linux/amd64")
        .push();
    let spec = |targets| {
        let mut spec = note(&registry.reference(&image.name()), "hello");
        spec["targets"] = targets;
        spec
    };
    let missing = spec(json!({"platforms": ["linux/amd64", "linux/s390x"]}));
    let expected = [
        "index Pending -",
        "linux/amd64 Pending -",
        "linux/arm64 Skipped PlatformNotSelected",
        "index Skipped AttestationManifest",
    ];
    let mut fresh = Resource::new(missing.clone());
    fresh.pass().await;
    assert_eq!(
        (fresh.verdict().0, fresh.status.attached.as_deref()),
        ("NoMatchingPlatform", Some("0/2"))
    );
    assert_eq!(fresh.rows(), expected);

    let mut resource = Resource::new(spec(json!({})));
    resource.ready().await;
    let made: Vec<String> = resource
        .status
        .targets
        .iter()
        .filter_map(|row| row.attachment.clone())
        .collect();
    assert_eq!(made.len(), 3);
    resource.change(missing);
    for pass in 0..2 {
        resource.pass().await;
        assert_eq!(
            (resource.verdict().0, resource.status.attached.as_deref()),
            ("NoMatchingPlatform", Some("0/2")),
            "pass {pass}"
        );
        assert_eq!(resource.rows(), expected, "pass {pass}");
        let rows = resource
            .status
            .targets
            .iter()
            .filter_map(|row| row.attachment.clone());
        let mut known: Vec<String> = rows
            .chain(
                resource
                    .status
                    .leftovers
                    .iter()
                    .map(|left| left.attachment.clone()),
            )
            .collect();
        known.sort();
        let mut all = made.clone();
        all.sort();
        assert_eq!(known, all, "pass {pass}: what was made is known as ever");
    }
    // Unwanted attachments are removed once the selection fits.
    resource.change(spec(json!({"platforms": ["linux/amd64"]})));
    resource.ready().await;
    assert_eq!(
        registry
            .store()
            .referrers("team/app", image.platform("linux/arm64"))
            .len(),
        0,
        "{:#?}",
        resource.status
    );
    assert_eq!(
        registry
            .store()
            .referrers("team/app", image.platform("linux/amd64"))
            .len(),
        1
    );
}

#[tokio::test]
async fn targets_beyond_the_limit_are_counted_and_listed_up_to_the_bound() {
    let registry = HostileRegistry::start().await.unwrap();
    let platforms: Vec<String> = (0..300).map(|nth| format!("linux/arm/v{nth}")).collect();
    let image = registry
        .image("team/app", "v1")
        .platforms(platforms.iter().map(String::as_str))
        .push();
    let mut resource = Resource::new(note(&registry.reference(&image.name()), "hello"));
    resource.pass().await;
    assert_eq!(
        (resource.verdict().0, resource.status.attached.as_deref()),
        ("LimitExceeded", Some("0/301"))
    );
    assert!(
        resource.verdict().1.contains("selects 301 manifests"),
        "{}",
        resource.verdict().1
    );
    assert_eq!(
        (resource.status.targets.len(), resource.rows()[0].as_str()),
        (100, "index Pending -")
    );
    assert!(find_condition(&resource.status.conditions, ConditionType::Stalled).is_some());
}

#[tokio::test]
async fn a_permanent_failure_of_a_target_is_stalled_and_a_transient_one_reconciling() {
    for (status, reason, condition) in [
        (400, "ManifestRejected", "Stalled"),
        (503, "RegistryUnavailable", "Reconciling"),
    ] {
        let registry = HostileRegistry::start().await.unwrap();
        let image = registry
            .image("team/app", "v1")
            .platform("linux/amd64")
            .push();
        let index = image.digest.clone();
        let on_index = Matcher::on(Op::ManifestPut)
            .when(move |request| String::from_utf8_lossy(&request.body).contains(&index));
        registry.fault(on_index, Fault::status(status));
        let mut resource = Resource::new(note(&registry.reference(&image.name()), "hello"));
        let outcome = resource.pass().await;
        let (partial, message) = resource.verdict();
        assert_eq!(partial, "PartiallyAttached", "{message}");
        assert!(message.contains(&format!("index: {reason}")), "{message}");
        assert_eq!(outcome.is_hurried(), condition == "Reconciling");
        let conditions: Vec<&str> = resource
            .status
            .conditions
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        for other in ["Stalled", "Reconciling"] {
            assert_eq!(
                conditions.contains(&other),
                other == condition,
                "{:#?}",
                resource.status.conditions
            );
        }
    }
}
