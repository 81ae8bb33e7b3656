#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test that panics fails, as it should"
)]

mod properties;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::api::{CycleState, ImageAttachment, ImageAttachmentSet, Reason, RepositoryStatus};
use crate::attachment::Problem;
use affix_registry::oci::{Digest, Tag};

pub(super) const REPOSITORY: &str = "registry.example.com/team/app";

pub(super) fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

pub(super) fn start() -> Timestamp {
    "2026-11-29T00:00:00Z".parse().unwrap()
}

pub(super) fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

pub(super) fn policy(tags: Value, lifecycle: Value) -> SetPolicy {
    let set: ImageAttachmentSet = serde_json::from_value(json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": "releases"},
        "spec": {"repositories": [REPOSITORY], "tags": tags, "lifecycle": lifecycle, "template": {"spec": {"endOfLife": {}}}}
    }))
    .unwrap();
    SetPolicy::parse(&set.spec).unwrap()
}

/// A repository with its set: what the registry has, and what the cluster remembers.
#[derive(Clone)]
pub(super) struct World {
    pub(super) policy: SetPolicy,
    /// The tags with the names of their images.
    pub(super) tags: BTreeMap<Tag, String>,
    /// The names of the platform manifests of each image.
    pub(super) platforms: BTreeMap<String, Vec<String>>,
    pub(super) status: Option<RepositoryStatus>,
    pub(super) children: BTreeMap<String, ImageAttachment>,
    pub(super) now: Timestamp,
    pub(super) confirmed: Option<usize>,
}

impl World {
    pub(super) fn new(policy: SetPolicy) -> Self {
        Self {
            policy,
            tags: BTreeMap::new(),
            platforms: BTreeMap::new(),
            status: None,
            children: BTreeMap::new(),
            now: start(),
            confirmed: None,
        }
    }

    /// Pushes an image with platforms and tags it.
    pub(super) fn push(&mut self, tag: &str, image: &str, platforms: &[&str]) -> &mut Self {
        self.tags.insert(tag.parse().unwrap(), image.to_owned());
        let platforms = platforms.iter().map(ToString::to_string).collect();
        self.platforms.insert(image.to_owned(), platforms);
        self
    }

    /// Pushes an image of its own for each tag.
    pub(super) fn release(&mut self, tags: &[&str]) -> &mut Self {
        for tag in tags {
            let image = format!("image-{tag}");
            self.push(tag, &image, &[&format!("{tag}-amd64")]);
        }
        self
    }

    pub(super) fn remove(&mut self, tag: &str) -> &mut Self {
        self.tags.remove(&tag.parse().unwrap()).unwrap();
        self
    }

    pub(super) fn reach(&self, image: &str) -> BTreeSet<Digest> {
        let platforms = self.platforms[image].iter();
        let names = platforms.map(String::as_str).chain([image]);
        names.map(digest).collect()
    }

    /// Runs one pass and applies its plan, as the controller does.
    pub(super) fn pass(&mut self) -> SetPlan {
        let existing: Vec<ExistingChild> =
            self.children.values().flat_map(ExistingChild::of).collect();
        let marked = existing.iter().map(|child| child.root.clone()).collect();
        let tags: BTreeMap<Tag, Digest> = (self.tags.iter())
            .filter(|(tag, _)| self.policy.considers(tag))
            .map(|(tag, image)| (tag.clone(), digest(image)))
            .collect();
        let state = TagState::observe(
            &self.policy,
            &tags,
            self.tags.len(),
            self.status.as_ref(),
            &marked,
            self.now,
        );
        let reaches = self.platforms.keys();
        let reaches = reaches.map(|image| (digest(image), self.reach(image)));
        let wanted = state.roots_to_read(!existing.is_empty());
        let reaches = reaches.filter(|(root, _)| wanted.contains(root)).collect();
        self.carry_out(Ok(state), reaches, &existing)
    }

    /// Runs one pass in which a page of the list of tags fails.
    pub(super) fn failed_pass(&mut self) -> SetPlan {
        let existing: Vec<ExistingChild> =
            self.children.values().flat_map(ExistingChild::of).collect();
        let problem = Problem::new(Reason::RegistryUnavailable, "a page is missing");
        self.carry_out(Err(problem), BTreeMap::new(), &existing)
    }

