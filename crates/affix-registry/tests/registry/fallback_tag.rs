//! T17: updates of the fallback tag with concurrent writers.

use std::task::Poll;
use std::time::Duration;

use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{ErrorKind, Registries, Session, TagChange};
use affix_testbed::hostile::{
    Fault, HostileRegistry, Image, ImmutableTags, Lag, Matcher, Op, Quirks, Refusal, Reply, Stage,
    Store, fallback_tag,
};
use serde_json::{Value, json};

use crate::support::{
    INDEX, MANIFEST, NAME, access, attachment, by, descriptor, digest, entry, image, open, open_in,
    options, refused,
};

async fn distribution() -> (HostileRegistry, Image) {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    (registry, image)
}

/// Pushes an attachment without listing it.
fn pushed(store: &Store, image: &Image, note: &str) -> Descriptor {
    let (at, bytes) = attachment(&image.descriptor(), note);
    store.put_manifest(NAME, None, MANIFEST, bytes.clone());
    entry(&at, &bytes)
}

fn add<const N: usize>(entries: [&Descriptor; N]) -> TagChange {
    TagChange {
        add: entries.map(Descriptor::clone).to_vec(),
        remove: Vec::new(),
    }
}

fn listed(registry: &HostileRegistry, image: &Image) -> Vec<Digest> {
    let entries = registry.store().fallback_entries(NAME, &image.digest);
    entries
        .iter()
        .filter_map(|entry| entry["digest"].as_str())
        .map(digest)
        .collect()
}

fn foreign(descriptor: &Descriptor) -> Value {
    json!({"mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size})
}

#[tokio::test]
async fn an_entry_is_added_once_and_proven_by_reading() {
    let (registry, image) = distribution().await;
    let session = open(&registry);
    session
        .referrers(&digest(&image.digest), None)
        .await
        .unwrap();
    registry.clear();
    let ours = pushed(&registry.store(), &image, "a");
    let outcome = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(
        (outcome.written, outcome.attempts, outcome.entries.len()),
        (true, 1, 1)
    );
    let ops: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.op)
        .collect();
    assert_eq!(
        ops,
        [Op::ManifestGet, Op::ManifestPut, Op::ManifestGet],
        "{}",
        registry.transcript()
    );
    let raw = registry
        .store()
        .raw_tag(NAME, &fallback_tag(&image.digest))
        .unwrap();
    let expected = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":{},"artifactType":"application/vnd.demo.thing"}}]}}"#,
        ours.digest, ours.size
    );
    assert_eq!(raw, expected);
    let again = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!((again.written, again.attempts), (false, 0));
}

#[tokio::test]
async fn an_incomplete_entry_of_our_digest_is_kept_and_does_not_count_as_listed() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "ours");
    registry.store().put_fallback(
        NAME,
        &image.digest,
        &[json!({"digest": ours.digest.to_string(), "odd": true})],
    );
    let session = open(&registry);
    let outcome = session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(
        (outcome.written, listed(&registry, &image)),
        (true, vec![ours.digest.clone(), ours.digest.clone()])
    );
    let listing = session
        .referrers(&digest(&image.digest), None)
        .await
        .unwrap();
    assert_eq!((listing.entries.len(), listing.total), (1, 2));
    // The removal of our entry removes both.
    let change = TagChange {
        add: Vec::new(),
        remove: vec![ours.digest],
    };
    session
        .rewrite_fallback(&descriptor(&image), change, false)
        .await
        .unwrap();
    assert_eq!(listed(&registry, &image), []);
}

