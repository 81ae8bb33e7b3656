//! Two replicas under changes without an end, while whoever leads is ended, killed and paused.
//!
//! `AFFIX_SOAK` says for how many seconds, and then the Lease has the times that it has in production.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::registry::Registry;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::replicas::{SHORT, held};
use crate::support::controller::Controller;
use crate::support::images::{SIGNATURE, registries};
use crate::support::namespace::{Namespace, is_ready};

/// How long the short form lasts, where that is enough to see each kind of trouble.
const SHORT_FORM: Duration = Duration::from_secs(25);
/// The kinds of trouble.
const KINDS: usize = 3;
/// How long a busy machine may take to see all of them.
const LONGEST: Duration = Duration::from_secs(180);
/// How often something changes.
const PACE: Duration = Duration::from_millis(250);
/// The annotation that changes.
const NOTE: &str = "demo.affix.dev/note";

/// A resource, and all that is to become of it.
struct Wanted {
    registry: usize,
    repository: String,
    note: String,
    image: Pushed,
    /// Every manifest that its tag ever reached.
    subjects: BTreeSet<String>,
}

/// The users.
struct Users<'a> {
    namespace: &'a Namespace,
    registries: &'a [(Registry, &'static str); 2],
    wanted: RefCell<BTreeMap<String, Wanted>>,
    changes: Cell<usize>,
    /// The trouble is over, and so are the changes.
    over: Cell<bool>,
}

impl Users<'_> {
    async fn push(&self, registry: usize, repository: &str) -> Pushed {
        let nth = self.changes.get();
        let index = Index::new()
            .image(Image::new("linux/amd64", &format!("b {nth}")))
            .image(Image::new("linux/arm64", &format!("c {nth}")));
        index
            .push(
                &self.registries[registry].0.raw().unwrap(),
                repository,
                "v1",
            )
            .await
            .unwrap()
    }

    async fn create(&self, nth: usize) {
        let (registry, repository) = (nth % 2, format!("team/app-{nth}"));
        let image = self.push(registry, &repository).await;
        let subjects = subjects(&image).collect();
        self.wanted.borrow_mut().insert(
            format!("soak-{nth}"),
            Wanted {
                registry,
                repository,
                note: "0".to_owned(),
                image,
                subjects,
            },
        );
        self.apply(&format!("soak-{nth}")).await;
    }

    async fn apply(&self, name: &str) {
        let spec = {
            let wanted = self.wanted.borrow();
            let wanted = &wanted[name];
            json!({
                "image": wanted.image.tagged(), "insecure": true, "interval": "1s",
                "artifact": {"artifactType": SIGNATURE, "annotations": {NOTE: wanted.note}},
            })
        };
        self.namespace.apply(name, spec).await;
    }

    /// One change after the other while there is trouble: new resources, new notes, tags that move.
    async fn change(&self) {
        while !self.over.get() {
            let nth = self.changes.replace(self.changes.get() + 1);
            let count = self.wanted.borrow().len();
            let name = format!("soak-{}", nth % count);
            match nth % 5 {
                0 if count < 40 && nth.is_multiple_of(20) => self.create(count).await,
                0 | 1 => {
                    let (registry, repository) = {
                        let wanted = self.wanted.borrow();
                        (wanted[&name].registry, wanted[&name].repository.clone())
                    };
                    let image = self.push(registry, &repository).await;
                    let mut wanted = self.wanted.borrow_mut();
                    let wanted = wanted.get_mut(&name).unwrap();
                    wanted.subjects.extend(subjects(&image));
                    wanted.image = image;
                }
                _ => {
                    self.wanted.borrow_mut().get_mut(&name).unwrap().note = nth.to_string();
                    self.apply(&name).await;
                }
            }
            sleep(PACE).await;
        }
    }

    /// Waits until everything is as the users want it, and looks for what is there twice.
    async fn check(self) {
        for (name, wanted) in &self.wanted.into_inner() {
            let digest = wanted.image.digest();
            let is_done = |object: &affix::api::ImageAttachment| {
                let status = object.status.as_ref();
                is_ready(object)
                    && status
                        .and_then(|status| status.image.as_ref())
                        .is_some_and(|image| image.digest == digest)
            };
            self.namespace.wait(name, "done", is_done).await;
            let registry = &self.registries[wanted.registry].0;
            for subject in &wanted.subjects {
                let notes = notes(registry, &wanted.repository, subject).await;
                let different: BTreeSet<&String> = notes.iter().collect();
                assert_eq!(
                    different.len(),
                    notes.len(),
                    "{name}: {subject} has an attachment twice: {notes:?}"
                );
            }
            for subject in subjects(&wanted.image) {
                let notes = notes(registry, &wanted.repository, &subject).await;
                assert_eq!(notes, [wanted.note.as_str()], "{name}: {subject}");
            }
        }
    }
}

fn subjects(image: &Pushed) -> impl Iterator<Item = String> {
    std::iter::once(image.digest().to_owned()).chain(
        image
            .entries
            .iter()
            .map(|entry| entry.descriptor.digest.clone()),
    )
}

