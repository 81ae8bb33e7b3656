//! Blobs (distribution-spec, "Pulling blobs" and "Pushing blobs").

use bytes::Bytes;
use http::{Method, header};
use url::Url;

use crate::access::tokens::Actions;
use crate::client::session::Session;
use crate::error::{Object, Operation, RegistryError};
use crate::http::request::{Redirects, Request};
use crate::http::transport::Answer;
use crate::oci::{Descriptor, Digest, media_type};
use crate::protocol::manifests::mismatch;

impl Session {
    /// Returns true if the repository has the blob (HEAD). A redirect counts as true.
    ///
    /// # Errors
    /// The errors of every request. 404 is not an error.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let operation = self.operation("HEAD", Object::Blob, digest);
        let answer = self
            .send(&Request::new(
                &operation,
                Method::HEAD,
                self.url(&format!("blobs/{digest}")),
                Actions::Pull,
            ))
            .await?;
        match answer.status {
            200..=299 | 301 | 302 | 307 | 308 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refusal(&operation, &answer)),
        }
    }

    /// Uploads a blob without checking for it first, and returns its SHA-256 digest
    /// (distribution-spec, "Pushing a blob monolithically").
    ///
    /// The first request is a POST with the digest and the content. If the registry opens an upload
    /// instead (202), the content follows with a PUT to its `Location`. Another host receives no
    /// credential. An interrupted upload starts anew.
    ///
    /// # Errors
    /// `ManifestRejected`, `DigestMismatch`, and the errors of every request.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<Digest, RegistryError> {
        const MAX_ROUNDS: u32 = 3;
        let digest = Digest::sha256(&bytes);
        let mut whole = true;
        let mut round = 0;
        loop {
            round += 1;
            let operation = self.operation("POST", Object::Blob, &digest);
            let answer = self
                .begin_upload(&operation, &digest, if whole { Some(&bytes) } else { None })
                .await?;
            match answer.status {
                200 | 201 => return self.stored(&operation, &answer, digest),
                202 => {}
                // The registry does not accept content in the POST. It may still open an upload.
                400 | 404 | 405 | 411 | 415 | 501 if whole => {
                    whole = false;
                    continue;
                }
                _ => return Err(self.refusal(&operation, &answer)),
            }
            let operation = self.operation("PUT", Object::Blob, &digest);
            let url = self.upload_url(&operation, &answer, &digest)?;
            let answer = self
                .send(&upload(&operation, Method::PUT, url, bytes.clone()))
                .await?;
            match answer.status {
                200 | 201 | 204 => return self.stored(&operation, &answer, digest),
                // The upload no longer exists: its connection broke, or an earlier try succeeded.
                404 | 416 if round < MAX_ROUNDS => {}
                _ => return Err(self.refusal(&operation, &answer)),
            }
        }
    }

    async fn begin_upload(
        &self,
        operation: &Operation,
        digest: &Digest,
        content: Option<&Bytes>,
    ) -> Result<Answer, RegistryError> {
        let mut url = self.url("blobs/uploads/");
        if content.is_some() {
            url.query_pairs_mut()
                .append_pair("digest", &digest.to_string());
        }
        self.send(&upload(
            operation,
            Method::POST,
            url,
            content.cloned().unwrap_or_default(),
        ))
        .await
    }

    fn upload_url(
        &self,
        operation: &Operation,
        answer: &Answer,
        digest: &Digest,
    ) -> Result<Url, RegistryError> {
        let location = answer
            .header(header::LOCATION)
            .and_then(|location| answer.url.join(location).ok());
        let mut url = location.ok_or_else(|| {
            self.protocol(
                operation,
                "the registry opened an upload without a Location",
            )
        })?;
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        Ok(url)
    }

    fn stored(
        &self,
        operation: &Operation,
        answer: &Answer,
        digest: Digest,
    ) -> Result<Digest, RegistryError> {
        match self.named_digest(operation, answer)? {
            Some(named) if named.algorithm() == digest.algorithm() && named != digest => {
                Err(mismatch(
                    operation,
                    format!("the registry reports the digest {named}"),
                ))
            }
            _ => Ok(digest),
        }
    }

    /// Downloads the content of a descriptor, and verifies its digest and size (distribution-spec,
    /// "Pulling blobs").
    ///
    /// `cap` is a limit in bytes, in addition to [`Limits::blob_bytes`](crate::Limits::blob_bytes).
    /// Redirects to other hosts are followed without a credential if the address policy allows the
    /// host.
    ///
    /// # Errors
    /// `NotFound`, `DigestMismatch`, `LimitExceeded`, and the errors of every request.
    pub async fn blob(&self, descriptor: &Descriptor, cap: u64) -> Result<Bytes, RegistryError> {
        let (digest, cap) = (
            &descriptor.digest,
            cap.min(self.options().limits.blob_bytes),
        );
        let operation = self.operation("GET", Object::Blob, digest);
        if descriptor.size > cap {
            let what = format!("the blob has {} bytes", descriptor.size);
            return Err(RegistryError::LimitExceeded {
                operation,
                what,
                limit: cap,
            });
        }
        let mut request = Request::new(
            &operation,
            Method::GET,
            self.url(&format!("blobs/{digest}")),
            Actions::Pull,
        );
        request.redirects = Redirects::Anywhere;
        request.cap = cap;
        request.is_blob = true;
        let answer = self.send(&request).await?;
        if !answer.is_success() {
            return Err(self.refusal(&operation, &answer));
        }
        let bytes = answer.body;
        let found = digest.algorithm().hash(&bytes);
        if found != *digest {
            return Err(mismatch(
                &operation,
                format!("the served bytes have the digest {found}"),
            ));
        }
        if bytes.len() as u64 != descriptor.size {
            return Err(mismatch(
                &operation,
                format!(
                    "it has {} bytes, its descriptor states {}",
                    bytes.len(),
                    descriptor.size
                ),
            ));
        }
        Ok(bytes)
    }
}

fn upload(operation: &Operation, method: Method, url: Url, content: Bytes) -> Request {
    let mut request = Request::new(operation, method, url, Actions::Push)
        .header(header::CONTENT_TYPE, media_type::OCTET_STREAM);
    request.body = content;
    request.is_blob = true;
    request
}
