//! Certificates for the testbed's servers and signers. Owns a private certificate authority, which vouches for loopback only.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority: servers are `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The files that a server is given.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "affix testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// The authority's certificate, as clients are told to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a server certificate and writes it and its key into a folder.
    ///
    /// # Errors
    ///
    /// Where the files cannot be written.
    pub fn server(&self, dir: &Path) -> anyhow::Result<ServerFiles> {
        self.server_named(
            dir,
            &["localhost", "127.0.0.1"],
            Duration::from_hours(24 * 365),
        )
    }

    /// The same for a server of these names, with a certificate that ends after `lifetime`.
    ///
    /// # Errors
    ///
    /// Where the files cannot be written.
    pub fn server_named(
        &self,
        dir: &Path,
        names: &[&str],
        lifetime: Duration,
    ) -> anyhow::Result<ServerFiles> {
        let (certificate, key) = self.issue(names, lifetime)?;
        let files = ServerFiles {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &key.serialize_pem())?;
        Ok(files)
    }

    /// Issues a client certificate and returns it with its key, both as PEM.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn client(&self, name: &str) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Issues a server certificate for loopback, with its key, to a server within this process.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn server_key(&self) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        self.server_key_for(&["localhost", "127.0.0.1"])
    }

    /// The same for a server of these names.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn server_key_for(
        &self,
        names: &[&str],
    ) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let (certificate, key) = self.issue(names, Duration::from_hours(24 * 365))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }

    fn issue(
        &self,
        names: &[&str],
        lifetime: Duration,
    ) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params.not_after = date_time_ymd(1970, 1, 1) + now + lifetime;
        params
            .distinguished_name
            .push(DnType::CommonName, "localhost");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }
}

/// A code-signing identity, as notation wants it.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The private key, PKCS#8.
    pub key: String,
    /// The certificates from the leaf to the self-signed root.
    pub chain: String,
    /// The root alone.
    pub root: String,
}

impl Authority {
    /// Issues a code-signing certificate for a new P-256 key.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn signer(&self) -> anyhow::Result<Signer> {
        self.sign_for(CertificateParams::default())
    }

    /// The same, with a certificate that ends after `lifetime`.
    ///
    /// # Errors
    ///
    /// Where no key can be made.
    pub fn signer_for(&self, lifetime: Duration) -> anyhow::Result<Signer> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(1970, 1, 1) + now + lifetime;
        self.sign_for(params)
    }

    fn sign_for(&self, mut params: CertificateParams) -> anyhow::Result<Signer> {
        params.distinguished_name.push(DnType::CommonName, "signer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signer {
            key: key.serialize_pem(),
            chain: format!("{leaf}{}", self.pem),
            root: self.pem.clone(),
        })
    }
}

pub(crate) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("{} cannot be written", path.display()))
}
