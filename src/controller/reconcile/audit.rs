//! The audit trail: one log line for each attachment that is made, adopted, restored or removed, and for each move of a tag.

use kube::ResourceExt as _;

use crate::api::{AttachmentKind, ImageAttachment, ImageAttachmentSpec, Reason};
use crate::attachment;
use crate::engine::{AttachmentChange, ChangeKind, PassEvent};
use affix_registry::oci::Digest;

/// Logs the changes of a pass. `key` is the key that signs.
pub(crate) fn log_changes(
    object: &ImageAttachment,
    changes: &[AttachmentChange],
    key: Option<&Digest>,
) {
    let before = object.status.as_ref();
    let before = before.and_then(|status| status.artifact_type.clone());
    let current = attachment::artifact_type(&object.spec).map(|kind| kind.to_string());
    for change in changes {
        // A removed attachment is of the type that status had, if the spec has changed it.
        let (artifact_type, signer) = match change.kind {
            ChangeKind::Removed => (before.as_ref().or(current.as_ref()), None),
            _ => (current.as_ref(), signer(&object.spec, key)),
        };
        tracing::info!(
            namespace = object.namespace(),
            name = object.name_any(),
            image = object.spec.image,
            subject = %change.subject,
            digest = %change.attachment,
            artifactType = artifact_type,
            format = format(&object.spec, change),
            signer,
            "attachment {}",
            change.kind
        );
    }
}

/// Logs the moves of the tag.
pub(crate) fn log_moves(object: &ImageAttachment, events: &[PassEvent]) {
    for event in events
        .iter()
        .filter(|event| event.reason == Reason::TagMoved)
    {
        tracing::info!(
            namespace = object.namespace(),
            name = object.name_any(),
            image = object.spec.image,
            reason = event.reason.as_str(),
            "{}",
            event.message
        );
    }
}

/// Returns the Secret of the key, or the key of a service, and the digest of the public key or certificate.
fn signer(spec: &ImageAttachmentSpec, key: Option<&Digest>) -> Option<String> {
    let of_service = spec.kms().map(|(_, kms)| &kms.key_ref);
    let of_secret = spec.key_secret().map(|(_, secret)| &secret.name);
    let name = of_service.or(of_secret).map(String::as_str);
    let name = name.or(spec.signing_account())?;
    Some(match key {
        Some(key) => format!("{name} {key}"),
        None => name.to_owned(),
    })
}

/// Returns the format of an attachment: `Bundle` and `Tag` of cosign, `Notation`, or `Referrer` of others.
fn format(spec: &ImageAttachmentSpec, change: &AttachmentChange) -> String {
    match spec.kind() {
        Some(AttachmentKind::Signature(signature)) if signature.cosign.is_none() => {
            "Notation".to_owned()
        }
        Some(AttachmentKind::Signature(_) | AttachmentKind::Attestation(_)) => {
            format!("{:?}", change.format)
        }
        _ => "Referrer".to_owned(),
    }
}
