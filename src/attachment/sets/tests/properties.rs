//! Properties that hold after every history of a repository.

use proptest::prelude::*;

use super::*;
use crate::api::Keep;

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Pushes a version with platforms out of a few that many images share.
    Push(u64, u64, Vec<u8>),
    /// Lets a floating tag name the image of a version.
    Point(u8, u64, u64),
    /// Deletes the nth tag.
    Remove(usize),
    /// Waits some hours.
    Wait(i64),
    /// Runs a pass in which a page fails.
    Fail,
    /// Deletes the nth child by hand.
    DeleteChild(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u64, 0..3_u64, prop::collection::vec(0..6_u8, 1..4)).prop_map(|(minor, patch, platforms)| Step::Push(minor, patch, platforms)),
        2 => (0..2_u8, 0..4_u64, 0..3_u64).prop_map(|(tag, minor, patch)| Step::Point(tag, minor, patch)),
        1 => any::<usize>().prop_map(Step::Remove),
        4 => (1..40_i64).prop_map(Step::Wait),
        1 => Just(Step::Fail),
        1 => any::<usize>().prop_map(Step::DeleteChild),
    ]
}

fn policies() -> impl Strategy<Value = SetPolicy> {
    let keep = (prop::option::of(1..3_i64), prop::option::of(1..3_i64));
    (keep, any::<bool>(), prop_oneof![Just(50_i64), Just(1)]).prop_map(|((minors, patches), calendar, fuse)| {
        let mut lifecycle = json!({"keep": {"minors": minors.unwrap_or(2), "patches": patches}, "gracePeriod": "100h", "maxNewMarks": fuse});
        if calendar {
            lifecycle["cycles"] = json!([{"versions": "1.0.x", "date": "2026-12-01"}]);
        }
        policy(json!({"semver": "*"}), lifecycle)
    })
}

/// Carries out a step, except for the pass.
fn carry_out(world: &mut World, step: &Step, pushes: usize) {
    match step {
        Step::Push(minor, patch, platforms) => {
            let platforms: Vec<String> = platforms.iter().map(|n| format!("p{n}")).collect();
            let platforms: Vec<&str> = platforms.iter().map(String::as_str).collect();
            world.push(
                &format!("1.{minor}.{patch}"),
                &format!("image{pushes}"),
                &platforms,
            );
        }
        Step::Point(tag, minor, patch) => {
            let named = world
                .tags
                .get(&format!("1.{minor}.{patch}").parse().unwrap())
                .cloned();
            if let Some(image) = named {
                world
                    .tags
                    .insert(format!("floating{tag}").parse().unwrap(), image);
            }
        }
        Step::Remove(nth) => {
            let tags: Vec<Tag> = world.tags.keys().cloned().collect();
            if !tags.is_empty() {
                world.tags.remove(&tags[nth % tags.len()]);
            }
        }
        Step::Wait(count) => world.now = world.now.checked_add(hours(*count)).unwrap(),
        Step::Fail => {}
        Step::DeleteChild(nth) => {
            let names: Vec<String> = world.children.keys().cloned().collect();
            if !names.is_empty() {
                world.children.remove(&names[nth % names.len()]);
            }
        }
    }
}

