//! Manifests (distribution-spec, "Pulling manifests", "Pushing Manifests", "Deleting Manifests").
//!
//! Bytes are kept unchanged. Every body is hashed, and the result is compared with the requested
//! digest, with the header and with the size.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use oci_client::errors::OciErrorCode;

use crate::access::tokens::Actions;
use crate::client::session::{Locator, Session};
use crate::error::{ErrorAnswer, Object, Operation, RegistryError};
use crate::http::body_memory::Reservation;
use crate::http::request::Request;
use crate::http::transport::Answer;
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, cut, media_type};

/// The header in which a registry states the digest of a manifest or a blob.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The metadata of a manifest from a HEAD request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The digest.
    pub digest: Digest,
    /// The media type without parameters.
    pub media_type: Option<String>,
    /// The size in bytes.
    pub size: Option<u64>,
}

/// A manifest with verified bytes.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The digest of the bytes. Its algorithm is that of the requested digest, else that of the
    /// registry's header, else SHA-256.
    pub digest: Digest,
    /// The media type for a descriptor of the manifest.
    pub media_type: String,
    /// The size in bytes.
    pub size: u64,
    /// The bytes of an image manifest. Empty for an index, to save memory.
    pub bytes: Bytes,
    /// The parsed manifest. Embedded content of index entries is removed.
    pub manifest: Manifest,
}

impl Fetched {
    /// Returns a descriptor with only the required fields, as in the `subject` field of a referrer.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::plain(self.media_type.clone(), self.digest.clone(), self.size)
    }
}

/// The result of a successful manifest PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The digest in the `OCI-Subject` header. The registry claims to have added the manifest to
    /// the listing of that subject (distribution-spec, "Pushing Manifests with Subject").
    pub subject_acknowledged: Option<Digest>,
}

/// The result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// The registry deleted the manifest.
    Done,
    /// The manifest did not exist (404).
    Gone,
    /// The registry does not support the deletion (405), denies it (401, 403) or rejects it (400,
    /// 409). The manifest remains.
    Refused(Box<ErrorAnswer>),
}

/// Unparsed bytes that match every stated digest.
pub(crate) struct Raw {
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
    /// Held until the bytes are parsed.
    _reservation: Option<Reservation>,
}

impl Session {
    /// Returns the digest, media type and size of a manifest by HEAD (distribution-spec, "Checking
    /// if content exists in the registry"). Sends a GET if the registry omits the digest of a tag
    /// or does not support HEAD (400, 405, 406, 501).
    ///
    /// # Errors
    /// `NotFound`, `DigestMismatch` if the registry states a digest other than the requested one,
    /// and the errors of every request.
    pub async fn head(&self, at: &Locator) -> Result<Head, RegistryError> {
        let operation = self.operation("HEAD", Object::Manifest, at);
        let request = self.manifest_request(&operation, Method::HEAD, at, Actions::Pull);
        let answer = self.send(&request).await?;
        if answer.is_success() {
            let named = self.named_digest(&operation, &answer)?;
            let digest = match (named, at) {
                (Some(named), Locator::Digest(asked))
                    if named != *asked && named.algorithm() == asked.algorithm() =>
                {
                    return Err(mismatch(
                        &operation,
                        format!("the registry reports the digest {named} instead"),
                    ));
                }
                (_, Locator::Digest(asked)) => Some(asked.clone()),
                (named, Locator::Tag(_)) => named,
            };
            if let Some(digest) = digest {
                let size = answer
                    .header(header::CONTENT_LENGTH)
                    .and_then(|length| length.parse().ok())
                    .filter(|size| *size > 0);
                let media_type = answer
                    .header(header::CONTENT_TYPE)
                    .map(|text| media_type::essence(text).to_owned());
                return Ok(Head {
                    digest,
                    media_type,
                    size,
                });
            }
        } else if !matches!(answer.status, 400 | 405 | 406 | 501) {
            return Err(self.refusal(&operation, &answer));
        }
        let fetched = self.manifest(at).await?;
        Ok(Head {
            digest: fetched.digest,
            media_type: Some(fetched.media_type),
            size: Some(fetched.size),
        })
    }

    /// Returns true if the registry has a manifest (HEAD). Only 404 means false.
    pub(crate) async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        match self.head(&Locator::Digest(digest.clone())).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Downloads a manifest and verifies its digest (distribution-spec, "Pulling manifests").
    ///
    /// # Errors
    /// `NotFound`, `DigestMismatch`, `UnsupportedMediaType`, `LimitExceeded` if it is too large or
    /// an index has too many entries, and the errors of every request.
    pub async fn manifest(&self, at: &Locator) -> Result<Fetched, RegistryError> {
        let operation = self.operation("GET", Object::Manifest, at);
        let raw = self.raw_manifest(&operation, at).await?;
        self.read_manifest(&operation, raw)
    }

