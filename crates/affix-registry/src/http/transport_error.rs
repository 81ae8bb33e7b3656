//! Errors below HTTP, as phrases that are the same for each attempt.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustls::CertificateError;

use crate::access::address_policy::NotAllowed;
use crate::http::tls::Refusal;
use crate::http::write_gate::Closed;
use crate::oci::cut;

/// Maximum number of a certificate's names in a message.
const MAX_NAMES: usize = 3;

/// The time-out of the head and of the body: a user can do the same about both.
pub(crate) const TOO_SLOW: &str = "timed out while waiting for the answer";

/// The phrases of failures that made no connection.
const UNKNOWN_HOST: &str = "the host name cannot be resolved";
const REFUSED: &str = "connection refused";
const UNREACHABLE: &str = "the host is unreachable";
const SLOW_CONNECT: &str = "timed out while connecting";

/// The same phrases for a request through a proxy: the connection is that to the proxy.
const OF_PROXY: [(&str, &str); 4] = [
    (
        UNKNOWN_HOST,
        "the host name of the proxy cannot be resolved",
    ),
    (REFUSED, "the proxy refused the connection"),
    (UNREACHABLE, "the proxy is unreachable"),
    (SLOW_CONNECT, "timed out while connecting through the proxy"),
];

/// The reason why an attempt brought no usable response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransportError {
    /// The address policy forbids the host or its address.
    NotAllowed(NotAllowed),
    /// The URL of this host is `http`, and the pass does not allow plain HTTP.
    Insecure(String),
    /// The server's certificate or the client certificate is the cause.
    Certificate(String),
    /// The proxy refuses its login.
    ProxyLogin,
    /// The network or the server failed. Another attempt may succeed.
    Network(&'static str),
    /// No byte arrived in time: the registry is down, or a connection was lost without notice.
    TimedOut(&'static str),
    /// The body exceeds this limit, in bytes.
    TooLarge(u64),
    /// The body has an encoding that was not requested.
    Encoded(String),
    /// Another redirect after this many.
    TooManyRedirects(u64),
    /// The URL cannot be requested.
    InvalidUrl,
    /// The request is a write, and the write gate is closed.
    GateClosed,
}

impl TransportError {
    /// Returns whether the host is unknown, unreachable or refuses connections.
    pub(crate) fn is_connect_failure(&self) -> bool {
        let Self::Network(why) = self else {
            return false;
        };
        let mut phrases = OF_PROXY.iter();
        phrases.any(|(direct, of_proxy)| why == direct || why == of_proxy)
    }

    /// Names the proxy as the place of a connection failure.
    pub(crate) fn through_proxy(self) -> Self {
        let of_proxy = |why: &'static str| {
            let mut phrases = OF_PROXY.iter();
            let found = phrases.find(|(direct, _)| *direct == why);
            found.map_or(why, |(_, of_proxy)| of_proxy)
        };
        match self {
            Self::Network(why) => Self::Network(of_proxy(why)),
            Self::TimedOut(why) => Self::TimedOut(of_proxy(why)),
            other => other,
        }
    }

    /// Returns why a request brought no head of a response.
    pub(crate) fn from_request(error: &legacy::Error) -> Self {
        if error.is_connect() {
            Self::from_chain(error, "the connection could not be made", SLOW_CONNECT)
        } else {
            Self::from_chain(error, "the connection closed before the answer", TOO_SLOW)
        }
    }

    /// Returns whether the server reports that it did not process the request (RFC 9113, section 8.7).
    pub(crate) fn is_unprocessed(error: &legacy::Error) -> bool {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        causes
            .filter_map(|cause| cause.downcast_ref::<h2::Error>())
            .any(|error| {
                let reason = error.reason();
                let is_graceful = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
                let is_refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
                error.is_remote() && (is_graceful || is_refused)
            })
    }

    /// Returns why the body of a response is incomplete.
    pub(crate) fn from_body(error: &hyper::Error) -> Self {
        Self::from_chain(
            error,
            "the connection closed in the middle of the answer",
            TOO_SLOW,
        )
    }

    /// Finds the cause in the chain of an error. `otherwise` and `too_slow` are the phrases for an unknown cause and a time-out.
    fn from_chain(
        error: &(dyn Error + 'static),
        otherwise: &'static str,
        too_slow: &'static str,
    ) -> Self {
        let mut network = otherwise;
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(refused) = current.downcast_ref::<NotAllowed>() {
                return Self::NotAllowed(refused.clone());
            }
            if let Some(tls) = current.downcast_ref::<rustls::Error>() {
                return Self::from_tls(tls);
            }
            let hyper_error = current.downcast_ref::<hyper::Error>();
            if hyper_error.is_some_and(hyper::Error::is_timeout) {
                return Self::TimedOut(too_slow);
            }
            if let Some(io) = current.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::TimedOut => return Self::TimedOut(too_slow),
                    kind => network = network_phrase(kind).unwrap_or(network),
                }
                // The source of an I/O error is the source of the error inside, so the error inside is examined by itself.
                if let Some(inner) = io.get_ref() {
                    if inner.is::<Closed>() {
                        return Self::GateClosed;
                    }
                    cause = Some(inner);
                    continue;
                }
            }
            match Self::from_text(&current.to_string()) {
                Some(Self::Network(phrase)) => network = phrase,
                Some(error) => return error,
                None => {}
            }
            cause = current.source();
        }
        Self::Network(network)
    }

    /// Reads errors whose types are private: of the resolver, of a proxy's tunnel, and of an alert that ends an HTTP/2 connection.
    fn from_text(text: &str) -> Option<Self> {
        if let Some(tunnel) = text.strip_prefix("tunnel error: ") {
            return match tunnel {
                "proxy authorization required" => Some(Self::ProxyLogin),
                "unsuccessful" => Some(Self::Network("the proxy refuses to connect to the host")),
                _ => None,
            };
        }
        if text.contains("dns error") {
            return Some(Self::Network(UNKNOWN_HOST));
        }
        let alert = text.strip_prefix("received fatal alert: ")?;
        client_certificate_alert(alert).map(|why| Self::Certificate(why.to_owned()))
    }

    /// Returns the phrase for an error of TLS. The library's own text contains the time in some cases.
    fn from_tls(error: &rustls::Error) -> Self {
        let why = match error {
            rustls::Error::InvalidCertificate(certificate) => {
                return Self::Certificate(certificate_phrase(certificate));
            }
            rustls::Error::AlertReceived(alert) => {
                match client_certificate_alert(&format!("{alert:?}")) {
                    Some(why) => why,
                    None => return Self::Network("the TLS handshake failed"),
                }
            }
            rustls::Error::NoCertificatesPresented => "the registry presents no certificate",
            rustls::Error::InvalidMessage(_) => {
                return Self::Network(
                    "the host does not speak TLS: is it a plain HTTP registry (insecure: true, or --plain-http of affix tree)?",
                );
            }
            _ => return Self::Network("the TLS handshake failed"),
        };
        Self::Certificate(why.to_owned())
    }
}