    fn carry_out(
        &mut self,
        state: Result<TagState, Problem>,
        reaches: BTreeMap<Digest, BTreeSet<Digest>>,
        existing: &[ExistingChild],
    ) -> SetPlan {
        let plan = plan(SetInput {
            name: "releases",
            policy: &self.policy,
            repositories: vec![RepositoryInput {
                state,
                previous: self.status.as_ref(),
                reaches,
                recovered: BTreeMap::new(),
            }],
            children: existing,
            confirmed: self.confirmed,
        });
        for removal in &plan.removals {
            self.children.remove(&removal.name).unwrap();
        }
        for child in &plan.children {
            let name = child.object.metadata.name.clone().unwrap();
            self.children.insert(name, child.object.clone());
        }
        let known: BTreeSet<String> = self.children.keys().cloned().collect();
        let planned = plan.children.iter();
        let planned = planned.map(|child| child.object.metadata.name.clone().unwrap());
        assert_eq!(
            known,
            planned.chain(plan.kept.iter().cloned()).collect(),
            "each child is planned, kept or removed"
        );
        self.status = plan.repositories.first().cloned();
        plan
    }

    /// Runs passes until everything of this moment has settled. The clock stands a day later.
    pub(super) fn settle(&mut self) -> SetPlan {
        self.pass();
        self.now = self.now.checked_add(hours(24)).unwrap();
        self.pass()
    }

    /// Returns the marked manifests with their dates.
    pub(super) fn marks(&self) -> BTreeMap<Digest, String> {
        let mut marks = BTreeMap::new();
        for child in self.children.values() {
            let date = child.spec.end_of_life.as_ref().unwrap().date.clone();
            let digests = child.spec.targets.as_ref().unwrap().digests.clone();
            for text in digests.unwrap() {
                let before = marks.insert(text.parse().unwrap(), date.clone().unwrap());
                assert_eq!(before, None, "{text} is in two children");
            }
        }
        marks
    }

    pub(super) fn marked(&self, names: &[&str]) {
        let expected: BTreeSet<Digest> = names.iter().map(|name| digest(name)).collect();
        let marks: BTreeSet<Digest> = self.marks().into_keys().collect();
        let name = |digest: &Digest| {
            let platforms = self.platforms.values().flatten();
            let all = self.platforms.keys().chain(platforms);
            all.map(String::clone)
                .find(|name| super::tests::digest(name) == *digest)
        };
        let names: Vec<_> = marks.iter().map(name).collect();
        assert_eq!(marks, expected, "marked: {names:?}");
    }
}

fn minors(count: i64) -> SetPolicy {
    policy(
        json!({"semver": ">=1.0.0-0"}),
        json!({"keep": {"minors": count}, "gracePeriod": "720h"}),
    )
}

#[test]
fn only_manifests_that_nothing_alive_reaches_are_marked() {
    let mut world = World::new(minors(1));
    world.push("v1.0.0", "a1a1", &["b1b1", "c1c1"]);
    world.push("v1.1.0", "z1z1", &["r1r1", "c1c1"]);
    assert_eq!(world.pass().new_marks, 0);
    world.marked(&[]);
    let plan = world.settle();
    world.marked(&["a1a1", "b1b1"]);
    let child = world.children.values().next().unwrap();
    assert_eq!(
        child.spec.image,
        format!("{REPOSITORY}:v1.0.0@{}", digest("a1a1"))
    );
    let annotations = child.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["affix.dev/tags"], "v1.0.0");
    assert_eq!(
        child.metadata.labels.as_ref().unwrap()["affix.dev/set"],
        "releases"
    );
    assert_eq!(world.marks()[&digest("a1a1")], "2026-12-29T00:00:00Z");
    let states: Vec<_> = plan
        .cycles
        .iter()
        .map(|cycle| (cycle.cycle.as_str(), cycle.state, cycle.date.as_deref()))
        .collect();
    assert_eq!(
        states,
        [
            ("1.1", CycleState::Alive, None),
            ("1.0", CycleState::EndOfLife, Some("2026-12-29T00:00:00Z"))
        ]
    );
}

