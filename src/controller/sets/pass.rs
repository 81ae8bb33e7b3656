//! One pass over the repositories of a set: the engine reads them, and the computation of the set returns its children.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{ImageAttachment, ImageAttachmentSet, ImageAttachmentSetStatus};
use crate::attachment::sets::{ExistingChild, RepositoryInput, SetInput, SetPolicy, plan};
use crate::controller::context::Context;
use crate::engine::{self, Failure, ReachCache, RepositoryRead, RepositoryReading, Sources};

/// The number of repositories of a set that are read at once.
const CONCURRENCY: usize = 4;

/// The result of a pass.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The tables of status, without the number of children, and the conditions of the last pass.
    pub(crate) status: ImageAttachmentSetStatus,
    pub(crate) children: Vec<ImageAttachment>,
    /// The names of the children to delete, and whether their marks go with them, since their images have come back to life.
    pub(crate) removals: BTreeMap<String, bool>,
    /// The time that a registry asks for before a retry.
    pub(crate) retry_after: Option<Duration>,
}

/// Runs a pass. `existing` are the children of the set, and `cache` has the indexes that its earlier passes read.
///
/// # Errors
/// When the spec or a Secret is invalid. A repository that cannot be read is part of the result.
pub(crate) async fn run(
    context: &Context,
    set: &ImageAttachmentSet,
    previous: &ImageAttachmentSetStatus,
    sources: &Sources,
    existing: Vec<ImageAttachment>,
    cache: &ReachCache,
) -> Result<Pass, Failure> {
    let template = set.spec.template.spec.shared();
    let policy = SetPolicy::parse(&set.spec)?;
    let access = engine::access(template, policy.registries(), sources)?;
    let children: Vec<ExistingChild> = existing.iter().filter_map(ExistingChild::of).collect();
    let names: Vec<String> = existing.iter().map(ResourceExt::name_any).collect();
    drop(existing);
    let now = Timestamp::now();
    let known = |name: &str| {
        let mut known = previous.repositories.iter();
        known.find(|known| known.name == name)
    };
    let readings: Vec<RepositoryReading<'_>> = (policy.repositories.iter())
        .map(|repository| RepositoryReading {
            policy: &policy,
            repository,
            access: &access,
            previous: known(&repository.name),
            children: &children,
            confirmed: set.confirmed(),
            cache,
            timeout: template.timeout(),
            now,
        })
        .collect();
    let reads: Vec<BoxFuture<'_, _>> = (readings.iter())
        .map(|reading| context.engine.read_repository(reading).boxed())
        .collect();
    let reads = stream::iter(reads).buffered(CONCURRENCY);
    let reads: Vec<Result<RepositoryRead, Failure>> = reads.collect().await;
    let failures = reads.iter().filter_map(|read| read.as_ref().err());
    let retry_after = failures.filter_map(|failure| failure.retry_after).max();
    if reads.iter().all(Result::is_ok) {
        let used = reads.iter().flatten().flat_map(|read| read.reaches.keys());
        cache.retain(&used.cloned().collect());
    }
    let repositories = reads.into_iter().zip(&readings).map(|(read, reading)| {
        let (state, reaches, recovered) = match read {
            Ok(read) => (Ok(read.state), read.reaches, read.recovered),
            Err(failure) => (Err(failure.problem), BTreeMap::new(), BTreeMap::new()),
        };
        RepositoryInput {
            state,
            previous: reading.previous,
            reaches,
            recovered,
        }
    });
    let plan = plan(SetInput {
        name: &set.name_any(),
        policy: &policy,
        repositories: repositories.collect(),
        children: &children,
        confirmed: set.confirmed(),
    });
    let status = engine::set_tables(&plan, previous);
    let wanted: BTreeSet<&str> = (plan.children.iter())
        .filter_map(|child| child.object.metadata.name.as_deref())
        .chain(plan.kept.iter().map(String::as_str))
        .collect();
    let is_complete = plan
        .repositories
        .iter()
        .all(|status| status.reason.is_none());
    // A child that was edited beyond recognition is not planned. Its repository may be one that could not be read.
    let unplanned = names
        .into_iter()
        .filter(|name| is_complete && !wanted.contains(&**name));
    let mut removals: BTreeMap<String, bool> = unplanned.map(|name| (name, false)).collect();
    removals.extend(
        plan.removals
            .into_iter()
            .map(|removal| (removal.name, removal.withdraws)),
    );
    Ok(Pass {
        status,
        children: plan
            .children
            .into_iter()
            .map(|child| child.object)
            .collect(),
        removals,
        retry_after,
    })
}