#[tokio::test]
async fn entries_of_others_are_kept_byte_for_byte_and_in_order() {
    let (registry, image) = distribution().await;
    let (one, two) = (
        pushed(&registry.store(), &image, "one"),
        pushed(&registry.store(), &image, "two"),
    );
    let raw = format!(
        r#"{{ "schemaVersion":2, "x-tool":{{ "deep":[1.50, 1e2] }},"mediaType":"{INDEX}","manifests":[{{ "size":{}, "digest":"{}" , "mediaType":"{MANIFEST}","annotations":{{"ü":"<\u0026>"}}, "x":null}},{{"digest":"{}","size":{},"mediaType":"{MANIFEST}"}}],"annotations":{{"z":"1","a":"2"}}}}"#,
        one.size, one.digest, two.digest, two.size
    );
    registry
        .store()
        .put_manifest(NAME, Some(&fallback_tag(&image.digest)), INDEX, raw.clone());
    let (ours, later) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "later"),
    );
    let session = open(&registry);
    session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    let change = TagChange {
        add: vec![later.clone()],
        remove: vec![ours.digest],
    };
    session
        .rewrite_fallback(&descriptor(&image), change, false)
        .await
        .unwrap();
    let written = String::from_utf8(
        registry
            .store()
            .raw_tag(NAME, &fallback_tag(&image.digest))
            .unwrap()
            .to_vec(),
    )
    .unwrap();
    let start = raw.find("\"manifests\":[").unwrap() + "\"manifests\":[".len();
    let entries = &raw[start..raw.rfind("],\"annotations\"").unwrap()];
    assert!(written.contains(entries), "{written}");
    assert!(
        written.contains(r#""x-tool":{ "deep":[1.50, 1e2] }"#)
            && written.ends_with(r#"],"annotations":{"z":"1","a":"2"}}"#),
        "{written}"
    );
    assert_eq!(
        listed(&registry, &image),
        [one.digest, two.digest, later.digest]
    );
}

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
async fn the_last_entry_leaves_an_empty_list_and_a_missing_tag_needs_no_removal() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "a");
    let session = open(&registry);
    let remove = || TagChange {
        add: Vec::new(),
        remove: vec![ours.digest.clone()],
    };
    let outcome = session
        .rewrite_fallback(&descriptor(&image), remove(), false)
        .await
        .unwrap();
    assert!(!outcome.written && registry.count(Op::ManifestPut) == 0);
    session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    let outcome = session
        .rewrite_fallback(&descriptor(&image), remove(), false)
        .await
        .unwrap();
    assert!(outcome.written && outcome.entries.is_empty());
    let raw = registry
        .store()
        .raw_tag(NAME, &fallback_tag(&image.digest))
        .unwrap();
    assert_eq!(
        raw,
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#)
    );
    assert_eq!(registry.count(Op::ManifestDelete), 0);
}

#[tokio::test]
async fn an_entry_that_another_writer_dropped_is_written_again_and_theirs_is_kept() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    let (store, subject, their_entry) = (registry.store(), image.digest.clone(), foreign(&theirs));
    // A client that read before our PUT writes after it without our entry: a lost update.
    registry.hook_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        move |_| {
            store.put_fallback(NAME, &subject, std::slice::from_ref(&their_entry));
            std::future::ready(())
        },
    );
    let outcome = open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(outcome.attempts, 2, "{}", registry.transcript());
    assert_eq!(listed(&registry, &image), [theirs.digest, ours.digest]);
}

