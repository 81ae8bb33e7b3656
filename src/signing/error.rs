//! Errors of keys and certificates, all of which have the reason `KeyInvalid`. No message reveals a part of a secret.
//!
//! Messages name a file by its key in the Secret: `cosign.key`, `cosign.password`, `tls.key`, `tls.crt` or `ca.crt`.

/// An error of a key, its password or its certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file has no PEM block.
    #[error("{file} holds no PEM block: a line -----BEGIN {expected}----- is expected")]
    NoPem {
        /// The file.
        file: &'static str,
        /// The expected label.
        expected: &'static str,
    },
    /// A PEM block is cut off or damaged.
    #[error("{file} is damaged: a PEM block is cut off, ends with another label or is not base64")]
    DamagedPem {
        /// The file.
        file: &'static str,
    },
    /// A PEM block has an unexpected label.
    #[error("{file} holds a PEM block {found:?}: {expected} is expected")]
    UnexpectedPem {
        /// The file.
        file: &'static str,
        /// The label.
        found: String,
        /// The expected labels.
        expected: &'static str,
    },
    /// OpenSSL encrypted the key.
    #[error("{file} is encrypted in the format of OpenSSL, which affix does not open: {way_out}")]
    EncryptedByOpenSsl {
        /// The file.
        file: &'static str,
        /// The way out.
        way_out: &'static str,
    },
    /// The JSON in an encrypted cosign key is malformed.
    #[error("cosign.key is not a key file of cosign: {0}")]
    MalformedCosignKey(&'static str),
    /// The parameters of the key derivation are not those of cosign and could take much time and memory.
    #[error(
        "cosign.key asks for scrypt with N={n}, r={r}, p={p}: only N of 32768, 65536 or 131072 with r=8, p=1 is opened"
    )]
    ScryptParameters {
        /// Cost.
        n: u64,
        /// Block size.
        r: u64,
        /// Parallelism.
        p: u64,
    },
    /// The key is encrypted and the Secret has no password.
    #[error("cosign.key is encrypted and the Secret has no cosign.password")]
    NoPassword,
    /// The password does not open the key.
    #[error("cosign.password does not open cosign.key")]
    WrongPassword,
    /// As [`KeyError::WrongPassword`], with the most frequent cause.
    #[error(
        "cosign.password does not open cosign.key: it ends with a line break, which counts as part of the password"
    )]
    WrongPasswordLineBreak,
    /// The encoding of the key is broken or its kind is unknown.
    #[error("the private key in {file} cannot be read: {supported} is supported")]
    UnreadableKey {
        /// The file.
        file: &'static str,
        /// The supported kinds.
        supported: &'static str,
    },
    /// The encoding of a public key is broken or its kind is not supported.
    #[error("a public key in {file} cannot be read: {supported} is supported")]
    UnreadablePublicKey {
        /// The file.
        file: &'static str,
        /// The supported kinds.
        supported: &'static str,
    },
    /// The signature format does not support this kind of key.
    #[error("the private key in {file} is {found}: {supported} is supported")]
    UnsupportedKey {
        /// The file.
        file: &'static str,
        /// The kind.
        found: String,
        /// The supported kinds.
        supported: &'static str,
    },
    /// The encoding of a certificate is broken.
    #[error("certificate {position} of {file} cannot be read")]
    MalformedCertificate {
        /// The file.
        file: &'static str,
        /// The position in the file, from 1.
        position: usize,
    },
    /// The file has too many certificates.
    #[error("{file} holds {count} certificates: at most {most} are read")]
    TooManyCertificates {
        /// The file.
        file: &'static str,
        /// The number of certificates.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// The first certificate is for another key.
    #[error("tls.key does not belong to the first certificate of tls.crt ({subject})")]
    KeyOfAnotherCertificate {
        /// The subject of the certificate.
        subject: String,
    },
    /// Verifiers refuse a certificate.
    #[error("certificate {subject:?}: {problem}")]
    Certificate {
        /// The subject of the certificate.
        subject: String,
        /// The reason.
        problem: CertificateProblem,
    },
    /// The expiry is zero or beyond the last representable time.
    #[error("an expiry of {seconds} s is out of range: at least 1 s, and not beyond the year 9999")]
    Expiry {
        /// The configured value in seconds.
        seconds: u64,
    },
    /// A transparency log does not take signatures of this kind of key.
    #[error(
        "transparency needs a key of ECDSA P-256: a log takes no signature of another key that all verifiers of its entries accept"
    )]
    NotLogged,
    /// The description of a Sigstore instance has no usable service.
    #[error("{0}")]
    Instance(String),
    /// The signature format does not support the key of a service.
    #[error("the key {key} is of the kind {found}: {supported} is supported")]
    UnsupportedServiceKey {
        /// The key and its service.
        key: String,
        /// The kind, as the service names it.
        found: String,
        /// The supported kinds.
        supported: &'static str,
    },
    /// The cryptographic library failed to sign.
    #[error("the key could not sign")]
    Unable,
}

