//! Requests that are held, and the actions of a test meanwhile.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::client::{Client, INDEX, NAME};
use crate::hostile::{HostileRegistry, Matcher, Op, Outcome, Stage, digest, fallback_tag};

fn index() -> serde_json::Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
}

#[tokio::test]
async fn a_request_waits_before_or_after_its_effect_until_it_is_let_go() {
    for (stage, done) in [
        (Stage::Early, false),
        (Stage::Before, false),
        (Stage::After, true),
    ] {
        let registry = HostileRegistry::start().await.unwrap();
        let client = Client::new(&registry);
        let mut hold = registry.hold(stage, Matcher::writes().nth(1));
        let put = async { client.put_manifest("v1", INDEX, &index()).await };
        let check = async {
            let request = hold.reached().await.unwrap();
            assert_eq!(
                (request.op, request.reference.as_deref()),
                (Op::ManifestPut, Some("v1"))
            );
            assert_eq!(
                registry.store().tag(NAME, "v1").is_some(),
                done,
                "{stage:?}"
            );
            hold.release();
        };
        let (put, ()) = tokio::join!(put, check);
        assert_eq!(put.status, 201);
        assert_eq!(client.put_manifest("v2", INDEX, &index()).await.status, 201);
    }
}

#[tokio::test]
async fn a_client_that_is_gone_while_its_request_is_held_is_seen_to_have_gone() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let mut hold = registry.hold(Stage::Before, Matcher::on(Op::ManifestPut));
    let put = tokio::spawn(async move { client.put_manifest("v1", INDEX, &index()).await });
    hold.reached().await.unwrap();
    put.abort();
    let gone = Matcher::any().when(|request| request.outcome == Outcome::Abandoned);
    registry
        .wait_for(&gone, 1, Duration::from_mins(1))
        .await
        .unwrap();
    drop(hold);
    assert_eq!(registry.store().tag(NAME, "v1"), None);
}

#[tokio::test]
async fn somebody_else_writes_the_tag_between_a_read_and_a_write() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let subject = digest(b"subject");
    let path = format!("/v2/{NAME}/manifests/{}", fallback_tag(&subject));
    let (store, their_subject) = (registry.store(), subject.clone());
    let rule = registry.on_request(
        Matcher::on(Op::ManifestPut).fallback_tag().times(1),
        move |_| {
            let (store, subject) = (store.clone(), their_subject.clone());
            async move {
                store.append_fallback(NAME, &subject, json!({"digest": "sha256:theirs"}));
            }
        },
    );
    let mut after = registry.hold(Stage::After, Matcher::on(Op::ManifestPut));
    assert_eq!(client.get(&path).await.status, 404);
    let seen = async {
        after.reached().await.unwrap();
        let ours = registry.store().fallback_entries(NAME, &subject);
        after.release();
        ours
    };
    let put = async {
        client
            .put_manifest(&fallback_tag(&subject), INDEX, &index())
            .await
    };
    let (put, ours) = tokio::join!(put, seen);
    assert_eq!((put.status.as_u16(), ours.len(), rule.used()), (201, 0, 1));
    assert_eq!(
        registry.store().manifest_count(NAME),
        2,
        "theirs was written, then ours"
    );
}

#[tokio::test]
async fn requests_at_one_time_are_counted() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let mut hold = registry.hold(Stage::Early, Matcher::any());
    let check = async {
        for _ in 0..3 {
            hold.reached().await.unwrap();
        }
        hold.release();
    };
    let ping = || client.send(Method::GET, "/v2/", &[], "");
    tokio::join!(ping(), ping(), ping(), check);
    ping().await;
    assert_eq!((registry.most_at_once(), registry.count(Op::Ping)), (3, 4));
}
