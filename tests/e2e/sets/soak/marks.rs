//! Many repositories of one set: exactly what is out of life is marked, by a reader of its own that knows only the registry, and a new
//! minor costs exactly the difference.
//!
//! With `AFFIX_SOAK` there are 40 repositories with 50 versions each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Matcher, Op, Referrers, Store};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::is_whole;
use crate::sets::{Sets, ready_of};
use crate::support::controller::Controller;
use crate::support::images::scriptable;
use crate::support::namespace::{Namespace, is_ready};

const PLATFORMS: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"];
/// The time for all children, on a busy machine.
const LONG: Duration = Duration::from_mins(15);
const LOOK: Duration = Duration::from_millis(500);

/// Returns the number of repositories, and of patches of each minor.
fn size() -> (usize, u64) {
    if is_whole() { (40, 5) } else { (4, 2) }
}

fn repository(nth: usize) -> String {
    format!("team/app-{nth}")
}

/// Pushes a version as an index with four platforms. Three of them have manifests of other versions: of the minor, of two minors that
/// follow each other, and of the whole repository.
fn push(registry: &HostileRegistry, repository: &str, (major, minor, patch): (u64, u64, u64)) {
    let store = registry.store();
    let seeds = [
        format!("{major}.{minor}.{patch}"),
        format!("{major}.{minor}"),
        format!("{major}.{}", minor.div_ceil(2)),
        "base".to_owned(),
    ];
    let mut image = registry.image(repository, &format!("v{major}.{minor}.{patch}"));
    for (platform, seed) in PLATFORMS.into_iter().zip(&seeds) {
        let part = registry.image(repository, "part").platform(platform);
        let part = part.seed(seed).push();
        image = image.entry(&part.children[0].entry);
        store.delete_manifest(repository, &part.digest);
    }
    image.push();
}

/// Fills a repository: one or two majors, and tags beside the versions.
fn fill(registry: &HostileRegistry, nth: usize, patches: u64) {
    let (name, store) = (repository(nth), registry.store());
    let majors = match nth % 2 {
        0 => vec![(1, 10)],
        _ => vec![(1, 5), (2, 5)],
    };
    for (major, minors) in &majors {
        for minor in 0..*minors {
            for patch in 0..patches {
                push(registry, &name, (*major, minor, patch));
            }
        }
    }
    let point = |tag: &str, to: &str| {
        let digest = store.tag(&name, to).unwrap();
        store.put_tag(&name, tag, &digest);
    };
    let newest = majors.last().unwrap();
    point("latest", &format!("v{}.{}.0", newest.0, newest.1 - 1));
    // Two versions of one image, both out of life; and a version out of life whose image another tag keeps in use.
    point("1.0.0", "v1.0.0");
    if nth.is_multiple_of(3) {
        point("stable", "v1.1.0");
    }
    if nth.is_multiple_of(4) {
        point("v1.0.99", &format!("v1.{}.0", majors[0].1 - 1));
        point(&format!("v1.{}.0-rc.1", majors[0].1), "v1.1.1");
    }
}

/// The reader: it knows the registry and the rule, and nothing of affix.
struct Reader(Store);

/// A repository as the reader finds it.
#[derive(Default)]
struct Found {
    /// The images all of whose tags are out of life.
    images: BTreeSet<String>,
    /// The manifests that these reach and nothing alive reaches.
    manifests: BTreeSet<String>,
    /// The manifests that any tag reaches.
    all: BTreeSet<String>,
}

impl Reader {
    /// Major, minor and whether it is a release.
    fn version(tag: &str) -> Option<(u64, u64, bool)> {
        let (numbers, prerelease) = tag.split_once('-').unwrap_or((tag, ""));
        let numbers: Vec<u64> = numbers
            .trim_start_matches('v')
            .split('.')
            .map_while(|number| number.parse().ok())
            .collect();
        match numbers[..] {
            [major, minor, _] => Some((major, minor, prerelease.is_empty())),
            _ => None,
        }
    }

    fn reach(&self, repository: &str, digest: &str) -> BTreeSet<String> {
        let index = self.0.manifest(repository, digest).unwrap().json();
        let entries = index["manifests"].as_array().unwrap();
        let entries = entries
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap());
        entries.chain([digest]).map(str::to_owned).collect()
    }

    /// Looks at a repository in which the newest three minors of each major are alive.
    fn look(&self, repository: &str) -> Found {
        let is_image = |tag: &String| !tag.starts_with("sha256-");
        let tags: Vec<String> = self
            .0
            .tags(repository)
            .into_iter()
            .filter(is_image)
            .collect();
        let mut minors: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (major, minor, is_release) in tags.iter().filter_map(|tag| Self::version(tag)) {
            if is_release {
                minors.entry(major).or_default().insert(minor);
            }
        }
        let is_dead = |tag: &str| {
            Self::version(tag).is_some_and(|(major, minor, _)| {
                let newer = minors[&major].iter().filter(|other| **other > minor);
                newer.count() >= 3
            })
        };
        let (mut dead, mut alive) = (BTreeSet::new(), BTreeSet::new());
        for tag in &tags {
            let digest = self.0.tag(repository, tag).unwrap();
            if is_dead(tag) { &mut dead } else { &mut alive }.insert(digest);
        }
        let reach = |images: &BTreeSet<String>| -> BTreeSet<String> {
            let images = images.iter();
            images
                .flat_map(|image| self.reach(repository, image))
                .collect()
        };
        let (of_dead, of_alive) = (reach(&dead), reach(&alive));
        Found {
            images: dead.difference(&alive).cloned().collect(),
            manifests: of_dead.difference(&of_alive).cloned().collect(),
            all: of_dead.union(&of_alive).cloned().collect(),
        }
    }

    fn look_at_all(&self, repositories: usize) -> BTreeMap<String, Found> {
        let names = (0..repositories).map(repository);
        names.map(|name| (name.clone(), self.look(&name))).collect()
    }
}

