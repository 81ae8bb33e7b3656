//! The signing key of a resource: its Secret or its key management service, the key policy, and its options.
//!
//! The key policy is checked before the key is opened. [`SigningKey::open`] blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{GoDuration, ImageAttachmentSpec, Reason, SignatureFormat};
use crate::attachment::{
    Created, Desired, EndOfLifeDate, LIFECYCLE_PREDICATE, LifecycleDocument, Problem,
};
use crate::engine::failure::reason;
use crate::signing::{
    CosignSigner, KeyError, KeylessIdentity, KmsIdentity, KmsRequest, NotationSigner, Predicate,
    Publisher, Signer, SigningError, SigstoreInstance, TimestampAuthority, Timestamper,
};
use affix_registry::oci::{Digest, Hasher, Reference};
use affix_registry::{Registries, Secret};
use tokio::time::Instant;

use super::key_policy::{ANNOTATION, allow};
use super::kms::{kms_request, signing_identity};
use super::secrets::{Sources, find, key};

/// A key with the bytes of its Secret, or with the way to its service, and the options that the resource signs with.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// The field and the name of the Secret or of the key, for messages.
    location: String,
    files: Files,
    trust: Option<Trust>,
}

/// The Sigstore instance that logs and timestamps the signatures of a resource.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Trust {
    /// The field and the name of the ConfigMap, for messages.
    location: String,
    tenant: String,
    instance: Arc<SigstoreInstance>,
}

impl Trust {
    /// # Errors
    /// `FileMissing` for a ConfigMap or one of its keys that is absent, `KeyInvalid` for one that does not describe an instance.
    fn from_spec(spec: &ImageAttachmentSpec, sources: &Sources) -> Result<Option<Self>, Problem> {
        let Some((field, config_map)) = spec.trust() else {
            return Ok(None);
        };
        let name = &config_map.name;
        let location = format!("{field}.trustRef: the ConfigMap {name:?}");
        let absent = |text: String| Problem::new(Reason::FileMissing, format!("{location}{text}"));
        let config_map = sources.config_maps.get(name).ok_or_else(|| {
            absent(" is not there: create it in the namespace of the resource".to_owned())
        })?;
        let key = |key: &str, command: &str| {
            config_map
                .get(key)
                .ok_or_else(|| absent(format!(" has no key {key}: {command} writes it")))
        };
        let root = key("trusted_root.json", "cosign trusted-root create")?;
        let config = key("signing_config.json", "cosign signing-config create")?;
        let instance = SigstoreInstance::parse(root, config);
        let instance = instance.map_err(|error| {
            Problem::new(Reason::KeyInvalid, format_args!("{location}, {error}"))
        })?;
        Ok(Some(Self {
            location,
            tenant: sources.namespace.clone(),
            instance: Arc::new(instance),
        }))
    }

    /// Returns the hosts of the transparency logs that take new signatures at `now`.
    pub(in crate::engine) fn log_hosts(&self, now: Timestamp) -> Vec<&str> {
        self.instance.log_hosts(now)
    }

    /// Returns the way to the services of the instance for one pass.
    pub(in crate::engine) fn publisher(
        &self,
        registries: &Registries,
        now: Timestamp,
        deadline: Instant,
    ) -> Publisher {
        let (tenant, instance) = (self.tenant.clone(), Arc::clone(&self.instance));
        Publisher::new(registries.clone(), tenant, instance, now, deadline)
    }
}

/// The authority that timestamps the signatures of a resource.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Timestamps {
    tenant: String,
    authority: Arc<TimestampAuthority>,
}

impl Timestamps {
    const FIELD: &'static str = "spec.signature.notation.timestamp";

    /// # Errors
    /// `SecretNotFound` for a Secret that is absent or has no `ca.crt`, `CertificateInvalid` for one whose certificates cannot be used.
    fn from_spec(spec: &ImageAttachmentSpec, sources: &Sources) -> Result<Option<Self>, Problem> {
        let Some(service) = spec.timestamp() else {
            return Ok(None);
        };
        let (reference, field) = (
            &service.cert_secret_ref,
            format!("{}.certSecretRef", Self::FIELD),
        );
        let secret = find(&field, reference, sources)?;
        let hint = "write the root certificates of the authority into it";
        let roots = key(secret, &field, &reference.name, "ca.crt", hint)?;
        let authority = TimestampAuthority::new(&service.url, roots.expose());
        let authority = authority.map_err(|error| {
            let location = location(&field, &reference.name);
            Problem::new(
                Reason::CertificateInvalid,
                format_args!("{location}: {error}"),
            )
        })?;
        Ok(Some(Self {
            tenant: sources.namespace.clone(),
            authority: Arc::new(authority),
        }))
    }

