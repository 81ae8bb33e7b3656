//! Signatures in the format of notation: a JWS around the descriptor of the subject, with the certificates of the key.
//!
//! Makes envelopes and recognises those that state the same with the same key and certificates. A signature without a timestamp is valid
//! until its certificates end.

mod envelope;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use affix_registry::oci::media_type::NOTARY_SIGNATURE as ARTIFACT_TYPE;
use affix_registry::oci::{Descriptor, Digest, ImageManifest};

use crate::signing::error::KeyError;
use crate::signing::inspection::MAX_INSPECTED_BYTES;
use crate::signing::keys::{CertificateChain, NotationKey};
use crate::signing::kms::SigningError;
use crate::signing::signer::{Shape, Signature, Signed, Signer, parse_part};
use crate::signing::time::to_rfc3339;
use crate::signing::timestamps::{Hash, TimestampAuthority, Timestamper};

use envelope::{Envelope, Payload, Protected, Unprotected, decode, encode, signing_input};

const ENVELOPE: &str = "application/jose+json";
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
const SCHEME: &str = "notary.x509";
const SCHEME_HEADER: &str = "io.cncf.notary.signingScheme";
const EXPIRY_HEADER: &str = "io.cncf.notary.expiry";
const THUMBPRINT: &str = "io.cncf.notary.x509chain.thumbprint#S256";
const AGENT: &str = concat!("affix/", env!("CARGO_PKG_VERSION"));

/// Signs like `notation sign`, with an RSA or ECDSA key and its certificates. It has no `Debug`, because it holds the key.
#[derive(Clone)]
pub struct NotationSigner {
    key: Arc<NotationKey>,
    chain: Arc<CertificateChain>,
    expiry: Option<SignedDuration>,
    shape: Shape,
    authority: Option<Arc<TimestampAuthority>>,
    timestamper: Option<Arc<Timestamper>>,
}

impl NotationSigner {
    /// Opens the key of a Secret of type `kubernetes.io/tls`: `tls.key`, the chain in `tls.crt` and, for a root that the chain
    /// lacks, `ca.crt`. Signatures expire after `expiry`, in whole seconds. With an `authority` they outlive the certificates, and
    /// [`timestamping`](Signer::timestamping) returns the signer that makes new ones.
    ///
    /// # Errors
    /// Fails if notation has no algorithm for the key, if the first certificate is for another key, or if notation's verifiers
    /// refuse the certificates, which without an `authority` includes their validity at the time `now`.
    pub fn open(
        key: &[u8],
        chain: &[u8],
        roots: Option<&[u8]>,
        expiry: Option<Duration>,
        authority: Option<Arc<TimestampAuthority>>,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let key = NotationKey::open(key)?;
        let now = authority.is_none().then_some(now);
        let chain = CertificateChain::assemble(chain, roots, &key, now)?;
        let expiry = expiry.map(whole_seconds).transpose()?;
        let thumbprints = serde_json::to_string(&chain.thumbprints()).unwrap_or_default();
        let config = Descriptor::of(ARTIFACT_TYPE, b"{}");
        let annotations = BTreeMap::from([(THUMBPRINT.to_owned(), thumbprints)]);
        let shape = Shape {
            artifact_type: None,
            config,
            layer_media_type: ENVELOPE,
            max_layer_bytes: MAX_INSPECTED_BYTES as u64,
            annotations,
        };
        Ok(Self {
            key: Arc::new(key),
            chain: Arc::new(chain),
            expiry,
            shape,
            authority,
            timestamper: None,
        })
    }

    /// Signs a message, and has the signature timestamped.
    async fn sign_one(&self, message: &[u8]) -> Result<Signed, SigningError> {
        // A hundred RSA signatures take half a second, so other tasks run in between.
        tokio::task::yield_now().await;
        let mut signed = Signed::from(self.key.sign(message)?);
        if self.authority.is_some() {
            let timestamper = self.timestamper.as_ref().ok_or(KeyError::Unable)?;
            let asked = timestamper.timestamp(self.hash(), &signed.signature).await;
            let (token, time) =
                asked.map_err(|error| SigningError::NotPublished(Box::new(error)))?;
            self.chain.check_validity(time)?;
            signed.timestamp = Some(token);
        }
        Ok(signed)
    }

    /// Returns the hash that timestamps have: that of the key's algorithm.
    fn hash(&self) -> Hash {
        match self.key.algorithm() {
            "PS512" | "ES512" => Hash::Sha512,
            "PS384" | "ES384" => Hash::Sha384,
            _ => Hash::Sha256,
        }
    }

    /// Returns whether a signature has the timestamp that this signer gives it.
    fn is_timestamped(&self, envelope: &Envelope, signature: &[u8]) -> bool {
        let Some(authority) = &self.authority else {
            return true;
        };
        let token = envelope.header.timestamp.as_deref();
        let token = token.and_then(|token| STANDARD.decode(token).ok());
        let time = token.and_then(|token| authority.verify(&token, signature).ok());
        time.is_some_and(|time| self.chain.check_validity(time).is_ok())
    }

    /// Returns the protected header and the payload as the envelope has them.
    fn parts(&self, subject: &Descriptor, at: Timestamp) -> Result<(String, String), KeyError> {
        self.chain.check_validity(at)?;
        let payload = encode(&Payload {
            target_artifact: subject.stripped(),
        });
        Ok((encode(&self.protected(at)?), payload))
    }

