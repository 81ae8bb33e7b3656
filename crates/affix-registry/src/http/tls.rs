//! TLS settings of a pass: which authorities are trusted, and which certificate affix shows.
//!
//! Trust is the system's bundle (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded; a distroless image has one), read once for
//! the process, and the pass's own authorities besides. The platform verifiers of desktops are not used: the same input
//! must be judged alike in a cluster and on a desk.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::client::options::TlsOptions;
use crate::error::RegistryError;

/// The settings toward the registry itself, and those toward every other host: these without the client certificate.
pub(crate) struct TlsConfigs {
    pub(crate) own: Tls,
    pub(crate) foreign: Tls,
}

/// Settings, made when they are needed first where nothing of the pass can be wrong with them: reading the system's authorities takes
/// longer than all else that a process does before its first request, and a pass over plain HTTP may never need them.
#[derive(Clone)]
pub(crate) struct Tls(Arc<LazyLock<Result<Arc<ClientConfig>, String>, Make>>);

type Make = Box<dyn FnOnce() -> Result<Arc<ClientConfig>, String> + Send>;

impl Tls {
    fn ready(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        Self(Arc::new(LazyLock::new(Box::new(|| Ok(config)))))
    }

    fn later() -> Self {
        let make = || {
            builder(system_roots())
                .map(|builder| Arc::new(finish(builder.with_no_client_auth())))
                .map_err(|error| error.to_string())
        };
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }

    /// The settings.
    ///
    /// # Errors
    /// Where the TLS library cannot be used, in its words.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        LazyLock::force(&self.0).clone()
    }
}

impl TlsConfigs {
    /// Reads the PEM of a pass.
    ///
    /// # Errors
    /// `CertificateInvalid` where a certificate or key cannot be used, with the field's name and never its content.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, RegistryError> {
        if options.ca_pem.is_none() && options.client.is_none() {
            let both = Tls::later();
            return Ok(Self {
                own: both.clone(),
                foreign: both,
            });
        }
        let roots = match &options.ca_pem {
            None => Arc::clone(system_roots()),
            Some(pem) => Arc::new(with_authorities(pem)?),
        };
        let foreign = Tls::ready(finish(builder(&roots)?.with_no_client_auth()));
        let own = match &options.client {
            None => foreign.clone(),
            Some(identity) => {
                let invalid = |what, why| RegistryError::InvalidCertificate { what, why };
                let chain =
                    certificates(&identity.certificate_pem, "client certificate (tls.crt)")?;
                let key =
                    PrivateKeyDer::from_pem_slice(identity.key_pem.expose()).map_err(|_| {
                        invalid(
                            "client key (tls.key)",
                            "it holds no PEM of a private key in PKCS#8, PKCS#1 or SEC1".to_owned(),
                        )
                    })?;
                let config = builder(&roots)?.with_client_auth_cert(chain, key);
                Tls::ready(finish(config.map_err(|_| {
                    invalid(
                        "client key (tls.key)",
                        "it is of an unknown kind or does not belong to the certificate".to_owned(),
                    )
                })?))
            }
        };
        Ok(Self { own, foreign })
    }
}

/// Whether the system has any authority; without one and without the pass's own, nothing can be trusted.
pub(crate) fn system_has_authorities() -> bool {
    !system_roots().is_empty()
}

fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a part of the system's certificate authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(loaded.certs);
        tracing::debug!(
            trusted = roots.len(),
            unreadable,
            "read the system's certificate authorities"
        );
        Arc::new(roots)
    })
}

fn with_authorities(pem: &[u8]) -> Result<RootCertStore, RegistryError> {
    const WHAT: &str = "certificate authority (ca.crt)";
    let mut roots = RootCertStore::clone(system_roots());
    for certificate in certificates(pem, WHAT)? {
        roots
            .add(certificate)
            .map_err(|_| RegistryError::InvalidCertificate {
                what: WHAT,
                why: "a certificate in it is malformed".to_owned(),
            })?;
    }
    Ok(roots)
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
    roots: &Arc<RootCertStore>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, RegistryError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::InvalidCertificate {
            what: "the TLS library",
            why: error.to_string(),
        })?;
    Ok(versions.with_root_certificates(Arc::clone(roots)))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
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
    fn an_invalid_certificate_is_refused_by_field_and_without_its_content() {
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
            configs.own.config().unwrap().alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
    }
}
