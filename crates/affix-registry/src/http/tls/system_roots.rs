//! The certificate authorities of the system.

use std::sync::OnceLock;

use rustls::RootCertStore;

static ROOTS: OnceLock<RootCertStore> = OnceLock::new();

/// Returns the authorities of the system, which are read once per process. That takes about ten milliseconds.
pub(super) fn system_roots() -> &'static RootCertStore {
    ROOTS.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(loaded.certs);
        tracing::debug!(
            trusted = roots.len(),
            unreadable,
            "read the system's certificate authorities"
        );
        roots
    })
}

/// Starts to read the authorities on a thread of its own, so that they are there when the first server presents a certificate.
pub(crate) fn read_ahead() {
    if ROOTS.get().is_none() {
        // Without a thread, the first handshake reads them.
        let _ = std::thread::Builder::new()
            .name("system-roots".to_owned())
            .spawn(system_roots);
    }
}
