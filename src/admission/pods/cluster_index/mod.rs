//! What the cluster itself says: marks from the status of ImageAttachments, and the labels of namespaces. Watched, so that a
//! review asks nobody.
//!
//! Only trusted namespaces are believed (threat T24): a tenant's proxy or authority can make a registry say anything to the
//! tenant's own resources. A pod's own namespace is believed where it speaks against itself.

pub(crate) mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::admission::options::LifecycleType;
use crate::admission::pods::cluster_index::watch::Watched;
use crate::admission::pods::lifecycle_report::{Facts, OfPlatform};
use crate::admission::pods::mark::Mark;
use crate::admission::pods::workload::Nodes;
use crate::admission::review::single_flight::Flights;
use crate::api::{ImageAttachment, ImageAttachmentStatus, TargetKind, TargetState};
use crate::attachment::{Created, EndOfLifeDate};
use crate::service::Readiness;
use affix_registry::oci::{Digest, Reference};

/// The label that asks for a look at the images of pods.
const END_OF_LIFE: &str = "affix.dev/end-of-life";
/// The label that asks for digests.
const RESOLVE_DIGESTS: &str = "affix.dev/resolve-digests";

/// Questions about namespaces at once, how long each keeps its place at least, and how long an answer is believed.
const AT_ONCE: usize = 8;
const PACE: Duration = Duration::from_millis(100);
/// How long the API server may take for an answer, which others may wait for longer than whoever asked.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
const BELIEVED: Duration = Duration::from_secs(1);

/// What is done about a pod whose image is out of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Warn,
    Audit,
    Enforce,
}

/// What a namespace asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    /// About images out of life; `None`: nothing.
    pub(crate) end_of_life: Option<Mode>,
    /// Tags become digests.
    pub(crate) resolve_digests: bool,
}

impl Asked {
    fn by(labels: &BTreeMap<String, String>) -> Self {
        Self {
            end_of_life: match labels.get(END_OF_LIFE).map(String::as_str) {
                Some("enabled" | "warn") => Some(Mode::Warn),
                Some("audit") => Some(Mode::Audit),
                Some("enforce") => Some(Mode::Enforce),
                _ => None,
            },
            resolve_digests: labels
                .get(RESOLVE_DIGESTS)
                .is_some_and(|value| value == "enabled"),
        }
    }
}

/// One resource's word on one image.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    /// `host/repository`.
    name: String,
    facts: Facts,
}

/// Namespace and name of a resource.
type Speaker = (String, String);

/// What resources say.
#[derive(Default)]
struct Words {
    by: HashMap<Speaker, Vec<Word>>,
    /// Which resources speak of a digest.
    speakers: HashMap<Digest, Vec<Speaker>>,
}

impl Words {
    /// From now on `speaker` says this, and nothing that it has said before.
    fn set(&mut self, speaker: Speaker, words: Vec<Word>) {
        for word in self.by.remove(&speaker).into_iter().flatten() {
            if let Some(of) = self.speakers.get_mut(&word.facts.digest) {
                of.retain(|other| *other != speaker);
                if of.is_empty() {
                    self.speakers.remove(&word.facts.digest);
                }
            }
        }
        if words.is_empty() {
            return;
        }
        for word in &words {
            self.speakers
                .entry(word.facts.digest.clone())
                .or_default()
                .push(speaker.clone());
        }
        self.by.insert(speaker, words);
    }
}

/// What is known.
pub(crate) struct Knowledge {
    client: Client,
    types: Vec<LifecycleType>,
    trusted: Vec<String>,
    words: RwLock<Words>,
    namespaces: RwLock<HashMap<String, Asked>>,
    /// What a listing under way has shown so far: what it does not show is forgotten at its end, and not before.
    listed: Mutex<HashSet<Speaker>>,
    listed_namespaces: Mutex<HashSet<String>>,
    asking: Arc<Flights<String, Option<Asked>>>,
    places: Arc<Semaphore>,
}

