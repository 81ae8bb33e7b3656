//! `endOfLife.statement` against the scriptable registry: moves of a tag, kills, and the cost of a pass.

use affix::api::{ImageAttachmentSpec, ImageAttachmentStatus};
use affix::engine::{
    Engine, EngineOptions, Journal, NoClaims, Outcome, SecretData, Sources, request, status,
};
use affix_registry::{Options, Registries, Secret};
use affix_testbed::hostile::{Deletion, HostileRegistry, Image, Manifest, Quirks};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::kills::{Saved, dropped_after};
use crate::resource::{DATE, MARK, Resource};

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn statement() -> Value {
    json!({"cosign": {"keySecretRef": {"name": "key"}}})
}

fn dated(image: &str, scope: &str) -> Value {
    let mark = json!({"date": "2025-03-20", "artifactType": MARK, "annotation": DATE, "statement": statement()});
    json!({"image": image, "insecure": true, "targets": {"scope": scope}, "endOfLife": mark})
}

/// Returns the numbers of marks and statements on a manifest.
fn counts(registry: &HostileRegistry, digest: &str) -> (usize, usize) {
    let referrers = registry.store().referrers("team/app", digest);
    let of = |kind: &str| {
        let manifests = referrers.iter().map(Manifest::json);
        manifests.filter(|of| of["artifactType"] == kind).count()
    };
    (of(MARK), of(BUNDLE))
}

/// Stores an image whose second platform is the same in every image.
fn push(registry: &HostileRegistry, tag: &str, seed: &str) -> Image {
    let shared = registry
        .image("team/app", "shared-parts")
        .seed("shared")
        .platform("linux/arm64")
        .push();
    let image = registry
        .image("team/app", tag)
        .seed(seed)
        .platform("linux/amd64")
        .entry(&shared.children[0].entry)
        .push();
    registry.store().delete_tag("team/app", "shared-parts");
    image
}

/// Quirks of registries with and without the referrers API that delete manifests.
fn both() -> [Quirks; 2] {
    let fallback = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [Quirks::default(), fallback]
}

#[tokio::test]
async fn a_move_of_the_tag_marks_and_states_and_a_return_takes_both_back() {
    for quirks in both() {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let first = push(&registry, "v1", "one");
        let when = json!({"gracePeriod": "720h", "settle": "0s", "unlessTagged": []});
        let mark = json!({"whenSuperseded": when, "artifactType": MARK, "annotation": DATE, "statement": statement()});
        let image = registry.reference("team/app:v1");
        let mut resource = Resource::new(json!({"image": image, "endOfLife": mark}));
        resource.secret("key", &[("cosign.key", KEY)]);
        resource.ready().await;
        let second = push(&registry, "v1", "two");
        resource.later(60);
        resource.ready().await;
        let amd64 = first.platform("linux/amd64");
        for digest in [first.digest.as_str(), amd64] {
            assert_eq!(counts(&registry, digest), (1, 1), "{:#?}", resource.status);
        }
        assert_eq!(counts(&registry, first.platform("linux/arm64")), (0, 0));
        assert_eq!(counts(&registry, &second.digest), (0, 0));
        // The fast path notices another key, and nothing else.
        resource.later(60);
        let before = registry.requests().len();
        resource.look().await;
        assert_eq!(
            registry.requests().len() - before,
            1,
            "{}",
            registry.transcript()
        );
        let other = include_bytes!("../vectors/signing/cosign/ed25519.pem");
        resource.secret("key", &[("cosign.key", other)]);
        resource.later(60);
        let outcome = resource.look().await;
        assert!(outcome.verdict.ready, "{outcome:#?}");
        assert!(outcome.changes.len() >= 2, "{outcome:#?}");
        for digest in [first.digest.as_str(), amd64] {
            assert_eq!(counts(&registry, digest), (1, 1), "{:#?}", resource.status);
        }
        // The first image is in use again.
        registry.store().put_tag("team/app", "v1", &first.digest);
        resource.later(60);
        resource.ready().await;
        for digest in [first.digest.as_str(), amd64] {
            assert_eq!(counts(&registry, digest), (0, 0), "{:#?}", resource.status);
        }
    }
}

fn engine() -> Engine {
    let options = Options {
        allow_loopback: true,
        ..Options::default()
    };
    Engine::new(Registries::new(options), EngineOptions::default())
}

/// Runs a pass in a process that has just started.
async fn pass(
    spec: &ImageAttachmentSpec,
    known: &ImageAttachmentStatus,
    journal: &impl Journal,
) -> Outcome {
    let mut sources = Sources::default();
    let data = [("cosign.key".to_owned(), Secret::new(KEY))];
    let secret = SecretData {
        data: data.into_iter().collect(),
        ..SecretData::default()
    };
    sources.secrets.insert("key".to_owned(), secret);
    let request = request(spec, Some(known), 1, &sources, true).unwrap();
    engine()
        .run(&request, journal, &NoClaims, Timestamp::now())
        .await
}

/// Kills a pass after `polls` polls and runs another one. Returns whether the first pass was complete before the kill.
async fn killed_after(polls: u32, quirks: Quirks, scope: &str) -> bool {
    let registry = HostileRegistry::builder()
        .quirks(quirks.clone())
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let spec = serde_json::from_value(dated(&registry.reference(&image.pinned()), scope)).unwrap();
    let saved = Saved::default();
    let ended = dropped_after(polls, pass(&spec, &saved.get(), &saved)).await;
    let known = saved.get();
    let outcome = pass(&spec, &known, &saved).await;
    assert!(outcome.verdict.ready, "after {polls} polls: {outcome:#?}");
    let now = status(&known, &outcome, 1, Timestamp::now());
    assert!(now.leftovers.is_empty(), "after {polls} polls: {now:#?}");
    let children = image.children.iter().filter(|_| scope == "All");
    let children = children.map(|child| child.digest.clone());
    for subject in std::iter::once(image.digest.clone()).chain(children) {
        let listed = registry
            .store()
            .fallback_entries("team/app", &subject)
            .len();
        let has_tag = quirks != Quirks::default();
        assert!(
            !has_tag || listed == 2,
            "{listed} are listed on {subject} after {polls} polls\n{}",
            registry.transcript()
        );
        assert!(
            has_tag || counts(&registry, &subject) == (1, 1),
            "{:?} on {subject} after {polls} polls\n{}",
            counts(&registry, &subject),
            registry.transcript()
        );
    }
    ended.is_some()
}

#[tokio::test]
async fn t18_after_a_kill_each_target_has_one_mark_and_one_statement() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        for scope in ["Index", "All"] {
            let quirks = &quirks;
            let mut kills = futures::stream::iter(0..4000).map(|polls| async move {
                (polls, killed_after(polls, quirks.clone(), scope).await)
            });
            let mut kills = std::pin::pin!(kills.by_ref().buffered(8));
            let mut last = None;
            while let Some((polls, ended)) = kills.next().await {
                if ended {
                    last = Some(polls);
                    break;
                }
            }
            assert!(last.is_some_and(|polls| polls > 6), "{last:?}");
        }
    }
}