    /// Downloads the manifest of a descriptor and verifies its digest and size.
    ///
    /// # Errors
    /// Those of [`manifest`](Self::manifest).
    pub async fn manifest_of(&self, descriptor: &Descriptor) -> Result<Fetched, RegistryError> {
        let fetched = self
            .manifest(&Locator::Digest(descriptor.digest.clone()))
            .await?;
        if fetched.size == descriptor.size {
            return Ok(fetched);
        }
        let operation = self.operation("GET", Object::Manifest, &descriptor.digest);
        Err(mismatch(
            &operation,
            format!(
                "it has {} bytes, its descriptor states {}",
                fetched.size, descriptor.size
            ),
        ))
    }

    fn read_manifest(&self, operation: &Operation, raw: Raw) -> Result<Fetched, RegistryError> {
        let unsupported = |what: String| RegistryError::UnsupportedMediaType {
            operation: operation.clone(),
            what: self.redact(&what),
        };
        let (media_type, mut manifest) = Manifest::parse(raw.content_type.as_deref(), &raw.bytes)
            .map_err(|error| unsupported(error.to_string()))?;
        let max = self.options().limits.index_entries;
        if let Manifest::Index(index) = &mut manifest {
            let entries = index.manifests.len() + index.skipped.len();
            if entries > max {
                let what = format!("the index has {entries} entries");
                return Err(RegistryError::LimitExceeded {
                    operation: operation.clone(),
                    what,
                    limit: max as u64,
                });
            }
            index
                .manifests
                .iter_mut()
                .for_each(|entry| entry.data = None);
        }
        let size = raw.bytes.len() as u64;
        let bytes = if matches!(manifest, Manifest::Index(_)) {
            Bytes::new()
        } else {
            raw.bytes
        };
        Ok(Fetched {
            digest: raw.digest,
            media_type,
            size,
            bytes,
            manifest,
        })
    }

    /// Downloads a manifest without parsing it.
    pub(crate) async fn raw_manifest(
        &self,
        operation: &Operation,
        at: &Locator,
    ) -> Result<Raw, RegistryError> {
        let answer = self.ask_manifest(operation, at).await?;
        if answer.is_success() {
            self.checked(operation, at, answer)
        } else {
            Err(self.refusal(operation, &answer))
        }
    }

    /// Sends a GET for a manifest and returns the answer of any status.
    pub(crate) async fn ask_manifest(
        &self,
        operation: &Operation,
        at: &Locator,
    ) -> Result<Answer, RegistryError> {
        let mut request = self.manifest_request(operation, Method::GET, at, Actions::Pull);
        request.cap = self.options().limits.manifest_bytes;
        self.send(&request).await
    }

    /// Verifies the digests of a successful answer.
    pub(crate) fn checked(
        &self,
        operation: &Operation,
        at: &Locator,
        answer: Answer,
    ) -> Result<Raw, RegistryError> {
        let named = self.named_digest(operation, &answer)?;
        let content_type = answer.header(header::CONTENT_TYPE).map(str::to_owned);
        let asked = if let Locator::Digest(asked) = at {
            Some(asked)
        } else {
            None
        };
        let algorithm = asked
            .or(named.as_ref())
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = algorithm.hash(&answer.body);
        if let Some(asked) = asked.filter(|asked| **asked != digest) {
            return Err(mismatch(
                operation,
                format!("the bytes served for {asked} have the digest {digest}"),
            ));
        }
        if let Some(named) = named.filter(|named| !named.matches(&answer.body)) {
            return Err(mismatch(
                operation,
                format!("the registry reports the digest {named}, the bytes have {digest}"),
            ));
        }
        Ok(Raw {
            digest,
            content_type,
            bytes: answer.body,
            _reservation: answer.reservation,
        })
    }

    /// Returns the digest that a header states. An unsupported digest is an error, because it
    /// cannot be verified.
    pub(crate) fn named_digest(
        &self,
        operation: &Operation,
        answer: &Answer,
    ) -> Result<Option<Digest>, RegistryError> {
        let Some(value) = answer.headers.get(CONTENT_DIGEST) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let parsed = text.trim().parse().map_err(|_| {
            mismatch(
                operation,
                self.redact(&format!(
                    "the registry reports the digest {:?}, which cannot be verified",
                    cut(&text)
                )),
            )
        })?;
        Ok(Some(parsed))
    }

