//! T17: answers of registries that an update of the fallback tag must survive: dangling entries, failures, stale reads, copies of the image.

use std::time::Duration;

use affix_registry::ErrorKind;
use affix_testbed::hostile::{
    Fault, HostileRegistry, ImmutableTags, Lag, Matcher, Op, Quirks, Refusal, Reply, Stage,
    fallback_tag,
};
use serde_json::json;

use crate::fallback_tag::{add, distribution, foreign, listed, pushed};
use crate::support::{
    INDEX, NAME, attachment, by, descriptor, digest, entry, image, open, refused,
};

#[tokio::test]
async fn a_listing_with_nulls_and_an_odd_entry_is_read_and_rewritten_byte_for_byte() {
    let (registry, image) = distribution().await;
    registry.quirks(|quirks| quirks.accepts_missing_children = true);
    let one = pushed(&registry.store(), &image, "one");
    let odd = r#"{ "mediaType":"m","digest":"blake3:00ff", "size":7 }"#;
    let theirs = format!(
        r#"{{"mediaType":null,"digest":"{}","size":{},"annotations":null,"artifactType":null}}"#,
        one.digest, one.size
    );
    let raw = format!(
        "\u{feff}{{\"schemaVersion\":2,\"mediaType\":null,\"annotations\":null,\"manifests\":[{odd},null,{theirs}]}}"
    );
    registry
        .store()
        .put_manifest(NAME, Some(&fallback_tag(&image.digest)), INDEX, raw);
    let session = open(&registry);
    let listing = session
        .referrers(&digest(&image.digest), None)
        .await
        .unwrap();
    assert_eq!((listing.entries.len(), listing.total), (1, 3));
    let ours = pushed(&registry.store(), &image, "ours");
    session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    let written = registry
        .store()
        .raw_tag(NAME, &fallback_tag(&image.digest))
        .unwrap();
    let written = String::from_utf8(written.to_vec()).unwrap();
    let kept = format!(
        r#"{{"schemaVersion":2,"mediaType":null,"annotations":null,"manifests":[{odd},null,{theirs},{{"#
    );
    assert!(written.starts_with(&kept), "{written}");
}

#[tokio::test]
async fn a_foreign_dangling_entry_that_the_registry_refuses_is_dropped_and_reported() {
    let (registry, image) = distribution().await;
    let (ours, alive, gone) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "alive"),
        pushed(&registry.store(), &image, "gone"),
    );
    registry
        .store()
        .put_fallback(NAME, &image.digest, &[foreign(&gone), foreign(&alive)]);
    registry
        .store()
        .delete_manifest(NAME, &gone.digest.to_string());
    let outcome = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), true)
        .await
        .unwrap();
    assert_eq!(outcome.dropped, [gone.digest]);
    assert_eq!(listed(&registry, &image), [alive.digest, ours.digest]);
}

#[tokio::test]
async fn a_dangling_entry_of_the_change_is_an_error_that_names_its_manifest() {
    let (registry, image) = distribution().await;
    let (at, bytes) = attachment(&image.descriptor(), "never pushed");
    let result = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&entry(&at, &bytes)]), false)
        .await;
    let error = refused(
        result,
        ErrorKind::NotFound,
        &[&format!(
            "the content {at} no longer exists in the registry"
        )],
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_refusal_that_no_missing_manifest_explains_stands() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "a");
    registry.fault(
        Matcher::on(Op::ManifestPut),
        Reply::error(400, "MANIFEST_INVALID", "no"),
    );
    let result = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await;
    refused(
        result,
        ErrorKind::ManifestRejected,
        &["PUT manifest sha256-", "HTTP 400 MANIFEST_INVALID: no"],
    );
}

