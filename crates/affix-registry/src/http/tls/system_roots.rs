//! The certificate authorities of the system.

use std::collections::HashSet;
use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::oci::Digest;

/// The authorities of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
struct System {
    roots: RootCertStore,
    /// The SHA-256 digests of the certificates.
    certificates: HashSet<Digest>,
}

static SYSTEM: OnceLock<System> = OnceLock::new();

/// Returns the authorities of the system, which are read once per process. That takes about ten milliseconds.
pub(super) fn system_roots() -> &'static RootCertStore {
    &system().roots
}

/// Returns true if a certificate is itself among those of the system.
pub(super) fn is_of_system(certificate: &CertificateDer<'_>) -> bool {
    system().certificates.contains(&Digest::sha256(certificate))
}

fn system() -> &'static System {
    SYSTEM.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        let certificates = loaded.certs.iter().map(|der| Digest::sha256(der)).collect();
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(loaded.certs);
        tracing::debug!(
            trusted = roots.len(),
            unreadable,
            "read the system's certificate authorities"
        );
        System {
            roots,
            certificates,
        }
    })
}

/// Starts to read the authorities on a thread of its own, so that they are there when the first server presents a certificate.
pub(crate) fn read_ahead() {
    if SYSTEM.get().is_none() {
        // Without a thread, the first handshake reads them.
        let _ = std::thread::Builder::new()
            .name("system-roots".to_owned())
            .spawn(system);
    }
}
