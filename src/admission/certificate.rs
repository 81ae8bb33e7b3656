//! The webhook's own certificates: what a shared Secret holds, whether that is good, and what to put there instead. Pure but for
//! the random numbers of new keys; the clock is an argument.
//!
//! An authority of 365 days signs a leaf of 7 days; both are renewed at two thirds of their life. `ca.crt` begins with the
//! authority in use; the one before it stays there for an hour, so that replicas which still serve under it are trusted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;

use crate::registry::Secret;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(365 * 24);
/// Life of the leaf.
const LEAF_LIFE: Duration = Duration::from_hours(7 * 24);
/// By how much a certificate begins before it is made, for clocks that are late.
const BACKDATED: Duration = Duration::from_mins(10);
/// How long an authority stays trusted after another has taken its place.
const OVERLAP: Duration = Duration::from_hours(1);
/// Most authorities that are trusted at once.
const MOST_AUTHORITIES: usize = 3;

/// Keys of the Secret; the names are cert-manager's but for `ca.key`, which that keeps elsewhere.
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";

/// Data of the Secret.
pub(super) type Data = BTreeMap<String, Secret>;

/// Why a certificate cannot be used or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub(super) struct CertificateError {
    what: &'static str,
    why: String,
}

fn bad(what: &'static str, why: impl std::fmt::Display) -> CertificateError {
    CertificateError { what, why: why.to_string() }
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Servable {
    /// For handshakes.
    pub(super) key: Arc<CertifiedKey>,
    /// The leaf.
    leaf: CertificateDer<'static>,
    /// When it ends.
    pub(super) not_after: Timestamp,
}

impl PartialEq for Servable {
    fn eq(&self, other: &Self) -> bool {
        self.leaf == other.leaf
    }
}

impl Servable {
    /// Reads `tls.crt` and `tls.key`.
    pub(super) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = certificates(certificate, CERTIFICATE)?;
        let Some(leaf) = chain.first().cloned() else { return Err(bad(CERTIFICATE, "it holds no certificate")) };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| bad(KEY, "it holds no private key in PEM"))?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| bad(KEY, "the key is of an unknown kind"))?;
        let (_, not_after) = validity(&leaf).ok_or_else(|| bad(CERTIFICATE, "it is malformed"))?;
        let key = CertifiedKey::new(chain, signer);
        key.keys_match().map_err(|_| bad(KEY, "the key does not belong to the certificate"))?;
        Ok(Self { key: Arc::new(key), leaf, not_after })
    }

    /// Whether callers that trust `authorities` accept it at `now` under every one of `names`.
    pub(super) fn is_accepted(
        &self,
        authorities: &[CertificateDer<'static>],
        names: &[String],
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| bad(CA_CERTIFICATE, error))?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default()));
        let intermediates = self.key.cert.get(1..).unwrap_or_default();
        for name in names {
            let name = ServerName::try_from(name.as_str()).map_err(|_| bad(CERTIFICATE, format_args!("{name:?} is no host name")))?;
            verifier.verify_server_cert(&self.leaf, intermediates, &name, &[], time).map_err(|error| bad(CERTIFICATE, error))?;
        }
        Ok(())
    }
}

/// What a shared Secret holds, where it is usable.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Trusted authorities, the one in use first.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The leaf.
    pub(super) servable: Servable,
}

impl Shared {
    /// The authorities as `caBundle` has them.
    pub(super) fn bundle(&self) -> String {
        pem(&self.authorities)
    }
}

/// What is to be done about a Secret.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Nothing: it is good.
    Good(Shared),
    /// Put this there; `why` says what was wrong.
    Replace {
        /// Its new data.
        data: Data,
        /// The same, read.
        shared: Shared,
        /// What was wrong.
        why: String,
    },
}

