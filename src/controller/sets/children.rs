//! The children of a set in the cluster: made, changed, put back and deleted, so that they are those that a pass wants.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::api::{DeletionPolicy, ImageAttachment, ImageAttachmentSet, Reason};
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::context::Context;
use crate::controller::reconcile::finalizer::with_finalizer;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::child::{Child, Owner};
use affix_registry::oci::Digest;

/// The field manager of the children.
const FIELD_MANAGER: &str = "affix-set";
/// The annotation of a child with a digest of what its set applied. It shows that a label was taken out of the template.
const APPLIED_ANNOTATION: &str = "affix.dev/applied";
/// The number of children of a set that are written at once.
const CONCURRENCY: usize = 8;
/// The number of changed children of a set after which the next ones wait for [`CHANGE_PAUSE`]. Each change sends requests to a registry.
const CHANGES_AT_ONCE: usize = 20;
/// The pause after a number of changed children.
const CHANGE_PAUSE: Duration = Duration::from_secs(2);

/// The children that a pass wants, and those that exist.
pub(crate) struct Children<'a> {
    context: &'a Context,
    set: &'a ImageAttachmentSet,
    namespace: &'a str,
    existing: &'a [Arc<CacheEntry>],
}

/// A child that a pass wants.
pub(crate) struct Desired {
    object: ImageAttachment,
    child: Child,
}

/// The changes of children, and the children that could not be changed.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) made: usize,
    pub(crate) changed: usize,
    pub(crate) deleted: usize,
    pub(crate) failures: Vec<ChildFailure>,
}

/// A child that could not be made, changed or deleted.
#[derive(Debug)]
pub(crate) struct ChildFailure {
    pub(crate) name: String,
    pub(crate) cause: ChildError,
}

/// The cause for which a child could not be made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// An object of the same name does not belong to the set.
    #[error("it exists and does not belong to this set: delete it, or rename the set")]
    Stranger,
    #[error(transparent)]
    ApiServer(#[from] ApiServerError),
}

/// The work on one child.
enum Work<'a> {
    Make(&'a Desired),
    Change(&'a Desired, &'a CacheEntry),
    /// The child is deleted, with its marks if its image has come back to life.
    Delete(&'a CacheEntry, bool),
}

/// The change of one child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Made,
    Changed,
    Deleted,
    Nothing,
}

impl Applied {
    /// Returns the first failure: its reason, and the explanation.
    pub(crate) fn problem(&self) -> Option<(Reason, String)> {
        let rank = |failure: &&ChildFailure| (failure.cause.reason(), failure.name.clone());
        let first = self.failures.iter().min_by_key(rank)?;
        let mut message = format!("ImageAttachment {}: {}", first.name, first.cause);
        match self.failures.len() {
            1 => {}
            all => drop(write!(message, " (and {} more)", all - 1)),
        }
        Some((first.cause.reason(), message))
    }
}

impl ChildError {
    const fn reason(&self) -> Reason {
        match self {
            Self::Stranger => Reason::Conflict,
            Self::ApiServer(_) => Reason::Progressing,
        }
    }
}

impl Desired {
    /// Completes a child: its namespace, its owner, and the labels of the set that `selector` of the controller names. Without them a
    /// child could belong to another shard than its set.
    pub(crate) fn new(
        mut object: ImageAttachment,
        set: &ImageAttachmentSet,
        selector: Option<&str>,
    ) -> Option<Self> {
        let names = |selector: &str, key: &str| {
            let is_key = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            selector.split(|c| !is_key(c)).any(|part| part == key)
        };
        let labels = set.labels().iter();
        let labels =
            labels.filter(|(key, _)| selector.is_some_and(|selector| names(selector, key)));
        let labels: Vec<_> = labels
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        object.labels_mut().extend(labels);
        object.metadata.namespace = set.namespace();
        object.metadata.owner_references = Some(vec![owner_reference(set)]);
        let applied = serde_json::to_vec(&(&object.metadata, &object.spec)).unwrap_or_default();
        let applied = Digest::sha256(&applied).to_string();
        object
            .annotations_mut()
            .insert(APPLIED_ANNOTATION.to_owned(), applied);
        let child = Child::of(&object.metadata, &object.spec)?;
        Some(Self { object, child })
    }

    pub(crate) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns what the child is compared with.
    pub(crate) const fn child(&self) -> &Child {
        &self.child
    }
}

impl<'a> Children<'a> {
    /// `existing` are the cached children of the set.
    pub(crate) fn new(
        context: &'a Context,
        set: &'a ImageAttachmentSet,
        existing: &'a [Arc<CacheEntry>],
    ) -> Self {
        Self {
            context,
            set,
            namespace: set.metadata.namespace.as_deref().unwrap_or_default(),
            existing,
        }
    }

