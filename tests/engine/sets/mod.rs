//! Sets without a cluster: the list of tags is read from the scriptable registry, and the children attach their marks there.

mod lists;
mod tags;

use std::collections::BTreeMap;

use affix::api::{
    ConditionType, ImageAttachment, ImageAttachmentSet, ImageAttachmentSetStatus, RepositoryStatus,
    find_condition,
};
use affix::attachment::sets::{ExistingChild, RepositoryInput, SetInput, SetPlan, SetPolicy, plan};
use affix::engine::{
    ChildState, ChildrenState, Draft, Engine, EngineOptions, Failure, Journal, NoClaims, Progress,
    ReachCache, RepositoryReading, Sources, access, deletion, request, set_status, set_tables,
    status,
};
use affix_registry::{Options, Registries};
use affix_testbed::hostile::{Deletion, HostileRegistry, Image, Quirks, Referrers};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";

/// A set over `team/app`, its children, and the images that were pushed.
struct Train {
    registry: HostileRegistry,
    engine: Engine,
    set: ImageAttachmentSet,
    children: BTreeMap<String, ImageAttachment>,
    cache: ReachCache,
    now: Timestamp,
    /// The manifests by name: an index has the name of its first tag, a platform that of the tag and the platform.
    manifests: BTreeMap<String, String>,
}

struct NoJournal;

