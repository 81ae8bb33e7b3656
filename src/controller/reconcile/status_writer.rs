//! The status writer, and the ownership of attachments that status records.
//!
//! Every write names the resource version that it follows, so it never overwrites a concurrent write: a replica of another
//! shard may have made this resource the owner of an attachment. After a conflict the writer reads the newer status, adds the
//! attachments that it owns, and writes again.

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;

use crate::api::{
    ConditionType, ImageAttachment, ImageAttachmentSpec, ImageAttachmentStatus, Leftover, Origin,
    Reason, SignatureFormat, find_condition,
};
use crate::controller::api_server::{ApiServerError, FIELD_MANAGER, with_timeout};
use crate::controller::context::Context;
use crate::engine::{Draft, Failure, Journal, status_in_progress};
use affix_registry::oci::Digest;

/// The most attempts to write while other clients write the object.
const MAX_ATTEMPTS: usize = 8;

/// An attachment that a resource owns, as status writes its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedAttachment {
    subject: String,
    attachment: String,
    /// Set for a signature under the signature tag.
    format: Option<SignatureFormat>,
}

/// Writes the status of one resource during its reconciliation.
pub(crate) struct StatusWriter<'a> {
    context: &'a Context,
    state: Mutex<WriterState>,
}

struct WriterState {
    /// The object as last read or written.
    object: ImageAttachment,
    /// The attachments that other resources transferred to this one since the reconciliation started. The engine does not
    /// know them.
    transferred: Vec<OwnedAttachment>,
}

impl<'a> StatusWriter<'a> {
    /// Returns a writer that starts from the version of `object`.
    pub(crate) fn new(context: &'a Context, object: &ImageAttachment) -> Self {
        Self {
            context,
            state: Mutex::new(WriterState {
                object: object.clone(),
                transferred: Vec::new(),
            }),
        }
    }

    /// Writes status, unless the resource has it already.
    ///
    /// # Errors
    /// When the API server refuses, every attempt meets a conflict, or the resource is gone.
    pub(crate) async fn write(&self, status: &ImageAttachmentStatus) -> Result<(), ApiServerError> {
        let mut state = self.state.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            let mut status = status.clone();
            status.image_name = Some(image_name(&state.object.spec));
            for owned in &state.transferred {
                set_owned(&mut status, owned);
            }
            if state.object.status.as_ref() == Some(&status) {
                return Ok(());
            }
            match patch_status(self.context, &state.object, status).await? {
                Patched::Written(object) => {
                    state.object = *object;
                    return Ok(());
                }
                Patched::Conflict => {
                    let newest = read(self.context, &state.object).await?;
                    let transferred =
                        added_ownership(state.object.status.as_ref(), newest.status.as_ref());
                    state.transferred.extend(transferred);
                    state.object = newest;
                }
            }
        }
        Err(ApiServerError::Conflict)
    }
}

impl StatusWriter<'_> {
    /// Writes the status of a new resource, unless the resource has the condition Ready by now.
    ///
    /// # Errors
    /// As [`write`](Self::write), except that a conflict is left to the next write.
    pub(crate) async fn write_first(
        &self,
        mut status: ImageAttachmentStatus,
    ) -> Result<(), ApiServerError> {
        let mut state = self.state.lock().await;
        if has_ready(state.object.status.as_ref()) {
            return Ok(());
        }
        status.image_name = Some(image_name(&state.object.spec));
        if let Patched::Written(object) = patch_status(self.context, &state.object, status).await? {
            state.object = *object;
        }
        Ok(())
    }
}

/// Returns the image of a spec without its digest.
fn image_name(spec: &ImageAttachmentSpec) -> String {
    let name = spec.image.split_once('@').map(|(name, _)| name);
    name.unwrap_or(&spec.image).to_owned()
}

/// Returns whether a status has the condition Ready.
pub(crate) fn has_ready(status: Option<&ImageAttachmentStatus>) -> bool {
    let conditions = status.map(|status| status.conditions.as_slice());
    find_condition(conditions.unwrap_or_default(), ConditionType::Ready).is_some()
}

/// Records in status the attachments that a pass is about to push.
pub(crate) struct StatusJournal<'a> {
    pub(crate) writer: &'a StatusWriter<'a>,
    pub(crate) object: &'a ImageAttachment,
    pub(crate) now: Timestamp,
}

