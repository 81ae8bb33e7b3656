//! Certificates: a private authority, good certificates for loopback, and bad ones.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

/// A certificate authority of a test's own. Clones are the same.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The certificate of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Certificate {
    /// Of the authority, for `127.0.0.1` and `localhost`.
    #[default]
    Good,
    /// Of the authority, and past its end since 2001.
    Expired,
    /// Of the authority, for another name.
    OtherName,
    /// Self-signed.
    SelfSigned,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn new() -> Result<Self> {
        let mut params =
            CertificateParams::new(Vec::new()).context("the authority's parameters")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "hostile registry test authority");
        let key = KeyPair::generate().context("the authority's key")?;
        let pem = params
            .self_signed(&key)
            .context("the authority's certificate")?
            .pem();
        Ok(Self {
            inner: Arc::new(Inner {
                pem,
                issuer: Issuer::new(params, key),
            }),
        })
    }

    /// The authority's certificate, as `ca.crt` has it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.inner.pem
    }

    /// A client certificate and its key, as `tls.crt` and `tls.key` have them.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn client(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate().context("the client's key")?;
        let mut params = CertificateParams::new(Vec::new()).context("the client's parameters")?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&key, &self.inner.issuer)
            .context("the client's certificate")?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Returns the TLS configuration for a certificate of `kind`. The server asks every client for
    /// a certificate, accepts any, and requires one if `insist` is set.
    pub(super) fn server(
        &self,
        kind: Certificate,
        insist: bool,
        http2: bool,
    ) -> Result<ServerConfig> {
        let key = KeyPair::generate().context("the server's key")?;
        let names = match kind {
            Certificate::OtherName => vec!["elsewhere.example".to_owned()],
            _ => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        };
        let mut params = CertificateParams::new(names).context("the server's parameters")?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if kind == Certificate::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let certificate = match kind {
            Certificate::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.inner.issuer),
        };
        let chain = vec![
            certificate
                .context("the server's certificate")?
                .der()
                .clone(),
        ];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        server_config(chain, key, insist, http2)
    }
}

/// Returns the TLS configuration for a certificate and key from PEM, such as `openssl` makes.
pub(super) fn server_from_pem(
    certificate: &str,
    key: &str,
    insist: bool,
    http2: bool,
) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("the server's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the server's key")?;
    server_config(chain, key, insist, http2)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    insist: bool,
    http2: bool,
) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("the versions of TLS")?
        .with_client_cert_verifier(Arc::new(TakesAny { provider, insist }))
        .with_single_cert(chain, key)
        .context("the server's certificate and key")?;
    let protocols: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Accepts any client certificate with a valid handshake signature. The registry records that one
/// was sent.
#[derive(Debug)]
struct TakesAny {
    provider: Arc<CryptoProvider>,
    insist: bool,
}

impl ClientCertVerifier for TakesAny {
    fn client_auth_mandatory(&self) -> bool {
        self.insist
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