    fn protected(&self, at: Timestamp) -> Result<Protected, KeyError> {
        let expiry = match self.expiry {
            None => None,
            Some(expiry) => {
                let seconds = expiry.as_secs().unsigned_abs();
                Some(
                    at.checked_add(expiry)
                        .map_err(|_| KeyError::Expiry { seconds })?,
                )
            }
        };
        let mut critical = vec![SCHEME_HEADER.to_owned()];
        critical.extend(expiry.map(|_| EXPIRY_HEADER.to_owned()));
        Ok(Protected {
            algorithm: self.key.algorithm().to_owned(),
            critical,
            content_type: PAYLOAD.to_owned(),
            expiry: expiry.map(to_rfc3339),
            scheme: SCHEME.to_owned(),
            signing_time: to_rfc3339(at),
        })
    }

    /// Returns true if this signer can have written the header and the signature is not in the last third of its validity.
    fn is_fresh(&self, protected: &Protected, now: Timestamp) -> bool {
        let Ok(at) = protected.signing_time.parse::<Timestamp>() else {
            return false;
        };
        let Ok(mut ours) = self.protected(at) else {
            return false;
        };
        let mut found = protected.clone();
        ours.critical.sort();
        found.critical.sort();
        // Other tools can write the same instant with an offset.
        let instant = |text: &Option<String>| {
            text.as_deref()
                .map(str::parse::<Timestamp>)
                .transpose()
                .ok()
        };
        let same_expiry =
            instant(&ours.expiry).is_some() && instant(&ours.expiry) == instant(&found.expiry);
        let same = Protected {
            expiry: None,
            signing_time: String::new(),
            ..ours
        } == Protected {
            expiry: None,
            signing_time: String::new(),
            ..found
        };
        let renewal = self
            .renewal()
            .and_then(|after| SignedDuration::try_from(after).ok());
        same && same_expiry
            && renewal.is_none_or(|after| at.checked_add(after).is_ok_and(|due| now < due))
    }
}

impl Signer for NotationSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn message(&self, subject: &Descriptor, at: Timestamp) -> Result<Vec<u8>, KeyError> {
        let (protected, payload) = self.parts(subject, at)?;
        Ok(signing_input(&protected, &payload).into_bytes())
    }

    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Vec<Result<Signed, SigningError>>> {
        join_all(messages.iter().map(|message| self.sign_one(message))).boxed()
    }

    fn attachment(
        &self,
        subject: &Descriptor,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Signature, SigningError> {
        let (protected, payload) = self.parts(subject, at)?;
        let envelope = Envelope {
            payload,
            protected,
            header: Unprotected {
                timestamp: signed.timestamp.as_ref().map(|it| STANDARD.encode(it)),
                x5c: self.chain.ders().map(|der| STANDARD.encode(der)).collect(),
                agent: AGENT.to_owned(),
            },
            signature: URL_SAFE_NO_PAD.encode(&signed.signature),
        };
        Ok(self.shape.to_signature(
            serde_json::to_vec(&envelope).unwrap_or_default(),
            subject,
            at,
        ))
    }

    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        now: Timestamp,
    ) -> bool {
        if !self.shape.fits(manifest, &subject.digest) || !Shape::has_layer(manifest, layer) {
            return false;
        }
        let Some(envelope) = parse_part::<Envelope>(layer) else {
            return false;
        };
        let Some(payload) = decode::<Value>(&envelope.payload) else {
            return false;
        };
        let Some(protected) = decode::<Protected>(&envelope.protected) else {
            return false;
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(&envelope.signature) else {
            return false;
        };
        let same_chain = envelope
            .header
            .x5c
            .iter()
            .map(|der| STANDARD.decode(der).ok())
            .eq(self.chain.ders().map(|der| Some(der.to_vec())));
        let ours = serde_json::to_value(Payload {
            target_artifact: subject.stripped(),
        })
        .unwrap_or_default();
        same_chain
            && self.is_timestamped(&envelope, &signature)
            && payload == ours
            && self.is_fresh(&protected, now)
            && self.key.verifies(
                signing_input(&envelope.protected, &envelope.payload).as_bytes(),
                &signature,
            )
    }

    fn key_id(&self) -> Digest {
        let leaf = self.chain.ders().next();
        Digest::sha256(leaf.unwrap_or_default())
    }

    fn fingerprint(&self) -> Digest {
        let mut content = serde_json::json!({
            "signature": ENVELOPE,
            "certificates": self.chain.thumbprints(),
            "expiry": self.expiry.map(|expiry| expiry.as_secs()),
        });
        if let (Some(authority), Some(content)) = (&self.authority, content.as_object_mut()) {
            content.insert("timestamps".to_owned(), authority.id().to_string().into());
        }
        Digest::sha256(content.to_string().as_bytes())
    }

    fn renewal(&self) -> Option<Duration> {
        self.expiry.map(|expiry| expiry.unsigned_abs() / 3 * 2)
    }

    fn ends(&self) -> Option<Timestamp> {
        self.chain.not_after().filter(|_| self.authority.is_none())
    }

    fn timestamping(&self, timestamper: Arc<Timestamper>) -> Option<Arc<dyn Signer>> {
        self.authority.as_ref()?;
        Some(Arc::new(Self {
            timestamper: Some(timestamper),
            ..self.clone()
        }))
    }
}

fn whole_seconds(expiry: Duration) -> Result<SignedDuration, KeyError> {
    let seconds = expiry.as_secs();
    let refused = KeyError::Expiry { seconds };
    if seconds == 0 {
        return Err(refused);
    }
    i64::try_from(seconds)
        .map(SignedDuration::from_secs)
        .map_err(|_| refused)
}

#[cfg(test)]
mod tests;