impl Journal for StatusJournal<'_> {
    async fn save(&self, draft: &Draft<'_>) -> Result<(), Failure> {
        let previous = self.object.status.clone().unwrap_or_default();
        let generation = self.object.metadata.generation.unwrap_or_default();
        let status = status_in_progress(&previous, draft, generation, self.now);
        self.writer.write(&status).await.map_err(|error| {
            let message = format_args!("cannot save status before the push: {error}");
            Failure::new(Reason::Progressing, message)
        })
    }
}

/// Makes a resource the owner of an attachment. Returns `false` if the resource is deleted or being deleted.
///
/// # Errors
/// When the API server refuses, or every attempt meets a conflict.
pub(crate) async fn record_owner(
    context: &Context,
    new_owner: &ImageAttachment,
    subject: &Digest,
    attachment: &Digest,
    previous_owner: &ImageAttachment,
) -> Result<bool, ApiServerError> {
    let attachment = attachment.to_string();
    let status = previous_owner.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(owned)
        .find(|owned| owned.attachment == attachment);
    let owned = OwnedAttachment {
        subject: subject.to_string(),
        format: known.and_then(|known| known.format),
        attachment,
    };
    match try_record_owner(context, new_owner.clone(), &owned).await {
        Err(ApiServerError::ResourceGone) => Ok(false),
        result => result,
    }
}

async fn try_record_owner(
    context: &Context,
    mut new_owner: ImageAttachment,
    owned: &OwnedAttachment,
) -> Result<bool, ApiServerError> {
    for _ in 0..MAX_ATTEMPTS {
        if new_owner.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        let mut status = new_owner.status.clone().unwrap_or_default();
        set_owned(&mut status, owned);
        match patch_status(context, &new_owner, status).await? {
            Patched::Written(_) => return Ok(true),
            Patched::Conflict => new_owner = read(context, &new_owner).await?,
        }
    }
    Err(ApiServerError::Conflict)
}

/// The result of a patch.
enum Patched {
    /// The object as written.
    Written(Box<ImageAttachment>),
    /// The object has another version.
    Conflict,
}

/// Writes status by server-side apply to the version of `object`.
async fn patch_status(
    context: &Context,
    object: &ImageAttachment,
    status: ImageAttachmentStatus,
) -> Result<Patched, ApiServerError> {
    let patch = json!({
        "apiVersion": ImageAttachment::api_version(&()),
        "kind": ImageAttachment::kind(&()),
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace(),
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        },
        "status": status,
    });
    let (api, name) = (api(context, object), object.name_any());
    let (params, patch) = (
        PatchParams::apply(FIELD_MANAGER).force(),
        Patch::Apply(&patch),
    );
    let error = match with_timeout(api.patch_status(&name, &params, &patch)).await {
        Ok(written) => {
            let mut object = object.clone();
            object.metadata.resource_version = written.metadata.resource_version;
            object.status = Some(status);
            context.states.record_write(&object);
            return Ok(Patched::Written(Box::new(object)));
        }
        Err(error) => error,
    };
    let is_unknown_field = matches!(&error, ApiServerError::Refused(answer) if answer.message.contains("not declared in schema"));
    match error.code() {
        Some(409) => return Ok(Patched::Conflict),
        Some(404) => {
            // The API server answers 404 for a missing resource and for a missing status subresource.
            read(context, object).await?;
            context.crd_check.invalidate();
        }
        Some(422) => context.crd_check.invalidate(),
        _ if is_unknown_field => context.crd_check.invalidate(),
        _ => {}
    }
    Err(error)
}

/// Reads the current version of an object. Another object of the same name counts as gone.
async fn read(
    context: &Context,
    object: &ImageAttachment,
) -> Result<ImageAttachment, ApiServerError> {
    let (api, name) = (api(context, object), object.name_any());
    match with_timeout(api.get_opt(&name)).await? {
        Some(newest) if newest.uid() == object.uid() => Ok(newest),
        _ => Err(ApiServerError::ResourceGone),
    }
}

fn api(context: &Context, object: &ImageAttachment) -> Api<ImageAttachment> {
    let namespace = object.namespace().unwrap_or_default();
    Api::namespaced(context.client.clone(), &namespace)
}

/// Returns the attachments that `newest` owns and `known` does not.
fn added_ownership(
    known: Option<&ImageAttachmentStatus>,
    newest: Option<&ImageAttachmentStatus>,
) -> Vec<OwnedAttachment> {
    let newest = newest.into_iter().flat_map(owned);
    newest
        .filter(|new| !known.is_some_and(|known| owns(known, &new.attachment)))
        .collect()
}

