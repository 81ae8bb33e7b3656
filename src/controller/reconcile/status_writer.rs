//! The status of one resource as one visit reads and writes it.
//!
//! Every write names the version that it follows, so it never covers what somebody else wrote meanwhile: a replica of another share
//! that makes this resource the maker of what its own did not want any more. Then the newer status is read, what it says was made
//! is taken along, and the write is tried again.

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;

use crate::api::{ImageAttachment, ImageAttachmentStatus, Leftover, Origin, Reason};
use affix_registry::oci::Digest;

use crate::controller::context::{ClusterError, Context, MANAGER};

/// How often a write is tried when others write the object at the same time.
const TRIES: usize = 8;

/// Subject and digest of an attachment, as status writes them.
type Made = (String, String);

/// What a visit knows of a resource's status.
pub(crate) struct Ledger<'a> {
    context: &'a Context,
    page: Mutex<Page>,
}

struct Page {
    /// The object as this visit last read or wrote it.
    known: ImageAttachment,
    /// What others have left to the resource since the visit began: no status that the visit makes has it.
    inherited: Vec<Made>,
}

impl<'a> Ledger<'a> {
    /// For a visit to `object`, which is as the visit has read it.
    pub(crate) fn of(context: &'a Context, object: &ImageAttachment) -> Self {
        Self {
            context,
            page: Mutex::new(Page {
                known: object.clone(),
                inherited: Vec::new(),
            }),
        }
    }

    /// Writes status, unless it is what the resource has.
    ///
    /// # Errors
    /// When the API server refuses, others never stop writing, or the resource is gone.
    pub(crate) async fn write(&self, status: &ImageAttachmentStatus) -> Result<(), ClusterError> {
        let mut page = self.page.lock().await;
        for _ in 0..TRIES {
            let mut status = status.clone();
            for made in &page.inherited {
                give(&mut status, made);
            }
            if page.known.status.as_ref() == Some(&status) {
                return Ok(());
            }
            match self.context.put_status(&page.known, status).await? {
                Put::Written(written) => {
                    page.known = *written;
                    return Ok(());
                }
                Put::Outdated => {
                    let newest = self.context.read(&page.known).await?;
                    let left = left_to(page.known.status.as_ref(), newest.status.as_ref());
                    page.inherited.extend(left);
                    page.known = newest;
                }
            }
        }
        Err(ClusterError::Contended)
    }
}

/// What came of a write.
enum Put {
    /// The object as it is now.
    Written(Box<ImageAttachment>),
    /// Somebody else has written the object meanwhile.
    Outdated,
}

