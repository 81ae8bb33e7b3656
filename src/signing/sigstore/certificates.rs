//! Certificates for ephemeral keys, which Fulcio issues for the token of a ServiceAccount.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use affix_registry::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::publisher::{Publisher, refused};
use crate::identity::{Account, Identities};
use crate::signing::keys::{CosignKey, pem as files};
use crate::signing::{KeyError, SigningError};

/// The path of certificates, below the URL of Fulcio.
const CERTIFICATES: &str = "/api/v2/signingCert";
/// The time for which a certificate is used. Fulcio's are valid for 10 minutes, and log and timestamp take their time.
const MAX_AGE: Duration = Duration::from_mins(5);

/// The identity that signs without a key: a ServiceAccount.
#[derive(Debug, Clone)]
pub struct KeylessIdentity {
    /// The ServiceAccount.
    pub account: Account,
    /// The source of its tokens.
    pub identities: Identities,
    /// The audience of the token, as Fulcio has it.
    pub audience: String,
}

impl KeylessIdentity {
    /// Returns the identity as certificates have it: the URI that Fulcio makes of the token of a ServiceAccount.
    pub(in crate::signing) fn uri(&self) -> String {
        format!(
            "https://kubernetes.io/namespaces/{}/serviceaccounts/{}",
            self.account.namespace, self.account.name
        )
    }

    /// Returns the issuer of the tokens, as certificates have it.
    pub(in crate::signing) async fn issuer(&self) -> Result<String, SigningError> {
        Ok(self.identities.tokens().issuer().await?)
    }
}

/// A key pair for one pass, with its certificate.
pub(in crate::signing) struct Certified {
    pub(in crate::signing) key: CosignKey,
    /// The DER of the certificate.
    pub(in crate::signing) certificate: Vec<u8>,
    issued: Instant,
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certified")
    }
}

/// The certificate of one pass, which is requested with its first signature.
#[derive(Debug, Default)]
pub(in crate::signing) struct Certificates(Mutex<Option<Arc<Certified>>>);

impl Certificates {
    /// Returns the certificate, which is requested if there is none yet or if it is old.
    pub(in crate::signing) async fn get(
        &self,
        publisher: &Publisher,
        identity: &KeylessIdentity,
    ) -> Result<Arc<Certified>, SigningError> {
        let mut current = self.0.lock().await;
        match &*current {
            Some(certified) if certified.issued.elapsed() < MAX_AGE => Ok(Arc::clone(certified)),
            _ => {
                let certified = Arc::new(request(publisher, identity).await?);
                *current = Some(Arc::clone(&certified));
                Ok(certified)
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    signed_certificate_embedded_sct: Option<Signed>,
    signed_certificate_detached_sct: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    chain: Chain,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<String>,
}

/// Requests a certificate for a new key.
async fn request(
    publisher: &Publisher,
    identity: &KeylessIdentity,
) -> Result<Certified, SigningError> {
    let issued = Instant::now();
    let key = CosignKey::generate()?;
    let tokens = identity.identities.tokens();
    let token = tokens.token(&identity.account, &identity.audience).await?;
    let subject = subject(&token).ok_or_else(|| {
        SigningError::IdentityRefused(format!("the token of {} has no subject", identity.account))
    })?;
    let mut proof = key.sign(&[subject.into_bytes()]).await;
    let proof = proof.pop().unwrap_or(Err(KeyError::Unable.into()))?;
    let body = json!({"publicKeyRequest": {
        "publicKey": {"algorithm": "ECDSA", "content": pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_der()))},
        "proofOfPossession": STANDARD.encode(proof),
    }});
    let (service, path) = publisher.certificate_authority()?;
    service.redact(&token);
    let bearer = format!("Bearer {}", String::from_utf8_lossy(token.expose()));
    let headers = [
        (AUTHORIZATION, bearer.as_str()),
        (CONTENT_TYPE, "application/json"),
        (ACCEPT, "application/json"),
    ];
    let answer = service
        .post(&format!("{path}{CERTIFICATES}"), &headers, body.to_string())
        .await?;
    if !answer.is_success() {
        let action = format!("issues no certificate to {}", identity.account);
        let message = refused(&service, &answer, &action);
        return Err(match answer.status {
            400 | 401 | 403 => SigningError::IdentityRefused(message),
            _ => SigningError::Unavailable(message),
        });
    }
    let certificate = certificate(answer.body()).ok_or_else(|| {
        let message = format!(
            "{} answers with something that is no certificate",
            answer.host
        );
        SigningError::Unavailable(message)
    })?;
    Ok(Certified {
        key,
        certificate,
        issued,
    })
}

/// Returns the DER of the first certificate of an answer.
fn certificate(body: &[u8]) -> Option<Vec<u8>> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let signed = answer
        .signed_certificate_embedded_sct
        .or(answer.signed_certificate_detached_sct)?;
    let first = signed.chain.certificates.first()?;
    let block = files::blocks(first.as_bytes()).ok()?.into_iter().next()?;
    (block.label == "CERTIFICATE").then(|| block.contents.to_vec())
}

/// Returns the subject of a token, which the proof of possession signs.
fn subject(token: &Secret) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = token.expose().split(|byte| *byte == b'.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.sub)
}
