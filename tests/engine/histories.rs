//! Random histories of a tag, compared with a short model: in the end each manifest has the mark of the last superseded image that contains
//! it, and manifests in use have none.

use std::collections::{BTreeMap, BTreeSet};

use affix_testbed::hostile::{Deletion, Fault, HostileRegistry, Matcher, Op, Quirks};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::resource::{DATE, MARK, Resource};

const PLATFORMS: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64"];
const GRACE: SignedDuration = SignedDuration::from_hours(720);
const SETTLE: SignedDuration = SignedDuration::from_mins(10);

/// An image of a history: the manifests that it lists, and those of them in a nested index.
#[derive(Debug, Clone, Copy)]
struct Shape {
    listed: u8,
    nested: u8,
}

#[derive(Debug, Clone)]
enum Step {
    /// The tag is moved to one of the images.
    Move(usize),
    /// Another tag is moved to one of them, or deleted.
    Keep(Option<usize>),
    Later(i64),
    Look,
    Verify,
    /// A pass with a fault.
    Trouble(Trouble),
    /// A pass with `dryRun`.
    Dry,
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Writes,
    Deletions,
    Tags,
    /// This image is unreadable, unless the tag names it.
    Image(usize),
    /// The second of the writes.
    Half,
}

const IMAGES: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let trouble = prop_oneof![
        Just(Trouble::Writes),
        Just(Trouble::Deletions),
        Just(Trouble::Tags),
        (0..IMAGES).prop_map(Trouble::Image),
        Just(Trouble::Half),
    ];
    prop_oneof![
        4 => (0..IMAGES).prop_map(Step::Move),
        2 => prop::option::of(0..IMAGES).prop_map(Step::Keep),
        3 => prop_oneof![Just(1), Just(300), Just(900)].prop_map(Step::Later),
        4 => Just(Step::Look),
        1 => Just(Step::Verify),
        2 => trouble.prop_map(Step::Trouble),
        1 => Just(Step::Dry),
    ]
}

/// The registry, and the manifests that its images reach.
struct World {
    registry: HostileRegistry,
    /// The digest of each image, and every manifest that it reaches.
    images: Vec<(String, BTreeSet<String>)>,
}

impl World {
    async fn new(shapes: &[Shape], api: bool) -> Self {
        let fallback = || Quirks {
            deletion: Deletion::Allowed,
            ..Quirks::distribution()
        };
        let quirks = if api { Quirks::default() } else { fallback() };
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let images = shapes.iter().map(|shape| push(&registry, *shape)).collect();
        Self { registry, images }
    }

    fn tag(&self, tag: &str, image: Option<usize>) {
        match image {
            Some(image) => self
                .registry
                .store()
                .put_tag("team/app", tag, &self.images[image].0),
            None => drop(self.registry.store().delete_tag("team/app", tag)),
        }
    }