/// Returns the tags that are alive by a computation of its own: floating tags, and versions within the newest minors and patches.
fn alive(world: &World, tags: &BTreeMap<Tag, String>, keep: Keep) -> Vec<Tag> {
    let numbers = |tag: &Tag| -> Option<(u64, u64)> {
        let mut parts = tag.as_str().strip_prefix("1.")?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let calendar = !world.policy.lifecycle.as_ref().unwrap().cycles.is_empty();
    let ends: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let versions: BTreeSet<(u64, u64)> = tags.keys().filter_map(numbers).collect();
    let newer_minors = |minor: u64| {
        let newer: BTreeSet<u64> = versions
            .iter()
            .map(|version| version.0)
            .filter(|other| *other > minor)
            .collect();
        i64::try_from(newer.len()).unwrap()
    };
    let newer_patches = |(minor, patch): (u64, u64)| {
        let newer = versions
            .iter()
            .filter(|other| other.0 == minor && other.1 > patch);
        i64::try_from(newer.count()).unwrap()
    };
    let is_alive = |tag: &&Tag| match numbers(tag) {
        None => true,
        Some((0, _)) if calendar => world.now < ends,
        Some(version) => {
            keep.minors
                .is_none_or(|count| newer_minors(version.0) < count)
                && keep
                    .patches
                    .is_none_or(|count| newer_patches(version) < count)
        }
    };
    tags.keys().filter(is_alive).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_alive_is_ever_marked_and_no_date_moves(
        policy in policies(), steps in prop::collection::vec(step(), 1..40)
    ) {
        let keep = policy.lifecycle.as_ref().unwrap().keep;
        let has_calendar = !policy.lifecycle.as_ref().unwrap().cycles.is_empty();
        let mut world = World::new(policy);
        // The time since which each manifest has been out of reach of everything alive.
        let mut unreached: BTreeMap<Digest, Timestamp> = BTreeMap::new();
        let mut fallen: BTreeMap<Tag, Timestamp> = BTreeMap::new();
        // The tags of the pass before, and those that vanished since a time.
        let mut listed = world.tags.clone();
        let mut vanished: BTreeMap<Tag, (String, Timestamp)> = BTreeMap::new();
        for (nth, step) in steps.iter().enumerate() {
            carry_out(&mut world, step, nth);
            let before = world.marks();
            let children = world.children.clone();
            if matches!(step, Step::Fail) {
                world.failed_pass();
                prop_assert_eq!(&world.children, &children);
                continue;
            }
            let plan = world.pass();
            let marks = world.marks();
            for (tag, image) in std::mem::replace(&mut listed, world.tags.clone()) {
                vanished.entry(tag).or_insert((image, world.now));
            }
            vanished.retain(|tag, (_, since)| {
                !world.tags.contains_key(tag) && since.checked_add(hours(24)).unwrap() > world.now
            });
            let mut present = world.tags.clone();
            present.extend(vanished.iter().map(|(tag, (image, _))| (tag.clone(), image.clone())));
            let reach_of = |tags: &BTreeMap<Tag, String>| -> BTreeSet<Digest> {
                let alive = alive(&world, tags, keep).into_iter();
                alive.flat_map(|tag| world.reach(&tags[&tag])).collect()
            };
            let reached = reach_of(&world.tags);
            for digest in &reached {
                let marked_before = before.contains_key(digest) && marks.contains_key(digest);
                prop_assert!(!marks.contains_key(digest) || marked_before, "an alive tag reaches a new mark");
            }
            let reached_present = reach_of(&present);
            for digest in &reached_present {
                prop_assert!(!marks.contains_key(digest), "an alive tag reaches a mark");
            }
            let (alive_listed, alive_present) = (alive(&world, &world.tags, keep), alive(&world, &present, keep));
            fallen.retain(|tag, _| present.contains_key(tag) && !alive_present.contains(tag));
            for tag in world.tags.keys().filter(|tag| !alive_listed.contains(tag)) {
                fallen.entry(tag.clone()).or_insert(world.now);
            }
            let all: BTreeSet<Digest> = world.platforms.keys().flat_map(|image| world.reach(image)).collect();
            let steady = alive_listed.iter().filter(|tag| alive_present.contains(tag));
            let steady: BTreeSet<Digest> = steady.flat_map(|tag| world.reach(&world.tags[tag])).collect();
            unreached.retain(|digest, _| !steady.contains(digest));
            for digest in all.difference(&steady) {
                unreached.entry(digest.clone()).or_insert(world.now);
            }
            for (digest, date) in &marks {
                match before.get(digest) {
                    // A manifest may pass to an image that lived longer, and keeps its date within one image.
                    Some(earlier) => prop_assert!(earlier <= date, "{earlier} became {date}"),
                    // A date of the calendar does not wait for settle.
                    None if has_calendar && world.now >= start().checked_add(hours(48)).unwrap() => {}
                    None => {
                        let is_settled = |since: &Timestamp| since.checked_add(hours(24)).unwrap() <= world.now;
                        // An image that is pushed to a tag out of life has nothing to settle.
                        let by_tag = fallen.iter().any(|(tag, since)| {
                            is_settled(since) && world.reach(&present[tag]).contains(digest)
                        });
                        let by_hand = matches!(step, Step::DeleteChild(_));
                        prop_assert!(is_settled(&unreached[digest]) || by_tag || by_hand, "marked before it settled");
                    }
                }
            }
            for (name, child) in &world.children {
                if let Some(before) = children.get(name) {
                    let date = |child: &ImageAttachment| child.spec.end_of_life.clone().unwrap().date;
                    let is_calendar = date(child).is_some_and(|date| date == "2026-12-01");
                    prop_assert!(is_calendar || date(before) == date(child), "the date of a child moved");
                }
            }
            let limit = world.policy.lifecycle.as_ref().unwrap().max_new_marks;
            let new = world.children.keys().filter(|name| !children.contains_key(*name)).count();
            prop_assert!(new <= limit && new <= plan.new_marks, "{new} new marks");
            prop_assert!(!plan.is_held || new == 0, "held, and {new} were made");
        }
    }

    #[test]
    fn a_pass_without_a_change_changes_nothing(policy in policies(), steps in prop::collection::vec(step(), 1..20)) {
        let mut world = World::new(policy);
        for (nth, step) in steps.iter().enumerate() {
            carry_out(&mut world, step, nth);
            world.pass();
        }
        // A child that the last pass removed no longer proves that its image settled.
        world.pass();
        let (children, status) = (world.children.clone(), world.status.clone());
        let plan = world.pass();
        prop_assert_eq!(&world.children, &children);
        prop_assert_eq!(&world.status, &status);
        prop_assert_eq!(plan.removals, Vec::new());
    }

    #[test]
    fn the_order_of_tags_and_children_is_irrelevant(policy in policies(), steps in prop::collection::vec(step(), 1..20)) {
        let mut world = World::new(policy);
        for (nth, step) in steps.iter().enumerate() {
            carry_out(&mut world, step, nth);
            world.pass();
        }
        let mut existing: Vec<ExistingChild> = world.children.values().flat_map(ExistingChild::of).collect();
        let mut plans = Vec::new();
        for _ in 0..2 {
            existing.reverse();
            let marked = existing.iter().map(|child| child.root.clone()).collect();
            let tags: Vec<(Tag, Digest)> = world.tags.iter().map(|(tag, image)| (tag.clone(), digest(image))).collect();
            let tags: BTreeMap<Tag, Digest> = tags.into_iter().rev().collect();
            let state = TagState::observe(&world.policy, &tags, tags.len(), world.status.as_ref(), &marked, world.now);
            let reaches = world.platforms.keys().map(|image| (digest(image), world.reach(image))).collect();
            let input = RepositoryInput { state: Ok(state), previous: world.status.as_ref(), reaches, recovered: BTreeMap::new() };
            plans.push(plan(SetInput { name: "releases", policy: &world.policy, repositories: vec![input], children: &existing, confirmed: None }));
        }
        prop_assert_eq!(&plans[0], &plans[1]);
    }
}
