//! Sets without a cluster: reads their repositories, and turns them into ImageAttachments that run as any others.
//!
//! The state of earlier runs comes from the documents: the status of the set, and its ImageAttachments with their status. The output of a run
//! with `-o yaml` has both.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;

use crate::api::{ImageAttachment, ImageAttachmentSetStatus, Reason};
use crate::attachment::Problem;
use crate::attachment::sets::{
    ExistingChild, RepositoryInput, SetInput, SetPlan, SetPolicy, child_name, plan, version_of,
};
use crate::cli::documents::{Attachment, Documents, SetDocument};
use crate::cli::exit::{Error, message};
use crate::cli::output::report::{View, is_success};
use crate::engine::{
    ChildState, ChildrenState, Deleted, Engine, Failure, Mode, NoClaims, Outcome, Progress,
    ReachCache, RepositoryReading, access, deletion, set_status, set_tables,
};
use affix_registry::Keychain;

use super::{Finished, MAX_CONCURRENT, announced, readable};

/// The error for the removal of marks whose dates only the children have.
const REMOVAL_NEEDS_CHILDREN: &str = "spec.lifecycle: the dates of these marks are in the ImageAttachments of the set: give those with -f instead of the set, \
                                      for example from kubectl get ia -l affix.dev/set=NAME -o yaml";

/// A set, and the plan for its children.
pub(in crate::cli) struct PlannedSet {
    /// The set.
    pub document: SetDocument,
    /// The parsed spec.
    pub policy: SetPolicy,
    /// The plan.
    pub plan: SetPlan,
    /// The children of earlier runs that are no longer wanted, with the result of the removal of their marks if their images are back to
    /// life.
    pub removed: Vec<(Attachment, Option<Deleted>)>,
    /// The children that stay as they are.
    pub kept: Vec<Attachment>,
    /// The names of the children that exist by the documents.
    pub existing: BTreeSet<String>,
}

impl PlannedSet {
    /// Returns whether an ImageAttachment is a child of the set.
    pub(in crate::cli) fn owns(&self, attachment: &Attachment) -> bool {
        is_child(&self.document, attachment)
    }

    /// Returns whether every repository was read, nothing waits for a confirmation, and every mark that had to go is gone.
    pub(in crate::cli) fn is_complete(&self) -> bool {
        let is_read = |status: &crate::api::RepositoryStatus| status.reason.is_none();
        let failed = |(_, deleted): &(Attachment, Option<Deleted>)| {
            deleted
                .as_ref()
                .is_some_and(|deleted| deleted.failed.is_some())
        };
        self.plan.repositories.iter().all(is_read)
            && !self.plan.is_held
            && !self.removed.iter().any(failed)
    }

