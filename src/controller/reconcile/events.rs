//! Events: each is told once, and counted up where it happens again soon.
//!
//! What can be counted up is bounded. The client's own recorder remembers every event for six minutes and goes through all of them at
//! each one, which thousands of resources that become ready together feel; and it takes one with another note for the same.

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

use crate::engine::{Note, Severity};

/// Events that are remembered.
const REMEMBERED: usize = 256;
/// For how long one that happens again is the same event.
const SAME: SignedDuration = SignedDuration::from_mins(6);
/// The longest name of an object.
const NAME: usize = 253;

/// Where events are told.
pub(crate) struct Events {
    client: Client,
    reporter: &'static str,
    instance: String,
    told: Mutex<VecDeque<Told>>,
}

/// An event that was told.
#[derive(Debug)]
struct Told {
    /// Of all that makes it the same one.
    hash: u64,
    name: String,
    count: i32,
    last: Timestamp,
}

impl Events {
    /// Events of `reporter`; `instance` tells its replicas apart.
    pub(crate) fn new(client: Client, reporter: &'static str, instance: Option<String>) -> Self {
        Self {
            client,
            reporter,
            instance: instance.unwrap_or_else(|| reporter.to_owned()),
            told: Mutex::default(),
        }
    }

    /// Tells what happened to `object`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn tell(
        &self,
        object: &ObjectReference,
        note: &Note,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(
            self.client.clone(),
            object.namespace.as_deref().unwrap_or("default"),
        );
        let mut hasher = DefaultHasher::new();
        (
            &object.uid,
            note.reason,
            note.severity == Severity::Normal,
            &note.message,
        )
            .hash(&mut hasher);
        let hash = hasher.finish();
        let known = again(
            &mut self.told.lock().unwrap_or_else(PoisonError::into_inner),
            hash,
            now,
        );
        if let Some((name, count)) = known {
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            return api
                .patch(&name, &PatchParams::default(), &Patch::Merge(&series))
                .await
                .map(drop);
        }
        let event = self.event(object, note, now);
        api.create(&PostParams::default(), &event).await?;
        let told = Told {
            hash,
            name: event.metadata.name.unwrap_or_default(),
            count: 1,
            last: now,
        };
        remember(
            &mut self.told.lock().unwrap_or_else(PoisonError::into_inner),
            told,
        );
        Ok(())
    }

    fn event(&self, object: &ObjectReference, note: &Note, now: Timestamp) -> Event {
        let severity = match note.severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name(object, now)),
                namespace: object.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(crate::api::cut_message(&note.message)),
            reason: Some(note.reason.as_str().to_owned()),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.reporter.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(severity.to_owned()),
            ..Event::default()
        }
    }
}

/// A name that no other event of the object has.
fn name(object: &ObjectReference, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let of: String = object
        .name
        .as_deref()
        .unwrap_or("affix")
        .chars()
        .take(NAME - 1 - time.len())
        .collect();
    format!("{}.{time}", of.trim_end_matches(['.', '-']))
}

/// The event that was told already, and how often it has happened by now.
fn again(told: &mut VecDeque<Told>, hash: u64, now: Timestamp) -> Option<(String, i32)> {
    let known = told
        .iter_mut()
        .find(|known| known.hash == hash && now.duration_since(known.last) < SAME)?;
    known.count = known.count.saturating_add(1);
    known.last = now;
    Some((known.name.clone(), known.count))
}

fn remember(told: &mut VecDeque<Told>, new: Told) {
    told.retain(|known| known.hash != new.hash);
    told.truncate(REMEMBERED - 1);
    told.push_front(new);
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

    fn told(hash: u64) -> Told {
        Told {
            hash,
            name: format!("event-{hash}"),
            count: 1,
            last: at(0),
        }
    }

    #[test]
    fn what_happens_again_soon_is_counted_up_and_later_told_anew() {
        let mut all = VecDeque::from([told(1)]);
        assert_eq!(again(&mut all, 1, at(300)), Some(("event-1".to_owned(), 2)));
        assert_eq!(again(&mut all, 1, at(600)), Some(("event-1".to_owned(), 3)));
        assert_eq!(again(&mut all, 1, at(600 + 360)), None);
        assert_eq!(again(&mut all, 2, at(0)), None);
    }

    #[test]
    fn no_more_than_the_newest_are_remembered() {
        let mut all = VecDeque::new();
        for hash in 0..1000 {
            remember(&mut all, told(hash));
        }
        assert_eq!(
            (
                all.len(),
                again(&mut all, 999, at(1)).is_some(),
                again(&mut all, 0, at(1)).is_some()
            ),
            (REMEMBERED, true, false)
        );
        remember(&mut all, told(999));
        assert_eq!(all.iter().filter(|known| known.hash == 999).count(), 1);
    }

    #[test]
    fn an_object_with_the_longest_name_has_events_too() {
        let object = ObjectReference {
            name: Some("a-".repeat(126)),
            ..ObjectReference::default()
        };
        let name = name(&object, at(0));
        assert!(name.len() <= NAME && !name.contains("-."), "{name}");
    }
}
