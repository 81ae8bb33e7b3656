//! Pods of a hostile tenant: their effect on other tenants, and the data that they can read.

use std::time::{Duration, Instant};

use affix_testbed::hostile::{Fault, HostileRegistry, Matcher};
use futures::future::join_all;
use serde_json::{Value, json};

use affix::admission::{Lookups, ServerLimits};

use crate::support::direct::{Direct, lookups, review_in};
use crate::support::namespace::{TestNamespace, wait_for};

/// Starts a webhook that uses plain HTTP for these registries.
async fn webhook(registries: &[&HostileRegistry]) -> Direct {
    webhook_with(registries, lookups()).await
}

async fn webhook_with(registries: &[&HostileRegistry], lookups: Lookups) -> Direct {
    let insecure = registries
        .iter()
        .map(|registry| registry.host().parse().unwrap())
        .collect();
    Direct::start(
        ServerLimits::default(),
        Lookups {
            insecure_registries: insecure,
            ..lookups
        },
    )
    .await
}

/// Reviews a pod of `namespace` with these images. Labels are unavailable here, so the result has only
/// warnings.
async fn ask(
    webhook: &Direct,
    client: &reqwest::Client,
    namespace: &str,
    images: &[String],
) -> Value {
    let containers: Vec<Value> = images
        .iter()
        .map(|image| json!({"name": "a", "image": image}))
        .collect();
    let mut pod = TestNamespace::pod("p", "", json!({}));
    pod["spec"]["containers"] = json!(containers);
    let answer = client
        .post(webhook.url("validate-pods"))
        .body(review_in(namespace, "Pod", &pod))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn warnings(answer: &Value) -> Vec<&str> {
    answer["response"]["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|warning| warning.as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn t35_a_silent_registry_of_one_tenant_delays_no_other_registry() {
    let (tarpit, honest) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    let image = honest
        .image("team/app", "v1")
        .platforms(["linux/amd64"])
        .push();
    let held = tarpit.hold(affix_testbed::hostile::Stage::Before, Matcher::any());
    let webhook = webhook(&[&tarpit, &honest]).await;
    let client = webhook.client();
    // Each look-up takes ten seconds, longer than the review of its pod.
    let tenants = (0..300).map(|index| {
        let image = format!("{}/repo-{index}/app:v1", tarpit.host());
        let (webhook, client) = (&webhook, &client);
        async move { ask(webhook, client, "tenant", &[image]).await }
    });
    for answer in join_all(tenants).await {
        assert!(warnings(&answer)[0].contains("was not checked"), "{answer}");
    }
    let pinned = format!("{}/team/app@{}", honest.host(), image.digest);
    for namespace in ["team-b", "tenant"] {
        // Several attempts, because a busy machine can exceed the time limit of one look-up. They end
        // before the look-ups of the tenant do.
        let mut answers = Vec::new();
        while answers.len() < 5
            && answers
                .last()
                .is_none_or(|answer| !warnings(answer).is_empty())
        {
            answers.push(ask(&webhook, &client, namespace, std::slice::from_ref(&pinned)).await);
        }
        assert!(
            answers
                .last()
                .is_some_and(|answer| warnings(answer).is_empty()),
            "{namespace}: {answers:#?}"
        );
    }
    assert!(honest.requests().len() > 1);
    drop(held);
}

#[tokio::test]
async fn t35_slow_repositories_of_one_tenant_delay_no_known_repository_of_the_same_registry() {
    let registry = HostileRegistry::start().await.unwrap();
    registry.image("team/app", "v1").push();
    let slow = Matcher::any().when(|request| request.path.contains("/tenant/"));
    let held = registry.hold(affix_testbed::hostile::Stage::Before, slow);
    let webhook = webhook(&[&registry]).await;
    let client = webhook.client();
    let image = format!("{}/team/app:v1", registry.host());
    let is_checked = async || {
        let answer = ask(&webhook, &client, "team-b", std::slice::from_ref(&image)).await;
        warnings(&answer).is_empty()
    };
    wait_for("the first look-up", is_checked).await;
    for round in 0..4 {
        let images: Vec<String> = (0..64)
            .map(|nth| format!("{}/tenant/r{round}-{nth}:v1", registry.host()))
            .collect();
        let (answer, checked) = tokio::join!(
            ask(&webhook, &client, "tenant", &images),
            wait_for("a look-up beside slow ones", is_checked)
        );
        assert!(warnings(&answer)[0].contains("was not checked"), "{answer}");
        let () = checked;
        // The look-ups of the tenant go on for ten seconds.
        assert!(is_checked().await || is_checked().await);
    }
    drop(held);
}

#[tokio::test]
async fn a_registry_that_fails_for_one_repository_is_queried_for_others() {
    let registry = HostileRegistry::start().await.unwrap();
    registry.image("tenant/app", "v1").push();
    let image = registry.image("team/app", "v1").push();
    registry.fault(Matcher::any().repository("tenant/app"), Fault::status(503));
    let webhook = webhook(&[&registry]).await;
    let client = webhook.client();
    let of = |repository: &str| [format!("{}/{repository}@{}", registry.host(), image.digest)];
    let answer = ask(&webhook, &client, "tenant", &of("tenant/app")).await;
    assert!(warnings(&answer)[0].contains("was not checked"), "{answer}");
    for _ in 0..20 {
        ask(&webhook, &client, "tenant", &of("tenant/app")).await;
        let answer = ask(&webhook, &client, "team-b", &of("team/app")).await;
        assert!(warnings(&answer).is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn a_pod_with_thousands_of_images_is_admitted_after_a_few_checks() {
    let registry = HostileRegistry::start().await.unwrap();
    let webhook = webhook_with(
        &[&registry],
        Lookups {
            timeout: Duration::from_secs(20),
            ..lookups()
        },
    )
    .await;
    let client = webhook.client();
    let images: Vec<String> = (0..5000)
        .map(|index| format!("{}/repo-{index}/app:v1", registry.host()))
        .collect();
    let answer = ask(&webhook, &client, "tenant", &images).await;
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(warnings(&answer).len(), 16, "{answer}");
    let asked: std::collections::BTreeSet<String> = registry
        .requests()
        .iter()
        .map(|request| request.path.clone())
        .collect();
    assert!(
        (1..=64).contains(&asked.len()),
        "{} repositories were queried",
        asked.len()
    );
}

#[tokio::test]
async fn objects_whose_parsing_needs_excessive_memory_are_rejected() {
    let webhook = webhook(&[]).await;
    let client = webhook.client();
    let send = async |path: &str, kind: &str, object: String| {
        let body = format!(
            r#"{{"request":{{"uid":"u","kind":{{"kind":"{kind}"}},"namespace":"a","operation":"CREATE","object":{{"metadata":{{}},"spec":{object}}}}}}}"#
        );
        let answer = client
            .post(webhook.url(path))
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for path in ["validate-pods", "mutate-pods", "validate-imageattachment"] {
        let bomb = format!(r#"{{"containers":[{}{{}}]}}"#, "{},".repeat(2 << 20));
        let (status, text) = send(path, "Pod", bomb).await;
        assert_eq!(
            (status, text.as_str()),
            (413, "the review has more than 200000 values\n"),
            "{path}"
        );
    }
    let files = format!(
        r#"{{"image":"a.b/c:d","artifact":{{"artifactType":"a/b","files":[{}]}}}}"#,
        vec![r#"{"name":"f","value":""}"#; 30_000].join(",")
    );
    let (status, text) = send("validate-imageattachment", "ImageAttachment", files).await;
    assert!(
        status == 200 && text.contains("spec: more than 20000 values"),
        "{status} {text}"
    );
    let (status, text) = send(
        "validate-pods",
        "Pod",
        "[".repeat(100_000) + &"]".repeat(100_000),
    )
    .await;
    assert!(
        status == 200 && text.contains(r#""allowed":true"#),
        "{status} {text}"
    );
}

#[tokio::test]
async fn reviews_of_unknown_namespaces_do_not_flood_the_api_server() {
    // A substitute for the API server, without namespaces, that records the requests.
    let api_server = HostileRegistry::start().await.unwrap();
    let webhook = Direct::start_beside(&api_server.url(), ServerLimits::default(), lookups()).await;
    let client = webhook.client();
    let began = Instant::now();
    join_all((0..600).map(|index| {
        let (webhook, client) = (&webhook, &client);
        async move {
            ask(
                webhook,
                client,
                &format!("ns-{index}"),
                &["127.0.0.1:1/app:v1".to_owned()],
            )
            .await
        }
    }))
    .await;
    let asked = api_server
        .requests()
        .iter()
        .filter(|request| request.path.contains("/namespaces/ns-"))
        .count();
    let took = began.elapsed();
    println!("{asked} requests to the API server in {took:?}");
    // Eight concurrent reads, each of which keeps its permit for a tenth of a second.
    let max = 8 * (2 + usize::try_from(took.as_millis()).unwrap() / 100);
    assert!(
        asked > 0 && asked <= max,
        "{asked} requests in {took:?}, the limit is {max}"
    );
}
