//! The finalizer: there only with `deletionPolicy: Delete`, from before the first push until what was made is removed.

use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::core::ObjectMeta;
use serde_json::json;

use crate::api::ImageAttachment;

use crate::controller::context::{ClusterError, Context};

/// What keeps a resource until what it made is removed.
const FINALIZER: &str = "affix.dev/finalizer";
/// How often a write is tried when somebody else writes the object at the same time.
const TRIES: usize = 4;

/// Whether affix keeps the object from going.
pub(crate) fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

impl Context {
    /// Adds the finalizer or takes it off. Only metadata is read and written, so that an object of another version is let go too.
    ///
    /// # Errors
    /// When the API server refuses, or the object is gone.
    pub(crate) async fn hold(&self, meta: &ObjectMeta, held: bool) -> Result<(), ClusterError> {
        let (name, namespace) = (
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        let api: Api<ImageAttachment> = Api::namespaced(self.client.clone(), namespace);
        for _ in 0..TRIES {
            let now = match self.bounded(api.get_metadata(name)).await {
                Ok(now) if now.metadata.uid == meta.uid => now,
                Ok(_) => return Err(ClusterError::Gone),
                Err(ClusterError::Api(kube::Error::Api(answer))) if answer.code == 404 => {
                    return Err(ClusterError::Gone);
                }
                Err(error) => return Err(error),
            };
            if is_held(&now.metadata) == held {
                return Ok(());
            }
            let mut finalizers: Vec<&str> = now
                .finalizers()
                .iter()
                .map(String::as_str)
                .filter(|name| *name != FINALIZER)
                .collect();
            finalizers.extend(held.then_some(FINALIZER));
            // The version makes it a write on what was read: nobody else's finalizer is lost.
            let patch = json!({"metadata": {"resourceVersion": now.metadata.resource_version, "finalizers": finalizers}});
            match self
                .bounded(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)))
                .await
            {
                Ok(_) => return Ok(()),
                Err(ClusterError::Api(kube::Error::Api(answer))) if answer.code == 404 => {
                    return Err(ClusterError::Gone);
                }
                Err(ClusterError::Api(kube::Error::Api(answer))) if answer.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClusterError::Contended)
    }
}