/// What the attachments of a subject say, as the registry lists them.
async fn notes(registry: &Registry, repository: &str, subject: &str) -> Vec<String> {
    let raw = registry.raw().unwrap();
    let mut listing = raw.referrers(repository, subject).await.unwrap();
    if listing.status.as_u16() == 404 {
        listing = raw
            .manifest(repository, &subject.replace(':', "-"))
            .await
            .unwrap();
    }
    if listing.status.as_u16() == 404 {
        return Vec::new();
    }
    let listing = listing.json().unwrap();
    let entries = listing["manifests"].as_array().cloned().unwrap_or_default();
    let ours = entries
        .iter()
        .filter(|entry| entry["artifactType"] == SIGNATURE);
    ours.map(|entry| {
        entry["annotations"][NOTE]
            .as_str()
            .unwrap_or_else(|| panic!("{entry}"))
            .to_owned()
    })
    .collect()
}

/// How long it took from each kind of trouble until another replica led.
type Took = BTreeMap<&'static str, Vec<Duration>>;
/// Replicas by the beginning of their identity.
type Replicas = BTreeMap<String, Controller>;

/// A replica, by the beginning of its identity.
async fn replica(namespace: &Namespace, name: &str, times: &[&str]) -> Controller {
    let kubeconfig = namespace.plane.kubeconfig();
    let flags = [
        &[
            "--leader-elect",
            "--leader-election-namespace",
            &namespace.name,
        ],
        times,
    ]
    .concat();
    Controller::start_in(
        namespace,
        &flags,
        &[
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
            ("HOSTNAME", name),
        ],
    )
    .await
}

/// Ends, kills and pauses whoever leads, in turn, for `time` and until each has been; answers with how long each took until another led,
/// and with who is left.
async fn trouble(
    namespace: &Namespace,
    times: &[&str],
    pause: Duration,
    time: Duration,
) -> (Took, Replicas) {
    let began = Instant::now();
    let (mut took, mut replicas) = (Took::new(), Replicas::new());
    for name in ["pod-0", "pod-1"] {
        replicas.insert(name.to_owned(), replica(namespace, name, times).await);
    }
    for nth in 0.. {
        sleep(Duration::from_secs(2)).await;
        if began.elapsed() > time && (took.len() == KINDS || began.elapsed() > time.max(LONGEST)) {
            break;
        }
        let (leader, _) = held(namespace, |_| true).await;
        let name = leader.split('_').next().unwrap().to_owned();
        let mut victim = replicas
            .remove(&name)
            .unwrap_or_else(|| panic!("{leader} leads, and is none of {:?}", replicas.keys()));
        let another = held(namespace, |holder| holder != leader);
        let (what, (_, time)) = match nth % 3 {
            0 => ("SIGTERM", tokio::join!(victim.terminate(), another).1),
            1 => ("SIGKILL", tokio::join!(victim.kill(), another).1),
            _ => {
                victim.pause();
                let time = another.await;
                sleep(pause).await;
                victim.resume();
                replicas.insert(name, victim);
                ("SIGSTOP", time)
            }
        };
        took.entry(what).or_default().push(time);
        if replicas.len() < 2 {
            let name = format!("pod-{}", nth + 2);
            replicas.insert(name.clone(), replica(namespace, &name, times).await);
        }
    }
    (took, replicas)
}

#[tokio::test]
async fn two_replicas_miss_nothing_and_attach_nothing_twice_when_leaders_change() {
    let namespace = Namespace::new("soak").await;
    let registries = registries(&namespace.tools).await;
    let soak = std::env::var("AFFIX_SOAK").ok().map(|seconds| {
        Duration::from_secs(seconds.parse().expect("AFFIX_SOAK is a number of seconds"))
    });
    let (time, times, pause): (Duration, &[&str], Duration) = match soak {
        Some(time) => (time, &[], Duration::from_secs(3)),
        None => (SHORT_FORM, &SHORT, Duration::from_millis(500)),
    };
    let users = Users {
        namespace: &namespace,
        registries: &registries,
        wanted: RefCell::default(),
        changes: Cell::new(0),
        over: Cell::new(false),
    };
    for nth in 0..6 {
        users.create(nth).await;
    }
    let trouble = async {
        let trouble = trouble(&namespace, times, pause, time).await;
        users.over.set(true);
        trouble
    };
    let ((), (took, replicas)) = tokio::join!(users.change(), trouble);
    let (changes, resources) = (users.changes.get(), users.wanted.borrow().len());
    users.check().await;
    println!("{changes} changes on {resources} resources in {time:?}, each done and none doubled");
    for (what, times) in &took {
        println!("after {what} another replica led within {times:?}");
    }
    assert!(took.len() == KINDS && replicas.len() == 2, "{took:?}");
    if soak.is_some() {
        let median = |what: &str| {
            let mut times = took[what].clone();
            times.sort();
            times[times.len() / 2]
        };
        assert!(median("SIGTERM") <= Duration::from_secs(2), "{took:?}");
        assert!(median("SIGKILL") <= Duration::from_secs(15), "{took:?}");
    }
    namespace.check_rules().await;
}
