//! Reads of whole resources. The cache keeps small ones only.

use std::borrow::Cow;

use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use crate::api::ImageAttachment;
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::watch::cache::CacheEntry;

/// A failure to read a resource.
pub(crate) enum ReadError {
    /// The resource cannot be parsed, with the message of the parser.
    Invalid(String),
    ApiServer(ApiServerError),
}

/// Returns the resource of a cache entry, from the cache or from the API server.
pub(crate) async fn load(
    client: &Client,
    entry: &CacheEntry,
) -> Result<ImageAttachment, ReadError> {
    match entry.object().map_err(Cow::into_owned) {
        Ok(Some(object)) => Ok(object),
        Ok(None) => read(client, kube::Resource::meta(entry)).await,
        Err(error) => Err(ReadError::Invalid(error)),
    }
}

/// Reads the current version of a resource. Another resource of the same name counts as gone.
pub(crate) async fn read(client: &Client, meta: &ObjectMeta) -> Result<ImageAttachment, ReadError> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<ImageAttachment> = Api::namespaced(client.clone(), namespace);
    let name = meta.name.as_deref().unwrap_or_default();
    match with_timeout(api.get_opt(name)).await {
        Ok(Some(mut object)) if object.uid() == meta.uid => {
            object.metadata.managed_fields = None;
            Ok(object)
        }
        Ok(_) => Err(ReadError::ApiServer(ApiServerError::ResourceGone)),
        Err(ApiServerError::Request(kube::Error::SerdeError(error))) => {
            Err(ReadError::Invalid(error.to_string()))
        }
        Err(error) => Err(ReadError::ApiServer(error)),
    }
}
