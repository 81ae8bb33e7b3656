//! Listing tags.

use affix_registry::ErrorKind;
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Reply};

use crate::support::{NAME, open, refused};

async fn with_tags(many: usize) -> HostileRegistry {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.image(NAME, "v0").platform("linux/amd64").push();
    for n in 1..many {
        registry
            .store()
            .put_tag(NAME, &format!("v{n}"), &image.digest);
    }
    registry
}

#[tokio::test]
async fn all_pages_are_read_and_more_than_the_cap_is_never_a_part() {
    let registry = with_tags(12).await;
    registry.quirks(|quirks| quirks.tags_per_page = Some(5));
    let session = open(&registry);
    assert_eq!(session.list_tags(12, |_| true).await.unwrap().len(), 12);
    assert_eq!(registry.count(Op::TagList), 3);
    refused(
        session.list_tags(11, |_| true).await,
        ErrorKind::LimitExceeded,
        &["GET tags at", "too many tags (the limit is 11)"],
    );
}

#[tokio::test]
async fn unwanted_tags_do_not_count_towards_the_cap_and_pages_are_bounded() {
    let registry = with_tags(1).await;
    let image = registry.image(NAME, "v0").platform("linux/amd64").push();
    for n in 0..510 {
        registry
            .store()
            .put_tag(NAME, &format!("sha256-{n:064x}.sig"), &image.digest);
    }
    let session = open(&registry);
    let tags = session
        .list_tags(1, |tag| !tag.is_referrers_tag())
        .await
        .unwrap();
    assert_eq!(
        tags.iter()
            .map(affix_registry::oci::Tag::as_str)
            .collect::<Vec<_>>(),
        ["v0"]
    );
    registry.quirks(|quirks| quirks.tags_per_page = Some(10));
    refused(
        session.list_tags(1, |tag| !tag.is_referrers_tag()).await,
        ErrorKind::LimitExceeded,
        &["the listing has too many pages (the limit is 50)"],
    );
}

#[tokio::test]
async fn no_tags_are_none_and_a_malformed_list_is_an_error() {
    let registry = with_tags(1).await;
    let session = open(&registry);
    for body in [
        r#"{"name":"x","tags":null}"#,
        r#"{"name":"x"}"#,
        r#"{"tags":[]}"#,
    ] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::TagList),
            Reply::body(200, "application/json", body),
        );
        assert!(session.list_tags(10, |_| true).await.unwrap().is_empty());
    }
    for (body, expected) in [
        ("<html>", "malformed"),
        (r#"{"tags":[1]}"#, "malformed"),
        (r#"{"tags":["../x"]}"#, "\"../x\", which is not a valid tag"),
    ] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::TagList),
            Fault::from(Reply::body(200, "application/json", body)),
        );
        refused(
            session.list_tags(10, |_| true).await,
            ErrorKind::RegistryUnavailable,
            &["the list of tags", expected],
        );
    }
}
