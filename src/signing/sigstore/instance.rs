//! The description of a Sigstore instance: its keys and certificates, which verify bundles, and the addresses of its services.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::jiff::Timestamp;
use sigstore_verify::trust_root::{
    ServiceConfiguration, ServiceEndpoint, ServiceSelector, SigningConfig, TrustedRoot,
};
use sigstore_verify::types::{Artifact, ArtifactDigest, Bundle, DerPublicKey, HashAlgorithm};
use sigstore_verify::{
    IdentityMatcher, Policy, PublicKeyVerificationPolicy, VerificationPolicy, Verifier,
};

use affix_registry::oci::{Algorithm, Digest, cut};

/// The version of the API of Rekor that affix writes to.
const REKOR_VERSION: u32 = 2;
/// The version of the API of timestamp authorities.
const TIMESTAMP_VERSION: u32 = 1;

/// The version of the API of Fulcio.
const FULCIO_VERSION: u32 = 1;

/// An error of the description of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// The trusted root is malformed.
    #[error("key trusted_root.json: it is not a trusted root: {0}")]
    TrustedRoot(String),
    /// The signing configuration is malformed.
    #[error("key signing_config.json: it is not a signing configuration of version 0.2: {0}")]
    SigningConfig(String),
    /// The signing configuration has too few usable services of a kind.
    #[error(
        "key signing_config.json: it names {found} {kind} that can be used now, and {needed} needed"
    )]
    NoService {
        /// The kind of service.
        kind: &'static str,
        /// The number of usable ones.
        found: usize,
        /// The number of needed ones, with a verb.
        needed: String,
    },
}

/// An instance. It verifies bundles without any service.
pub struct SigstoreInstance {
    verifier: Verifier,
    config: SigningConfig,
    id: Digest,
}

impl fmt::Debug for SigstoreInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigstoreInstance({})", self.id)
    }
}

/// Services of one kind, in the order in which they are tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection<'a> {
    pub(super) urls: Vec<&'a str>,
    /// The number of services that must answer.
    pub(super) needed: usize,
}

impl SigstoreInstance {
    /// Parses `trusted_root.json` and `signing_config.json`, as `cosign trusted-root create` and `cosign signing-config create`
    /// write them.
    ///
    /// # Errors
    /// If one of the files is malformed, or has a key or a certificate that cannot be used.
    pub fn parse(trusted_root: &[u8], signing_config: &[u8]) -> Result<Self, InstanceError> {
        let root_error =
            |error: &dyn fmt::Display| InstanceError::TrustedRoot(cut(&error.to_string()));
        let root = std::str::from_utf8(trusted_root).map_err(|error| root_error(&error))?;
        let root = TrustedRoot::from_json(root).map_err(|error| root_error(&error))?;
        let config_error =
            |error: &dyn fmt::Display| InstanceError::SigningConfig(cut(&error.to_string()));
        let config = std::str::from_utf8(signing_config).map_err(|error| config_error(&error))?;
        Ok(Self {
            verifier: Verifier::new(&root).map_err(|error| root_error(&error))?,
            config: SigningConfig::from_json(config).map_err(|error| config_error(&error))?,
            id: Algorithm::Sha256.hash(trusted_root),
        })
    }

    /// Returns the hash of the trusted root. Signatures are verified again when it changes.
    pub(in crate::signing) const fn id(&self) -> &Digest {
        &self.id
    }