    fn manifest_request(
        &self,
        operation: &Operation,
        method: Method,
        at: &Locator,
        actions: Actions,
    ) -> Request {
        let request = Request::new(
            operation,
            method,
            self.url(&format!("manifests/{at}")),
            actions,
        );
        request.header(header::ACCEPT, media_type::ACCEPT_MANIFESTS)
    }

    /// Writes a manifest and verifies the digest in the answer (distribution-spec, "Pushing
    /// Manifests"). The operation is idempotent, so transient failures are retried.
    ///
    /// # Errors
    /// `ManifestRejected`, `ImmutableTag`, `DigestMismatch`, and the errors of every request.
    pub async fn put_manifest(
        &self,
        at: &Locator,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Put, RegistryError> {
        self.put(at, media_type, bytes, false).await
    }

    /// Behaves like [`put_manifest`](Self::put_manifest). With `once` a transient failure is not
    /// retried.
    pub(crate) async fn put(
        &self,
        at: &Locator,
        media_type: &str,
        bytes: Bytes,
        once: bool,
    ) -> Result<Put, RegistryError> {
        let operation = self.operation("PUT", Object::Manifest, at);
        if let Locator::Digest(digest) = at
            && !digest.matches(&bytes)
        {
            return Err(mismatch(
                &operation,
                "the bytes to write have another digest".to_owned(),
            ));
        }
        let mut request = self.manifest_request(&operation, Method::PUT, at, Actions::Push);
        let content_type =
            HeaderValue::from_str(media_type).map_err(|_| RegistryError::UnsupportedMediaType {
                operation: operation.clone(),
                what: format!("{:?} is not a media type", cut(media_type)),
            })?;
        request.headers.insert(header::CONTENT_TYPE, content_type);
        request.body = bytes;
        request.once = once;
        let answer = self.send(&request).await?;
        if !answer.is_success() {
            return Err(self.put_refusal(&operation, at, &answer));
        }
        if let Some(named) = self
            .named_digest(&operation, &answer)?
            .filter(|named| !named.matches(&request.body))
        {
            let written = Digest::sha256(&request.body);
            return Err(mismatch(
                &operation,
                format!(
                    "the registry reports the digest {named}, the written bytes have {written}"
                ),
            ));
        }
        Ok(Put {
            subject_acknowledged: answer
                .header("oci-subject")
                .and_then(|subject| subject.trim().parse().ok()),
        })
    }

    fn put_refusal(&self, operation: &Operation, at: &Locator, answer: &Answer) -> RegistryError {
        if let Locator::Tag(tag) = at {
            let answered = self.answered(operation, answer);
            let is_immutable = answered.error_codes().any(|code| match code {
                OciErrorCode::TagInvalid => true,
                OciErrorCode::Other(code) => {
                    matches!(code.as_str(), "PRECONDITION" | "PRECONDITION_FAILED")
                }
                _ => false,
            });
            if is_immutable || matches!(answer.status, 409 | 412) {
                return RegistryError::ImmutableTag {
                    answer: answered,
                    tag: tag.to_string(),
                };
            }
        }
        self.refusal(operation, answer)
    }

    /// Deletes a manifest by digest (distribution-spec, "Deleting Manifests"). Only this operation
    /// requests a token with the action `delete`.
    ///
    /// # Errors
    /// The errors of every request. A rejection is [`Deletion::Refused`] instead.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<Deletion, RegistryError> {
        let operation = self.operation("DELETE", Object::Manifest, digest);
        let url = self.url(&format!("manifests/{digest}"));
        let answer = match self
            .send(&Request::new(
                &operation,
                Method::DELETE,
                url,
                Actions::Delete,
            ))
            .await
        {
            Err(RegistryError::AccessDenied(answered)) => return Ok(Deletion::Refused(answered)),
            other => other?,
        };
        match answer.status {
            200..=299 => Ok(Deletion::Done),
            404 | 410 => Ok(Deletion::Gone),
            400 | 401 | 403 | 405 | 409 | 412 | 501 => {
                Ok(Deletion::Refused(self.answered(&operation, &answer)))
            }
            _ => Err(self.refusal(&operation, &answer)),
        }
    }
}

/// Creates a [`RegistryError::DigestMismatch`].
pub(crate) fn mismatch(operation: &Operation, what: String) -> RegistryError {
    RegistryError::DigestMismatch {
        operation: operation.clone(),
        what,
    }
}