/// A violation of notation's rules for certificates (notaryproject, signature-specification.md, "Certificate Requirements").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// The chain does not reach a self-signed certificate.
    #[error(
        "its issuer {issuer:?} is neither in tls.crt nor in ca.crt: verifiers need the chain up to its self-signed root"
    )]
    RootMissing {
        /// The name of the issuer.
        issuer: String,
    },
    /// The next certificate did not issue this one.
    #[error(
        "the next certificate of tls.crt ({next:?}) did not issue it: order them from the key's own up to the root"
    )]
    NotIssuedByNext {
        /// The subject of the next certificate.
        next: String,
    },
    /// A self-signed certificate is not the last one.
    #[error("it is self-signed and not the last: tls.crt ends with one root")]
    RootNotLast,
    /// The time is outside of the validity.
    #[error("it is valid from {from} to {until} only")]
    OutsideValidity {
        /// `notBefore`.
        from: String,
        /// `notAfter`.
        until: String,
    },
    /// The key usage extension is missing.
    #[error(
        "it has no key usage: digital signature is required for a signing certificate, certificate signing for its issuers"
    )]
    NoKeyUsage,
    /// The key usage extension is not critical.
    #[error("its key usage is not marked critical")]
    KeyUsageNotCritical,
    /// A signing certificate lacks the usage digital signature.
    #[error("its key usage lacks digital signature")]
    NoDigitalSignature,
    /// A signing certificate has other usages than digital signature.
    #[error(
        "its key usage has {usages}, which verifiers refuse: issue it for digital signature alone (cert-manager adds key encipherment \
         unless the Certificate's usages name others: set usages to \"digital signature\" and \"code signing\")"
    )]
    ForbiddenKeyUsage {
        /// The refused usages.
        usages: String,
    },
    /// A signing certificate has an extended usage that verifiers refuse.
    #[error(
        "its extended key usage has {usages}, which verifiers refuse: issue it with code signing, or with none"
    )]
    ForbiddenExtendedKeyUsage {
        /// The refused usages.
        usages: String,
    },
    /// The signing certificate is a certificate authority.
    #[error(
        "it is a certificate authority, which must not sign images itself: issue a certificate with it"
    )]
    SignerIsAuthority,
    /// The issuer is not a certificate authority.
    #[error(
        "it issued another certificate, but its basic constraints make it no certificate authority"
    )]
    NoAuthority,
    /// The issuer lacks the usage certificate signing.
    #[error("it issued another certificate, but its key usage lacks certificate signing")]
    NoCertificateSigning,
    /// The issuer has more intermediate certificates below it than it allows.
    #[error("it allows {allowed} intermediate certificates below it, and there are {found}")]
    PathLength {
        /// The limit in its basic constraints.
        allowed: u8,
        /// The number in the chain.
        found: usize,
    },
    /// The extensions are broken.
    #[error("its extensions cannot be read")]
    MalformedExtensions,
}
