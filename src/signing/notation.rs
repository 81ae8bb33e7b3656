//! Signatures as notation makes them: a JWS in JSON serialisation around the subject's descriptor, with its certificates.
//!
//! Owns the envelope's bytes (notaryproject, signature-envelope-jws.md) and telling whether an envelope that is there says the
//! same under the same key and certificates. It asks for no timestamp: a signature ends with its certificates.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::oci::{Descriptor, Digest, ImageManifest};

use super::certificate_chain::CertificateChain;
use super::error::KeyError;
use super::notation_key::NotationKey;
use super::signer::{Shape, Signature, Signer, seconds};

const ARTIFACT_TYPE: &str = "application/vnd.cncf.notary.signature";
const ENVELOPE: &str = "application/jose+json";
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
const SCHEME: &str = "notary.x509";
const SCHEME_HEADER: &str = "io.cncf.notary.signingScheme";
const EXPIRY_HEADER: &str = "io.cncf.notary.expiry";
const THUMBPRINT: &str = "io.cncf.notary.x509chain.thumbprint#S256";
const AGENT: &str = concat!("affix/", env!("CARGO_PKG_VERSION"));

/// Signs as `notation sign` does, with an RSA or an ECDSA key and its certificates. No `Debug`: it holds the key.
pub struct NotationSigner {
    key: NotationKey,
    chain: CertificateChain,
    expiry: Option<SignedDuration>,
    shape: Shape,
}

impl NotationSigner {
    /// Opens the key of a Secret of type `kubernetes.io/tls`: `tls.key`, the chain of `tls.crt` and, for a root that the chain
    /// lacks, `ca.crt`. Signatures end `expiry` after they were made, in whole seconds.
    ///
    /// # Errors
    /// When the key is of no kind that notation has an algorithm for, is not that of the first certificate, or when notation's
    /// verifiers would refuse the certificates at the time `now`.
    pub fn open(key: &[u8], chain: &[u8], roots: Option<&[u8]>, expiry: Option<Duration>, now: Timestamp) -> Result<Self, KeyError> {
        let key = NotationKey::open(key)?;
        let chain = CertificateChain::assemble(chain, roots, &key, now)?;
        let expiry = expiry.map(whole_seconds).transpose()?;
        let thumbprints = serde_json::to_string(&chain.thumbprints()).unwrap_or_default();
        let config = Descriptor::of(ARTIFACT_TYPE, b"{}");
        let annotations = BTreeMap::from([(THUMBPRINT.to_owned(), thumbprints)]);
        let shape = Shape { artifact_type: None, config, layer_media_type: ENVELOPE, annotations };
        Ok(Self { key, chain, expiry, shape })
    }

    fn protected(&self, at: Timestamp) -> Result<Protected, KeyError> {
        let expiry = match self.expiry {
            None => None,
            Some(expiry) => {
                let seconds = expiry.as_secs().unsigned_abs();
                Some(at.checked_add(expiry).map_err(|_| KeyError::Expiry { seconds })?)
            }
        };
        let mut critical = vec![SCHEME_HEADER.to_owned()];
        critical.extend(expiry.map(|_| EXPIRY_HEADER.to_owned()));
        Ok(Protected {
            algorithm: self.key.algorithm().to_owned(),
            critical,
            content_type: PAYLOAD.to_owned(),
            expiry: expiry.map(seconds),
            scheme: SCHEME.to_owned(),
            signing_time: seconds(at),
        })
    }

    /// Whether the header is what this signer would have written at some time, and not in the last third of its life.
    fn is_fresh(&self, protected: &Protected, now: Timestamp) -> bool {
        let Ok(at) = protected.signing_time.parse::<Timestamp>() else { return false };
        let Ok(mut ours) = self.protected(at) else { return false };
        let mut theirs = protected.clone();
        ours.critical.sort();
        theirs.critical.sort();
        // Instants are compared as instants: others may write them with an offset.
        let instant = |text: &Option<String>| text.as_deref().map(str::parse::<Timestamp>).transpose().ok();
        let same_expiry = instant(&ours.expiry).is_some() && instant(&ours.expiry) == instant(&theirs.expiry);
        let same = Protected { expiry: None, signing_time: String::new(), ..ours }
            == Protected { expiry: None, signing_time: String::new(), ..theirs };
        let renewal = self.renewal().and_then(|after| SignedDuration::try_from(after).ok());
        same && same_expiry && renewal.is_none_or(|after| at.checked_add(after).is_ok_and(|due| now < due))
    }
}