    /// Returns the status of the set after a run.
    pub(in crate::cli) fn status(
        &self,
        all: &[Finished<'_>],
        now: Timestamp,
    ) -> ImageAttachmentSetStatus {
        let set = &self.document.object;
        let own = all.iter().filter(|it| self.owns(it.attachment));
        let done = own.map(|it| self.child_state(&it.attachment.object, it.outcome.as_ref()));
        let kept = self
            .kept
            .iter()
            .map(|kept| self.child_state(&kept.object, None));
        let state = ChildrenState {
            children: done.chain(kept).collect(),
            ..ChildrenState::default()
        };
        let before = set.status.clone().unwrap_or_default();
        let generation = set.metadata.generation.unwrap_or_default();
        set_status(
            set,
            set_tables(&self.plan, &before),
            &state,
            generation,
            now,
        )
    }

    fn child_state(&self, object: &ImageAttachment, outcome: Option<&Outcome>) -> ChildState {
        let child = ExistingChild::of(object);
        let mut repositories = self.policy.repositories.iter();
        ChildState {
            name: object.metadata.name.clone().unwrap_or_default(),
            repository: child
                .and_then(|child| repositories.position(|of| of.name == child.repository)),
            progress: match outcome {
                Some(outcome) if is_success(outcome, View::Attached) => Progress::Ready,
                Some(outcome) => Progress::Failed(outcome.verdict.reason),
                None => Progress::Pending,
            },
            message: outcome.map_or_else(String::new, |outcome| outcome.verdict.message.clone()),
        }
    }
}

/// Returns whether an ImageAttachment has the name that a set gives to a child.
fn is_child(set: &SetDocument, attachment: &Attachment) -> bool {
    attachment.namespace == set.namespace
        && ExistingChild::of(&attachment.object).is_some_and(|child| {
            child.name == child_name(set.name(), &child.repository, &child.root)
        })
}

/// Reads the repositories of all sets, and puts the children that follow in the place of the sets. `documents` then has no set.
///
/// # Errors
/// Bad input: a set whose spec or status is invalid, or that cannot be detached.
pub(in crate::cli) async fn expand(
    documents: &mut Documents,
    engine: &Engine,
    mode: Mode,
) -> Result<Vec<PlannedSet>, Error> {
    documents.read_status_of_sets(is_child)?;
    // A credential helper may ask its user, so it is not run for nothing.
    if documents.sets.is_empty() {
        return Ok(Vec::new());
    }
    let logins = super::logins(documents, mode).await;
    let mut planned = Vec::new();
    let mut errors = Vec::new();
    for set in std::mem::take(&mut documents.sets) {
        if mode == Mode::Detach && set.object.spec.lifecycle.is_some() {
            errors.push(format!("{}: {REMOVAL_NEEDS_CHILDREN}", set.location));
            continue;
        }
        let location = set.location.clone();
        match plan_set(documents, engine, set, mode, &logins).await {
            Ok(set) => planned.push(set),
            Err(problem) => {
                errors.push(format!("{location}: {}", super::explain(&problem)));
            }
        }
    }
    if errors.is_empty() {
        Ok(planned)
    } else {
        Err(Error::BadInput(errors))
    }
}

async fn plan_set(
    documents: &mut Documents,
    engine: &Engine,
    document: SetDocument,
    mode: Mode,
    logins: &Keychain,
) -> Result<PlannedSet, Problem> {
    let policy = SetPolicy::parse(&document.object.spec)?;
    let (own, others): (Vec<Attachment>, Vec<Attachment>) =
        std::mem::take(&mut documents.attachments)
            .into_iter()
            .partition(|attachment| is_child(&document, attachment));
    documents.attachments = others;
    let existing: Vec<ExistingChild> = (own.iter())
        .filter_map(|attachment| ExistingChild::of(&attachment.object))
        .collect();
    let mut own: BTreeMap<String, Attachment> = own
        .into_iter()
        .map(|attachment| {
            let name = attachment.object.metadata.name.clone();
            (name.unwrap_or_default(), attachment)
        })
        .collect();
    let names = own.keys().cloned().collect();
    let repositories = read_repositories(
        documents, engine, &document, &policy, &existing, mode, logins,
    )
    .await?;
    let mut plan = plan(SetInput {
        name: document.name(),
        policy: &policy,
        repositories,
        children: &existing,
        confirmed: document.object.confirmed(),
    });
    // In the order of the table.
    plan.children.sort_by_cached_key(|child| {
        let tag = ExistingChild::of(&child.object).and_then(|child| child.tag);
        let version = tag.as_ref().and_then(version_of);
        (child.repository, Reverse((version, tag)))
    });
    for child in &plan.children {
        let mut object = child.object.clone();
        object.metadata.namespace = Some(document.namespace.clone());
        let before = own.remove(object.metadata.name.as_deref().unwrap_or_default());
        object.status = before.and_then(|before| before.object.status);
        documents.attachments.push(Attachment {
            location: document.location.clone(),
            namespace: document.namespace.clone(),
            object,
            status: None,
        });
    }
    let kept = plan.kept.iter().filter_map(|name| own.remove(name));
    let kept = kept.collect();
    let removed = plan
        .removals
        .iter()
        .filter_map(|removal| own.remove(&removal.name));
    let removed = removed.map(|attachment| (attachment, None)).collect();
    Ok(PlannedSet {
        document,
        policy,
        plan,
        removed,
        kept,
        existing: names,
    })
}

/// Reads the repositories of a set, each as far as it can be read.
async fn read_repositories<'a>(
    documents: &Documents,
    engine: &Engine,
    document: &'a SetDocument,
    policy: &SetPolicy,
    existing: &[ExistingChild],
    mode: Mode,
    logins: &Keychain,
) -> Result<Vec<RepositoryInput<'a>>, Problem> {
    let spec = document.object.spec.template.spec.shared();
    let spec: Cow<'_, _> = readable(documents, &document.namespace, spec, mode);
    let sources = documents.sources_of(&document.namespace, &spec, logins.clone());
    let access = access(&spec, policy.registries(), &sources)?;
    let status = document.object.status.as_ref();
    let is_suspended = document.object.spec.suspend();
    let (cache, now) = (ReachCache::default(), Timestamp::now());
    let (access, cache, timeout) = (&access, &cache, spec.timeout());
    let reads = policy.repositories.iter().map(|repository| async move {
        let known = status.into_iter().flat_map(|status| &status.repositories);
        let previous = known
            .into_iter()
            .find(|known| known.name == repository.name);
        let reading = RepositoryReading {
            policy,
            repository,
            access,
            previous,
            children: existing,
            confirmed: document.object.confirmed(),
            cache,
            timeout,
            now,
        };
        let read = async {
            if is_suspended {
                let why = "spec.suspend is set, so nothing was done";
                return Err(Failure::new(Reason::Suspended, why));
            }
            engine.read_repository(&reading).await
        };
        let read = announced(|| format!("waiting for {}", repository.host), read).await;
        let (state, reaches, recovered) = match read {
            Ok(read) => (Ok(read.state), read.reaches, read.recovered),
            Err(failure) => (Err(failure.problem), BTreeMap::new(), BTreeMap::new()),
        };
        RepositoryInput {
            state,
            previous,
            reaches,
            recovered,
        }
    });
    let reads = futures::stream::iter(reads).buffered(MAX_CONCURRENT);
    Ok(reads.collect().await)
}