impl Knowledge {
    pub(crate) fn new(client: Client, types: Vec<LifecycleType>, trusted: Vec<String>) -> Self {
        Self {
            client,
            types,
            trusted,
            words: RwLock::default(),
            namespaces: RwLock::default(),
            listed: Mutex::default(),
            listed_namespaces: Mutex::default(),
            asking: Flights::new(BELIEVED),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Watches, for ever; ready once it knows what there is.
    pub(crate) async fn learn(&self, readiness: &Readiness) {
        let (resources, namespaces) =
            (Api::all(self.client.clone()), Api::all(self.client.clone()));
        let resources = || {
            watcher::<DeserializeGuard<ImageAttachment>>(
                resources.clone(),
                watcher::Config::default(),
            )
            .default_backoff()
        };
        let namespaces = || {
            watcher::<PartialObjectMeta<Namespace>>(namespaces.clone(), watcher::Config::default())
                .default_backoff()
        };
        tokio::join!(
            Watched::ImageAttachments.follow(resources, readiness, |event| self.hear(event)),
            Watched::Namespaces.follow(namespaces, readiness, |event| self.label(event)),
            watch::bound(readiness),
        );
    }

    fn hear(&self, event: Event<DeserializeGuard<ImageAttachment>>) {
        let speaker = |object: &DeserializeGuard<ImageAttachment>| {
            (object.namespace().unwrap_or_default(), object.name_any())
        };
        let said = |object: &DeserializeGuard<ImageAttachment>| {
            object
                .0
                .as_ref()
                .map(|resource| words(resource, &self.types))
                .unwrap_or_default()
        };
        let set = |speaker, words| {
            self.words
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .set(speaker, words)
        };
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                set(speaker(&object), said(&object));
                listed.insert(speaker(&object));
            }
            Event::Apply(object) => set(speaker(&object), said(&object)),
            Event::Delete(object) => set(speaker(&object), Vec::new()),
            Event::InitDone => {
                let known: Vec<_> = self
                    .words
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .by
                    .keys()
                    .cloned()
                    .collect();
                for gone in known
                    .into_iter()
                    .filter(|speaker| !listed.contains(speaker))
                {
                    set(gone, Vec::new());
                }
                *listed = HashSet::new();
            }
        }
    }

    /// What is said of an image to a pod of `namespace`: by those who are trusted, and by the namespace itself.
    pub(crate) fn of(&self, reference: &Reference, digest: &Digest, namespace: &str) -> Said {
        let words = self.words.read().unwrap_or_else(PoisonError::into_inner);
        let Some(speakers) = words.speakers.get(digest) else {
            return Said::default();
        };
        let name = reference.name();
        let mut said = Said::default();
        for speaker in speakers {
            let trusted = self.trusted.contains(&speaker.0);
            if !trusted && speaker.0 != namespace {
                continue;
            }
            let place = if trusted {
                &mut said.trusted
            } else {
                &mut said.own
            };
            for word in words
                .by
                .get(speaker)
                .into_iter()
                .flatten()
                .filter(|word| word.name == name && word.facts.digest == *digest)
            {
                *place = Some(match place.take() {
                    Some(facts) => facts.merge(&word.facts),
                    None => word.facts.clone(),
                });
            }
        }
        said
    }