#[tokio::test]
async fn only_a_404_is_an_empty_tag_and_nothing_is_written_on_any_other_answer() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "a");
    for fault in [
        Fault::status(500),
        Fault::status(403),
        Fault::status(400),
        Fault::Reset,
        Fault::Corrupt,
        Fault::from(Reply::html(200)),
    ] {
        registry.calm();
        registry.store().put_fallback(NAME, &image.digest, &[]);
        registry.fault(Matcher::on(Op::ManifestGet).fallback_tag(), fault.clone());
        let result = open(&registry)
            .rewrite_fallback(&descriptor(&image), add([&ours]), false)
            .await;
        assert!(
            result.is_err() && registry.count(Op::ManifestPut) == 0,
            "{fault:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_tag_that_was_seen_before_is_read_again_before_a_404_is_believed() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    registry
        .store()
        .put_fallback(NAME, &image.digest, &[foreign(&theirs)]);
    let session = open(&registry);
    session
        .referrers(&digest(&image.digest), None)
        .await
        .unwrap();
    registry.fault(
        Matcher::on(Op::ManifestGet).fallback_tag().times(1),
        Reply::error(404, "MANIFEST_UNKNOWN", "stale"),
    );
    session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(listed(&registry, &image), [theirs.digest, ours.digest]);
}

#[tokio::test]
async fn a_stale_read_is_waited_out_before_anything_is_written_again() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "a");
    registry.store().put_fallback(NAME, &image.digest, &[]);
    registry.quirks(|quirks| quirks.tag_lag = Lag::reads(2));
    let outcome = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(
        (outcome.attempts, listed(&registry, &image)),
        (1, vec![ours.digest]),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_fallback_tag_that_names_the_image_itself_is_replaced_if_it_is_listed() {
    let (registry, image) = distribution().await;
    let child = image.platform("linux/amd64").to_owned();
    for subject in [&image.digest, &child] {
        registry
            .store()
            .put_tag(NAME, &fallback_tag(subject), subject);
    }
    let session = open(&registry);
    for subject in [&image.digest, &child] {
        let listing = session.referrers(&digest(subject), None).await.unwrap();
        assert_eq!((listing.entries.len(), listing.tag), (0, None));
    }
    assert_eq!(registry.count(Op::TagList), 1, "{}", registry.transcript());
    let ours = pushed(&registry.store(), &image, "ours");
    let outcome = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!((outcome.attempts, outcome.entries.len()), (1, 1));
    assert_eq!(listed(&registry, &image), [ours.digest]);
    session.manifest(&by(&digest(&image.digest))).await.unwrap();
}

#[tokio::test]
async fn gitlab_with_a_tag_of_that_name_is_a_conflict_after_three_writes() {
    let (registry, image) = distribution().await;
    let tag = fallback_tag(&image.digest);
    registry.store().put_tag(NAME, &tag, &image.digest);
    let ours = pushed(&registry.store(), &image, "ours");
    registry.quirks(|quirks| quirks.reads_fallback_tag_as_digest = true);
    let session = open(&registry);
    let result = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await;
    refused(result, ErrorKind::FallbackTagConflict, &["as GitLab does"]);
}

#[tokio::test]
async fn tags_that_cannot_be_listed_leave_a_tag_of_the_image_untouched() {
    let (registry, image) = distribution().await;
    let tag = fallback_tag(&image.digest);
    registry.store().put_tag(NAME, &tag, &image.digest);
    let ours = pushed(&registry.store(), &image, "ours");
    registry.fault(
        Matcher::on(Op::TagList),
        Reply::error(403, "DENIED", "no listing"),
    );
    let result = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await;
    refused(
        result,
        ErrorKind::FallbackTagConflict,
        &["the fallback tag names the image itself", "HTTP 403 DENIED"],
    );
    assert_eq!(registry.count(Op::ManifestPut), 0);
}

#[tokio::test]
async fn an_immutable_fallback_tag_is_reported_with_the_way_out() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    registry
        .store()
        .put_fallback(NAME, &image.digest, &[foreign(&theirs)]);
    for refusal in [
        Refusal::TagInvalid,
        Refusal::Precondition,
        Refusal::Conflict,
        Refusal::Forbidden,
    ] {
        registry.quirks(|quirks| {
            quirks.immutable_tags = Some(ImmutableTags {
                pattern: "sha256-*".to_owned(),
                refusal,
            });
        });
        let result = open(&registry)
            .rewrite_fallback(&descriptor(&image), add([&ours]), false)
            .await;
        refused(
            result,
            ErrorKind::ImmutableTag,
            &["is immutable: exempt tags that begin with sha256-"],
        );
    }
}

#[tokio::test]
async fn gitlab_and_registries_with_the_api_get_no_fallback_tag() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::gitlab())
        .start()
        .await
        .unwrap();
    let image_ = image(&registry);
    let ours = pushed(&registry.store(), &image_, "a");
    let result = open(&registry)
        .rewrite_fallback(&descriptor(&image_), add([&ours]), false)
        .await;
    refused(result, ErrorKind::FallbackTagConflict, &["as GitLab does"]);
    registry.quirks(|quirks| *quirks = Quirks::default());
    let result = open(&registry)
        .rewrite_fallback(&descriptor(&image_), add([&ours]), false)
        .await;
    refused(
        result,
        ErrorKind::FallbackTagConflict,
        &["has the referrers API, so no fallback tag is written"],
    );
    assert_eq!(registry.count(Op::ManifestPut), 0);
}

#[tokio::test]
async fn a_failed_write_is_rebuilt_and_never_repeated_as_it_was() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    let (store, subject, their_entry) = (registry.store(), image.digest.clone(), foreign(&theirs));
    registry.on_request(
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        move |_| {
            store.put_fallback(NAME, &subject, std::slice::from_ref(&their_entry));
            std::future::ready(())
        },
    );
    registry.fault(
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        Fault::status(503),
    );
    open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(
        listed(&registry, &image),
        [theirs.digest, ours.digest],
        "{}",
        registry.transcript()
    );
    registry.fault_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        Fault::Reset,
    );
    let more = pushed(&registry.store(), &image, "more");
    open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&more]), false)
        .await
        .unwrap();
    assert!(listed(&registry, &image).contains(&more.digest));
}

#[tokio::test]
async fn a_write_that_is_lost_every_time_ends_with_the_number_of_attempts() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    let (store, subject) = (registry.store(), image.digest.clone());
    let count = std::sync::atomic::AtomicU64::new(0);
    registry.hook_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).fallback_tag(),
        move |_| {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut entry = foreign(&theirs);
            entry["annotations"] = json!({"n": n.to_string()});
            store.put_fallback(NAME, &subject, &[entry]);
            std::future::ready(())
        },
    );
    let session = open(&registry).until(tokio::time::Instant::now() + Duration::from_secs(4));
    let result = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await;
    let error = refused(
        result,
        ErrorKind::RegistryUnavailable,
        &[
            "PUT fallback tag sha256-",
            "other writers overwrote the entry after each of ",
        ],
    );
    assert!(error.is_transient());
}
