//! The second step: the children of a set, its table and the status of its repositories.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;

use crate::api::{CycleStatus, Reason, RepositoryStatus};
use crate::attachment::{EndOfLifeDate, Problem};
use affix_registry::oci::{Digest, Tag};

use super::MAX_TAGS;
use super::child::{self, Child, ExistingChild, MAX_DIGESTS, child_name};
use super::policy::{SetPolicy, SetRepository};
use super::state::{Candidate, TagState};
use super::table;

/// The input of the second step.
#[derive(Debug, Clone)]
pub struct SetInput<'a> {
    /// The name of the set.
    pub name: &'a str,
    /// The parsed spec.
    pub policy: &'a SetPolicy,
    /// One entry for each repository of the spec, in its order.
    pub repositories: Vec<RepositoryInput<'a>>,
    /// The children that exist.
    pub children: &'a [ExistingChild],
    /// The number of new marks that the user accepts.
    pub confirmed: Option<usize>,
}

/// The tags of one repository, and the manifests that they reach.
#[derive(Debug, Clone)]
pub struct RepositoryInput<'a> {
    /// The tags, or the problem for which nothing changes.
    pub state: Result<TagState, Problem>,
    /// The status of the previous pass.
    pub previous: Option<&'a RepositoryStatus>,
    /// The manifests that each of [`TagState::roots_to_read`] reaches, itself included.
    pub reaches: BTreeMap<Digest, BTreeSet<Digest>>,
    /// Dates of marks that an earlier pass attached to images of [`TagState::undated`].
    pub recovered: BTreeMap<Digest, EndOfLifeDate>,
}

/// A child to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// True if its image is back to life: the marks that it made are removed, whatever its deletionPolicy.
    pub withdraws: bool,
}

/// The result of the computation.
#[derive(Debug, Clone, PartialEq)]
pub struct SetPlan {
    /// The children as they must be.
    pub children: Vec<Child>,
    /// The names of the children that stay as they are, because their repository could not be read, their tags vanished, or new marks wait
    /// for a confirmation.
    pub kept: Vec<String>,
    /// The children to delete.
    pub removals: Vec<Removal>,
    /// The table of the lifecycle.
    pub cycles: Vec<CycleStatus>,
    /// The status of the repositories, without the number of ready children.
    pub repositories: Vec<RepositoryStatus>,
    /// The number of images that are newly marked, or that wait for a confirmation.
    pub new_marks: usize,
    /// True if the new marks wait for a confirmation.
    pub is_held: bool,
}

/// A child before the limit of new marks applies.
struct Draft<'a> {
    child: Child,
    existing: Option<&'a ExistingChild>,
    is_new_mark: bool,
}