    fn label(&self, event: Event<PartialObjectMeta<Namespace>>) {
        let mut namespaces = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut listed = self
            .listed_namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut learn = |object: &PartialObjectMeta<Namespace>| match Asked::by(object.labels()) {
            asked if asked == Asked::default() => drop(namespaces.remove(&object.name_any())),
            asked => drop(namespaces.insert(object.name_any(), asked)),
        };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                learn(&object);
                listed.insert(object.name_any());
            }
            Event::Apply(object) => learn(&object),
            Event::Delete(object) => drop(namespaces.remove(&object.name_any())),
            Event::InitDone => {
                namespaces.retain(|name, _| listed.contains(name));
                *listed = HashSet::new();
            }
        }
    }

    /// What a namespace asks for; `None` where nobody says. The API server calls only for namespaces that ask for something, so one
    /// of which nothing is known is newer than the watch, and is asked about: at a pace that whoever calls with names of
    /// his own cannot turn against the API server. Who does not wait for his turn leaves nothing behind.
    pub(crate) async fn asked(&self, namespace: &str) -> Option<Asked> {
        let known = self
            .namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .copied();
        if known.is_some() {
            return known;
        }
        let (api, name) = (
            Api::<Namespace>::all(self.client.clone()),
            namespace.to_owned(),
        );
        if let Some(answer) = self.asking.known(&name) {
            return answer;
        }
        let place = Arc::clone(&self.places).acquire_owned().await;
        let ask = || {
            let name = name.clone();
            async move {
                let found = timeout(LONGEST, api.get_metadata_opt(&name)).await;
                tokio::spawn(async move {
                    sleep(PACE).await;
                    drop(place);
                });
                found.ok()?.ok().map(|found| {
                    found
                        .map(|found| Asked::by(found.labels()))
                        .unwrap_or_default()
                })
            }
        };
        self.asking
            .get(name.clone(), |_| true, ask)
            .await
            .0
            .flatten()
    }
}

/// What the cluster says of an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) trusted: Option<Facts>,
    own: Option<Facts>,
}

impl Said {
    /// Whether nobody else need be asked for a pod on `nodes`: every mark that counts for it is known from those who are
    /// trusted, or has passed by the word of the pod's own namespace.
    pub(crate) fn settles(&self, nodes: &Nodes, now: SignedDuration) -> Option<Facts> {
        if let Some(trusted) = self
            .trusted
            .as_ref()
            .filter(|facts| facts.counting(nodes).iter().all(Option::is_some))
        {
            return Some(trusted.clone());
        }
        let has_ended = |facts: &&Facts| {
            facts
                .counting(nodes)
                .iter()
                .all(|mark| mark.is_some_and(|mark| mark.has_ended(now)))
        };
        self.own.as_ref().filter(has_ended).cloned()
    }
}

/// What a resource's status says of images.
fn words(resource: &ImageAttachment, types: &[LifecycleType]) -> Vec<Word> {
    let (Some(status), Some(wanted)) = (&resource.status, &resource.spec.end_of_life) else {
        return Vec::new();
    };
    let counts = types.iter().any(|kind| {
        kind.artifact_type.as_str() == wanted.artifact_type()
            && *kind.annotation == *wanted.annotation()
    });
    let Ok(reference) = resource.spec.image.parse::<Reference>() else {
        return Vec::new();
    };
    if !counts || Some(status.observed_generation) != resource.metadata.generation {
        return Vec::new();
    }
    let name = reference.name();
    let facts = match &wanted.date {
        Some(date) => date
            .parse()
            .ok()
            .and_then(|date| marked(status, &date))
            .into_iter()
            .collect(),
        None => superseded(status),
    };
    facts
        .into_iter()
        .map(|facts| Word {
            name: name.clone(),
            facts,
        })
        .collect()
}

/// The image of status, with the mark on every target that is attached.
fn marked(status: &ImageAttachmentStatus, date: &EndOfLifeDate) -> Option<Facts> {
    let digest: Digest = status.image.as_ref()?.digest.parse().ok()?;
    let rows = status.targets.iter().filter_map(|row| {
        let created = row.created.as_ref().map(|created| Created::at(created.0));
        let mark = (row.state == TargetState::Attached).then(|| Mark {
            date: date.clone(),
            created,
        });
        Some((row, row.digest.parse::<Digest>().ok()?, mark))
    });
    let mut facts = Facts {
        digest,
        mark: None,
        platforms: Vec::new(),
    };
    for (row, digest, mark) in rows {
        if digest == facts.digest {
            facts.mark = mark;
        } else if let (TargetKind::Platform, Some(Ok(platform))) =
            (row.kind, row.platform.as_ref().map(|text| text.parse()))
        {
            facts.platforms.push(OfPlatform {
                platform,
                digest,
                mark,
            });
        }
    }
    let any = facts.mark.is_some() || facts.platforms.iter().any(|of| of.mark.is_some());
    any.then_some(facts)
}