impl Context {
    /// Makes `heir` the maker of an attachment, whatever a visit to it is about to write; `false` where it goes or is gone.
    ///
    /// # Errors
    /// When the API server refuses, or others never stop writing.
    pub(crate) async fn bequeath(
        &self,
        heir: &ImageAttachment,
        subject: &Digest,
        attachment: &Digest,
    ) -> Result<bool, ClusterError> {
        let made = (subject.to_string(), attachment.to_string());
        let mut heir = heir.clone();
        for _ in 0..TRIES {
            if heir.metadata.deletion_timestamp.is_some() {
                return Ok(false);
            }
            let mut status = heir.status.clone().unwrap_or_default();
            give(&mut status, &made);
            match self.put_status(&heir, status).await {
                Ok(Put::Written(_)) => return Ok(true),
                Ok(Put::Outdated) => match self.read(&heir).await {
                    Ok(newest) => heir = newest,
                    Err(ClusterError::Gone) => return Ok(false),
                    Err(error) => return Err(error),
                },
                Err(ClusterError::Gone) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Err(ClusterError::Contended)
    }

    /// Writes status by server-side apply on the version that `object` is of.
    async fn put_status(
        &self,
        object: &ImageAttachment,
        status: ImageAttachmentStatus,
    ) -> Result<Put, ClusterError> {
        let patch = json!({
            "apiVersion": ImageAttachment::api_version(&()), "kind": ImageAttachment::kind(&()), "status": status,
            "metadata": {
                "name": object.name_any(), "namespace": object.namespace(), "uid": object.uid(),
                "resourceVersion": object.resource_version(),
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        match self
            .bounded(self.of_namespace(object).patch_status(
                &object.name_any(),
                &params,
                &Patch::Apply(&patch),
            ))
            .await
        {
            Ok(written) => {
                let mut object = object.clone();
                object.metadata.resource_version = written.metadata.resource_version;
                object.status = Some(status);
                self.objects.wrote(&object);
                Ok(Put::Written(Box::new(object)))
            }
            Err(ClusterError::Api(kube::Error::Api(answer))) if answer.code == 409 => {
                Ok(Put::Outdated)
            }
            Err(ClusterError::Api(kube::Error::Api(answer))) if answer.code == 404 => {
                // The same answer is given for a resource that is gone and for one whose status is not served.
                self.read(object).await?;
                self.definition.doubt();
                Err(kube::Error::Api(answer).into())
            }
            Err(ClusterError::Api(kube::Error::Api(answer)))
                if answer.code == 422 || answer.message.contains("not declared in schema") =>
            {
                self.definition.doubt();
                Err(kube::Error::Api(answer).into())
            }
            Err(error) => Err(error),
        }
    }

    /// The object as it is now; one that was made anew under the same name is another one.
    async fn read(&self, object: &ImageAttachment) -> Result<ImageAttachment, ClusterError> {
        match self
            .bounded(self.of_namespace(object).get_opt(&object.name_any()))
            .await?
        {
            Some(newest) if newest.uid() == object.uid() => Ok(newest),
            _ => Err(ClusterError::Gone),
        }
    }

    fn of_namespace(&self, object: &ImageAttachment) -> Api<ImageAttachment> {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }
}

/// What a newer status says was made and an older one of the same resource does not know of.
fn left_to(
    known: Option<&ImageAttachmentStatus>,
    newest: Option<&ImageAttachmentStatus>,
) -> Vec<Made> {
    let knows = |(_, attachment): &Made| {
        known.is_some_and(|status| made(status).any(|(_, made)| made == attachment))
    };
    let newest = newest
        .into_iter()
        .flat_map(made)
        .map(|(subject, attachment)| (subject.clone(), attachment.clone()));
    newest.filter(|made| !knows(made)).collect()
}

/// What status says that the resource made.
fn made(status: &ImageAttachmentStatus) -> impl Iterator<Item = (&String, &String)> {
    let rows = status
        .targets
        .iter()
        .filter(|row| row.origin == Some(Origin::Made));
    let rows = rows.filter_map(|row| Some((&row.digest, row.attachment.as_ref()?)));
    rows.chain(
        status
            .leftovers
            .iter()
            .map(|leftover| (&leftover.subject, &leftover.attachment)),
    )
}

/// The resource is the maker: of what a row names there, else of what it will look at in its next pass.
fn give(status: &mut ImageAttachmentStatus, (subject, attachment): &Made) {
    if made(status).any(|(_, known)| known == attachment) {
        return;
    }
    match status
        .targets
        .iter_mut()
        .find(|row| row.digest == *subject && row.attachment.as_ref() == Some(attachment))
    {
        Some(row) => row.origin = Some(Origin::Made),
        None => {
            // A status that is too long would not be written at all: the oldest goes.
            if status.leftovers.len() >= ImageAttachmentStatus::MOST_LEFTOVERS {
                status.leftovers.remove(0);
            }
            status.leftovers.push(Leftover {
                subject: subject.clone(),
                attachment: attachment.clone(),
                reason: Some(Reason::Progressing.as_str().to_owned()),
                message: None,
            });
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::api::{TargetKind, TargetState, TargetStatus};

    fn pair(name: &str) -> Made {
        (
            Digest::sha256(b"subject").to_string(),
            Digest::sha256(name.as_bytes()).to_string(),
        )
    }

    fn adopted(name: &str) -> ImageAttachmentStatus {
        let (digest, attachment) = pair(name);
        let row = TargetStatus {
            kind: TargetKind::Index,
            platform: None,
            other_platforms: Vec::new(),
            digest,
            state: TargetState::Attached,
            reason: None,
            message: None,
            attachment: Some(attachment),
            origin: Some(Origin::Adopted),
            created: None,
            content: None,
            superseded_for: None,
        };
        ImageAttachmentStatus {
            targets: vec![row],
            ..ImageAttachmentStatus::default()
        }
    }

    #[test]
    fn what_is_given_is_a_rows_own_where_a_row_names_it_and_else_a_leftover_to_look_at() {
        let mut status = adopted("mark");
        give(&mut status, &pair("mark"));
        assert_eq!(
            (status.targets[0].origin, status.leftovers.len()),
            (Some(Origin::Made), 0)
        );
        for _ in 0..2 {
            give(&mut status, &pair("other"));
            assert_eq!(
                (status.leftovers.len(), &status.leftovers[0].attachment),
                (1, &pair("other").1),
                "once, however often"
            );
        }
    }

    #[test]
    fn what_is_given_beyond_what_status_takes_pushes_the_oldest_out() {
        let mut status = adopted("mark");
        for nth in 0..=ImageAttachmentStatus::MOST_LEFTOVERS {
            give(&mut status, &pair(&nth.to_string()));
        }
        assert_eq!(
            (status.leftovers.len(), &status.leftovers[0].attachment),
            (256, &pair("1").1)
        );
    }

    #[test]
    fn only_what_others_wrote_since_is_left_to_the_resource() {
        let known = adopted("mark");
        let mut newest = known.clone();
        assert!(left_to(Some(&known), Some(&newest)).is_empty());
        give(&mut newest, &pair("mark"));
        give(&mut newest, &pair("other"));
        assert_eq!(
            left_to(Some(&known), Some(&newest)),
            [pair("mark"), pair("other")]
        );
        assert!(left_to(Some(&newest), Some(&newest)).is_empty());
        assert_eq!(left_to(None, Some(&newest)).len(), 2);
    }
}
