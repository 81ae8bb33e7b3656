//! The question whether a credential may push, without a push.

use http::{Method, header};

use crate::access::tokens::Actions;
use crate::client::session::Session;
use crate::error::{Object, RegistryError};
use crate::http::request::Request;

impl Session {
    /// Opens a blob upload and cancels it (distribution-spec, "Pushing blobs"). Returns whether the registry opened it.
    ///
    /// # Errors
    /// The errors of every request. A refused credential is `false` instead.
    pub async fn may_push(&self) -> Result<bool, RegistryError> {
        let operation = self.operation("POST", Object::Blob, "upload");
        let url = self.url("blobs/uploads/");
        let request = Request::new(&operation, Method::POST, url.clone(), Actions::Push);
        let answer = match self.send(&request).await {
            Err(RegistryError::AccessDenied(_) | RegistryError::AuthenticationFailed { .. }) => {
                return Ok(false);
            }
            answer => answer?,
        };
        if answer.status != 202 {
            return match answer.status {
                401 | 403 | 405 => Ok(false),
                _ => Err(self.refusal(&operation, &answer)),
            };
        }
        let location = answer.header(header::LOCATION);
        let upload = location.and_then(|location| answer.url.join(location).ok());
        // Another host gets no request. The registry discards uploads that are not used.
        if let Some(upload) = upload.filter(|upload| upload.origin() == url.origin()) {
            let operation = self.operation("DELETE", Object::Blob, "upload");
            let mut request = Request::new(&operation, Method::DELETE, upload, Actions::Push);
            request.once = true;
            if let Err(error) = self.send(&request).await {
                tracing::debug!(%error, "an upload was not cancelled");
            }
        }
        Ok(true)
    }
}