    /// Returns the way to the authority for one pass.
    pub(in crate::engine) fn timestamper(
        &self,
        registries: &Registries,
        deadline: Instant,
    ) -> Timestamper {
        let (tenant, authority) = (self.tenant.clone(), Arc::clone(&self.authority));
        Timestamper::new(registries.clone(), tenant, authority, deadline)
    }
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
        timestamps: Option<Timestamps>,
    },
    Keyless {
        identity: Box<KeylessIdentity>,
        annotations: BTreeMap<String, String>,
    },
    Kms {
        request: Box<KmsRequest>,
        annotations: BTreeMap<String, String>,
    },
}

impl SigningKey {
    /// Returns the key of `spec` if it signs.
    ///
    /// # Errors
    /// `SecretNotFound` for a Secret, one of its keys or a ServiceAccount that is absent; `RepositoryNotAllowed` if the annotation of the
    /// Secret or of the ServiceAccount does not allow this repository; `InvalidSpec` for a key that needs workload identity. Those of the
    /// Sigstore instance.
    pub(in crate::engine) fn from_spec(
        spec: &ImageAttachmentSpec,
        reference: &Reference,
        sources: &Sources,
    ) -> Result<Option<Self>, Problem> {
        let trust = Trust::from_spec(spec, sources)?;
        if let Some((field, kms)) = spec.kms() {
            let request = kms_request((field, kms), spec, reference, sources)?;
            return Ok(Some(Self {
                location: format!("{field}: {}", kms.key_ref),
                files: Files::Kms {
                    request: Box::new(request),
                    annotations: annotations(spec),
                },
                trust,
            }));
        }
        if let Some((field, keyless)) = spec.keyless() {
            let KmsIdentity {
                account,
                identities,
            } = signing_identity(field, spec, reference, sources)?;
            return Ok(Some(Self {
                location: format!("{field}: {account}"),
                files: Files::Keyless {
                    identity: Box::new(KeylessIdentity {
                        account,
                        identities,
                        audience: keyless.audience().to_owned(),
                    }),
                    annotations: annotations(spec),
                },
                trust,
            }));
        }
        let Some((field, reference_to)) = spec.key_secret() else {
            return Ok(None);
        };
        let name = &reference_to.name;
        let secret = find(field, reference_to, sources)?;
        if let Some(annotation) = secret.annotations.get(ANNOTATION) {
            allow(&location(field, name), annotation, reference)?;
        }
        let key = |file, hint| key(secret, field, name, file, hint).cloned();
        let notation = spec.signature.as_ref().and_then(|of| of.notation.as_ref());
        let files = match notation {
            Some(notation) => {
                let hint = "a Secret of type kubernetes.io/tls has it";
                Files::Notation {
                    key: key("tls.key", hint)?,
                    chain: key("tls.crt", hint)?,
                    roots: secret
                        .data
                        .get("ca.crt")
                        .filter(|roots| !roots.expose().is_empty())
                        .cloned(),
                    expiry: notation.expiry.as_ref().map(GoDuration::get),
                    timestamps: Timestamps::from_spec(spec, sources)?,
                }
            }
            None => Files::Cosign {
                key: key(
                    "cosign.key",
                    "cosign generate-key-pair k8s://NAMESPACE/NAME writes it",
                )?,
                password: secret.data.get("cosign.password").cloned(),
                annotations: annotations(spec),
            },
        };
        Ok(Some(Self {
            location: location(field, name),
            files,
            trust,
        }))
    }

    /// Returns the key of a service with the signed annotations, or `None` if the key is in a Secret.
    pub(in crate::engine) const fn kms(&self) -> Option<(&KmsRequest, &BTreeMap<String, String>)> {
        match &self.files {
            Files::Kms {
                request,
                annotations,
            } => Some((request, annotations)),
            Files::Cosign { .. } | Files::Notation { .. } | Files::Keyless { .. } => None,
        }
    }

    /// Returns the identity that signs without a key, with the signed annotations.
    pub(in crate::engine) const fn keyless(
        &self,
    ) -> Option<(&KeylessIdentity, &BTreeMap<String, String>)> {
        match &self.files {
            Files::Keyless {
                identity,
                annotations,
            } => Some((identity, annotations)),
            Files::Cosign { .. } | Files::Notation { .. } | Files::Kms { .. } => None,
        }
    }

    /// Returns the Sigstore instance of a resource that has its signatures logged.
    pub(in crate::engine) const fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// Returns the authority that timestamps the signatures of a notation key.
    pub(in crate::engine) const fn timestamps(&self) -> Option<&Timestamps> {
        match &self.files {
            Files::Notation { timestamps, .. } => timestamps.as_ref(),
            Files::Cosign { .. } | Files::Kms { .. } | Files::Keyless { .. } => None,
        }
    }