/// Computes the children of a set. The result does not depend on the order of tags or children.
#[must_use]
pub fn plan(input: SetInput<'_>) -> SetPlan {
    let SetInput {
        name,
        policy,
        repositories,
        children,
        confirmed,
    } = input;
    // Objects with other names are not of this set, whatever their label says.
    let children: BTreeMap<&str, &ExistingChild> = children
        .iter()
        .filter(|child| child.name == child_name(name, &child.repository, &child.root))
        .map(|child| (child.name.as_str(), child))
        .collect();
    let mut plan = SetPlan {
        children: Vec::new(),
        kept: Vec::new(),
        removals: Vec::new(),
        cycles: Vec::new(),
        repositories: Vec::new(),
        new_marks: 0,
        is_held: false,
    };
    let (mut drafts, mut remembered) = (Vec::new(), 0);
    for (position, (repository, input)) in policy.repositories.iter().zip(repositories).enumerate()
    {
        let own: Vec<&ExistingChild> = (children.values())
            .copied()
            .filter(|child| child.repository == repository.name)
            .collect();
        let known = input.state.and_then(|state| {
            remembered += state.remembered();
            if remembered > MAX_TAGS {
                let message = format!(
                    "the repositories of the set have more than {MAX_TAGS} tags to remember, of which {} are here: split the set, or select \
                     fewer tags",
                    state.remembered()
                );
                return Err(Problem::new(Reason::LimitExceeded, message));
            }
            Ok(state)
        });
        match known {
            Ok(state) => {
                let of_one = OneRepository {
                    set: name,
                    policy,
                    position,
                    repository,
                    state: &state,
                    reaches: &input.reaches,
                    recovered: &input.recovered,
                    own: &own,
                };
                let (own_drafts, dates, problem) = of_one.plan(&mut plan);
                let mut status = RepositoryStatus {
                    name: repository.name.clone(),
                    reason: problem.as_ref().map(|problem| problem.reason.to_string()),
                    message: problem.map(|problem| problem.message),
                    ..RepositoryStatus::default()
                };
                state.save(&mut status);
                plan.cycles
                    .extend(table::cycles(&repository.name, &state, &dates));
                plan.repositories.push(status);
                drafts.extend(own_drafts);
            }
            Err(problem) => {
                plan.kept.extend(own.iter().map(|child| child.name.clone()));
                plan.repositories.push(RepositoryStatus {
                    name: repository.name.clone(),
                    reason: Some(problem.reason.to_string()),
                    message: Some(crate::api::truncate_message(&problem.message)),
                    ..input.previous.cloned().unwrap_or_default()
                });
            }
        }
    }
    let is_listed = |name: &String| policy.repositories.iter().any(|of| of.name == *name);
    let strangers = children
        .values()
        .filter(|child| !is_listed(&child.repository));
    plan.removals.extend(strangers.map(|child| Removal {
        name: child.name.clone(),
        withdraws: false,
    }));
    plan.admit(policy, drafts, confirmed);
    plan.count(policy, &children);
    plan
}

/// The second step for one repository.
struct OneRepository<'a, 'b> {
    set: &'b str,
    policy: &'b SetPolicy,
    position: usize,
    repository: &'b SetRepository,
    state: &'b TagState,
    reaches: &'b BTreeMap<Digest, BTreeSet<Digest>>,
    recovered: &'b BTreeMap<Digest, EndOfLifeDate>,
    own: &'b [&'a ExistingChild],
}

/// An image out of life.
struct DeadImage {
    tags: BTreeSet<Tag>,
    date: EndOfLifeDate,
    reaches: BTreeSet<Digest>,
}

/// The rank of an image out of life among those that reach a manifest: its date, whether the manifest is the image itself, and whether its
/// child has marked the manifest.
type Rank = (SignedDuration, bool, bool);

/// The drafts of a repository, the dates of its images out of life, and the problem with one of them.
type Drafts<'a> = (
    Vec<Draft<'a>>,
    BTreeMap<Digest, EndOfLifeDate>,
    Option<Problem>,
);

