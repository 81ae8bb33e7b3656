//! One connection with many reviews, and many connections with none: nobody's waiting or idling is at the cost of the others.

use std::time::Duration;

use affix::admission::ServerLimits;
use bytes::Bytes;
use futures::future::{join_all, select_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};

use crate::direct::{Direct, lookups, review};
use crate::place::wait;

/// Longer than any test takes: what is held by a slow caller stays held.
fn patient() -> ServerLimits {
    ServerLimits {
        patience: Duration::from_mins(10),
        ..ServerLimits::default()
    }
}

/// A small review, which is refused by what the webhook knows alone.
fn small() -> String {
    review(
        "ImageAttachment",
        &json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "a"},
            "spec": {"image": "registry.example.com/Team/app:v1", "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}
        }),
    )
}

/// Sends a body that says it has `length` bytes, of which only the first `sent` come.
async fn unfinished(
    client: &reqwest::Client,
    url: &str,
    length: usize,
    sent: usize,
) -> reqwest::Result<reqwest::Response> {
    let pieces = stream::iter(
        (0..sent.div_ceil(16 << 10))
            .map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 16 << 10]))),
    );
    let body = reqwest::Body::wrap_stream(pieces.chain(stream::pending()));
    client
        .post(url)
        .header("content-length", length)
        .body(body)
        .send()
        .await
}

async fn is_answered(client: &reqwest::Client, url: &str) {
    let answer = client.post(url).body(small()).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    let answer: Value = answer.json().await.unwrap();
    assert!(
        answer["response"]["status"]["message"]
            .as_str()
            .unwrap()
            .contains("is malformed"),
        "{answer}"
    );
}

#[tokio::test]
async fn large_bodies_that_wait_for_a_place_leave_small_reviews_on_the_same_connection_answered() {
    let webhook = Direct::start(patient(), lookups()).await;
    let (client, url) = (webhook.client(), webhook.url("validate-imageattachment"));
    // Far more than can be read at once: each sends what the connection lets it, and none ever ends.
    let large = (0..40).map(|_| unfinished(&client, &url, 8 << 20, 4 << 20).boxed());
    let mut large = large.collect::<Vec<_>>();
    let served = async {
        for _ in 0..20 {
            join_all((0..10).map(|_| is_answered(&client, &url))).await;
        }
    };
    let mut served = std::pin::pin!(served);
    let mut turned_away = 0;
    loop {
        tokio::select! {
            () = &mut served => break,
            // Those for whom there is no room to wait are told so at once; those who wait stay.
            (answer, _, rest) = select_all(large.drain(..)) => {
                assert_eq!(answer.unwrap().status(), 503);
                turned_away += 1;
                large = rest;
            }
        }
    }
    println!("{turned_away} of 40 were turned away");
    assert!(turned_away < 40, "some are read or wait");
}

#[tokio::test]
async fn connections_that_idle_give_their_seats_to_new_ones() {
    let webhook = Direct::start(
        ServerLimits {
            connections: 20,
            ..patient()
        },
        lookups(),
    )
    .await;
    let url = webhook.url("validate-imageattachment");
    // Some have said nothing at all, and some had a review each; all of them stay.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(
            tokio::net::TcpStream::connect(webhook.address)
                .await
                .unwrap(),
        );
    }
    let mut kept = Vec::new();
    for _ in 0..60 {
        let client = webhook.client();
        is_answered(&client, &url).await;
        kept.push(client);
    }
    // One with a review under way is not taken for idle.
    let busy = webhook.client();
    is_answered(&busy, &url).await;
    let mut held = unfinished(&busy, &url, 1 << 20, 16 << 10).boxed();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut held)
            .await
            .is_err()
    );
    // What the connection was given after it has an answer, so it has come.
    is_answered(&busy, &url).await;
    for _ in 0..40 {
        let client = webhook.client();
        is_answered(&client, &url).await;
        kept.push(client);
    }
    assert!(
        held.now_or_never().is_none(),
        "the review under way was ended"
    );
    // A connection that was ended is made again by who wants it.
    for client in &kept {
        wait("an answer", async || {
            client
                .post(&url)
                .body(small())
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
    drop(silent);
}
