//! The children of a set, as the cache has them.

use std::collections::HashSet;
use std::sync::Arc;

use kube::{Client, Resource as _, ResourceExt as _};

use crate::api::{ConditionType, ImageAttachment, ImageAttachmentSet, Reason, find_condition};
use crate::controller::api_server::ApiServerError;
use crate::controller::reconcile::object_read::{self, ReadError};
use crate::controller::sets::memory::LastPass;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::child::{Child, Owner};
use crate::controller::watch::summary::{Summary, repository_hash_of};
use crate::engine::{ChildState, ChildrenState, Progress};

/// Returns whether the set owns a cached object.
fn is_owned(set: &ImageAttachmentSet, entry: &CacheEntry) -> bool {
    let uid = set.metadata.uid.as_deref();
    let owner = entry.child().map(Child::owner);
    matches!(owner, Some(Owner::Set(owner)) if Some(&**owner) == uid)
}

/// Returns the state of the children after a pass. A child that is not yet as the pass wanted it is pending, whatever its status says.
pub(crate) fn state(
    set: &ImageAttachmentSet,
    children: &[Arc<CacheEntry>],
    LastPass { desired, failure }: LastPass,
) -> ChildrenState {
    let repositories: Vec<Option<u32>> = (set.spec.repositories.iter())
        .map(|name| repository_hash_of(name))
        .collect();
    let mut owned: Vec<&CacheEntry> = (children.iter())
        .map(|entry| &**entry)
        .filter(|entry| is_owned(set, entry))
        .collect();
    owned.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    let there: HashSet<&str> = (owned.iter())
        .filter(|entry| entry.meta().deletion_timestamp.is_none())
        .filter_map(|entry| entry.meta().name.as_deref())
        .collect();
    let missing = desired
        .keys()
        .filter(|name| !there.contains(&***name))
        .count();
    let mut has_failed = false;
    let children = owned.iter().map(|entry| {
        let is_current = entry
            .child()
            .zip(desired.get(&*entry.name_any()))
            .is_none_or(|(child, desired)| child.matches(desired));
        let progress = match progress(entry) {
            Progress::Ready | Progress::Failed(_) if !is_current => Progress::Pending,
            progress => progress,
        };
        let is_first = matches!(progress, Progress::Failed(_)) && !has_failed;
        has_failed |= is_first;
        let image = entry.summary().and_then(Summary::image_repository);
        ChildState {
            name: entry.name_any(),
            repository: repositories
                .iter()
                .position(|repository| repository.is_some() && *repository == image),
            progress,
            message: if is_first {
                message(entry)
            } else {
                String::new()
            },
        }
    });
    ChildrenState {
        children: children.collect(),
        missing,
        failure,
    }
}

fn progress(entry: &CacheEntry) -> Progress {
    if entry.meta().deletion_timestamp.is_some() {
        return Progress::Deleted;
    }
    let Some(summary) = entry.summary() else {
        return Progress::Failed(Reason::InvalidSpec);
    };
    if summary.is_pending {
        return Progress::Pending;
    }
    let mut conditions = summary.conditions.iter().flatten();
    match conditions.find(|(kind, ..)| *kind == ConditionType::Ready) {
        Some((_, Some(true), _)) => Progress::Ready,
        Some((_, _, Reason::Suspended)) => Progress::Failed(Reason::Suspended),
        Some((_, Some(false), reason)) if *reason != Reason::Progressing => {
            Progress::Failed(*reason)
        }
        Some(_) | None => Progress::Pending,
    }
}

/// Returns the message of Ready.
fn message(entry: &CacheEntry) -> String {
    let object = entry.object().ok().flatten();
    let status = object.and_then(|object| object.status);
    let conditions = status.map(|status| status.conditions).unwrap_or_default();
    let ready = find_condition(&conditions, ConditionType::Ready);
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

/// Returns the children whose dates and digests a pass takes into account: those of the set, and those that it can adopt.
///
/// # Errors
/// When the API server does not return a large one.
pub(crate) async fn objects(
    client: &Client,
    set: &ImageAttachmentSet,
    children: &[Arc<CacheEntry>],
) -> Result<Vec<ImageAttachment>, ApiServerError> {
    let name = set.name_any();
    let mut objects = Vec::new();
    for entry in children {
        let is_child = (entry.child())
            .is_some_and(|child| child.is_of(&name) && *child.owner() != Owner::Stranger);
        if !is_child || entry.meta().deletion_timestamp.is_some() {
            continue;
        }
        match object_read::load(client, entry).await {
            Ok(object) => objects.push(object),
            Err(ReadError::Invalid(_) | ReadError::ApiServer(ApiServerError::ResourceGone)) => {}
            Err(ReadError::ApiServer(error)) => return Err(error),
        }
    }
    Ok(objects)
}
