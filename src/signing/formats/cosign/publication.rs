//! Signatures that are logged and timestamped.

use std::sync::Arc;

use affix_registry::oci::Digest;

use crate::signing::error::KeyError;
use crate::signing::keys::CosignKey;
use crate::signing::kms::SigningError;
use crate::signing::signer::Signed;
use crate::signing::sigstore::{LoggedKey, PublishError, Publisher};

/// The number of times that a signature is made anew if the log has it.
const MAX_ATTEMPTS: usize = 3;

/// The way into the log for the signatures of one key.
#[derive(Clone)]
pub(super) struct Publication {
    publisher: Arc<Publisher>,
    key: LoggedKey,
}

impl Publication {
    pub(super) fn new(publisher: Arc<Publisher>, public_der: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            publisher,
            key: LoggedKey::new(public_der)?,
        })
    }

    pub(super) fn instance_id(&self) -> &Digest {
        self.publisher.instance().id()
    }

    /// Publishes a signature over `message`.
    pub(super) async fn publish(
        &self,
        key: &CosignKey,
        message: &[u8],
        signature: Vec<u8>,
    ) -> Result<Signed, SigningError> {
        publish((&self.publisher, &self.key), key, message, signature).await
    }

    /// Verifies a bundle with the trusted root.
    pub(super) fn verify(
        &self,
        bundle: &[u8],
        public_der: &[u8],
        subject: &Digest,
    ) -> Result<(), SigningError> {
        let instance = self.publisher.instance();
        let verified = instance.verify_with_key(bundle, public_der, subject);
        verified.map_err(|why| unverified(subject, &why))
    }
}

/// Publishes a signature over `message`. A log takes each signature once, and a request whose answer was lost has left its entry there
/// without the proof, so another signature is made then.
pub(super) async fn publish(
    (publisher, logged): (&Publisher, &LoggedKey),
    key: &CosignKey,
    message: &[u8],
    mut signature: Vec<u8>,
) -> Result<Signed, SigningError> {
    for _ in 0..MAX_ATTEMPTS {
        match publisher.publish(message, &signature, logged).await {
            Ok(evidence) => {
                return Ok(Signed {
                    evidence: Some(evidence),
                    ..Signed::from(signature)
                });
            }
            Err(PublishError::Failed(error)) => return Err(not_published(error)),
            Err(PublishError::AlreadyLogged) => {}
        }
        let again = key.sign(&[message.to_vec()]).await;
        signature = again
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(KeyError::Unable.into()))?;
    }
    let message = "the transparency log says of each new signature that it has it already";
    Err(not_published(SigningError::Unavailable(message.to_owned())))
}

/// Returns the error for a bundle over `subject` that does not verify.
pub(super) fn unverified(subject: &Digest, why: &str) -> SigningError {
    not_published(SigningError::Unavailable(format!(
        "what the services answered for {subject} does not verify with trusted_root.json: {why}; nothing is pushed"
    )))
}

pub(super) fn not_published(error: SigningError) -> SigningError {
    SigningError::NotPublished(Box::new(error))
}