/// Returns the marks of a manifest, as the registry lists them.
fn marks(registry: &HostileRegistry, repository: &str, digest: &str) -> Vec<Value> {
    let mut is_api = false;
    registry.quirks(|quirks| is_api = quirks.referrers == Referrers::Api);
    let store = registry.store();
    if !is_api {
        return store.fallback_entries(repository, digest);
    }
    let referrers = store.referrers(repository, digest).into_iter();
    referrers.map(|referrer| referrer.json()).collect()
}

/// Checks that exactly these manifests are marked, each once.
fn check(registry: &HostileRegistry, found: &BTreeMap<String, Found>) {
    for (name, found) in found {
        for digest in &found.all {
            let marks = marks(registry, name, digest);
            let expected = usize::from(found.manifests.contains(digest));
            assert_eq!(marks.len(), expected, "{name}@{digest}: {marks:#?}");
        }
    }
}

fn images(found: &BTreeMap<String, Found>) -> usize {
    found.values().map(|found| found.images.len()).sum()
}

/// Returns the pushes of marks, and checks that nothing else was changed.
fn pushes(registry: &HostileRegistry) -> usize {
    let deleted = registry.count(Op::ManifestDelete) + registry.count(Op::BlobDelete);
    assert_eq!(deleted, 0);
    let pushes = Matcher::on(Op::ManifestPut).with_subject();
    registry.requests_that(&pushes).len()
}

/// Waits until so many children are ready.
async fn ready(namespace: &Namespace, sets: &Sets<'_>, name: &str, count: usize) {
    let (deadline, expected) = (Instant::now() + LONG, format!("{count}/{count}"));
    loop {
        let set = sets.get(name).await;
        let status = set.status.clone().unwrap_or_default();
        let verdict = ready_of(&set);
        if status.ready.as_ref() == Some(&expected) && verdict == Some(("True", "Attached")) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{expected}: {:?}, {:#?}",
            status.ready,
            status.conditions
        );
        sleep(LOOK).await;
    }
    let children = sets.children(name).await;
    assert_eq!(children.len(), count);
    assert!(children.iter().all(is_ready), "{}", namespace.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_what_is_out_of_life_is_marked_and_a_new_minor_is_the_difference() {
    let (repositories, patches) = size();
    let namespace = Namespace::new("set-scale").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    let registries = scriptable().await;
    // The whole form has one registry, with the referrers API.
    let registries = if patches == 5 {
        &registries[..1]
    } else {
        &registries[..]
    };
    for (nth, registry) in registries.iter().enumerate() {
        let name = format!("trains-{nth}");
        for nth in 0..repositories {
            fill(registry, nth, patches);
        }
        let reader = Reader(registry.store());
        let before = reader.look_at_all(repositories);
        let names = (0..repositories).map(|nth| registry.reference(&repository(nth)));
        let spec = json!({
            "repositories": names.collect::<Vec<_>>(),
            "tags": {"semver": ">=1.0.0-0"},
            "immutable": true,
            "interval": "12h",
            "lifecycle": {"keep": {"minors": 3}, "gracePeriod": "720h", "settle": "0s", "maxNewMarks": 5000},
            "template": {"spec": {"insecure": true, "endOfLife": {}}},
        });
        sets.apply(&name, spec).await;
        ready(&namespace, &sets, &name, images(&before)).await;
        check(registry, &before);
        let all: usize = before.values().map(|found| found.manifests.len()).sum();
        assert_eq!(pushes(registry), all);

        // A new minor in every second repository.
        for nth in (0..repositories).step_by(2) {
            push(registry, &repository(nth), (1, 10, 0));
        }
        let after = reader.look_at_all(repositories);
        let more: usize = after
            .values()
            .map(|found| found.manifests.len())
            .sum::<usize>()
            - all;
        assert!(
            more > 0
                && before
                    .iter()
                    .all(|(name, found)| found.manifests.is_subset(&after[name].manifests))
        );
        registry.clear();
        for pass in 1..=3 {
            sets.request(&name, &format!("pass {pass}")).await;
            ready(&namespace, &sets, &name, images(&after)).await;
            assert_eq!(pushes(registry), more, "after pass {pass}");
            assert_eq!(registry.count(Op::TagList), pass * repositories);
        }
        let heads = registry.requests_that(&Matcher::on(Op::ManifestHead).reference("v1.10.0"));
        assert_eq!(
            heads.len(),
            repositories.div_ceil(2),
            "each new tag is resolved once"
        );
        check(registry, &after);
    }
    sets.check_rules().await;
    drop(controller);
}