impl Signer for NotationSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn sign(&self, subject: &Descriptor, at: Timestamp) -> Result<Signature, KeyError> {
        self.chain.check_validity(at)?;
        let payload = encode(&Payload { target_artifact: subject.stripped() });
        let protected = encode(&self.protected(at)?);
        let signature = self.key.sign(signing_input(&protected, &payload).as_bytes())?;
        let envelope = Envelope {
            payload,
            protected,
            header: Unprotected { x5c: self.chain.ders().map(|der| STANDARD.encode(der)).collect(), agent: AGENT.to_owned() },
            signature: URL_SAFE_NO_PAD.encode(signature),
        };
        Ok(self.shape.around(serde_json::to_vec(&envelope).unwrap_or_default(), subject, at))
    }

    fn is_equal(&self, manifest: &ImageManifest, layer: &[u8], subject: &Descriptor, now: Timestamp) -> bool {
        if !self.shape.fits(manifest, &subject.digest) || !Shape::holds(manifest, layer) {
            return false;
        }
        let Ok(envelope) = serde_json::from_slice::<Envelope>(layer) else { return false };
        let Some(payload) = decode::<Value>(&envelope.payload) else { return false };
        let Some(protected) = decode::<Protected>(&envelope.protected) else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(&envelope.signature) else { return false };
        let same_chain =
            envelope.header.x5c.iter().map(|der| STANDARD.decode(der).ok()).eq(self.chain.ders().map(|der| Some(der.to_vec())));
        let ours = serde_json::to_value(Payload { target_artifact: subject.stripped() }).unwrap_or_default();
        same_chain
            && payload == ours
            && self.is_fresh(&protected, now)
            && self.key.verifies(signing_input(&envelope.protected, &envelope.payload).as_bytes(), &signature)
    }

    fn fingerprint(&self) -> Digest {
        let content = serde_json::json!({
            "signature": ENVELOPE,
            "certificates": self.chain.thumbprints(),
            "expiry": self.expiry.map(|expiry| expiry.as_secs()),
        });
        Digest::sha256(content.to_string().as_bytes())
    }

    fn renewal(&self) -> Option<Duration> {
        self.expiry.map(|expiry| expiry.unsigned_abs() / 3 * 2)
    }

    fn ends(&self) -> Option<Timestamp> {
        self.chain.not_after()
    }
}

/// What a signature is over (RFC 7515, section 5.1).
fn signing_input(protected: &str, payload: &str) -> String {
    format!("{protected}.{payload}")
}

fn encode<T: Serialize>(part: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn whole_seconds(expiry: Duration) -> Result<SignedDuration, KeyError> {
    let seconds = expiry.as_secs();
    let refused = KeyError::Expiry { seconds };
    if seconds == 0 {
        return Err(refused);
    }
    i64::try_from(seconds).map(SignedDuration::from_secs).map_err(|_| refused)
}

/// The envelope, in notation's order of fields.
#[derive(Serialize, Deserialize)]
struct Envelope {
    payload: String,
    protected: String,
    header: Unprotected,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Unprotected {
    /// Standard base64 of DER (RFC 7515, section 4.1.6), the signing certificate first.
    x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingAgent", default)]
    agent: String,
}

/// The protected header, in notation's order of fields. A header that it does not have is one that affix would not write.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protected {
    #[serde(rename = "alg")]
    algorithm: String,
    #[serde(rename = "crit")]
    critical: Vec<String>,
    #[serde(rename = "cty")]
    content_type: String,
    #[serde(rename = "io.cncf.notary.expiry", default, skip_serializing_if = "Option::is_none")]
    expiry: Option<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(rename = "io.cncf.notary.signingTime")]
    signing_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: Descriptor,
}