    /// Opens the key of a Secret on the current thread, which may take 200 ms and 64 MiB.
    ///
    /// # Errors
    /// The files are not a key that verifiers accept at `now`, or the key is in no Secret.
    pub(in crate::engine) fn open(&self, now: Timestamp) -> Result<Arc<dyn Signer>, KeyError> {
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
                timestamps,
            } => Arc::new(NotationSigner::open(
                key.expose(),
                chain.expose(),
                roots.as_ref().map(Secret::expose),
                *expiry,
                timestamps.as_ref().map(|of| Arc::clone(&of.authority)),
                now,
            )?),
            Files::Kms { .. } | Files::Keyless { .. } => return Err(KeyError::Unable),
        })
    }

    /// Returns a cache key for the result of [`open`](Self::open). `None` if opening is fast or depends on the time. The cache key
    /// changes with each byte of the Secret's files and reveals none of them.
    pub(in crate::engine) fn fingerprint(&self) -> Option<Digest> {
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
            // Each part has a length prefix, so that two splits of the same bytes differ. An absent part has the maximum.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_be_bytes());
            hasher.update(part.unwrap_or_default());
        }
        Some(hasher.finish())
    }

    /// Returns the problem of a key that does not open or sign.
    pub(in crate::engine) fn problem(&self, error: &SigningError) -> Problem {
        let trust = self.trust.as_ref().map(|trust| trust.location.as_str());
        let service = trust.or(self.timestamps().map(|_| Timestamps::FIELD));
        let (error, location) = match (error, service) {
            (SigningError::NotPublished(error), Some(service)) => (&**error, service),
            _ => (error, self.location.as_str()),
        };
        let reason = match error {
            SigningError::Key(_) => Reason::KeyInvalid,
            SigningError::IdentityRefused(_) => Reason::IdentityRefused,
            SigningError::Unavailable(_) | SigningError::NotPublished(_) => {
                Reason::SigningUnavailable
            }
            SigningError::Unreachable(error) => reason(error.kind()),
        };
        Problem::new(reason, format_args!("{location}: {error}"))
    }
}

/// Returns whether a signature made at `created` is in the last third of its validity at `now`, so that it has to be renewed.
pub(in crate::engine) fn needs_renewal(
    signer: &dyn Signer,
    created: Option<Created>,
    now: Timestamp,
) -> bool {
    let renewal = signer
        .renewal()
        .and_then(|renewal| SignedDuration::try_from(renewal).ok());
    renewal.is_some_and(|renewal| {
        created.is_none_or(|created| {
            created
                .instant()
                .checked_add(renewal)
                .is_ok_and(|due| due <= now)
        })
    })
}

/// Returns the formats of a signature, each with the hash of its content. It is empty for other attachments.
pub(in crate::engine) fn contents(
    desired: &Desired,
    signer: &dyn Signer,
) -> Vec<(SignatureFormat, Digest)> {
    let Desired::Signature {
        formats, identity, ..
    } = desired
    else {
        return Vec::new();
    };
    let content = |format: &SignatureFormat| match format {
        SignatureFormat::Bundle => Some((*format, signer.fingerprint())),
        SignatureFormat::Tag => Some((*format, signer.tag_signer()?.tag_fingerprint(identity))),
    };
    formats.iter().filter_map(content).collect()
}

/// Returns the signer that states `date` beside a mark of the time `created`. A mark of an unknown time is older than all others.
pub(in crate::engine) fn stating(
    signer: &dyn Signer,
    date: &EndOfLifeDate,
    created: Option<Created>,
) -> Option<Arc<dyn Signer>> {
    let created = created.unwrap_or(Created::at(Timestamp::UNIX_EPOCH));
    let document = LifecycleDocument::of(date, created).to_string();
    let predicate = Predicate::parse(LIFECYCLE_PREDICATE, document.as_bytes()).ok()?;
    signer.stating(&predicate)
}

/// Returns the remark on a key whose signatures, without a timestamp of a third party, end with its certificates.
pub(in crate::engine) fn validity_remark(signer: &dyn Signer) -> Option<String> {
    Some(format!(
        "signatures end with their certificates at {}",
        Created::at(signer.ends()?)
    ))
}

fn location(field: &str, name: &str) -> String {
    format!("{field}: the Secret {name:?}")
}

/// Returns the signed annotations of cosign's signer.
fn annotations(spec: &ImageAttachmentSpec) -> BTreeMap<String, String> {
    let mark = spec.end_of_life.as_ref();
    let statement = mark.and_then(|mark| mark.statement.as_ref());
    let statement = statement.map(|statement| &statement.cosign);
    let attestation = spec.attestation.as_ref().map(|of| &of.cosign);
    let signature = spec.signature.as_ref().and_then(|of| of.cosign.as_ref());
    let signed = attestation
        .or(statement)
        .map(|signer| &signer.annotations)
        .or(signature.map(|signer| &signer.annotations));
    signed.cloned().unwrap_or_default()
}