impl<'a> OneRepository<'a, '_> {
    fn plan(&self, plan: &mut SetPlan) -> Drafts<'a> {
        if self.state.has_lifecycle {
            self.marks(plan)
        } else {
            (self.images(plan), BTreeMap::new(), None)
        }
    }

    /// Plans one child for each selected image.
    fn images(&self, plan: &mut SetPlan) -> Vec<Draft<'a>> {
        let mut images: BTreeMap<&Digest, BTreeSet<Tag>> = BTreeMap::new();
        for (tag, record) in &self.state.tags {
            images
                .entry(&record.digest)
                .or_default()
                .insert(tag.clone());
        }
        for child in self
            .own
            .iter()
            .filter(|child| !images.contains_key(&child.root))
        {
            plan.removals.push(Removal {
                name: child.name.clone(),
                withdraws: false,
            });
        }
        let draft = |(root, tags): (&Digest, BTreeSet<Tag>)| self.draft(root, &tags, None);
        images.into_iter().map(draft).collect()
    }

    /// Plans one child for each image out of life that has manifests which nothing alive reaches.
    fn marks(&self, plan: &mut SetPlan) -> Drafts<'a> {
        let reach = |root: &Digest| {
            let read = self.reaches.get(root).cloned();
            read.unwrap_or_else(|| BTreeSet::from([root.clone()]))
        };
        let mut in_use: BTreeSet<Digest> = self.state.in_use.iter().flat_map(reach).collect();
        for root in &self.state.frozen {
            let marked = self.existing(root).and_then(|child| child.digests.as_ref());
            let is_marked = |digest: &Digest| marked.is_some_and(|marked| marked.contains(digest));
            in_use.extend(reach(root).into_iter().filter(|digest| !is_marked(digest)));
        }
        let in_use = in_use;
        let mut dead: BTreeMap<&Digest, DeadImage> = BTreeMap::new();
        for (root, candidate) in &self.state.candidates {
            let image = DeadImage {
                tags: candidate.tags.clone(),
                date: self.date(root, candidate),
                reaches: reach(root),
            };
            dead.insert(root, image);
        }
        for child in self.own {
            if let Some(image) = self.unnamed(child, &in_use) {
                dead.entry(&child.root).or_insert(image);
            }
        }
        let shares = self.shares(&dead, &in_use);
        let (mut problem, mut drafts) = (None, Vec::new());
        for (root, image) in &dead {
            match shares.get(*root) {
                Some(digests) if digests.len() > MAX_DIGESTS => {
                    let message = format!(
                        "{root} has {} manifests that nothing alive reaches, more than {MAX_DIGESTS}",
                        digests.len()
                    );
                    problem = Some(Problem::new(Reason::LimitExceeded, message));
                    plan.kept
                        .extend(self.existing(root).map(|child| child.name.clone()));
                }
                Some(digests) => {
                    drafts.push(self.draft(root, &image.tags, Some((digests, &image.date))));
                }
                None => {}
            }
        }
        let drafted: BTreeSet<&Digest> = drafts.iter().map(|draft| &draft.child.root).collect();
        for child in self.own {
            if !drafted.contains(&child.root) && !plan.kept.contains(&child.name) {
                plan.removals.push(Removal {
                    name: child.name.clone(),
                    withdraws: in_use.contains(&child.root) || dead.contains_key(&child.root),
                });
            }
        }
        let dates = dead
            .into_iter()
            .map(|(root, image)| (root.clone(), image.date));
        (drafts, dates.collect(), problem)
    }

    /// Returns the image of a child that no listed tag names: its tags vanished, or have left it long ago. It stays out of life, and no
    /// manifest is added to it. An image that the registry lacks, or whose tags are no longer selected, needs no child.
    fn unnamed(&self, child: &ExistingChild, in_use: &BTreeSet<Digest>) -> Option<DeadImage> {
        let is_excluded =
            !child.tags.is_empty() && !child.tags.iter().any(|tag| self.policy.tags.selects(tag));
        if in_use.contains(&child.root) || is_excluded || child.is_gone {
            return None;
        }
        Some(DeadImage {
            tags: child.tags.clone(),
            date: child.date.clone()?,
            reaches: child.digests.clone()?,
        })
    }

    fn existing(&self, root: &Digest) -> Option<&'a ExistingChild> {
        self.own.iter().copied().find(|child| child.root == *root)
    }

    /// Returns the date of an image out of life. It is fixed once: a child has it, or a mark of an earlier pass.
    fn date(&self, root: &Digest, candidate: &Candidate) -> EndOfLifeDate {
        if candidate.is_calendar {
            return candidate.date.clone();
        }
        let fixed = self.existing(root).and_then(|child| child.date.clone());
        let recovered = self.recovered.get(root).cloned();
        fixed
            .or(recovered.filter(|date| date.instant() <= candidate.date.instant()))
            .unwrap_or_else(|| candidate.date.clone())
    }

    /// Returns the manifests of each image out of life. A manifest that several of them reach belongs to the one that lived longest
    /// (docs/decisions/0112).
    fn shares(
        &self,
        dead: &BTreeMap<&Digest, DeadImage>,
        in_use: &BTreeSet<Digest>,
    ) -> BTreeMap<Digest, BTreeSet<Digest>> {
        let mut owners: BTreeMap<&Digest, (Rank, &Digest)> = BTreeMap::new();
        for (root, image) in dead {
            let existing = self.existing(root);
            for manifest in image.reaches.difference(in_use) {
                let lists = existing.is_some_and(|child| child.lists(manifest));
                let rank = (image.date.instant(), *root == manifest, lists);
                if owners.get(manifest).is_none_or(|(other, _)| *other < rank) {
                    owners.insert(manifest, (rank, root));
                }
            }
        }
        let mut shares: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        for (manifest, (_, root)) in owners {
            let share = shares.entry(root.clone()).or_default();
            share.insert(manifest.clone());
        }
        shares
    }

    fn draft(
        &self,
        root: &Digest,
        tags: &BTreeSet<Tag>,
        mark: Option<(&BTreeSet<Digest>, &EndOfLifeDate)>,
    ) -> Draft<'a> {
        let existing = self.existing(root);
        let before = existing.and_then(|child| child.tag.as_ref());
        let newest = tags
            .iter()
            .max_by_key(|tag| (super::version_of(tag), std::cmp::Reverse(*tag)));
        let tag = before.filter(|tag| tags.contains(*tag)).or(newest);
        let object = child::object(
            self.set,
            self.policy,
            self.repository,
            (tag, root),
            tags,
            mark,
        );
        let is_new_mark = mark.is_some_and(|(digests, _)| {
            existing.is_none_or(|child| digests.iter().any(|digest| !child.lists(digest)))
        });
        Draft {
            child: Child {
                repository: self.position,
                root: root.clone(),
                object,
            },
            existing,
            is_new_mark,
        }
    }
}

