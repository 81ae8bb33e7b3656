//! T18 for the engine: a pass is dropped at any of its await points, as by a kill, and the next pass repairs the result.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics fails, as it should"
)]

use std::sync::Mutex;
use std::task::Poll;

use affix::api::{ImageAttachmentSpec, ImageAttachmentStatus};
use affix::engine::{
    Draft, Engine, EngineOptions, Failure, Journal, NoClaims, Sources, Verdict, request, status,
    status_in_progress,
};
use affix_registry::{Options, Registries};
use affix_testbed::hostile::{HostileRegistry, Quirks};
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use affix_testbed::tools::Tools;
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

/// The status in the cluster, which outlives a killed process.
#[derive(Default)]
pub(crate) struct Saved(Mutex<ImageAttachmentStatus>);

impl Saved {
    pub(crate) fn get(&self) -> ImageAttachmentStatus {
        self.0.lock().unwrap().clone()
    }
}

impl Journal for Saved {
    async fn save(&self, draft: &Draft<'_>) -> Result<(), Failure> {
        tokio::task::yield_now().await; // a kill may come before it is written
        let written = status_in_progress(&self.get(), draft, 1, Timestamp::now());
        *self.0.lock().unwrap() = written;
        tokio::task::yield_now().await; // or right after
        Ok(())
    }
}

/// A journal that saves nothing: the command line has no status.
pub(crate) struct Forgets;