fn owns(status: &ImageAttachmentStatus, attachment: &str) -> bool {
    owned(status).any(|owned| owned.attachment == attachment)
}

/// Returns the attachments that the resource of this status owns.
fn owned(status: &ImageAttachmentStatus) -> impl Iterator<Item = OwnedAttachment> {
    status
        .owned()
        .map(|(subject, attachment, format)| OwnedAttachment {
            subject: subject.to_owned(),
            attachment: attachment.to_owned(),
            format: format.filter(|format| *format == SignatureFormat::Tag),
        })
}

/// Marks an attachment as owned: in its target, or, if no target has it, as a leftover for the next pass.
fn set_owned(status: &mut ImageAttachmentStatus, new: &OwnedAttachment) {
    if owns(status, &new.attachment) {
        return;
    }
    let mut targets = status.targets.iter_mut();
    if let Some(target) = targets.find(|target| target.digest == new.subject) {
        let is_first = target.attachment.as_ref() == Some(&new.attachment);
        let format = target.formats.iter_mut().enumerate().find(|(nth, format)| {
            format.attachment() == Some(&new.attachment) || (*nth == 0 && is_first)
        });
        let is_shown = is_first || format.is_some();
        if let Some((_, format)) = format {
            format.origin = Some(Origin::Made);
        }
        if is_first {
            target.origin = Some(Origin::Made);
        }
        if is_shown {
            return;
        }
    }
    // The API server rejects a status with too many leftovers, so the oldest is dropped.
    if status.leftovers.len() >= ImageAttachmentStatus::MAX_LEFTOVERS {
        status.leftovers.remove(0);
    }
    status.leftovers.push(Leftover {
        subject: new.subject.clone(),
        attachment: new.attachment.clone(),
        format: new.format,
        reason: Some(Reason::Progressing.as_str().to_owned()),
        message: None,
    });
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;

    fn owned_attachment(name: &str) -> OwnedAttachment {
        OwnedAttachment {
            subject: Digest::sha256(b"subject").to_string(),
            attachment: Digest::sha256(name.as_bytes()).to_string(),
            format: None,
        }
    }

    fn adopted(name: &str) -> ImageAttachmentStatus {
        let owned = owned_attachment(name);
        let target = json!({
            "kind": "Index", "digest": owned.subject, "state": "Attached",
            "attachment": owned.attachment, "origin": "Adopted",
        });
        ImageAttachmentStatus {
            targets: vec![serde_json::from_value(target).unwrap()],
            ..ImageAttachmentStatus::default()
        }
    }

    #[test]
    fn an_owned_attachment_is_recorded_in_its_target_or_once_as_a_leftover() {
        let mut status = adopted("mark");
        set_owned(&mut status, &owned_attachment("mark"));
        assert_eq!(
            (status.targets[0].origin, status.leftovers.len()),
            (Some(Origin::Made), 0)
        );
        for _ in 0..2 {
            set_owned(&mut status, &owned_attachment("other"));
            assert_eq!(
                (status.leftovers.len(), &status.leftovers[0].attachment),
                (1, &owned_attachment("other").attachment)
            );
        }
    }

    #[test]
    fn too_many_leftovers_drop_the_oldest() {
        let mut status = adopted("mark");
        for nth in 0..=ImageAttachmentStatus::MAX_LEFTOVERS {
            set_owned(&mut status, &owned_attachment(&nth.to_string()));
        }
        assert_eq!(
            (status.leftovers.len(), &status.leftovers[0].attachment),
            (256, &owned_attachment("1").attachment)
        );
    }

    #[test]
    fn only_ownership_that_others_wrote_is_added() {
        let known = adopted("mark");
        let mut newest = known.clone();
        assert!(added_ownership(Some(&known), Some(&newest)).is_empty());
        set_owned(&mut newest, &owned_attachment("mark"));
        set_owned(&mut newest, &owned_attachment("other"));
        assert_eq!(
            added_ownership(Some(&known), Some(&newest)),
            [owned_attachment("mark"), owned_attachment("other")]
        );
        assert!(added_ownership(Some(&newest), Some(&newest)).is_empty());
        assert_eq!(added_ownership(None, Some(&newest)).len(), 2);
    }
}