impl SetPlan {
    /// Admits the drafts. New marks above the limit wait for a confirmation.
    fn admit(&mut self, policy: &SetPolicy, drafts: Vec<Draft<'_>>, confirmed: Option<usize>) {
        let limit = policy
            .lifecycle
            .as_ref()
            .map_or(usize::MAX, |lifecycle| lifecycle.max_new_marks);
        self.new_marks = drafts.iter().filter(|draft| draft.is_new_mark).count();
        self.is_held = self.new_marks > limit && confirmed != Some(self.new_marks);
        for mut draft in drafts {
            if self.is_held && draft.is_new_mark {
                let Some(existing) = draft.existing else {
                    continue;
                };
                // An image that is alive again loses its mark all the same.
                let targets = draft.child.object.spec.targets.get_or_insert_default();
                let digests = targets.digests.get_or_insert_default();
                digests.retain(|text| text.parse().is_ok_and(|digest| existing.lists(&digest)));
                if digests.is_empty() {
                    self.removals.push(Removal {
                        name: existing.name.clone(),
                        withdraws: true,
                    });
                    continue;
                }
            }
            self.children.push(draft.child);
        }
    }

    /// Counts the children of each repository.
    fn count(&mut self, policy: &SetPolicy, existing: &BTreeMap<&str, &ExistingChild>) {
        for (position, status) in self.repositories.iter_mut().enumerate() {
            let name = policy.repositories.get(position).map(|of| &of.name);
            let made = self
                .children
                .iter()
                .filter(|child| child.repository == position);
            let kept = self.kept.iter().filter(|kept| {
                let child = existing.get(kept.as_str());
                child.map(|child| &child.repository) == name
            });
            status.children = i64::try_from(made.count() + kept.count()).ok();
        }
        self.removals.sort_by(|a, b| a.name.cmp(&b.name));
        self.kept.sort();
    }
}