impl Journal for Forgets {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

fn spec(image: &str, scope: &str) -> ImageAttachmentSpec {
    serde_json::from_value(json!({
        "image": image, "insecure": true, "targets": {"scope": scope},
        "artifact": {"artifactType": "application/vnd.demo.thing", "annotations": {"k": "v"}},
    }))
    .unwrap()
}

fn engine() -> Engine {
    Engine::new(
        Registries::new(Options {
            allow_loopback: true,
            ..Options::default()
        }),
        EngineOptions::default(),
    )
}

/// Runs a pass in a process that has just started.
async fn pass(
    spec: &ImageAttachmentSpec,
    known: Option<&ImageAttachmentStatus>,
    journal: &impl Journal,
) -> affix::engine::Outcome {
    let request = request(spec, known, 1, &Sources::default(), true).unwrap();
    engine()
        .run(&request, journal, &NoClaims, Timestamp::now())
        .await
}

/// Polls a future `polls` times and drops it, as a kill would. Returns its result if it was complete by then.
pub(crate) async fn dropped_after<F: Future>(polls: u32, future: F) -> Option<F::Output> {
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

/// Kills a pass after `polls` polls and runs another one. Returns whether the first pass was complete before the kill.
async fn killed_after(polls: u32, quirks: Quirks, scope: &str, remembers: bool) -> bool {
    let registry = HostileRegistry::builder()
        .quirks(quirks.clone())
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let spec = spec(&registry.reference(&image.pinned()), scope);
    let saved = Saved::default();
    let ended = if remembers {
        let ended = dropped_after(polls, pass(&spec, Some(&saved.get()), &saved)).await;
        let known = saved.get();
        let outcome = pass(&spec, Some(&known), &saved).await;
        *saved.0.lock().unwrap() = status(&known, &outcome, 1, Timestamp::now());
        let all = if scope == "All" { "3/3" } else { "1/1" };
        assert_eq!(saved.get().attached.as_deref(), Some(all), "{outcome:#?}");
        ended
    } else {
        let ended = dropped_after(polls, pass(&spec, None, &Forgets)).await;
        let Verdict {
            reason, message, ..
        } = pass(&spec, None, &Forgets).await.verdict;
        assert_eq!(reason, affix::api::Reason::Attached, "{message}");
        ended
    };
    let children = image
        .children
        .iter()
        .filter(|_| scope == "All")
        .map(|child| child.digest.clone());
    let subjects = std::iter::once(image.digest.clone()).chain(children);
    for subject in subjects {
        let made = registry.store().referrers("team/app", &subject).len();
        let listed = registry
            .store()
            .fallback_entries("team/app", &subject)
            .len();
        let has_tag = quirks != Quirks::default();
        assert!(
            !has_tag || listed == 1,
            "{listed} are listed on {subject} after {polls} polls\n{}",
            registry.transcript()
        );
        // Without status and without the referrers API, a manifest that was pushed and never listed cannot be found again.
        assert!(
            made == 1 || (has_tag && !remembers),
            "{made} were made for {subject} after {polls} polls\n{}",
            registry.transcript()
        );
    }
    ended.is_some()
}

/// Kills a pass at every await point, several at a time, until the first pass ends before its kill. A single target is polled at each of
/// its await points; several targets are polled together.
async fn killed_everywhere(quirks: Quirks, remembers: bool) {
    for scope in ["Index", "All"] {
        killed_everywhere_in(scope, &quirks, remembers).await;
    }
}

async fn killed_everywhere_in(scope: &str, quirks: &Quirks, remembers: bool) {
    let mut kills = futures::stream::iter(0..2000).map(|polls| {
        let quirks = quirks.clone();
        async move { (polls, killed_after(polls, quirks, scope, remembers).await) }
    });
    let mut kills = std::pin::pin!(kills.by_ref().buffered(8));
    while let Some((polls, ended)) = kills.next().await {
        if ended {
            assert!(polls > 6, "a pass of {polls} polls is none");
            println!("{scope}: a pass of {polls} polls was killed at each");
            return;
        }
    }
    panic!("no pass ended");
}

/// Kills a pass on distribution after `polls` polls and runs another one. Returns whether the first pass was complete before the kill.
async fn killed_on_distribution(registry: &Registry, polls: u32) -> bool {
    let raw = registry.raw().unwrap();
    let index = Index::new().image(Image::new("linux/amd64", &format!("killed after {polls}")));
    let image = index
        .push(&raw, "team/app", &format!("killed-{polls}"))
        .await
        .unwrap();
    let (spec, saved) = (spec(&image.pinned(), "All"), Saved::default());
    let ended = dropped_after(polls, pass(&spec, Some(&saved.get()), &saved)).await;
    let known = saved.get();
    let outcome = pass(&spec, Some(&known), &saved).await;
    assert!(outcome.verdict.ready, "{outcome:#?}");
    for row in outcome.rows.unwrap() {
        let tag = raw
            .manifest("team/app", &row.digest.replace(':', "-"))
            .await
            .unwrap()
            .json()
            .unwrap();
        let listed: Vec<_> = tag["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["digest"].as_str())
            .collect();
        assert_eq!(
            listed,
            [row.attachment.as_deref().unwrap()],
            "after {polls} polls"
        );
        // With the saved time the second pass pushes the same bytes, so there is no second manifest.
        if let Some(noted) = known
            .targets
            .iter()
            .find(|noted| noted.digest == row.digest && noted.attachment.is_some())
        {
            assert_eq!(noted.attachment, row.attachment, "after {polls} polls");
        }
    }
    ended.is_some()
}

/// The number of polls varies between passes on a real network, so the kills continue a little beyond the first late one.
#[tokio::test]
async fn t18_after_a_kill_on_distribution_each_target_has_one_listed_attachment() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::distribution(&tools).start().await.unwrap();
    let registry = &registry;
    let mut kills = futures::stream::iter(0..500)
        .map(|polls| async move { (polls, killed_on_distribution(registry, polls).await) });
    let mut kills = std::pin::pin!(kills.by_ref().buffered(8));
    let mut too_late = 0;
    while let Some((polls, ended)) = kills.next().await {
        too_late += u32::from(ended);
        if too_late == 8 {
            assert!(polls > 20, "a pass of {polls} polls is none");
            println!("a pass of up to {polls} polls was killed at each");
            return;
        }
    }
    panic!("no pass ended");
}

#[tokio::test]
async fn t18_after_a_kill_on_the_fallback_tag_each_target_has_one_attachment() {
    killed_everywhere(Quirks::distribution(), true).await;
}

#[tokio::test]
async fn t18_after_a_kill_with_the_referrers_api_each_target_has_one_attachment() {
    killed_everywhere(Quirks::default(), true).await;
}

#[tokio::test]
async fn t18_after_a_kill_of_the_command_each_target_has_one_listed_attachment() {
    killed_everywhere(Quirks::distribution(), false).await;
}
