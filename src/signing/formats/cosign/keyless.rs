//! Signatures without a key: Fulcio certifies an ephemeral key for the identity of a ServiceAccount.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::{Algorithm, Descriptor, Digest, ImageManifest};

use super::publication::{not_published, publish, unverified};
use super::statement::{self, Predicate, SignedStatement};
use super::{BUNDLE, Bundle, IN_TOTO, SIGNATURE, shape_of};
use crate::signing::error::KeyError;
use crate::signing::formats::dsse::pre_authentication_encoding;
use crate::signing::kms::SigningError;
use crate::signing::signer::{Shape, Signature, Signed, Signer};
use crate::signing::sigstore::{Certificates, KeylessIdentity, LoggedKey, Publisher};

/// Signs like `cosign sign` or `cosign attest` without a key, with one certificate for a pass.
pub struct KeylessSigner {
    inner: Arc<Inner>,
    annotations: BTreeMap<String, String>,
    predicate: Predicate,
    shape: Shape,
}

struct Inner {
    publisher: Arc<Publisher>,
    identity: KeylessIdentity,
    /// The identity and the issuer that certificates must have.
    uri: String,
    issuer: String,
    certificates: Certificates,
}

impl KeylessSigner {
    /// Returns a signer for one pass. It asks the API server for the issuer of its tokens, and for a certificate with the first
    /// signature.
    ///
    /// # Errors
    /// Fails if the issuer of the cluster's tokens is unknown.
    pub async fn open(
        publisher: Arc<Publisher>,
        identity: KeylessIdentity,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, SigningError> {
        let predicate = Predicate::parse(SIGNATURE, b"{}").map_err(|_| KeyError::Unable)?;
        let inner = Inner {
            publisher,
            uri: identity.uri(),
            issuer: identity.issuer().await?,
            identity,
            certificates: Certificates::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            annotations,
            shape: shape_of(&predicate),
            predicate,
        })
    }

    fn statement(&self, subject: &Descriptor) -> Result<Vec<u8>, KeyError> {
        statement::statement(&subject.digest, &self.annotations, &self.predicate)
            .ok_or(KeyError::Unable)
    }

    async fn sign_all(&self, messages: &[Vec<u8>]) -> Vec<Result<Signed, SigningError>> {
        let inner = &self.inner;
        let certified = inner.certificates.get(&inner.publisher, &inner.identity);
        let certified = match certified.await {
            Ok(certified) => certified,
            Err(error) => {
                let error = not_published(error);
                return messages.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let logged = &LoggedKey::certified(certified.certificate.clone());
        let key = &certified.key;
        let signatures = key.sign(messages).await;
        let published = messages.iter().zip(signatures);
        let published = published.map(|(message, signature)| async move {
            publish((&inner.publisher, logged), key, message, signature?).await
        });
        let mut signed = join_all(published).await;
        for signed in signed.iter_mut().flatten() {
            signed.certificate = Some(certified.certificate.clone());
        }
        signed
    }

    fn verify(&self, bundle: &[u8], subject: &Digest) -> Result<(), String> {
        let (instance, inner) = (self.inner.publisher.instance(), &self.inner);
        instance.verify_identity(bundle, (&inner.uri, &inner.issuer), subject)
    }

    /// Returns the identity as one text.
    fn who(&self) -> String {
        format!("{}\n{}", self.inner.issuer, self.inner.uri)
    }
}

impl Signer for KeylessSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn message(&self, subject: &Descriptor, _at: Timestamp) -> Result<Vec<u8>, KeyError> {
        let statement = self.statement(subject)?;
        Ok(pre_authentication_encoding(IN_TOTO, &statement))
    }

    fn attachment(
        &self,
        subject: &Descriptor,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Signature, SigningError> {
        let statement = self.statement(subject)?;
        let bundle = Bundle::new(None, &statement, signed).bytes();
        let verified = self.verify(&bundle, &subject.digest);
        verified.map_err(|why| unverified(&subject.digest, &why))?;
        Ok(self.shape.to_signature(bundle, subject, at))
    }

    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Vec<Result<Signed, SigningError>>> {
        self.sign_all(messages).boxed()
    }

    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        _now: Timestamp,
    ) -> bool {
        self.shape.fits(manifest, &subject.digest)
            && Shape::has_layer(manifest, layer)
            && SignedStatement::parse(layer).is_some_and(|found| {
                found.states(&subject.digest, &self.annotations, &self.predicate)
            })
            && self.verify(layer, &subject.digest).is_ok()
    }

    fn stating(&self, predicate: &Predicate) -> Option<Arc<dyn Signer>> {
        Some(Arc::new(Self {
            inner: Arc::clone(&self.inner),
            annotations: self.annotations.clone(),
            predicate: predicate.clone(),
            shape: shape_of(predicate),
        }))
    }

    fn key_id(&self) -> Digest {
        Digest::sha256(self.who().as_bytes())
    }

    fn fingerprint(&self) -> Digest {
        let content = serde_json::json!({
            "signature": BUNDLE,
            "identity": self.who(),
            "annotations": self.annotations,
            "predicateType": self.predicate.kind(),
            "predicate": self.predicate.hash().to_string(),
            "transparency": self.inner.publisher.instance().id().to_string(),
        });
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}
