//! Listing tags.

use affix::registry::ErrorKind;
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Reply};

use crate::support::{NAME, open, refused};

async fn with_tags(many: usize) -> HostileRegistry {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.image(NAME, "v0").platform("linux/amd64").push();
    for n in 1..many {
        registry.store().put_tag(NAME, &format!("v{n}"), &image.digest);
    }
    registry
}

#[tokio::test]
async fn all_pages_are_read_and_more_than_the_cap_is_never_a_part() {
    let registry = with_tags(12).await;
    registry.quirks(|quirks| quirks.tags_per_page = Some(5));
    let session = open(&registry);
    assert_eq!(session.list_tags(12).await.unwrap().len(), 12);
    assert_eq!(registry.count(Op::TagList), 3);
    refused(session.list_tags(11).await, ErrorKind::LimitExceeded, &["GET tags at", "too many tags (the limit is 11)"]);
}

#[tokio::test]
async fn no_tags_are_none_and_a_malformed_list_is_an_error() {
    let registry = with_tags(1).await;
    let session = open(&registry);
    for body in [r#"{"name":"x","tags":null}"#, r#"{"name":"x"}"#, r#"{"tags":[]}"#] {
        registry.calm();
        registry.fault(Matcher::on(Op::TagList), Reply::body(200, "application/json", body));
        assert!(session.list_tags(10).await.unwrap().is_empty());
    }
    for (body, said) in [("<html>", "malformed"), (r#"{"tags":[1]}"#, "malformed"), (r#"{"tags":["../x"]}"#, "\"../x\", which is no tag")] {
        registry.calm();
        registry.fault(Matcher::on(Op::TagList), Fault::from(Reply::body(200, "application/json", body)));
        refused(session.list_tags(10).await, ErrorKind::RegistryUnavailable, &["the list of tags", said]);
    }
}