/// The images that the tag has left and that carry their mark.
fn superseded(status: &ImageAttachmentStatus) -> Vec<Facts> {
    let rows = status
        .superseded
        .iter()
        .filter(|row| row.state == TargetState::Attached);
    rows.filter_map(|row| {
        let created = Created::at(Timestamp::from_second(row.moved_at.0.as_second()).ok()?);
        let mark = Mark {
            date: row.date.as_ref()?.parse().ok()?,
            created: Some(created),
        };
        Some(Facts {
            digest: row.digest.parse().ok()?,
            mark: Some(mark),
            platforms: Vec::new(),
        })
    })
    .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::pods::workload::Workload;
    use futures::FutureExt as _;
    use serde_json::{Value, json};

    fn digest() -> Digest {
        Digest::sha256(b"index")
    }

    fn knowledge() -> Knowledge {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let types = vec![
            "application/vnd.microsoft.artifact.lifecycle"
                .parse()
                .unwrap(),
        ];
        Knowledge::new(
            Client::try_from(nowhere).unwrap(),
            types,
            vec!["trusted".to_owned()],
        )
    }

    /// A resource that has marked the image; `change` makes another of it.
    fn marked(
        namespace: &str,
        name: &str,
        date: &str,
        change: impl Fn(&mut Value),
    ) -> DeserializeGuard<ImageAttachment> {
        let digest = digest().to_string();
        let reference = format!("registry.example.com/team/app@{digest}");
        let mut object = json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": namespace, "generation": 2},
            "spec": {"image": reference, "endOfLife": {"date": date}},
            "status": {
                "observedGeneration": 2, "image": {"reference": reference, "digest": digest, "mediaType": "a/b"},
                "targets": [{"kind": "Index", "digest": digest, "state": "Attached"}]
            }
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    /// Whether what is known settles the verdict on a pod of `namespace` that can land anywhere.
    fn settles(knowledge: &Knowledge, namespace: &str) -> bool {
        let image = format!("registry.example.com/team/app@{}", digest())
            .parse()
            .unwrap();
        let pod = serde_json::value::to_raw_value(&json!({"spec": {}})).unwrap();
        let now = "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_duration();
        knowledge
            .of(&image, &digest(), namespace)
            .settles(&Workload::read("Pod", &pod).unwrap().nodes, now)
            .is_some()
    }

    #[tokio::test]
    async fn trusted_namespaces_are_believed_the_pods_own_against_itself_and_no_other() {
        for (by, date, expected) in [
            ("trusted", "2025-03-20", [true, true]),
            ("trusted", "2030-03-20", [true, true]),
            ("own", "2025-03-20", [true, false]),
            ("own", "2030-03-20", [false, false]),
        ] {
            let knowledge = knowledge();
            knowledge.hear(Event::Apply(marked(by, "mark", date, |_| {})));
            assert_eq!(
                [settles(&knowledge, "own"), settles(&knowledge, "other")],
                expected,
                "{by} {date}"
            );
        }
    }

    #[tokio::test]
    async fn a_status_that_lags_or_is_of_another_image_or_type_is_no_word() {
        for (what, change) in [
            ("generation", json!(3)),
            ("image", json!("registry.example.com/team/other:v1")),
            ("type", json!("application/vnd.other")),
            ("state", json!("Failed")),
        ] {
            let knowledge = knowledge();
            knowledge.hear(Event::Apply(marked(
                "trusted",
                "mark",
                "2025-03-20",
                |object| {
                    let pointer = match what {
                        "generation" => "/metadata/generation",
                        "image" => "/spec/image",
                        "state" => "/status/targets/0/state",
                        _ => {
                            object
                                .pointer_mut("/spec/endOfLife")
                                .unwrap()
                                .as_object_mut()
                                .unwrap()
                                .insert("artifactType".to_owned(), change.clone());
                            return;
                        }
                    };
                    *object.pointer_mut(pointer).unwrap() = change.clone();
                },
            )));
            assert!(!settles(&knowledge, "own"), "{what}");
        }
    }

    #[tokio::test]
    async fn what_is_known_stays_while_a_watch_begins_anew_and_what_it_does_not_show_is_forgotten()
    {
        let knowledge = knowledge();
        let mark = |name| marked("trusted", name, "2025-03-20", |_| {});
        let label = |name: &str| {
            let object = json!({"metadata": {"name": name, "labels": {END_OF_LIFE: "enforce"}}});
            serde_json::from_value::<PartialObjectMeta<Namespace>>(object).unwrap()
        };
        let known = |name: &str| knowledge.namespaces.read().unwrap().contains_key(name);
        for event in [
            Event::Init,
            Event::InitApply(mark("first")),
            Event::InitDone,
            Event::Init,
        ] {
            knowledge.hear(event);
        }
        for event in [
            Event::Init,
            Event::InitApply(label("first")),
            Event::InitDone,
            Event::Init,
        ] {
            knowledge.label(event);
        }
        assert!(settles(&knowledge, "own") && known("first"));
        knowledge.hear(Event::InitDone);
        knowledge.label(Event::InitDone);
        assert!(!settles(&knowledge, "own") && !known("first"));
        for event in [
            Event::Init,
            Event::InitApply(mark("second")),
            Event::InitDone,
            Event::Apply(mark("third")),
            Event::Delete(mark("third")),
        ] {
            knowledge.hear(event);
        }
        assert!(settles(&knowledge, "own"));
        knowledge.hear(Event::Delete(mark("second")));
        assert!(!settles(&knowledge, "own"));
    }

    #[test]
    fn what_is_heard_and_what_is_asked_at_the_same_time_do_not_wait_for_each_other_for_ever() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let knowledge = Arc::new(runtime.block_on(async { knowledge() }));
        let (done, ended) = std::sync::mpsc::channel();
        let hearing = (Arc::clone(&knowledge), done.clone());
        std::thread::spawn(move || {
            let (knowledge, done) = hearing;
            let mark =
                serde_json::to_value(marked("trusted", "mark", "2025-03-20", |_| {}).0.unwrap())
                    .unwrap();
            for _ in 0..2_000 {
                knowledge.hear(Event::Apply(serde_json::from_value(mark.clone()).unwrap()));
            }
            done.send("heard")
        });
        std::thread::spawn(move || {
            for _ in 0..20_000 {
                settles(&knowledge, "own");
            }
            done.send("asked")
        });
        for _ in 0..2 {
            // Nothing here takes long: whoever is not done by then never will be.
            assert!(
                ended.recv_timeout(Duration::from_mins(2)).is_ok(),
                "they wait for each other"
            );
        }
    }

    /// As [`knowledge`], of an API server that takes connections and never answers.
    async fn knowledge_of_a_silent_server() -> (Knowledge, tokio::net::TcpListener) {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(
            format!("http://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
        );
        (
            Knowledge::new(Client::try_from(config).unwrap(), Vec::new(), Vec::new()),
            silent,
        )
    }

    #[tokio::test]
    async fn who_asks_about_a_namespace_and_leaves_before_his_turn_leaves_nothing_behind() {
        let (knowledge, _silent) = knowledge_of_a_silent_server().await;
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let turns = Arc::clone(&knowledge.places)
            .try_acquire_many_owned(u32::try_from(AT_ONCE).unwrap())
            .unwrap();
        let before = tasks();
        for nth in 0..1000 {
            assert_eq!(
                knowledge.asked(&format!("made-up-{nth}")).now_or_never(),
                None
            );
        }
        assert_eq!((tasks(), knowledge.places.available_permits()), (before, 0));
        drop(turns);
        assert_eq!(knowledge.places.available_permits(), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_takes_no_turn_for_ever() {
        let (knowledge, _silent) = knowledge_of_a_silent_server().await;
        let names: Vec<String> = (0..3 * AT_ONCE).map(|nth| format!("new-{nth}")).collect();
        let asked = futures::future::join_all(names.iter().map(|name| knowledge.asked(name)));
        let asked = timeout(Duration::from_hours(1), asked).await.unwrap();
        assert!(asked.iter().all(Option::is_none), "{asked:?}");
    }
}