fn network_phrase(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(REFUSED),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Some("connection reset"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(UNREACHABLE),
        _ => None,
    }
}

fn certificate_phrase(error: &CertificateError) -> String {
    let phrase = match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the registry's certificate is signed by an authority that is not trusted: name it in ca.crt of certSecretRef"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the registry's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the registry's certificate is not valid yet"
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented
                .iter()
                .take(MAX_NAMES)
                .map(|name| plain_name(name))
                .collect();
            return format!(
                "the registry's certificate is for another host name (it is for {})",
                names.join(", ")
            );
        }
        CertificateError::NotValidForName => "the registry's certificate is for another host name",
        CertificateError::Revoked => "the registry's certificate is revoked",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the registry's certificate is not for servers"
        }
        CertificateError::BadEncoding => "the registry's certificate is malformed",
        CertificateError::Other(other) => match other.0.downcast_ref::<Refusal>() {
            Some(refusal) => return refusal.to_string(),
            None => return format!("the registry's certificate is not valid: {other}"),
        },
        other => return format!("the registry's certificate is not valid: {other}"),
    };
    phrase.to_owned()
}

/// Returns a name of a certificate, which rustls prints as `DnsName("r.example.com")`.
fn plain_name(printed: &str) -> String {
    let inner = printed
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    cut(inner.unwrap_or(printed).trim_matches('"'))
}

/// Returns the phrase for an alert (RFC 8446, section 6.2) about the client certificate.
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
        | "UnknownCA" => Some("the registry rejects the client certificate"),
        _ => None,
    }
}