    /// Makes and changes children, so that they are `desired`, and deletes those in `removals`, some of them with their marks. A failure
    /// of one child never stops the others.
    pub(crate) async fn apply(
        &self,
        desired: &[Desired],
        removals: &BTreeMap<String, bool>,
    ) -> Applied {
        let existing: HashMap<&str, &CacheEntry> = (self.existing.iter())
            .filter_map(|entry| Some((entry.meta().name.as_deref()?, &**entry)))
            .collect();
        let owned = |entry: &&CacheEntry| entry.child().is_some_and(|it| self.owns(it.owner()));
        let mut work: Vec<Work<'_>> = (removals.iter())
            .filter_map(|(name, withdraws)| {
                let entry = existing.get(name.as_str()).copied().filter(owned)?;
                Some(Work::Delete(entry, *withdraws))
            })
            .collect();
        let mut changes = Vec::new();
        for desired in desired {
            match existing.get(desired.name()) {
                None => work.push(Work::Make(desired)),
                Some(entry) if entry.meta().deletion_timestamp.is_some() => {}
                Some(entry) if entry.child().is_some_and(|it| it.matches(&desired.child)) => {}
                Some(entry) => changes.push(Work::Change(desired, entry)),
            }
        }
        let mut applied = Applied::default();
        if !work.is_empty() && self.may_go_on().await {
            self.carry_out(work, &mut applied).await;
        }
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() && self.may_go_on().await {
            let some = changes.by_ref().take(CHANGES_AT_ONCE).collect();
            self.carry_out(some, &mut applied).await;
            let pause = tokio::time::sleep(CHANGE_PAUSE);
            let is_over = async {
                tokio::select! {
                    () = pause => false,
                    () = self.context.shutdown.cancelled() => true,
                }
            };
            if changes.peek().is_some() && is_over.await {
                break;
            }
        }
        applied
    }

    /// Returns whether the set is still as the pass has read it. A set that was suspended stops here, and one that is being deleted must not
    /// become the owner of its orphans again. A change of the set triggers the next pass.
    async fn may_go_on(&self) -> bool {
        let api: Api<ImageAttachmentSet> =
            Api::namespaced(self.context.client.clone(), self.namespace);
        let (name, read) = (self.set.name_any(), &self.set.metadata);
        match with_timeout(api.get_metadata_opt(&name)).await {
            Ok(found) => found.is_some_and(|found| {
                let found = found.metadata;
                found.uid == read.uid
                    && found.generation == read.generation
                    && found.deletion_timestamp.is_none()
            }),
            // The writes fail as well, and each is reported.
            Err(_) => true,
        }
    }

    async fn carry_out(&self, work: Vec<Work<'_>>, applied: &mut Applied) {
        let work: Vec<BoxFuture<'_, _>> = (work.into_iter())
            .map(|work| self.named(work).boxed())
            .collect();
        let mut results = stream::iter(work).buffer_unordered(CONCURRENCY);
        while let Some((name, result)) = results.next().await {
            match result {
                Ok(Done::Made) => applied.made += 1,
                Ok(Done::Changed) => applied.changed += 1,
                Ok(Done::Deleted) => applied.deleted += 1,
                Ok(Done::Nothing) => {}
                Err(cause) => applied.failures.push(ChildFailure { name, cause }),
            }
        }
    }

    async fn named(&self, work: Work<'_>) -> (String, Result<Done, ChildError>) {
        (work.name().to_owned(), self.work(work).await)
    }

    async fn work(&self, work: Work<'_>) -> Result<Done, ChildError> {
        match work {
            Work::Make(desired) => self.make(desired).await,
            Work::Change(desired, entry) => self.change(desired, entry.meta(), entry.child()).await,
            Work::Delete(entry, withdraws) => self.delete(entry, withdraws).await,
        }
    }

