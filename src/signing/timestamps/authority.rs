//! A timestamp authority, and requests to it.

use std::fmt;
use std::sync::Arc;

use affix_registry::oci::{Algorithm, Digest};
use affix_registry::{Registries, ServiceAccess, TlsOptions};
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Reader, SliceReader};

use super::request::{Hash, request};
use super::token::{TokenError, verify};
use crate::signing::keys::certificates_of;
use crate::signing::{KeyError, SigningError};

/// The file with the certificates of an authority.
const ROOTS: &str = "ca.crt";

/// An authority, and the certificates that end the chains of its tokens.
pub struct TimestampAuthority {
    url: String,
    /// The certificates as PEM, which are trusted for the connection as well.
    pem: Vec<u8>,
    roots: Vec<CertificateDer<'static>>,
    id: Digest,
}

impl fmt::Debug for TimestampAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimestampAuthority({})", self.url)
    }
}

impl TimestampAuthority {
    /// Returns the authority at `url` with the certificates of the PEM file `ca.crt`.
    ///
    /// # Errors
    /// If the file has no certificates, too many, or a malformed one.
    pub fn new(url: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let roots = certificates_of(ROOTS, pem)?;
        if roots.is_empty() {
            return Err(KeyError::NoPem {
                file: ROOTS,
                expected: "CERTIFICATE",
            });
        }
        Ok(Self {
            url: url.to_owned(),
            pem: pem.to_vec(),
            roots: roots.into_iter().map(CertificateDer::from).collect(),
            id: Algorithm::Sha256.hash(pem),
        })
    }

    /// Returns the hash of the certificates. Signatures are verified again when it changes.
    pub(in crate::signing) const fn id(&self) -> &Digest {
        &self.id
    }

    /// Verifies a token over `signature`. Returns its time.
    pub(in crate::signing) fn verify(
        &self,
        token: &[u8],
        signature: &[u8],
    ) -> Result<Timestamp, TokenError> {
        verify(token, signature, &self.roots)
    }
}

/// Has signatures timestamped by one authority, for one pass.
pub struct Timestamper {
    registries: Registries,
    tenant: String,
    authority: Arc<TimestampAuthority>,
    deadline: Instant,
}

impl Timestamper {
    /// Returns the way to an authority for a tenant. No wait goes beyond `deadline`.
    #[must_use]
    pub const fn new(
        registries: Registries,
        tenant: String,
        authority: Arc<TimestampAuthority>,
        deadline: Instant,
    ) -> Self {
        Self {
            registries,
            tenant,
            authority,
            deadline,
        }
    }

    /// Returns a verified token over `signature`, with its time.
    pub(in crate::signing) async fn timestamp(
        &self,
        hash: Hash,
        signature: &[u8],
    ) -> Result<(Vec<u8>, Timestamp), SigningError> {
        let url = &self.authority.url;
        let asked = timeout_at(self.deadline, self.ask(hash, signature)).await;
        asked.unwrap_or_else(|_| {
            let message = format!("{url} did not answer within the time of the pass");
            Err(SigningError::Unavailable(message))
        })
    }

    async fn ask(
        &self,
        hash: Hash,
        signature: &[u8],
    ) -> Result<(Vec<u8>, Timestamp), SigningError> {
        let access = ServiceAccess {
            tenant: self.tenant.clone(),
            tls: TlsOptions {
                ca_pem: Some(self.authority.pem.clone()),
                client: None,
            },
            // Public authorities have no TLS. A request holds no secret, and the token is signed.
            allow_http: true,
            ..ServiceAccess::default()
        };
        let (service, path) = self
            .registries
            .open_service_at(&self.authority.url, access)?;
        let service = service.until(self.deadline);
        let headers = [
            (CONTENT_TYPE, "application/timestamp-query"),
            (ACCEPT, "application/timestamp-reply"),
        ];
        let body = request(hash, signature, true);
        let answer = service.post(path, &headers, body).await?;
        let unavailable =
            |what: &dyn fmt::Display| SigningError::Unavailable(format!("{} {what}", answer.host));
        if !answer.is_success() {
            let what = format!("does not timestamp the signature: HTTP {}", answer.status);
            return Err(unavailable(&what));
        }
        let token = match reply(answer.body()) {
            Some((0 | 1, Some(token))) => token,
            Some((status, _)) => {
                let what = format!("does not timestamp the signature: status {status} of RFC 3161");
                return Err(unavailable(&what));
            }
            None => {
                return Err(unavailable(&"answers with something that is no timestamp"));
            }
        };
        match self.authority.verify(token, signature) {
            Ok(time) => Ok((token.to_vec(), time)),
            Err(error) => {
                let what = format!("answers with a timestamp that does not verify: {error}");
                Err(unavailable(&what))
            }
        }
    }
}

/// Returns the status and the token of an answer (RFC 3161, section 2.4.2).
fn reply(der: &[u8]) -> Option<(u8, Option<&[u8]>)> {
    let mut reader = SliceReader::new(der).ok()?;
    let parsed = reader.sequence(|reader| {
        let status = reader.sequence(|reader| {
            let status: u8 = reader.decode()?;
            while !reader.is_finished() {
                reader.decode::<AnyRef<'_>>()?;
            }
            Ok(status)
        })?;
        let token = match reader.is_finished() {
            true => None,
            false => Some(reader.tlv_bytes()?),
        };
        Ok((status, token))
    });
    parsed.ok()
}
