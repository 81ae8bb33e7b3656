//! TLS settings: trusted authorities, and the client certificate.
//!
//! Trusted are the system's authorities and those of the pass. The system's are read once per process, when the first server
//! presents a certificate: a command that uses plain HTTP never reads them. `SSL_CERT_FILE` and `SSL_CERT_DIR` are respected. The
//! platform verifiers of desktop systems are not used, so that the same input gives the same result in a cluster and on a
//! workstation.

mod system_roots;
mod verifier;

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder};

use crate::access::authority_bundle::AuthorityBundle;
use crate::client::options::{ClientIdentity, TlsOptions};
use crate::error::RegistryError;
pub(crate) use system_roots::read_ahead as read_system_roots_ahead;
pub(crate) use verifier::Refusal;
use verifier::Verifier;

/// The TLS settings of a pass. All of them trust the same authorities.
pub(crate) struct TlsConfigs {
    /// Toward the registry, with the client certificate.
    pub(crate) registry: Arc<ClientConfig>,
    /// Toward every other host.
    pub(crate) foreign: Arc<ClientConfig>,
    /// Toward an `https` proxy: HTTP/1.1 only.
    pub(crate) proxy: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Reads the PEM of a pass.
    ///
    /// # Errors
    /// `CertificateInvalid` for a certificate or key that cannot be used. The error names the field and never its content.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, RegistryError> {
        let verifier = Arc::new(Verifier::new(pinned(options)?));
        let proxy = builder(&verifier)?.with_no_client_auth();
        let foreign = Arc::new(with_http2(proxy.clone()));
        let registry = match &options.client {
            None => Arc::clone(&foreign),
            Some(identity) => Arc::new(with_http2(with_client(builder(&verifier)?, identity)?)),
        };
        Ok(Self {
            registry,
            foreign,
            proxy: Arc::new(proxy),
        })
    }
}

fn with_client(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &ClientIdentity,
) -> Result<ClientConfig, RegistryError> {
    let invalid_key = |why: &str| RegistryError::InvalidCertificate {
        what: "client key (tls.key)",
        why: why.to_owned(),
    };
    let chain = certificates(&identity.certificate_pem, "client certificate (tls.crt)")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose())
        .map_err(|_| invalid_key("it holds no PEM of a private key in PKCS#8, PKCS#1 or SEC1"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|_| invalid_key("it is of an unknown kind or does not belong to the certificate"))
}

/// Returns the certificates of `ca.crt`.
fn pinned(options: &TlsOptions) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let Some(pem) = &options.ca_pem else {
        return Ok(Vec::new());
    };
    let bundle = AuthorityBundle::parse(pem);
    for warning in &bundle.warnings {
        tracing::warn!(%warning, "skipped a certificate authority");
    }
    Ok(bundle.usable()?.certificates)
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let invalid = |why: &str| RegistryError::InvalidCertificate {
        what,
        why: why.to_owned(),
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("its PEM is malformed"))?;
    if found.is_empty() {
        Err(invalid("it holds no PEM of a certificate"))
    } else {
        Ok(found)
    }
}

fn builder(
    verifier: &Arc<Verifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, RegistryError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::InvalidCertificate {
            what: "the TLS library",
            why: error.to_string(),
        })?;
    Ok(versions
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(verifier)))
}

fn with_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::client::options::ClientIdentity;

    #[test]
    fn unusable_certificates_are_refused_by_field_without_their_content() {
        let garbage = b"-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n".to_vec();
        let ca = |pem: &[u8]| TlsOptions {
            ca_pem: Some(pem.to_vec()),
            client: None,
        };
        let client = TlsOptions {
            ca_pem: None,
            client: Some(ClientIdentity {
                certificate_pem: b"hunter2".to_vec(),
                key_pem: "hunter2".into(),
            }),
        };
        for (options, said) in [
            (
                ca(b"hunter2"),
                "certificate authority (ca.crt) cannot be used: it holds no PEM of a certificate",
            ),
            (
                ca(&garbage),
                "certificate authority (ca.crt) cannot be used",
            ),
            (
                client,
                "client certificate (tls.crt) cannot be used: it holds no PEM of a certificate",
            ),
        ] {
            let error = TlsConfigs::new(&options).err().unwrap().to_string();
            assert!(
                error.contains(said) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn http_2_is_offered_first() {
        let configs = TlsConfigs::new(&TlsOptions::default()).unwrap();
        assert_eq!(
            configs.registry.alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
    }
}