#[test]
fn each_level_of_keep_counts_within_the_level_above() {
    let mut world = World::new(policy(
        json!({}),
        json!({"keep": {"majors": 2, "minors": 2, "patches": 1}, "gracePeriod": "0s", "alive": ["1.0.*"]}),
    ));
    world.release(&[
        "0.9.0",
        "1.0.0",
        "1.1.0",
        "1.2.0",
        "1.3.0",
        "1.3.1",
        "2.0.0",
        "2.0.1-rc.1",
        "3.0.0-rc.1",
        "latest",
    ]);
    world.settle();
    let expected: Vec<String> = ["0.9.0", "1.1.0", "1.3.0"]
        .iter()
        .flat_map(|tag| [format!("image-{tag}"), format!("{tag}-amd64")])
        .collect();
    world.marked(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_calendar_wins_over_keep_and_alive() {
    let mut world = World::new(policy(
        json!({}),
        json!({
            "keep": {"minors": 1}, "gracePeriod": "0s", "alive": ["1.8.*"],
            "cycles": [{"versions": "1.8.x", "date": "2026-06-30"}, {"versions": "1.7.x", "date": "2027-01-01"}]
        }),
    ));
    world.release(&["1.7.0", "1.8.0", "1.8.1-rc.1", "1.9.0", "1.6.0"]);
    let plan = world.pass();
    assert_eq!(world.marks()[&digest("image-1.8.0")], "2026-06-30");
    assert_eq!(world.marks()[&digest("image-1.8.1-rc.1")], "2026-06-30");
    assert!(!world.marks().contains_key(&digest("image-1.7.0")));
    let alive = plan
        .cycles
        .iter()
        .find(|cycle| cycle.cycle == "1.7")
        .unwrap();
    assert_eq!(
        (alive.state, alive.date.as_deref()),
        (CycleState::Alive, Some("2027-01-01"))
    );
    world.now = "2027-01-01T00:00:00Z".parse().unwrap();
    world.pass();
    assert_eq!(world.marks()[&digest("image-1.7.0")], "2027-01-01");
}

#[test]
fn a_short_fall_leaves_no_trace() {
    let mut world = World::new(minors(1));
    world.release(&["1.0.0"]);
    world.pass();
    world.release(&["1.1.0"]);
    world.pass();
    world.now = world.now.checked_add(hours(23)).unwrap();
    world.remove("1.1.0").pass();
    world.now = world.now.checked_add(hours(24)).unwrap();
    world.pass();
    world.now = world.now.checked_add(hours(24)).unwrap();
    world.pass();
    assert!(world.children.is_empty(), "{:?}", world.children);
    assert_eq!(world.status.unwrap().out_of_life, BTreeMap::new());
}

#[test]
fn what_comes_back_to_life_loses_its_child_at_once() {
    let mut world = World::new(minors(1));
    world
        .push("1.0.0", "old", &["shared", "own"])
        .release(&["1.1.0"]);
    world.settle();
    world.marked(&["old", "shared", "own"]);
    // Another alive image begins to use one of its platforms.
    world.push("1.1.1", "new", &["shared"]).pass();
    world.marked(&["old", "own"]);
    world.push("stable", "old", &["shared", "own"]);
    let plan = world.pass();
    assert_eq!(plan.removals.len(), 1);
    assert!(plan.removals[0].withdraws);
    world.marked(&[]);
}

#[test]
fn an_image_that_its_tag_has_left_is_marked_after_the_settle_time() {
    let mut world = World::new(minors(3));
    world.push("1.8.0", "first", &["shared", "vulnerable"]);
    world.push("latest", "first", &["shared", "vulnerable"]);
    world.pass();
    world.push("1.8.0", "rebuilt", &["shared", "fixed"]);
    world.push("latest", "rebuilt", &["shared", "fixed"]);
    world.settle();
    world.marked(&["first", "vulnerable"]);
    assert_eq!(world.marks()[&digest("first")], "2026-12-29T00:00:00Z");
    // The date stays, also where the child is deleted by hand.
    let before = world.marks();
    world.children.clear();
    world.now = world.now.checked_add(hours(50)).unwrap();
    world.pass();
    assert_eq!(world.marks(), before);
    // A tag that was never selected leaves nothing to mark.
    world.push("latest", "other", &["more"]).settle();
    world
        .push("latest", "rebuilt", &["shared", "fixed"])
        .settle();
    assert_eq!(world.marks(), before);
}

#[test]
fn a_tag_that_vanishes_is_not_out_of_life() {
    let mut world = World::new(minors(1));
    world.release(&["1.0.0", "1.1.0"]).settle();
    world.marked(&["image-1.0.0", "1.0.0-amd64"]);
    // The marked tag and the alive one are deleted.
    world.remove("1.0.0").settle();
    world.settle();
    world.marked(&["image-1.0.0", "1.0.0-amd64"]);
    world.release(&["1.2.0"]).remove("1.1.0").settle();
    world.settle();
    world.marked(&["image-1.0.0", "1.0.0-amd64"]);
}

#[test]
fn a_list_without_the_newest_tags_marks_nothing_that_they_reach() {
    let mut world = World::new(minors(1));
    world.push("1.0.0", "old", &["shared", "own"]);
    world.push("1.1.0", "new", &["shared"]);
    world.push("latest", "debug", &["own"]);
    world.settle();
    world.marked(&["old"]);
    let whole = world.clone();
    world.remove("latest").remove("1.1.0").pass();
    world.marked(&["old"]);
    world.tags = whole.tags;
    world.now = world.now.checked_add(hours(48)).unwrap();
    world.pass();
    world.marked(&["old"]);
}

#[test]
fn more_new_marks_than_the_limit_wait_for_their_number() {
    let mut world = World::new(policy(
        json!({}),
        json!({"keep": {"patches": 1}, "gracePeriod": "0s", "settle": "0s", "maxNewMarks": 2}),
    ));
    world.release(&["1.0.0", "1.0.1", "1.0.2"]);
    assert!(!world.pass().is_held);
    assert_eq!(world.children.len(), 2);
    world.release(&["1.0.3", "1.0.4", "1.0.5"]);
    let plan = world.pass();
    assert_eq!((plan.new_marks, plan.is_held), (3, true));
    assert_eq!(world.children.len(), 2);
    world.confirmed = Some(4);
    assert!(world.pass().is_held);
    // An image that is alive again loses its mark all the same.
    world.push("stable", "image-1.0.0", &["1.0.0-amd64"]).pass();
    assert_eq!(world.children.len(), 1);
    world.remove("stable").confirmed = Some(3);
    assert!(world.pass().is_held, "1.0.0 is a new mark again");
    world.confirmed = Some(4);
    let dates = world.status.clone().unwrap().out_of_life;
    world.now = world.now.checked_add(hours(1)).unwrap();
    assert!(!world.pass().is_held);
    assert_eq!(world.children.len(), 5);
    assert_eq!(
        world.marks()[&digest("image-1.0.4")],
        dates["1.0.4"].0.to_string()
    );
}

#[test]
fn two_tags_of_one_image_are_one_child_and_the_more_alive_one_decides() {
    let mut world = World::new(minors(1));
    world
        .push("1.0.0", "one", &["p"])
        .push("1.0", "one", &["p"]);
    world
        .push("1.0.1", "one", &["p"])
        .push("1.1.0", "two", &["q"]);
    // `1.0` is no version of three numbers and keeps the image in use.
    world.settle();
    world.marked(&[]);
    world.remove("1.0").settle();
    world.settle();
    world.marked(&["one", "p"]);
    let child = world.children.values().next().unwrap();
    let annotations = child.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["affix.dev/tags"], "1.0.0,1.0.1");
    assert!(child.spec.image.contains(":1.0.1@"), "{}", child.spec.image);
}

#[test]
fn a_tag_named_like_a_pattern_is_a_name() {
    let set = json!({"include": ["v1.*"], "exclude": ["v1.2*"]});
    let policy = policy(
        set,
        json!({"cycles": [{"versions": "*", "date": "2020-01-01"}]}),
    );
    let selects = |tag: &str| policy.tags.selects(&tag.parse().unwrap());
    assert!(selects("v1.x") && selects("v1.9.0") && !selects("v1.2.0") && !selects("latest"));
    assert!("v1.*".parse::<Tag>().is_err(), "no registry has such a tag");
    let referrers = format!("sha256-{}", digest("a").hex());
    let every = super::tests::policy(
        json!({}),
        json!({"cycles": [{"versions": "*", "date": "2020-01-01"}]}),
    );
    assert!(!every.considers(&referrers.parse().unwrap()));
}

#[test]
fn a_failed_list_changes_nothing_and_says_why() {
    let mut world = World::new(minors(1));
    world.release(&["1.0.0", "1.1.0"]).settle();
    let (children, status) = (world.children.clone(), world.status.clone().unwrap());
    let plan = world.failed_pass();
    assert_eq!(world.children, children);
    let after = world.status.clone().unwrap();
    assert_eq!(after.reason.as_deref(), Some("RegistryUnavailable"));
    assert_eq!(after.message.as_deref(), Some("a page is missing"));
    assert_eq!(
        RepositoryStatus {
            reason: None,
            message: None,
            ..after
        },
        status
    );
    assert_eq!((plan.children.len(), plan.kept.len()), (0, 1));
    world.pass();
    assert_eq!(world.status.unwrap(), status);
}

#[test]
fn without_a_lifecycle_each_selected_image_has_a_child() {
    let set: ImageAttachmentSet = serde_json::from_value(json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": "signed"},
        "spec": {"repositories": [REPOSITORY], "tags": {"semver": "1.x"}, "template": {
            "metadata": {"labels": {"team": "a"}},
            "spec": {"signature": {"cosign": {"keySecretRef": {"name": "key"}}}}}}
    }))
    .unwrap();
    let mut world = World::new(SetPolicy::parse(&set.spec).unwrap());
    world.release(&["1.0.0", "1.1.0", "2.0.0"]);
    world.push("1.1.1", "image-1.1.0", &["1.1.0-amd64"]);
    world.pass();
    assert_eq!(world.children.len(), 2);
    for child in world.children.values() {
        assert_eq!(child.spec.targets, None);
        assert_eq!(child.metadata.labels.as_ref().unwrap()["team"], "a");
    }
    let plan = world.push("1.0.0", "rebuilt", &["x"]).pass();
    assert_eq!(plan.removals.len(), 1);
    assert!(!plan.removals[0].withdraws);
    assert_eq!(world.children.len(), 2);
    // A tag that is missing for a short time changes nothing.
    let whole = world.tags.clone();
    world.remove("1.0.0").pass();
    assert_eq!(world.children.len(), 2);
    world.tags = whole;
    world.settle();
    assert_eq!(world.children.len(), 2);
    world.remove("1.0.0").settle();
    assert_eq!(world.children.len(), 1);
}

