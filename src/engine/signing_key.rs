//! The key that a resource signs with: which Secret and which of its keys, and whether it may be used on this image at all.
//!
//! Nothing is opened here but by [`SigningKey::open`], which blocks; what may sign where is settled before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{GoDuration, ImageAttachmentSpec, Reason};
use crate::attachment::Problem;
use crate::signing::{CosignSigner, KeyError, NotationSigner, Signer};
use affix_registry::Secret;
use affix_registry::oci::{Digest, Hasher, Reference};

use super::allowed_repositories::{ANNOTATION, check};
use super::sources::{SecretData, Sources, find, key};

/// A key as its Secret holds it, with what the resource wants signed beside the digest.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// As messages name the Secret.
    place: String,
    files: Files,
}

#[derive(Debug, Clone)]
enum Files {
    Cosign {
        key: Secret,
        password: Option<Secret>,
        annotations: BTreeMap<String, String>,
    },
    Notation {
        key: Secret,
        chain: Secret,
        roots: Option<Secret>,
        expiry: Option<Duration>,
    },
}

impl SigningKey {
    /// The key of `spec`, where it signs.
    ///
    /// # Errors
    /// `SecretNotFound` for a Secret or a key of it that is absent, `RepositoryNotAllowed` where the Secret's annotation does not
    /// allow this repository.
    pub(super) fn of(
        spec: &ImageAttachmentSpec,
        reference: &Reference,
        sources: &Sources,
    ) -> Result<Option<Self>, Problem> {
        let Some(signature) = &spec.signature else {
            return Ok(None);
        };
        if let Some(cosign) = &signature.cosign {
            let field = "spec.signature.cosign.keySecretRef";
            let name = &cosign.key_secret_ref.name;
            let secret = find(field, &cosign.key_secret_ref, sources)?;
            allow(field, name, secret, reference)?;
            let hint = "cosign generate-key-pair k8s://NAMESPACE/NAME writes it";
            let files = Files::Cosign {
                key: key(secret, field, name, "cosign.key", hint)?.clone(),
                password: secret.data.get("cosign.password").cloned(),
                annotations: cosign.annotations.clone(),
            };
            return Ok(Some(Self {
                place: place(field, name),
                files,
            }));
        }
        let Some(notation) = &signature.notation else {
            return Ok(None);
        };
        let field = "spec.signature.notation.keySecretRef";
        let name = &notation.key_secret_ref.name;
        let secret = find(field, &notation.key_secret_ref, sources)?;
        allow(field, name, secret, reference)?;
        let hint = "a Secret of type kubernetes.io/tls has it";
        let files = Files::Notation {
            key: key(secret, field, name, "tls.key", hint)?.clone(),
            chain: key(secret, field, name, "tls.crt", hint)?.clone(),
            roots: secret
                .data
                .get("ca.crt")
                .filter(|roots| !roots.expose().is_empty())
                .cloned(),
            expiry: notation.expiry.as_ref().map(GoDuration::get),
        };
        Ok(Some(Self {
            place: place(field, name),
            files,
        }))
    }

    /// Opens the key, which may take 200 ms and 64 MiB, on the thread that calls.
    ///
    /// # Errors
    /// When the files do not make a key that verifiers take at `now`.
    pub(super) fn open(&self, now: Timestamp) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(match &self.files {
            Files::Cosign {
                key,
                password,
                annotations,
            } => Arc::new(CosignSigner::open(
                key.expose(),
                password.as_ref().map(Secret::expose),
                annotations.clone(),
            )?),
            Files::Notation {
                key,
                chain,
                roots,
                expiry,
            } => Arc::new(NotationSigner::open(
                key.expose(),
                chain.expose(),
                roots.as_ref().map(Secret::expose),
                *expiry,
                now,
            )?),
        })
    }

    /// A name for what [`open`](Self::open) answers, where that is worth keeping: opening is slow and its answer does not depend
    /// on the time. It changes with each byte of the Secret's files, and tells none of them.
    pub(super) fn fingerprint(&self) -> Option<Digest> {
        let Files::Cosign {
            key,
            password,
            annotations,
        } = &self.files
        else {
            return None;
        };
        let mut hasher = Hasher::new(affix_registry::oci::Algorithm::Sha256);
        let annotations = serde_json::to_vec(annotations).unwrap_or_default();
        for part in [
            Some(key.expose()),
            password.as_ref().map(Secret::expose),
            Some(&annotations),
        ] {
            // A length before each part, so that no two splits of the same bytes are one name; an absent part has none.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_be_bytes());
            hasher.update(part.unwrap_or_default());
        }
        Some(hasher.finish())
    }

    /// A failure of this key in the words of a condition.
    pub(super) fn problem(&self, error: &KeyError) -> Problem {
        Problem::new(Reason::KeyInvalid, format_args!("{}: {error}", self.place))
    }
}

fn place(field: &str, name: &str) -> String {
    format!("{field}: the Secret {name:?}")
}

fn allow(
    field: &str,
    name: &str,
    secret: &SecretData,
    reference: &Reference,
) -> Result<(), Problem> {
    let Some(annotation) = secret.annotations.get(ANNOTATION) else {
        return Ok(());
    };
    check(annotation, reference).map_err(|error| {
        Problem::new(
            Reason::RepositoryNotAllowed,
            format_args!("{}, annotation {ANNOTATION}: {error}", place(field, name)),
        )
    })
}
