//! T17: updates of the fallback tag with concurrent writers.

use std::task::Poll;

use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{Registries, Session, TagChange};
use affix_testbed::hostile::{
    HostileRegistry, Image, Matcher, Op, Quirks, Stage, Store, fallback_tag,
};
use serde_json::{Value, json};

use crate::support::{
    INDEX, MANIFEST, NAME, access, attachment, descriptor, digest, entry, image, open, open_in,
    options,
};

pub(crate) async fn distribution() -> (HostileRegistry, Image) {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    (registry, image)
}

/// Pushes an attachment without listing it.
pub(crate) fn pushed(store: &Store, image: &Image, note: &str) -> Descriptor {
    let (at, bytes) = attachment(&image.descriptor(), note);
    store.put_manifest(NAME, None, MANIFEST, bytes.clone());
    entry(&at, &bytes)
}

pub(crate) fn add<const N: usize>(entries: [&Descriptor; N]) -> TagChange {
    TagChange {
        add: entries.map(Descriptor::clone).to_vec(),
        remove: Vec::new(),
    }
}

pub(crate) fn listed(registry: &HostileRegistry, image: &Image) -> Vec<Digest> {
    let entries = registry.store().fallback_entries(NAME, &image.digest);
    entries
        .iter()
        .filter_map(|entry| entry["digest"].as_str())
        .map(digest)
        .collect()
}

pub(crate) fn foreign(descriptor: &Descriptor) -> Value {
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
