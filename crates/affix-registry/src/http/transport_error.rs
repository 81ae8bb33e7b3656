//! What went wrong below HTTP, in a few phrases that do not change from one try to the next.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustls::CertificateError;

use crate::access::address_policy::NotAllowed;
use crate::http::write_gate::Closed;

/// Nothing came, of the head or of the rest: a user can do the same about both.
pub(crate) const TOO_SLOW: &str = "timed out while waiting for the answer";

/// Why a try brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The host or its address may not be dialled.
    NotAllowed(NotAllowed),
    /// It would have gone over plain HTTP.
    Insecure(String),
    /// The certificate, ours or theirs, is the reason.
    Certificate(String),
    /// The proxy does not accept its login.
    ProxyLogin,
    /// The network, or the server's handling of it: another try may succeed.
    Network(&'static str),
    /// Nothing came for too long: a registry that is down, or a connection that has died in silence.
    TimedOut(&'static str),
    /// The body is above the cap, in bytes.
    TooLarge(u64),
    /// The body has an encoding that was not asked for.
    Encoded(String),
    /// A redirect after so many others.
    TooManyRedirects(u64),
    /// The request cannot be sent as it is.
    Unsendable,
    /// It is a write, and the process may not write now.
    GateClosed,
}

impl Fault {
    /// Why a request brought no head of an answer.
    pub(crate) fn of_request(error: &legacy::Error) -> Self {
        if error.is_connect() {
            Self::of(
                error,
                "the connection could not be made",
                "timed out while connecting",
            )
        } else {
            Self::of(error, "the connection closed before the answer", TOO_SLOW)
        }
    }

    /// Whether the server has said that it has not looked at the request (RFC 9113, section 8.7).
    pub(crate) fn is_unprocessed(error: &legacy::Error) -> bool {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        causes
            .filter_map(|cause| cause.downcast_ref::<h2::Error>())
            .any(|error| {
                let ends_well = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
                error.is_remote()
                    && (ends_well
                        || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
            })
    }

    /// Why the rest of an answer did not come.
    pub(crate) fn of_answer(error: &hyper::Error) -> Self {
        Self::of(
            error,
            "the connection closed in the middle of the answer",
            TOO_SLOW,
        )
    }

    /// Finds the cause in the chain of the client's error.
    fn of(error: &(dyn Error + 'static), otherwise: &'static str, too_slow: &'static str) -> Self {
        let mut network = otherwise;
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(refused) = current.downcast_ref::<NotAllowed>() {
                return Self::NotAllowed(refused.clone());
            }
            if let Some(tls) = current.downcast_ref::<rustls::Error>() {
                return tls_fault(tls);
            }
            if current
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_timeout)
            {
                return Self::TimedOut(too_slow);
            }
            if let Some(io) = current.downcast_ref::<io::Error>() {
                if io
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<Closed>())
                    .is_some()
                {
                    return Self::GateClosed;
                }
                match io.kind() {
                    io::ErrorKind::TimedOut => return Self::TimedOut(too_slow),
                    io::ErrorKind::ConnectionRefused => network = "connection refused",
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        network = "connection reset"
                    }
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                        network = "the host is unreachable"
                    }
                    _ => {}
                }
                // An I/O error's source is the source of what it wraps, so what it wraps is looked at by itself.
                if let Some(inner) = io.get_ref() {
                    cause = Some(inner);
                    continue;
                }
            }
            // These have lost their types on the way up: the resolver's, a proxy's refusal, and an alert that ends an HTTP/2 connection.
            let text = current.to_string();
            match text.strip_prefix("tunnel error: ") {
                Some("proxy authorization required") => return Self::ProxyLogin,
                Some("unsuccessful") => network = "the proxy does not lead to the host",
                _ => {}
            }
            if text.contains("dns error") {
                network = "the host name cannot be resolved";
            }
            if let Some(why) = text
                .strip_prefix("received fatal alert: ")
                .and_then(client_certificate_alert)
            {
                return Self::Certificate(why.to_owned());
            }
            cause = current.source();
        }
        Self::Network(network)
    }
}

/// The library's own text has the time in some of these, so the phrases are ours.
fn tls_fault(error: &rustls::Error) -> Fault {
    let why = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the registry's certificate is signed by an authority that is not trusted: name it in ca.crt of certSecretRef"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the registry's certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the registry's certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the registry's certificate is for another host name"
            }
            CertificateError::Revoked => "the registry's certificate is revoked",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the registry's certificate is not for servers"
            }
            _ => "the registry's certificate is not valid",
        },
        rustls::Error::AlertReceived(alert) => {
            match client_certificate_alert(&format!("{alert:?}")) {
                Some(why) => why,
                None => return Fault::Network("the TLS handshake failed"),
            }
        }
        rustls::Error::NoCertificatesPresented => "the registry shows no certificate",
        rustls::Error::InvalidMessage(_) => {
            return Fault::Network(
                "the host does not speak TLS: is it a plain HTTP registry (insecure: true, or --plain-http of affix tree)?",
            );
        }
        _ => return Fault::Network("the TLS handshake failed"),
    };
    Fault::Certificate(why.to_owned())
}

/// What an alert (RFC 8446, section 6.2) says of our certificate, if anything.
fn client_certificate_alert(name: &str) -> Option<&'static str> {
    match name {
        "CertificateRequired" => {
            Some("the registry asks for a client certificate: name it in tls.crt and tls.key")
        }
        "BadCertificate"
        | "UnsupportedCertificate"
        | "CertificateRevoked"
        | "CertificateExpired"
        | "CertificateUnknown"
        | "UnknownCA" => Some("the registry does not take the client certificate"),
        _ => None,
    }
}
