//! The annotation that requests a reconcile, and whether a reconcile has seen the current spec and request.

use kube::core::ObjectMeta;

use crate::api::ImageAttachmentStatus;
use affix_registry::oci::Digest;

/// The annotation that requests a reconcile, as in Flux.
pub(crate) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// The most characters of a request that status can echo.
const MAX_REQUEST_CHARS: usize = 256;

/// Returns whether the last reconcile has not seen the current spec or request.
pub(crate) fn has_pending_change(
    meta: &ObjectMeta,
    status: Option<&ImageAttachmentStatus>,
) -> bool {
    status.map(|status| status.observed_generation) != meta.generation
        || status.is_some_and(|status| has_pending_request(meta, status))
}

/// Returns whether the user has requested a reconcile that `status` does not acknowledge.
pub(crate) fn has_pending_request(meta: &ObjectMeta, status: &ImageAttachmentStatus) -> bool {
    let request = acknowledgement(meta);
    request.is_some() && request != status.last_handled_reconcile_at
}

/// Returns the text with which status acknowledges the current request: the request itself, or, if status cannot hold it, its
/// beginning and its digest.
pub(crate) fn acknowledgement(meta: &ObjectMeta) -> Option<String> {
    meta.annotations
        .as_ref()?
        .get(REQUESTED_AT)
        .map(|request| bounded(request))
}

/// Returns a text that status can hold: itself, or its beginning and its digest.
pub(crate) fn bounded(request: &str) -> String {
    if request.chars().count() <= MAX_REQUEST_CHARS {
        return request.to_owned();
    }
    let digest = format!("…{}", Digest::sha256(request.as_bytes()));
    let beginning = request
        .chars()
        .take(MAX_REQUEST_CHARS - digest.chars().count());
    beginning.chain(digest.chars()).collect()
}