    /// Returns the transparency logs that take a signature at `now`.
    pub(super) fn logs(&self, now: Timestamp) -> Result<Selection<'_>, InstanceError> {
        let config = &self.config;
        select(
            (&config.rekor_tlog_urls, &config.rekor_tlog_config),
            (
                "transparency logs (rekorTlogUrls with majorApiVersion 2)",
                REKOR_VERSION,
            ),
            now,
        )
    }

    /// Returns the certificate authority that issues certificates at `now`.
    pub(super) fn certificate_authority(&self, now: Timestamp) -> Result<&str, InstanceError> {
        let any = ServiceConfiguration::default();
        let kind = ("certificate authorities (caUrls)", FULCIO_VERSION);
        let selection = select((&self.config.ca_urls, &any), kind, now)?;
        Ok(selection.urls.first().copied().unwrap_or_default())
    }

    /// Returns the hosts of the transparency logs that take new signatures at `now`, for messages.
    #[must_use]
    pub fn log_hosts(&self, now: Timestamp) -> Vec<&str> {
        let logs = self.logs(now);
        let urls = logs.map(|logs| logs.urls).unwrap_or_default();
        urls.into_iter()
            .map(|url| url.split("://").nth(1).unwrap_or(url))
            .filter_map(|rest| rest.split('/').next())
            .collect()
    }

    /// Returns the timestamp authorities that take a signature at `now`.
    pub(super) fn timestamp_authorities(
        &self,
        now: Timestamp,
    ) -> Result<Selection<'_>, InstanceError> {
        let config = &self.config;
        select(
            (&config.tsa_urls, &config.tsa_config),
            ("timestamp authorities (tsaUrls)", TIMESTAMP_VERSION),
            now,
        )
    }

    /// Verifies a bundle over a statement about `subject` that was signed with the key `public_der`, with a log entry and a
    /// timestamp.
    ///
    /// # Errors
    /// The reason for which verifiers refuse it.
    pub(in crate::signing) fn verify_with_key(
        &self,
        bundle: &[u8],
        public_der: &[u8],
        subject: &Digest,
    ) -> Result<(), String> {
        let key = DerPublicKey::from_bytes(public_der);
        self.verify(bundle, &PublicKeyVerificationPolicy::new(key), subject)
    }

    /// Verifies a bundle over a statement about `subject` that was signed by `identity` with a certificate for tokens of `issuer`,
    /// with a log entry and a timestamp.
    ///
    /// # Errors
    /// The reason for which verifiers refuse it.
    pub(in crate::signing) fn verify_identity(
        &self,
        bundle: &[u8],
        (identity, issuer): (&str, &str),
        subject: &Digest,
    ) -> Result<(), String> {
        let identity = IdentityMatcher::Uri(identity.to_owned());
        self.verify(bundle, &VerificationPolicy::new(identity, issuer), subject)
    }

    fn verify(&self, bundle: &[u8], policy: &dyn Policy, subject: &Digest) -> Result<(), String> {
        let text = std::str::from_utf8(bundle).map_err(|error| error.to_string())?;
        let bundle = Bundle::from_json(text).map_err(|error| error.to_string())?;
        let artifact = artifact(subject).ok_or("the digest of the image is not supported")?;
        let verified = self.verifier.verify(artifact, &bundle, policy);
        let verified = verified.map_err(|error| {
            tracing::debug!(%subject, "a bundle does not verify: {error}");
            cause(&error).to_owned()
        })?;
        if bundle.verification_material.tlog_entries.is_empty() || !verified.tlog_verified() {
            return Err("the bundle has no entry of a transparency log".to_owned());
        }
        if verified.verified_timestamps().is_empty() {
            return Err("the bundle has no timestamp".to_owned());
        }
        Ok(())
    }
}

/// Returns the cause for a message that is the same each time. Errors of the verifier name hashes and numbers of one bundle.
const fn cause(error: &sigstore_verify::Error) -> &'static str {
    use sigstore_verify::Error;
    match error {
        Error::Timestamp(_) => {
            "the timestamp is of something else, or not by an authority of the trusted root"
        }
        Error::TransparencyLog(_) => {
            "the log entry is of something else, or its proof is not by a log of the trusted root"
        }
        Error::Certificate(_) => {
            "the certificate is not valid at the time of the timestamp, or not by an authority of the trusted root"
        }
        Error::IdentityMismatch { .. } | Error::IssuerMismatch { .. } => {
            "the certificate is for another identity or issuer"
        }
        Error::SignatureInvalid(_) => "the certificate or the key is not that of the signature",
        Error::ArtifactMismatch(_) => "the log entry or the statement is of something else",
        _ => "the bundle is malformed or of an unknown kind",
    }
}

/// Returns a digest as the verifier takes it.
fn artifact(subject: &Digest) -> Option<Artifact<'static>> {
    let algorithm = match subject.algorithm() {
        Algorithm::Sha256 => HashAlgorithm::Sha2256,
        Algorithm::Sha512 => HashAlgorithm::Sha2512,
    };
    let hex = subject.hex().as_bytes();
    let bytes = hex.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let digest = ArtifactDigest::new(algorithm, bytes.collect::<Option<Vec<u8>>>()?).ok()?;
    Some(Artifact::from_digest(digest))
}