#[test]
fn a_restored_set_without_status_keeps_the_dates_of_its_children() {
    let mut world = World::new(minors(1));
    world.release(&["1.0.0", "1.1.0"]).settle();
    let before = world.marks();
    world.status = None;
    world.now = world.now.checked_add(hours(100)).unwrap();
    world.pass();
    assert_eq!(world.marks(), before);
}

#[test]
fn names_and_labels_are_valid_for_every_name_of_a_set() {
    let root = digest("a");
    let name = child_name("releases", REPOSITORY, &root);
    assert_eq!(name.len(), "releases".len() + 17);
    assert_ne!(
        name,
        child_name("releases", "registry.example.com/team/b", &root)
    );
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
    assert!(crate::api::is_object_name(&child_name(
        &long, REPOSITORY, &root
    )));
    assert_eq!(set_label("releases"), "releases");
    let label = set_label(&long);
    assert!(
        label.len() <= 63 && crate::api::is_object_name(&label),
        "{label}"
    );
}

#[test]
fn ranges_and_versions_mean_what_the_go_library_says() {
    let table: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/semver.json")).unwrap();
    let versions: Vec<&str> = (table["versions"].as_array().unwrap().iter())
        .map(|version| version.as_str().unwrap())
        .collect();
    // Texts that the Go library accepts by accident and the schema refuses.
    let odd = [
        "|| 1.2.3",
        "1.2.3 ||",
        "||",
        "1.2.3 | 1.2.4",
        "1.2.3 -2.0.0",
    ];
    for (text, expected) in table["ranges"].as_object().unwrap() {
        let range = text.parse::<VersionRange>();
        let answers = range.as_ref().ok().map(|range| -> String {
            let answer =
                |version: &&str| match version.parse().ok().and_then(|tag| version_of(&tag)) {
                    Some(version) if range.matches(&version) => '1',
                    Some(_) => '0',
                    None => '-',
                };
            versions.iter().map(answer).collect()
        });
        if odd.contains(&text.as_str()) {
            assert_eq!(answers, None, "{text}");
            continue;
        }
        let expected = expected.as_str();
        for (version, (ours, theirs)) in versions.iter().zip(
            answers
                .as_deref()
                .unwrap_or_default()
                .chars()
                .zip(expected.unwrap_or_default().chars()),
        ) {
            assert_eq!(ours, theirs, "{version} in {text:?}");
        }
        assert_eq!(answers.as_deref(), expected, "{text}");
    }
}

#[test]
fn the_schema_accepts_the_ranges_that_are_parsed_and_no_others() {
    let table: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/semver.json")).unwrap();
    for text in table["ranges"].as_object().unwrap().keys() {
        let spec = json!({"repositories": [REPOSITORY], "tags": {"semver": text},
            "template": {"spec": {"signature": {"cosign": {"keySecretRef": {"name": "key"}}}}}});
        let errors = crate::api::check_set_spec(&spec);
        let is_parsed = text.parse::<VersionRange>().is_ok();
        // The schema knows the form and not the size of a number or the rules of a prerelease.
        let only_parsed = ["18446744073709551616.x", "1.2.3-01"];
        if !only_parsed.contains(&text.as_str()) {
            assert_eq!(errors.is_empty(), is_parsed, "{text:?}: {errors:?}");
        }
    }
}
