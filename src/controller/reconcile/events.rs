//! Publication of events. A repeated event increments the count of the first one.
//!
//! kube's own recorder searches all events of the last six minutes at each publication, which is slow when thousands of
//! resources become ready together. It also merges events that differ in their message only.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::controller::api_server::{ApiServerError, FIELD_MANAGER, with_timeout};
use crate::engine::{PassEvent, Severity};

/// The most events that are remembered.
const MAX_REMEMBERED: usize = 256;
/// The longest time between two events of one series.
const SERIES_GAP: SignedDuration = SignedDuration::from_mins(6);
/// The longest name of an object.
const MAX_NAME: usize = 253;

/// Publishes events.
pub(crate) struct Events {
    client: Client,
    /// The name of this replica.
    instance: String,
    published: Mutex<VecDeque<Published>>,
}

/// An event that was published.
#[derive(Debug)]
struct Published {
    /// A hash of the object, reason, severity and message.
    hash: u64,
    name: String,
    count: i32,
    last: Timestamp,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            instance: std::env::var("HOSTNAME").unwrap_or_else(|_| FIELD_MANAGER.to_owned()),
            published: Mutex::default(),
        }
    }

    /// Publishes an event about an object.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn publish(
        &self,
        regarding: &ObjectReference,
        event: &PassEvent,
        now: Timestamp,
    ) -> Result<(), ApiServerError> {
        let namespace = regarding.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let mut hasher = DefaultHasher::new();
        let is_normal = event.severity == Severity::Normal;
        (&regarding.uid, event.reason, is_normal, &event.message).hash(&mut hasher);
        let hash = hasher.finish();
        let series = self.with_published(|published| count_again(published, hash, now));
        if let Some((name, count)) = series {
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(&series));
            return with_timeout(api.patch(&name, &params, &patch))
                .await
                .map(drop);
        }
        let event = self.event(regarding, event, now);
        with_timeout(api.create(&PostParams::default(), &event)).await?;
        let new = Published {
            hash,
            name: event.metadata.name.unwrap_or_default(),
            count: 1,
            last: now,
        };
        self.with_published(|published| remember(published, new));
        Ok(())
    }

    fn with_published<T>(&self, work: impl FnOnce(&mut VecDeque<Published>) -> T) -> T {
        work(
            &mut self
                .published
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn event(&self, regarding: &ObjectReference, event: &PassEvent, now: Timestamp) -> Event {
        let severity = match event.severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(event_name(regarding, now)),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(crate::api::truncate_message(&event.message)),
            reason: Some(event.reason.as_str().to_owned()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(severity.to_owned()),
            ..Event::default()
        }
    }
}

/// Returns a name that is unique among the events of the object.
fn event_name(regarding: &ObjectReference, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let name = regarding.name.as_deref().unwrap_or(FIELD_MANAGER).chars();
    let name: String = name.take(MAX_NAME - 1 - time.len()).collect();
    format!("{}.{time}", name.trim_end_matches(['.', '-']))
}

/// Counts an event again. Returns its name and count, or `None` if it was not published recently.
fn count_again(
    published: &mut VecDeque<Published>,
    hash: u64,
    now: Timestamp,
) -> Option<(String, i32)> {
    let event = published
        .iter_mut()
        .find(|event| event.hash == hash && now.duration_since(event.last) < SERIES_GAP)?;
    event.count = event.count.saturating_add(1);
    event.last = now;
    Some((event.name.clone(), event.count))
}

fn remember(published: &mut VecDeque<Published>, new: Published) {
    published.retain(|event| event.hash != new.hash);
    published.truncate(MAX_REMEMBERED - 1);
    published.push_front(new);
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn published(hash: u64) -> Published {
        Published {
            hash,
            name: format!("event-{hash}"),
            count: 1,
            last: at(0),
        }
    }

    #[test]
    fn a_repeated_event_is_counted_and_a_later_one_is_published_anew() {
        let mut all = VecDeque::from([published(1)]);
        assert_eq!(
            count_again(&mut all, 1, at(300)),
            Some(("event-1".to_owned(), 2))
        );
        assert_eq!(
            count_again(&mut all, 1, at(600)),
            Some(("event-1".to_owned(), 3))
        );
        assert_eq!(count_again(&mut all, 1, at(600 + 360)), None);
        assert_eq!(count_again(&mut all, 2, at(0)), None);
    }

    #[test]
    fn only_the_newest_events_are_remembered() {
        let mut all = VecDeque::new();
        for hash in 0..1000 {
            remember(&mut all, published(hash));
        }
        assert_eq!(
            (
                all.len(),
                count_again(&mut all, 999, at(1)).is_some(),
                count_again(&mut all, 0, at(1)).is_some()
            ),
            (MAX_REMEMBERED, true, false)
        );
        remember(&mut all, published(999));
        assert_eq!(all.iter().filter(|known| known.hash == 999).count(), 1);
    }

    #[test]
    fn an_object_with_the_longest_name_can_have_events() {
        let object = ObjectReference {
            name: Some("a-".repeat(126)),
            ..ObjectReference::default()
        };
        let name = event_name(&object, at(0));
        assert!(name.len() <= MAX_NAME && !name.contains("-."), "{name}");
    }
}