/// Removes the marks of images that are back to life, as far as the status of their ImageAttachments lists them.
pub(in crate::cli) async fn withdraw(
    engine: &Engine,
    documents: &Documents,
    sets: &mut [PlannedSet],
) {
    if sets.iter().all(|set| set.removed.is_empty()) {
        return;
    }
    let logins = super::logins(documents, Mode::Attach).await;
    for set in sets {
        let withdrawn: BTreeSet<&String> = (set.plan.removals.iter())
            .filter(|removal| removal.withdraws)
            .map(|removal| &removal.name)
            .collect();
        for (attachment, result) in &mut set.removed {
            let is_withdrawn = (attachment.object.metadata.name.as_ref())
                .is_some_and(|name| withdrawn.contains(name));
            if !is_withdrawn {
                continue;
            }
            let sources = documents.sources(attachment, logins.clone());
            let spec = super::readable_spec(documents, attachment, Mode::Attach);
            let status = attachment.object.status.as_ref();
            *result = Some(match deletion(&spec, status, &sources) {
                Ok(deletion) => engine.delete(&deletion, &NoClaims).await,
                Err(problem) => Deleted {
                    failed: Some(problem.into()),
                    ..Deleted::default()
                },
            });
        }
    }
}

/// Tells what a set without a status cannot know.
pub(in crate::cli) fn show_notices(sets: &[PlannedSet]) {
    for set in sets {
        let settling = set
            .plan
            .cycles
            .iter()
            .any(|cycle| cycle.state == crate::api::CycleState::Settling);
        if settling && set.document.object.status.is_none() {
            message(&format!(
                "notice: {}: without a status among the files, lifecycle.settle begins with this run: keep the output of -o yaml and give it \
                 with -f at the next run, or set settle: 0s",
                set.document.label()
            ));
        }
    }
}