#[tokio::test]
async fn an_entry_of_others_that_a_race_took_away_is_put_back() {
    let (registry, image) = distribution().await;
    let (ours, theirs, third) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
        pushed(&registry.store(), &image, "third"),
    );
    registry
        .store()
        .put_fallback(NAME, &image.digest, &[foreign(&theirs)]);
    let (store, subject, third_entry) = (registry.store(), image.digest.clone(), foreign(&third));
    registry.hook_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        move |_| {
            store.put_fallback(NAME, &subject, std::slice::from_ref(&third_entry));
            std::future::ready(())
        },
    );
    open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    let listed = listed(&registry, &image);
    assert!(
        listed.len() == 3
            && [&ours, &theirs, &third]
                .iter()
                .all(|one| listed.contains(&one.digest)),
        "{listed:?}\n{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn an_entry_whose_manifest_was_deleted_meanwhile_is_not_put_back() {
    let (registry, image) = distribution().await;
    let (ours, theirs) = (
        pushed(&registry.store(), &image, "ours"),
        pushed(&registry.store(), &image, "theirs"),
    );
    registry
        .store()
        .put_fallback(NAME, &image.digest, &[foreign(&theirs)]);
    let (store, subject, gone) = (
        registry.store(),
        image.digest.clone(),
        theirs.digest.to_string(),
    );
    registry.hook_at(
        Stage::After,
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        move |_| {
            store.put_fallback(NAME, &subject, &[]);
            store.delete_manifest(NAME, &gone);
            std::future::ready(())
        },
    );
    open(&registry)
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(
        listed(&registry, &image),
        [ours.digest],
        "{}",
        registry.transcript()
    );
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
            "the manifest {at} no longer exists in the registry"
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

/// Runs writers that share no state, as processes do.
async fn race(registry: &HostileRegistry, image: &Image, writers: u32) -> Vec<Digest> {
    let tasks: Vec<_> = (0..writers)
        .map(|n| {
            let ours = pushed(&registry.store(), image, &format!("writer {n}"));
            let session: Session = open_in(&Registries::new(options()), registry, access(registry));
            let subject = descriptor(image);
            tokio::spawn(async move {
                session
                    .rewrite_fallback(&subject, add([&ours]), false)
                    .await
                    .map(|_| ours.digest)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap().unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_writers_side_by_side_all_keep_their_entries() {
    for round in 0..3 {
        let (registry, image) = distribution().await;
        let all = race(&registry, &image, 20).await;
        let listed = listed(&registry, &image);
        let missing: Vec<_> = all
            .iter()
            .filter(|digest| !listed.contains(digest))
            .collect();
        assert!(
            missing.is_empty() && listed.len() == 20,
            "round {round}: {} of 20 are listed",
            listed.len()
        );
    }
}

#[tokio::test]
async fn writers_of_one_process_take_turns() {
    let (registry, image) = distribution().await;
    let registries = Registries::new(options());
    let tasks: Vec<_> = (0..10)
        .map(|n| {
            let ours = pushed(&registry.store(), &image, &format!("writer {n}"));
            let (session, subject) = (
                open_in(&registries, &registry, access(&registry)),
                descriptor(&image),
            );
            tokio::spawn(async move {
                session
                    .rewrite_fallback(&subject, add([&ours]), false)
                    .await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().attempts, 1);
    }
    assert_eq!(listed(&registry, &image).len(), 10);
}

/// Polls a future `polls` times and drops it, as a kill would. Returns its output if it finished.
async fn dropped_after<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        let Some(rest) = left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        left = rest;
        let polled = future.as_mut().poll(context).map(Some);
        if left == 0 && polled.is_pending() {
            Poll::Ready(None)
        } else {
            polled
        }
    })
    .await
}

#[tokio::test]
async fn t18_after_a_drop_at_any_await_point_the_next_update_keeps_all_entries() {
    for polls in 0.. {
        let (registry, image) = distribution().await;
        let (ours, theirs) = (
            pushed(&registry.store(), &image, "ours"),
            pushed(&registry.store(), &image, "theirs"),
        );
        registry
            .store()
            .put_fallback(NAME, &image.digest, &[foreign(&theirs)]);
        let first = open(&registry);
        let done = dropped_after(
            polls,
            first.rewrite_fallback(&descriptor(&image), add([&ours]), false),
        )
        .await;
        open(&registry)
            .rewrite_fallback(&descriptor(&image), add([&ours]), false)
            .await
            .unwrap();
        assert_eq!(
            listed(&registry, &image),
            [theirs.digest, ours.digest],
            "after {polls} polls\n{}",
            registry.transcript()
        );
        if done.is_some() {
            assert!(polls > 5, "{polls}");
            return;
        }
    }
}

#[tokio::test]
async fn a_dropped_rewrite_lets_the_next_one_of_the_process_go_on() {
    let (registry, image) = distribution().await;
    let ours = pushed(&registry.store(), &image, "ours");
    let registries = Registries::new(options());
    let session = open_in(&registries, &registry, access(&registry));
    assert!(
        dropped_after(
            2,
            session.rewrite_fallback(&descriptor(&image), add([&ours]), false)
        )
        .await
        .is_none()
    );
    session
        .rewrite_fallback(&descriptor(&image), add([&ours]), false)
        .await
        .unwrap();
    assert_eq!(listed(&registry, &image), [ours.digest]);
}
