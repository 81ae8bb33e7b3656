//! The finalizer of resources with `deletionPolicy: Delete`. It is set before the first push and removed after the cleanup.

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::ObjectMeta;
use serde_json::json;

use crate::api::ImageAttachment;
use crate::controller::api_server::{ApiServerError, with_timeout};

const FINALIZER: &str = "affix.dev/finalizer";
/// The most attempts to write when other clients write the object at the same time.
const MAX_ATTEMPTS: usize = 4;

/// Returns whether the object has the finalizer.
pub(crate) fn has_finalizer(meta: &ObjectMeta) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|finalizer| is_own_finalizer(finalizer))
}

/// Returns whether a finalizer is the one of affix.
pub(crate) fn is_own_finalizer(finalizer: &str) -> bool {
    finalizer == FINALIZER
}

/// Returns the finalizers of an object and the one of affix.
pub(crate) fn with_finalizer(meta: &ObjectMeta) -> Vec<String> {
    let mut finalizers = without_finalizer(meta);
    finalizers.push(FINALIZER.to_owned());
    finalizers
}

fn without_finalizer(meta: &ObjectMeta) -> Vec<String> {
    let others = meta.finalizers.iter().flatten();
    let others = others.filter(|finalizer| !is_own_finalizer(finalizer));
    others.cloned().collect()
}

/// Adds or removes the finalizer. It reads and writes metadata only, so it works on objects of other versions too.
///
/// # Errors
/// When the API server refuses, or the object is gone.
pub(crate) async fn set_finalizer(
    client: &Client,
    meta: &ObjectMeta,
    is_wanted: bool,
) -> Result<(), ApiServerError> {
    let gone_if_not_found = |error: ApiServerError| match error.code() {
        Some(404) => ApiServerError::ResourceGone,
        _ => error,
    };
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<ImageAttachment> = Api::namespaced(client.clone(), namespace);
    for _ in 0..MAX_ATTEMPTS {
        let current = with_timeout(api.get_metadata(name))
            .await
            .map_err(gone_if_not_found)?;
        if current.metadata.uid != meta.uid {
            return Err(ApiServerError::ResourceGone);
        }
        if has_finalizer(&current.metadata) == is_wanted {
            return Ok(());
        }
        let finalizers = if is_wanted {
            with_finalizer(&current.metadata)
        } else {
            without_finalizer(&current.metadata)
        };
        // With the resource version, the patch fails if another client has changed the list meanwhile.
        let version = &current.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let patched = with_timeout(api.patch_metadata(name, &params, &patch)).await;
        match patched.map_err(gone_if_not_found) {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiServerError::Conflict)
}