/// Judges the data of a Secret (empty where there is none). `serving` are the authorities under which this replica serves now,
/// which stay trusted when new ones are made.
pub(super) fn judge(
    data: &Data,
    names: &[String],
    serving: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Judgement, CertificateError> {
    let authority = match Authority::read(data, now) {
        Ok(authority) => authority,
        Err(error) => {
            let mut former = data.get(CA_CERTIFICATE).and_then(|pem| certificates(pem.expose(), CA_CERTIFICATE).ok()).unwrap_or_default();
            former.extend_from_slice(serving);
            return replace(&Authority::new(&former, now)?, names, now, error.to_string());
        }
    };
    let servable = match leaf(data, &authority, names, now) {
        Ok(servable) => servable,
        Err(error) => return replace(&authority, names, now, error.to_string()),
    };
    if authority.trusted.len() > 1 && now > later(authority.made, OVERLAP) {
        let alone = Authority { trusted: authority.trusted.iter().take(1).cloned().collect(), ..authority };
        return replace(&alone, names, now, "the former authority is not needed any more".to_owned());
    }
    Ok(Judgement::Good(Shared { authorities: authority.trusted, servable }))
}

/// The leaf of a Secret, where it can stay.
fn leaf(data: &Data, authority: &Authority, names: &[String], now: Timestamp) -> Result<Servable, CertificateError> {
    let part = |key: &'static str| data.get(key).map(Secret::expose).ok_or_else(|| bad(key, "it is missing"));
    let servable = Servable::read(part(CERTIFICATE)?, part(KEY)?)?;
    servable.is_accepted(authority.trusted.get(..1).unwrap_or_default(), names, now)?;
    if is_due(&servable.leaf, now) {
        return Err(bad(CERTIFICATE, "two thirds of its life are over"));
    }
    Ok(servable)
}

fn replace(authority: &Authority, names: &[String], now: Timestamp, why: String) -> Result<Judgement, CertificateError> {
    let (certificate, key) = authority.issue(names, now)?;
    let shared = Shared { authorities: authority.trusted.clone(), servable: Servable::read(certificate.as_bytes(), key.expose())? };
    let data = Data::from([
        (CA_CERTIFICATE.to_owned(), pem(&authority.trusted).into()),
        (CA_KEY.to_owned(), authority.key.serialize_pem().into()),
        (CERTIFICATE.to_owned(), certificate.into()),
        (KEY.to_owned(), key),
    ]);
    Ok(Judgement::Replace { data, shared, why })
}

/// The authority in use, with its key.
struct Authority {
    key: KeyPair,
    /// When it was made.
    made: Timestamp,
    not_after: Timestamp,
    /// Itself, then those before it.
    trusted: Vec<CertificateDer<'static>>,
}

impl Authority {
    fn read(data: &Data, now: Timestamp) -> Result<Self, CertificateError> {
        let part = |key: &'static str| data.get(key).map(Secret::expose).ok_or_else(|| bad(key, "it is missing"));
        let trusted = certificates(part(CA_CERTIFICATE)?, CA_CERTIFICATE)?;
        let own = trusted.first().ok_or_else(|| bad(CA_CERTIFICATE, "it holds no certificate"))?;
        let key = std::str::from_utf8(part(CA_KEY)?).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| bad(CA_KEY, "it holds no private key in PEM"))?;
        let parsed = x509_cert::Certificate::from_der(own).map_err(|_| bad(CA_CERTIFICATE, "it is malformed"))?;
        if parsed.tbs_certificate.subject_public_key_info.subject_public_key.as_bytes() != Some(key.der_bytes()) {
            return Err(bad(CA_KEY, "the key does not belong to the certificate"));
        }
        let (not_before, not_after) = validity(own).ok_or_else(|| bad(CA_CERTIFICATE, "it is malformed"))?;
        if now < not_before || now >= not_after {
            return Err(bad(CA_CERTIFICATE, "it is not valid now"));
        }
        if is_due(own, now) {
            return Err(bad(CA_CERTIFICATE, "two thirds of its life are over"));
        }
        Ok(Self { key, made: later(not_before, BACKDATED), not_after, trusted })
    }

    /// A new one, after `former`.
    fn new(former: &[CertificateDer<'static>], now: Timestamp) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(|error| bad(CA_KEY, error))?;
        let mut params = authority_params();
        let not_after = later(now, AUTHORITY_LIFE);
        (params.not_before, params.not_after) = (date(earlier(now, BACKDATED)), date(not_after));
        let own = params.self_signed(&key).map_err(|error| bad(CA_CERTIFICATE, error))?.der().clone();
        let mut trusted = vec![own];
        for certificate in former {
            let is_valid = validity(certificate).is_some_and(|(_, not_after)| now < not_after);
            if is_valid && !trusted.contains(certificate) && trusted.len() < MOST_AUTHORITIES {
                trusted.push(certificate.clone());
            }
        }
        Ok(Self { key, made: now, not_after, trusted })
    }

    /// A leaf for `names`: certificate and key, PEM.
    fn issue(&self, names: &[String], now: Timestamp) -> Result<(String, Secret), CertificateError> {
        let mut params = CertificateParams::new(names).map_err(|error| bad(CERTIFICATE, error))?;
        params.distinguished_name.push(DnType::CommonName, "affix webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (date(earlier(now, BACKDATED)), date(later(now, LEAF_LIFE).min(self.not_after)));
        let key = KeyPair::generate().map_err(|error| bad(KEY, error))?;
        let issuer = Issuer::new(authority_params(), &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(|error| bad(CERTIFICATE, error))?;
        Ok((certificate.pem(), key.serialize_pem().into()))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "affix webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Whether two thirds of a certificate's life are over.
fn is_due(certificate: &CertificateDer<'_>, now: Timestamp) -> bool {
    validity(certificate).is_none_or(|(not_before, not_after)| {
        let life = not_after.as_second() - not_before.as_second();
        now.as_second() - not_before.as_second() >= life / 3 * 2
    })
}

/// From when to when a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let instant = |time: x509_cert::time::Time| Timestamp::from_second(i64::try_from(time.to_unix_duration().as_secs()).ok()?).ok();
    let validity = parsed.tbs_certificate.validity;
    Some((instant(validity.not_before)?, instant(validity.not_after)?))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| bad(what, "it is no PEM"))
}

fn pem(certificates: &[CertificateDer<'static>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn later(instant: Timestamp, by: Duration) -> Timestamp {
    instant.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn earlier(instant: Timestamp, by: Duration) -> Timestamp {
    instant.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// In whole seconds since 1970, as certificates have it.
fn date(instant: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(instant.as_second()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn names() -> Vec<String> {
        vec!["affix-webhook.affix-system.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn made(data: &Data, at: Timestamp) -> (Data, Shared, String) {
        match judge(data, &names(), &[], at).unwrap() {
            Judgement::Replace { data, shared, why } => (data, shared, why),
            Judgement::Good(_) => panic!("it was good"),
        }
    }

    fn good(data: &Data, at: Timestamp) -> Option<Shared> {
        match judge(data, &names(), &[], at).unwrap() {
            Judgement::Good(shared) => Some(shared),
            Judgement::Replace { .. } => None,
        }
    }

    #[test]
    fn what_is_made_is_good_for_every_name_and_stays_until_two_thirds_of_the_leafs_life() {
        let (data, shared, why) = made(&Data::new(), now());
        assert_eq!(why, "ca.crt: it is missing");
        shared.servable.is_accepted(&shared.authorities, &names(), now()).unwrap();
        assert!(shared.servable.is_accepted(&shared.authorities, &["other.svc".to_owned()], now()).is_err());
        assert!(good(&data, later(now(), HOUR * 24 * 4)).is_some());
        let (renewed, again, why) = made(&data, later(now(), HOUR * 24 * 5));
        assert_eq!(why, "tls.crt: two thirds of its life are over");
        assert_eq!((again.authorities.clone(), renewed["ca.key"].expose()), (shared.authorities, data["ca.key"].expose()));
        assert_ne!(again.servable, shared.servable);
    }

    #[test]
    fn a_clock_that_moved_by_30_days_gets_a_new_leaf_of_the_same_authority() {
        let (data, shared, _) = made(&Data::new(), now());
        let then = later(now(), HOUR * 24 * 30);
        let (data, again, _) = made(&data, then);
        assert_eq!(again.authorities, shared.authorities);
        again.servable.is_accepted(&again.authorities, &names(), then).unwrap();
        assert!(good(&data, then).is_some());
        // And back: neither is valid yet, so all is new.
        let (_, back, _) = made(&data, earlier(now(), HOUR * 24 * 30));
        assert_ne!(back.authorities.first(), shared.authorities.first());
    }

    #[test]
    fn a_new_authority_keeps_the_former_trusted_for_an_hour() {
        let (data, first, _) = made(&Data::new(), now());
        let then = later(now(), HOUR * 24 * 244);
        let (data, second, why) = made(&data, then);
        assert_eq!(why, "ca.crt: two thirds of its life are over");
        assert_eq!(second.authorities.len(), 2);
        assert_eq!(second.authorities.last(), first.authorities.first());
        first.servable.is_accepted(&second.authorities, &names(), now()).unwrap();
        assert!(good(&data, later(then, HOUR)).is_some());
        let (data, alone, _) = made(&data, later(then, HOUR * 2));
        assert_eq!(alone.authorities.as_slice(), &second.authorities[..1]);
        assert!(good(&data, later(then, HOUR * 2)).is_some());
    }

    #[test]
    fn a_secret_that_was_deleted_leaves_what_is_served_trusted() {
        let (_, first, _) = made(&Data::new(), now());
        let Judgement::Replace { shared, .. } = judge(&Data::new(), &names(), &first.authorities, now()).unwrap() else { panic!() };
        assert_eq!(shared.authorities.get(1), first.authorities.first());
    }

    #[test]
    fn each_part_that_is_cut_in_half_or_swapped_is_made_again() {
        let (data, _, _) = made(&Data::new(), now());
        let (other, _, _) = made(&Data::new(), now());
        for key in data.keys() {
            let half = data[key].expose();
            let half = half.get(..half.len() / 2).unwrap().to_vec();
            for broken in [Secret::new(half), other[key].clone(), Secret::new(Vec::new())] {
                let mut damaged = data.clone();
                damaged.insert(key.clone(), broken);
                let (mended, shared, _) = made(&damaged, now());
                shared.servable.is_accepted(&shared.authorities, &names(), now()).unwrap();
                assert!(good(&mended, now()).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn a_name_that_is_added_is_certified_at_once() {
        let (data, _, _) = made(&Data::new(), now());
        let more = vec!["affix-webhook.other.svc".to_owned()];
        let Judgement::Replace { shared, .. } = judge(&data, &more, &[], now()).unwrap() else { panic!("it was good") };
        shared.servable.is_accepted(&shared.authorities, &more, now()).unwrap();
    }
}