    /// Makes a child, unless an object of its name exists that the cache does not show yet, or never, because of its labels.
    async fn make(&self, desired: &Desired) -> Result<Done, ChildError> {
        let Some(found) = with_timeout(self.api().get_opt(desired.name())).await? else {
            self.put(desired).await?;
            return Ok(Done::Made);
        };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Done::Nothing);
        }
        let child = Child::of(&found.metadata, &found.spec);
        if child
            .as_ref()
            .is_some_and(|child| child.matches(&desired.child))
        {
            return Ok(Done::Nothing);
        }
        self.change(desired, &found.metadata, child.as_ref()).await
    }

    /// Applies a child that exists. An orphan of the set, and one that a set of the same name made before it was deleted or restored,
    /// gets the owner.
    async fn change(
        &self,
        desired: &Desired,
        meta: &ObjectMeta,
        found: Option<&Child>,
    ) -> Result<Done, ChildError> {
        let is_of_set = |child: &&Child| child.is_of(&self.set.name_any());
        let Some(found) = found.filter(is_of_set) else {
            return Err(ChildError::Stranger);
        };
        match found.owner() {
            Owner::Stranger => return Err(ChildError::Stranger),
            Owner::Set(uid) if Some(&**uid) != self.set.metadata.uid.as_deref() => {
                // An object has one controlling owner, so the earlier one goes first.
                let owners = json!([owner_reference(self.set)]);
                let patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": owners}});
                self.merge(desired.name(), &patch).await?;
            }
            Owner::Set(_) | Owner::None => {}
        }
        if !found.has_kind_of(&desired.child) {
            // The kind of attachment never changes. The child is made again once it is gone.
            self.delete_object(meta).await?;
            return Ok(Done::Changed);
        }
        let put = self.put(desired).await?;
        let is_equal =
            Child::of(&put.metadata, &put.spec).is_some_and(|put| put.has_spec_of(&desired.child));
        if !is_equal {
            // Fields that others added belong to their field manager, so an apply does not remove them.
            self.replace_spec(desired, &put.spec).await?;
        }
        Ok(Done::Changed)
    }

    /// Deletes a child. `withdraws`: its marks go with it, whatever its deletion policy.
    async fn delete(&self, entry: &CacheEntry, withdraws: bool) -> Result<Done, ChildError> {
        let meta = entry.meta();
        if meta.deletion_timestamp.is_some() {
            return Ok(Done::Nothing);
        }
        if withdraws {
            let name = meta.name.as_deref().unwrap_or_default();
            let result = with_timeout(self.api().get_metadata(name)).await;
            let current = match result {
                Err(error) if error.code() == Some(404) => return Ok(Done::Nothing),
                result => result?,
            };
            // With the resource version, the patch fails if another client has changed the list meanwhile.
            let patch = json!({
                "metadata": {
                    "uid": meta.uid,
                    "resourceVersion": current.metadata.resource_version,
                    "finalizers": with_finalizer(&current.metadata),
                },
                "spec": {"deletionPolicy": DeletionPolicy::Delete, "suspend": null, "dryRun": null},
            });
            self.merge(name, &patch).await?;
        }
        self.delete_object(meta).await?;
        Ok(Done::Deleted)
    }

    async fn delete_object(&self, meta: &ObjectMeta) -> Result<(), ApiServerError> {
        let name = meta.name.as_deref().unwrap_or_default();
        let preconditions = Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams::background().preconditions(preconditions);
        match with_timeout(self.api().delete(name, &params)).await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    async fn put(&self, desired: &Desired) -> Result<ImageAttachment, ApiServerError> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&desired.object);
        with_timeout(self.api().patch(desired.name(), &params, &patch)).await
    }

    /// Sets the fields of the spec that `found` has and the child does not to null.
    async fn replace_spec(
        &self,
        desired: &Desired,
        found: &crate::api::ImageAttachmentSpec,
    ) -> Result<(), ApiServerError> {
        let value = |spec| serde_json::to_value(spec).unwrap_or_default();
        let (mut patch, found) = (value(&desired.object.spec), value(found));
        add_nulls(&mut patch, &found);
        self.merge(desired.name(), &json!({"spec": patch})).await
    }

    async fn merge(&self, name: &str, patch: &serde_json::Value) -> Result<(), ApiServerError> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        with_timeout(self.api().patch(name, &params, &Patch::Merge(patch)))
            .await
            .map(drop)
    }

    fn owns(&self, owner: &Owner) -> bool {
        matches!(owner, Owner::Set(uid) if Some(&**uid) == self.set.metadata.uid.as_deref())
    }

    fn api(&self) -> Api<ImageAttachment> {
        Api::namespaced(self.context.client.clone(), self.namespace)
    }
}

impl Work<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Make(desired) | Self::Change(desired, _) => desired.name(),
            Self::Delete(entry, _) => entry.meta().name.as_deref().unwrap_or_default(),
        }
    }
}

/// Adds a null to `patch` for each field that only `found` has, so that a merge patch removes it.
fn add_nulls(patch: &mut serde_json::Value, found: &serde_json::Value) {
    let (Some(patch), Some(found)) = (patch.as_object_mut(), found.as_object()) else {
        return;
    };
    for (name, found) in found {
        match patch.get_mut(name) {
            Some(wanted) => add_nulls(wanted, found),
            None => drop(patch.insert(name.clone(), serde_json::Value::Null)),
        }
    }
}

/// Returns the owner reference of a child.
fn owner_reference(set: &ImageAttachmentSet) -> OwnerReference {
    OwnerReference {
        api_version: ImageAttachmentSet::api_version(&()).into_owned(),
        kind: ImageAttachmentSet::kind(&()).into_owned(),
        name: set.name_any(),
        uid: set.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