/// Selects as sigstore-go does: the newest valid service of each operator. If one of several is enough, the others are tried when
/// it fails.
fn select<'a>(
    (endpoints, config): (&'a [ServiceEndpoint], &ServiceConfiguration),
    (kind, version): (&'static str, u32),
    now: Timestamp,
) -> Result<Selection<'a>, InstanceError> {
    let mut usable: Vec<&ServiceEndpoint> = endpoints
        .iter()
        .filter(|endpoint| {
            endpoint.major_api_version == version && endpoint.valid_for.contains(now)
        })
        .collect();
    usable.sort_by_key(|endpoint| Reverse(endpoint.valid_for.start));
    let mut operators = BTreeSet::new();
    usable.retain(|endpoint| operators.insert(endpoint.operator.as_deref()));
    let urls: Vec<&str> = usable
        .iter()
        .map(|endpoint| endpoint.url.as_str())
        .collect();
    let needed = match config.selector {
        ServiceSelector::All => urls.len().max(1),
        ServiceSelector::Exact => config.count.unwrap_or_default().max(1) as usize,
        _ => 1,
    };
    if urls.len() < needed {
        let verb = if needed == 1 { "is" } else { "are" };
        return Err(InstanceError::NoService {
            kind,
            found: urls.len(),
            needed: format!("{needed} {verb}"),
        });
    }
    Ok(Selection { urls, needed })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::signing::vectors::{at, read};

    fn endpoint(url: &str, version: u32, start: &str, operator: &str) -> ServiceEndpoint {
        let json = serde_json::json!({
            "url": url,
            "majorApiVersion": version,
            "validFor": {"start": start},
            "operator": operator,
        });
        serde_json::from_value(json).unwrap()
    }

    fn config(selector: &str, count: u32) -> ServiceConfiguration {
        serde_json::from_value(serde_json::json!({"selector": selector, "count": count})).unwrap()
    }

    #[test]
    fn the_newest_valid_service_of_each_operator_is_selected() {
        let services = [
            endpoint("https://old", 2, "2024-01-01T00:00:00Z", "a"),
            endpoint("https://new", 2, "2025-01-01T00:00:00Z", "a"),
            endpoint("https://other", 2, "2024-06-01T00:00:00Z", "b"),
            endpoint("https://later", 2, "2030-01-01T00:00:00Z", "c"),
            endpoint("https://v1", 1, "2024-01-01T00:00:00Z", "d"),
        ];
        let selected = |selector, count| {
            let config = config(selector, count);
            let now = at("2026-01-01T00:00:00Z");
            select((&services, &config), ("logs", 2), now)
                .map(|Selection { urls, needed }| (urls, needed))
        };
        let urls = vec!["https://new", "https://other"];
        assert_eq!(selected("ANY", 0), Ok((urls.clone(), 1)));
        assert_eq!(selected("ALL", 0), Ok((urls.clone(), 2)));
        assert_eq!(selected("EXACT", 2), Ok((urls, 2)));
        let error = selected("EXACT", 3).unwrap_err().to_string();
        assert!(
            error.contains("it names 2 logs that can be used now, and 3 are needed"),
            "{error}"
        );
    }

    #[test]
    fn malformed_files_are_refused_with_the_name_of_the_key() {
        let root = read("sigstore/trusted_root.json");
        let config = read("sigstore/signing_config.json");
        SigstoreInstance::parse(&root, &config).unwrap();
        let error = |root: &[u8], config: &[u8]| {
            SigstoreInstance::parse(root, config)
                .unwrap_err()
                .to_string()
        };
        for wrong in [b"{}".as_slice(), b"affix", b"\xff"] {
            assert!(error(wrong, &config).contains("trusted_root.json"));
            assert!(error(&root, wrong).contains("signing_config.json"));
        }
        // A certificate that is cut off.
        let text = String::from_utf8(root).unwrap();
        let text = text.replace("\"rawBytes\":\"", "\"rawBytes\":\"AAAA");
        assert!(error(text.as_bytes(), &config).contains("trusted_root.json"));
    }
}
