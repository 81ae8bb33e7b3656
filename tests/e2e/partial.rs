//! One target's failure is one target's failure.

use affix::api::{Reason, TargetState};
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Quirks};
use serde_json::Value;

use crate::support::controller::Controller;
use crate::support::images::{host, note};
use crate::support::namespace::{Namespace, message};

/// The PUT of a manifest whose subject is `digest`.
fn attaching_to(digest: &str) -> Matcher {
    let digest = digest.to_owned();
    Matcher::on(Op::ManifestPut)
        .when(move |request| subject(&request.body).as_deref() == Some(&*digest))
}

fn subject(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    manifest["subject"]["digest"].as_str().map(str::to_owned)
}

async fn one_target_fails(about: &str, quirks: Quirks, status_code: u16, reason: &str) {
    let namespace = Namespace::new(about).await;
    let registry = HostileRegistry::builder()
        .quirks(quirks)
        .start()
        .await
        .unwrap();
    let image = host(&registry, "v1");
    let arm64 = image.platform("linux/arm64").to_owned();
    let fault = registry.fault(attaching_to(&arm64), Fault::status(status_code));
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("partial", note(&registry.reference(&image.name())))
        .await;

    let message = namespace
        .refused("partial", Reason::PartiallyAttached)
        .await;
    assert!(
        message.contains("linux/arm64") && message.contains(&status_code.to_string()),
        "{message}"
    );
    let status = namespace.status("partial").await;
    assert_eq!(status.attached.as_deref(), Some("2/3"));
    for row in &status.targets {
        let failed = row.digest == arm64;
        assert_eq!(
            row.state,
            if failed {
                TargetState::Failed
            } else {
                TargetState::Attached
            },
            "{row:#?}"
        );
        assert_eq!(row.reason.as_deref(), failed.then_some(reason), "{row:#?}");
    }
    let (kind, told) = namespace.event("partial", Reason::PartiallyAttached).await;
    assert_eq!((kind.as_str(), told), ("Warning", message));

    registry.clear();
    fault.lift();
    assert_eq!(
        namespace.ready("partial").await.attached.as_deref(),
        Some("3/3")
    );
    let written: Vec<_> = registry.requests_that(&Matcher::on(Op::ManifestPut).with_subject());
    assert!(!written.is_empty(), "{}", registry.transcript());
    for request in written {
        assert_eq!(
            subject(&request.body).as_deref(),
            Some(&*arm64),
            "{}",
            registry.transcript()
        );
    }
    let tags = registry.requests_that(&Matcher::on(Op::ManifestPut).fallback_tag());
    let tag = arm64.replace(':', "-");
    assert!(
        tags.iter()
            .all(|request| request.reference.as_deref() == Some(&*tag)),
        "{}",
        registry.transcript()
    );
    assert_eq!(registry.store().referrers("team/app", &arm64).len(), 1);
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_target_that_is_forbidden_stops_no_other_and_is_the_only_one_written_later() {
    one_target_fails("forbidden", Quirks::default(), 403, "AccessDenied").await;
}

#[tokio::test]
async fn a_failed_target_stops_no_other_and_alone_is_written_later() {
    one_target_fails(
        "server-error",
        Quirks::default(),
        500,
        "RegistryUnavailable",
    )
    .await;
}

#[tokio::test]
async fn the_same_holds_on_the_fallback_tag() {
    one_target_fails("forbidden-tag", Quirks::distribution(), 403, "AccessDenied").await;
}

#[tokio::test]
async fn a_listing_that_fails_is_never_taken_for_an_empty_one() {
    let namespace = Namespace::new("listing").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let fault = registry.fault(Matcher::on(Op::ReferrersList), Fault::status(403));
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("listing", note(&registry.reference(&image.name())))
        .await;
    let object = namespace.wait("listing", "refused", |object| {
        crate::support::namespace::ready(object)
            .is_some_and(|(status, reason)| status == "False" && reason != "Progressing")
    });
    let told = message(&object.await);
    assert!(told.contains("403"), "{told}");
    assert!(
        registry
            .requests_that(&Matcher::on(Op::ManifestPut))
            .is_empty(),
        "{}",
        registry.transcript()
    );
    fault.lift();
    namespace.ready("listing").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_new_resource_on_a_silent_registry_reports_that_it_reconciles() {
    let namespace = Namespace::new("silent").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    drop(registry.fault(Matcher::any(), Fault::Hang));
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("silent", note(&registry.reference(&image.name())))
        .await;
    let condition = |object: &affix::api::ImageAttachment, kind| {
        let conditions = &object.status.as_ref()?.conditions;
        affix::api::find_condition(conditions, kind).map(|found| found.status.clone())
    };
    let reconciles = |object: &affix::api::ImageAttachment| {
        use affix::api::ConditionType::{Ready, Reconciling};
        condition(object, Ready).as_deref() == Some("Unknown")
            && condition(object, Reconciling).as_deref() == Some("True")
    };
    namespace
        .wait("silent", "Ready=Unknown and Reconciling=True", reconciles)
        .await;
    namespace.delete("silent").await;
    namespace.check_rules().await;
}
