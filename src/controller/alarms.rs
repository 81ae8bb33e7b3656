//! When each resource is visited next without a change of it.
//!
//! A resource at rest costs a few words here. The client's scheduler keeps its name four times over, which ten thousand of them feel; so
//! that one gets only what is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kube::Resource as _;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stored::Stored;

/// The alarms of one watch: at most one for each resource.
#[derive(Default)]
pub(super) struct Alarms {
    set: Mutex<Set>,
    /// Told when an alarm comes before all others.
    earlier: Notify,
}

#[derive(Default)]
struct Set {
    times: HashMap<Arc<Name>, Place>,
    queue: BTreeMap<Place, Arc<Name>>,
    number: u64,
}

/// A time, and a number that tells alarms of the same time apart.
type Place = (Instant, u64);

/// Of a resource.
#[derive(PartialEq, Eq, Hash)]
struct Name {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

impl Name {
    fn of(object: &Stored) -> Self {
        let meta = object.meta();
        Self { namespace: meta.namespace.as_deref().map(Into::into), name: meta.name.as_deref().unwrap_or_default().into() }
    }
}

impl Set {
    fn take(&mut self, name: &Name) {
        if let Some(place) = self.times.remove(name) {
            self.queue.remove(&place);
        }
    }

    fn put(&mut self, name: Name, at: Instant) {
        self.take(&name);
        let (name, place) = (Arc::new(name), (at, self.number));
        self.number += 1;
        self.times.insert(Arc::clone(&name), place);
        self.queue.insert(place, name);
    }
}

impl Alarms {
    fn with<T>(&self, work: impl FnOnce(&mut Set) -> T) -> T {
        work(&mut self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The object is visited at that time, and not when it was to be before.
    pub(super) fn set(&self, object: &Stored, at: Instant) {
        let is_first = self.with(|set| {
            set.put(Name::of(object), at);
            set.queue.first_key_value().is_some_and(|((first, _), _)| *first == at)
        });
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The object is visited now, or is gone.
    pub(super) fn cancel(&self, object: &Stored) {
        self.with(|set| set.take(&Name::of(object)));
    }

    /// Waits for the next alarm. One at a time may wait.
    pub(super) async fn next(&self) -> ObjectRef<Stored> {
        loop {
            let first = self.with(|set| {
                let (at, number) = *set.queue.keys().next()?;
                let due = at <= Instant::now();
                let name = if due { set.queue.remove(&(at, number)) } else { None };
                if let Some(name) = &name {
                    set.times.remove(name);
                }
                Some((at, name))
            });
            match first {
                Some((_, Some(due))) => {
                    let key = ObjectRef::new(&due.name);
                    return match &due.namespace {
                        Some(namespace) => key.within(namespace),
                        None => key,
                    };
                }
                Some((at, None)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use serde_json::json;

    use super::*;

    fn object(name: &str) -> Stored {
        let object = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": "team"}, "spec": {"image": "r.example.com/app:v1"}});
        Stored::of(serde_json::from_value(object).unwrap())
    }

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_come_in_the_order_of_their_times_and_not_before() {
        let (alarms, begin) = (Alarms::default(), Instant::now());
        for (name, seconds) in [("later", 20), ("soon", 10), ("too", 20)] {
            alarms.set(&object(name), after(seconds));
        }
        let mut came = Vec::new();
        for _ in 0..3 {
            let key = alarms.next().await;
            came.push((key.name, key.namespace, begin.elapsed().as_secs()));
        }
        let team = Some("team".to_owned());
        assert_eq!(came, [("soon".to_owned(), team.clone(), 10), ("later".to_owned(), team.clone(), 20), ("too".to_owned(), team, 20)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_time_that_was_set_is_the_one_that_counts() {
        let (alarms, begin) = (Alarms::default(), Instant::now());
        for seconds in [5, 60, 30] {
            alarms.set(&object("a"), after(seconds));
        }
        assert_eq!((alarms.next().await.name, begin.elapsed().as_secs()), ("a".to_owned(), 30));
        assert!(alarms.with(|set| set.times.is_empty() && set.queue.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_cancelled_never_comes() {
        let alarms = Alarms::default();
        alarms.set(&object("a"), after(1));
        alarms.cancel(&object("a"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(alarms.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_one_is_heard_by_who_waits_for_a_later_one_or_for_none() {
        let (alarms, begin) = (Arc::new(Alarms::default()), Instant::now());
        let waiting = tokio::spawn({
            let alarms = Arc::clone(&alarms);
            async move { [alarms.next().await.name, alarms.next().await.name] }
        });
        tokio::task::yield_now().await;
        alarms.set(&object("later"), after(100));
        tokio::task::yield_now().await;
        alarms.set(&object("sooner"), after(10));
        assert_eq!((waiting.await.unwrap(), begin.elapsed().as_secs()), (["sooner".to_owned(), "later".to_owned()], 100));
    }
}