    /// Returns the dates of the marks on a manifest.
    fn marks(&self, digest: &str) -> Vec<String> {
        let store = self.registry.store();
        let listed = store.referrers("team/app", digest);
        let entries: BTreeSet<String> = store
            .fallback_entries("team/app", digest)
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect();
        let mut is_api = false;
        self.registry
            .quirks(|quirks| is_api = quirks.referrers == Quirks::default().referrers);
        let seen = listed
            .into_iter()
            .filter(|manifest| is_api || entries.contains(&manifest.digest));
        seen.map(|manifest| {
            manifest.json()["annotations"][DATE]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    fn manifests(&self) -> BTreeSet<String> {
        self.images
            .iter()
            .flat_map(|(_, reached)| reached.iter().cloned())
            .collect()
    }
}

/// Stores an image without a tag. An image with a single manifest is that manifest.
fn push(registry: &HostileRegistry, shape: Shape) -> (String, BTreeSet<String>) {
    let parts: Vec<(usize, Value)> = PLATFORMS
        .iter()
        .enumerate()
        .filter(|(nth, _)| shape.listed & (1 << nth) != 0)
        .map(|(nth, platform)| {
            let part = registry
                .image("team/app", "building")
                .seed(platform)
                .platform(platform)
                .push();
            (nth, part.children[0].entry.clone())
        })
        .collect();
    let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
    let mut reached: BTreeSet<String> = parts.iter().map(|(_, entry)| digest(entry)).collect();
    if let [(_, only)] = parts.as_slice() {
        registry.store().delete_tag("team/app", "building");
        return (digest(only), reached);
    }
    let (nested, listed): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .partition(|(nth, _)| shape.nested & (1 << nth) != 0);
    let index = |entries: Vec<Value>| {
        entries
            .iter()
            .fold(
                registry.image("team/app", "building"),
                affix_testbed::hostile::ImageBuilder::entry,
            )
            .push()
    };
    let mut entries: Vec<Value> = listed.into_iter().map(|(_, entry)| entry).collect();
    if !nested.is_empty() {
        let inner = index(nested.into_iter().map(|(_, entry)| entry).collect());
        reached.insert(inner.digest.clone());
        entries.push(inner.descriptor());
    }
    let image = index(entries);
    registry.store().delete_tag("team/app", "building");
    reached.insert(image.digest.clone());
    (image.digest, reached)
}

/// The model of the documented behaviour.
#[derive(Default)]
struct Model {
    seen: Option<usize>,
    /// The time at which affix saw that the tag had left an image.
    left: BTreeMap<String, Timestamp>,
}

impl Model {
    fn sees(&mut self, world: &World, current: usize, now: Timestamp) {
        let digest = |image: usize| world.images[image].0.clone();
        if let Some(before) = self
            .seen
            .filter(|before| digest(*before) != digest(current))
        {
            self.left.entry(digest(before)).or_insert(now);
        }
        self.left.remove(&digest(current));
        self.seen = Some(current);
    }

    /// Returns the date on each manifest that is not `in_use`. The image that the tag named until now is in use.
    fn dates(
        &self,
        world: &World,
        mut in_use: BTreeSet<String>,
        now: Timestamp,
    ) -> BTreeMap<String, String> {
        let left = |digest: &String| self.left.get(digest).copied();
        let settling = world
            .images
            .iter()
            .filter(|(digest, _)| left(digest).is_some_and(|left| left + SETTLE > now));
        in_use.extend(settling.flat_map(|(_, reached)| reached.iter().cloned()));
        let mut dates: BTreeMap<String, Timestamp> = BTreeMap::new();
        for (digest, reached) in &world.images {
            let Some(left) = left(digest) else { continue };
            for manifest in reached.difference(&in_use) {
                let date = dates.entry(manifest.clone()).or_insert(left);
                *date = (*date).max(left);
            }
        }
        dates
            .into_iter()
            .map(|(digest, left)| (digest, (left + GRACE).to_string()))
            .collect()
    }
}

fn spec(world: &World, dry: bool) -> Value {
    let when = json!({"gracePeriod": "720h", "settle": "10m"});
    json!({
        "image": world.registry.reference("team/app:v1"), "dryRun": dry,
        "endOfLife": {"whenSuperseded": when, "artifactType": MARK, "annotation": DATE},
    })
}

async fn play(shapes: Vec<Shape>, steps: Vec<Step>, api: bool) {
    let world = World::new(&shapes, api).await;
    let mut resource = Resource::new(spec(&world, false));
    let mut model = Model::default();
    let (mut current, mut keep) = (0, None);
    world.tag("v1", Some(current));
    for step in steps {
        let rule = match &step {
            Step::Trouble(Trouble::Writes) => Some(Matcher::on(Op::ManifestPut)),
            Step::Trouble(Trouble::Half) => {
                Some(Matcher::on(Op::ManifestPut).with_subject().nth(2))
            }
            Step::Trouble(Trouble::Deletions) => Some(Matcher::on(Op::ManifestDelete)),
            Step::Trouble(Trouble::Tags) => Some(Matcher::on(Op::TagList)),
            Step::Trouble(Trouble::Image(image))
                if !world.images[current].1.contains(&world.images[*image].0) =>
            {
                Some(Matcher::on(Op::ManifestGet).reference(world.images[*image].0.clone()))
            }
            _ => None,
        };
        let rule = rule.map(|matcher| world.registry.fault(matcher, Fault::status(403)));
        let outcome = match step {
            Step::Move(image) => {
                current = image;
                world.tag("v1", Some(image));
                continue;
            }
            Step::Keep(image) => {
                keep = image;
                world.tag("keep", image);
                continue;
            }
            Step::Later(seconds) => {
                resource.later(seconds);
                continue;
            }
            Step::Look | Step::Trouble(_) => resource.look().await,
            Step::Verify => resource.pass().await,
            Step::Dry => {
                resource.change(spec(&world, true));
                let outcome = resource.pass().await;
                resource.change(spec(&world, false));
                outcome
            }
        };
        model.sees(&world, current, resource.now);
        if outcome.verdict.ready {
            let settled = model.dates(&world, world.images[current].1.clone(), resource.now);
            for manifest in world.manifests() {
                let marks = world.marks(&manifest);
                assert!(marks.len() <= 1, "{manifest} has {marks:?}");
                assert!(
                    marks.is_empty() || settled.contains_key(&manifest),
                    "{manifest} has {marks:?} and no reason to\n{:#?}",
                    resource.status
                );
            }
        }
        if let Some(rule) = rule {
            rule.lift();
        }
    }
    // All moves have settled. The changed spec causes the tags to be read again.
    resource.later(3600);
    resource.change(spec(&world, false));
    model.sees(&world, current, resource.now);
    for _ in 0..4 {
        resource.pass().await;
    }
    resource.later(3600);
    resource.change(spec(&world, false));
    let outcome = resource.pass().await;
    assert!(
        outcome.verdict.ready,
        "{:?}\n{:#?}",
        outcome.verdict, resource.status
    );
    let mut in_use = world.images[current].1.clone();
    in_use.extend(
        keep.iter()
            .flat_map(|image: &usize| world.images[*image].1.iter().cloned()),
    );
    let expected = model.dates(&world, in_use, resource.now);
    for manifest in world.manifests() {
        let expected: Vec<String> = expected.get(&manifest).cloned().into_iter().collect();
        assert_eq!(
            world.marks(&manifest),
            expected,
            "{manifest}\n{:#?}\n{}",
            resource.status,
            world.registry.transcript()
        );
    }
    let at_rest = resource.status.clone();
    resource.look().await;
    assert_eq!(resource.status, at_rest, "what is at rest stays");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_of_a_tag_each_manifest_has_its_last_mark_or_is_in_use(
        shapes in prop::collection::vec((1_u8..16, 0_u8..16).prop_map(|(listed, nested)| Shape { listed, nested }), IMAGES),
        steps in prop::collection::vec(step(), 1..24),
        api in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(shapes, steps, api));
    }
}