impl Journal for NoJournal {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The registry with the referrers API, and the one without.
fn both() -> [Quirks; 2] {
    let without_api = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [Quirks::default(), without_api]
}

impl Train {
    /// A set with these fields in its spec, on a registry of its own. It keeps the newest three minors unless the fields say otherwise.
    async fn new(quirks: Quirks, fields: Value) -> Self {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let mut spec = json!({
            "repositories": [registry.reference(REPOSITORY)],
            "tags": {"semver": ">=1.0.0-0"},
            "lifecycle": {"keep": {"minors": 3}, "gracePeriod": "720h"},
            "template": {"spec": {"insecure": true, "endOfLife": {}}},
        });
        let spec_fields = spec.as_object_mut().unwrap();
        spec_fields.extend(fields.as_object().unwrap().clone());
        let registries = Registries::new(Options {
            allow_loopback: true,
            ..Options::default()
        });
        Self {
            registry,
            engine: Engine::new(registries, EngineOptions::default()),
            set: serde_json::from_value(json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet",
                "metadata": {"name": "releases", "generation": 1}, "spec": spec,
            }))
            .unwrap(),
            children: BTreeMap::new(),
            cache: ReachCache::default(),
            now: "2026-11-29T12:00:00Z".parse().unwrap(),
            manifests: BTreeMap::new(),
        }
    }

    /// Pushes an image with a linux/amd64 of its own, and the linux/arm64 that all images with the same `base` have.
    fn push(&mut self, tag: &str, base: &str) -> Image {
        let store = self.registry.store();
        let image = |tag: &str| self.registry.image(REPOSITORY, tag);
        let shared = image("base").platform("linux/arm64").seed(base).push();
        store.delete_tag(REPOSITORY, "base");
        let own = image(tag).platform("linux/amd64");
        let pushed = own.entry(&shared.children[0].entry).push();
        let mut name = |name: String, digest: &str| {
            if self.manifests.values().all(|known| known != digest) {
                self.manifests.insert(name, digest.to_owned());
            }
        };
        name(tag.to_owned(), &pushed.digest);
        name(format!("{tag} linux/amd64"), pushed.platform("linux/amd64"));
        name(format!("{base} linux/arm64"), &shared.children[0].digest);
        pushed
    }

    /// Pushes releases that share nothing.
    fn release(&mut self, tags: &[&str]) -> Vec<Image> {
        tags.iter().map(|tag| self.push(tag, tag)).collect()
    }

    fn tag(&self, tag: &str, image: &Image) {
        self.registry
            .store()
            .put_tag(REPOSITORY, tag, &image.digest);
    }

    fn untag(&self, tag: &str) {
        assert!(self.registry.store().delete_tag(REPOSITORY, tag), "{tag}");
    }

    fn later(&mut self, hours: i64) {
        let wait = SignedDuration::from_hours(hours);
        self.now = self.now.checked_add(wait).unwrap();
    }

    /// Runs a pass: reads the repository, and attaches and removes marks by the plan, as the controller does.
    async fn pass(&mut self) -> SetPlan {
        let policy = SetPolicy::parse(&self.set.spec).unwrap();
        let existing: Vec<ExistingChild> = self
            .children
            .values()
            .filter_map(ExistingChild::of)
            .collect();
        let previous = self.set.status.clone().unwrap_or_default();
        let template = self.set.spec.template.spec.shared();
        let access = access(template, policy.registries(), &Sources::default()).unwrap();
        let reading = RepositoryReading {
            policy: &policy,
            repository: &policy.repositories[0],
            access: &access,
            previous: previous.repositories.first(),
            children: &existing,
            confirmed: self.set.confirmed(),
            cache: &self.cache,
            timeout: template.timeout(),
            now: self.now,
        };
        let read = self.engine.read_repository(&reading).await;
        let (state, reaches, recovered) = match read {
            Ok(read) => (Ok(read.state), read.reaches, read.recovered),
            Err(failure) => (Err(failure.problem), BTreeMap::new(), BTreeMap::new()),
        };
        let plan = plan(SetInput {
            name: "releases",
            policy: &policy,
            repositories: vec![RepositoryInput {
                state,
                previous: previous.repositories.first(),
                reaches,
                recovered,
            }],
            children: &existing,
            confirmed: self.set.confirmed(),
        });
        for removal in &plan.removals {
            let child = self.children.remove(&removal.name).unwrap();
            if removal.withdraws {
                let deletion =
                    deletion(&child.spec, child.status.as_ref(), &Sources::default()).unwrap();
                let deleted = self.engine.delete(&deletion, &NoClaims).await;
                assert_eq!(deleted.failed, None);
            }
        }
        for child in &plan.children {
            let name = child.object.metadata.name.clone().unwrap();
            let before = self.children.remove(&name);
            let mut object = child.object.clone();
            object.status = before.as_ref().and_then(|before| before.status.clone());
            if before.is_none_or(|before| before.spec != object.spec) {
                self.attach(&mut object).await;
            }
            self.children.insert(name, object);
        }
        let children = self.children.keys().map(|name| ChildState {
            name: name.clone(),
            repository: Some(0),
            progress: Progress::Ready,
            message: String::new(),
        });
        let state = ChildrenState {
            children: children.collect(),
            ..ChildrenState::default()
        };
        let tables = set_tables(&plan, &previous);
        let status = set_status(&self.set, tables, &state, 1, self.now);
        let wrong = crate::limits::exceeded_of_set(&status);
        assert!(
            wrong.is_empty(),
            "the API server would refuse the status: {wrong:?}"
        );
        self.set.status = Some(status);
        plan
    }

    /// Runs the pass of a child.
    async fn attach(&self, child: &mut ImageAttachment) {
        let sources = Sources::default();
        let previous = child.status.clone().unwrap_or_default();
        let generation = previous.observed_generation.max(0) + 1;
        let request = request(&child.spec, Some(&previous), generation, &sources, true).unwrap();
        let outcome = self
            .engine
            .run(&request, &NoJournal, &NoClaims, self.now)
            .await;
        assert!(outcome.verdict.ready, "{:?}", outcome.verdict);
        child.status = Some(status(&previous, &outcome, generation, self.now));
    }

    /// Returns the names of the manifests with a mark, as the registry lists them. A manifest with two marks is twice there.
    fn marked(&self) -> Vec<&str> {
        let mut is_api = false;
        self.registry
            .quirks(|quirks| is_api = quirks.referrers == Referrers::Api);
        let store = self.registry.store();
        let count = |digest: &str| match is_api {
            true => store.referrers(REPOSITORY, digest).len(),
            false => store.fallback_entries(REPOSITORY, digest).len(),
        };
        let manifests = self.manifests.iter();
        manifests
            .flat_map(|(name, digest)| std::iter::repeat_n(name.as_str(), count(digest)))
            .collect()
    }

    /// Returns the dates of the children by their tags.
    fn dates(&self) -> BTreeMap<String, String> {
        let date = |child: &ImageAttachment| child.spec.end_of_life.clone().unwrap().date.unwrap();
        let tags = |child: &ImageAttachment| {
            let annotations = child.metadata.annotations.as_ref().unwrap();
            annotations["affix.dev/tags"].clone()
        };
        let children = self.children.values();
        children.map(|child| (tags(child), date(child))).collect()
    }

    fn status(&self) -> &ImageAttachmentSetStatus {
        self.set.status.as_ref().unwrap()
    }

    fn repository(&self) -> &RepositoryStatus {
        &self.status().repositories[0]
    }

    /// Returns status and reason of a condition, and its message.
    fn condition(&self, kind: ConditionType) -> (String, &str) {
        let found = find_condition(&self.status().conditions, kind).unwrap();
        let verdict = format!("{} {}", found.status, found.reason);
        (verdict, &found.message)
    }

    /// Returns the number of requests that write since the record was cleared.
    fn writes(&self) -> usize {
        let requests = self.registry.requests().into_iter();
        requests.filter(|request| request.op.is_write()).count()
    }
}
