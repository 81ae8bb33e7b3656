//! Why a key cannot be used: all that becomes the reason `KeyInvalid`. No message holds a part of a secret.
//!
//! Files are called by their key in the Secret: `cosign.key`, `cosign.password`, `tls.key`, `tls.crt`, `ca.crt`.

/// Why a key, its password or its certificates make no signature that verifiers take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block at all.
    #[error("{file} holds no PEM block: a line -----BEGIN {expected}----- is expected")]
    NoPem {
        /// The file.
        file: &'static str,
        /// The label that is expected.
        expected: &'static str,
    },
    /// A PEM block is cut off or damaged.
    #[error("{file} is damaged: a PEM block is cut off, ends with another label or is not base64")]
    DamagedPem {
        /// The file.
        file: &'static str,
    },
    /// A PEM block of another kind.
    #[error("{file} holds a PEM block {found:?}: {expected} is expected")]
    UnexpectedPem {
        /// The file.
        file: &'static str,
        /// Its label.
        found: String,
        /// What is expected.
        expected: &'static str,
    },
    /// An encrypted key for which there is no password in this kind of Secret.
    #[error("{file} is encrypted in OpenSSL's way, which affix does not open: {way_out}")]
    EncryptedByOpenSsl {
        /// The file.
        file: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// The JSON inside of an encrypted cosign key is not as cosign writes it.
    #[error("cosign.key is not as cosign writes it: {0}")]
    MalformedCosignKey(&'static str),
    /// Parameters of the key derivation that cosign does not write, and that may cost any amount of time and memory.
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
    /// An encrypted key without its password.
    #[error("cosign.key is encrypted and the Secret has no cosign.password")]
    NoPassword,
    /// The password does not open the key.
    #[error("cosign.password does not open cosign.key")]
    WrongPassword,
    /// As [`KeyError::WrongPassword`], with what is most often its cause.
    #[error(
        "cosign.password does not open cosign.key: it ends with a line break, which counts as part of the password"
    )]
    WrongPasswordLineBreak,
    /// The key's own encoding is broken, or of a kind that affix does not know at all.
    #[error("the private key in {file} cannot be read: {supported} is supported")]
    UnreadableKey {
        /// The file.
        file: &'static str,
        /// What is supported there.
        supported: &'static str,
    },
    /// A key that is sound, of a kind that this signature format has no place for.
    #[error("the private key in {file} is {found}: {supported} is supported")]
    UnsupportedKey {
        /// The file.
        file: &'static str,
        /// What it is.
        found: String,
        /// What is supported there.
        supported: &'static str,
    },
    /// A certificate's encoding is broken.
    #[error("certificate {position} of {file} cannot be read")]
    MalformedCertificate {
        /// The file.
        file: &'static str,
        /// Its position in the file, from 1.
        position: usize,
    },
    /// More certificates than any chain has.
    #[error("{file} holds {count} certificates: at most {most} are read")]
    TooManyCertificates {
        /// The file.
        file: &'static str,
        /// How many it holds.
        count: usize,
        /// How many are read.
        most: usize,
    },
    /// The first certificate is for another key.
    #[error("tls.key does not belong to the first certificate of tls.crt ({subject})")]
    KeyOfAnotherCertificate {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate that verifiers refuse.
    #[error("certificate {subject:?}: {problem}")]
    Certificate {
        /// The certificate's subject.
        subject: String,
        /// Why they refuse it.
        problem: CertificateProblem,
    },
    /// A signature that would be over before it begins, or after the end of time.
    #[error(
        "an expiry of {seconds} s cannot be written: at least 1 s, and not beyond the year 9999"
    )]
    Expiry {
        /// As configured, in seconds.
        seconds: u64,
    },
    /// The cryptographic library did not sign.
    #[error("the key could not sign")]
    Unable,
}

/// What notation's verifiers refuse a certificate for (notaryproject, signature-specification.md, "Certificate Requirements").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// The chain does not reach a self-signed certificate.
    #[error(
        "its issuer {issuer:?} is neither in tls.crt nor in ca.crt: verifiers need the chain up to its self-signed root"
    )]
    RootMissing {
        /// The issuer's name.
        issuer: String,
    },
    /// The next certificate did not issue this one.
    #[error(
        "the next certificate of tls.crt ({next:?}) did not issue it: order them from the key's own up to the root"
    )]
    NotIssuedByNext {
        /// The next certificate's subject.
        next: String,
    },
    /// A self-signed certificate before the last.
    #[error("it is self-signed and not the last: tls.crt ends with one root")]
    RootNotLast,
    /// Not yet, or no longer.
    #[error("it is valid from {from} to {until} only")]
    OutsideValidity {
        /// `notBefore`.
        from: String,
        /// `notAfter`.
        until: String,
    },
    /// The extension is required.
    #[error(
        "it has no key usage: digital signature is required for a signing certificate, certificate signing for its issuers"
    )]
    NoKeyUsage,
    /// The extension must be critical.
    #[error("its key usage is not marked critical")]
    KeyUsageNotCritical,
    /// A signing certificate must be able to sign.
    #[error("its key usage lacks digital signature")]
    NoDigitalSignature,
    /// A signing certificate must be able to do nothing else.
    #[error(
        "its key usage has {usages}, which verifiers refuse: issue it for digital signature alone (cert-manager adds key encipherment \
         unless the Certificate's usages name others: set usages to \"digital signature\" and \"code signing\")"
    )]
    ForbiddenKeyUsage {
        /// The usages that are too many.
        usages: String,
    },
    /// An extended usage that a signing certificate must not have.
    #[error(
        "its extended key usage has {usages}, which verifiers refuse: issue it with code signing, or with none"
    )]
    ForbiddenExtendedKeyUsage {
        /// The usages that are too many.
        usages: String,
    },
    /// A certificate authority signs certificates, not images.
    #[error(
        "it is a certificate authority, which must not sign images itself: issue a certificate with it"
    )]
    SignerIsAuthority,
    /// An issuer that is none.
    #[error(
        "it issued another certificate and is no certificate authority by its basic constraints"
    )]
    NoAuthority,
    /// An issuer that may not issue.
    #[error("it issued another certificate and its key usage lacks certificate signing")]
    NoCertificateSigning,
    /// More certificates below it than it allows.
    #[error("it allows {allowed} intermediate certificates below it, and there are {found}")]
    PathLength {
        /// As its basic constraints say.
        allowed: u8,
        /// As the chain has them.
        found: usize,
    },
    /// Broken extensions.
    #[error("its extensions cannot be read")]
    MalformedExtensions,
}
