//! The certificate that the replicas share: what their Secret holds, whether that is good, and what to put there instead.
//!
//! `ca.crt` begins with the authority in use; the one before it stays there for an hour, so that replicas which still serve under
//! it are trusted.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::admission::certificates::authority::{Authority, later};
use crate::admission::certificates::certificate::{
    CA_CERTIFICATE, CA_KEY, CERTIFICATE, CertificateError, Data, KEY, Servable, bad, certificates,
    is_due, pem,
};
use affix_registry::Secret;

/// How long an authority stays trusted after another has taken its place.
const OVERLAP: Duration = Duration::from_hours(1);

/// What a shared Secret holds, where it is usable.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Trusted authorities, the one in use first.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// The leaf.
    pub(crate) servable: Servable,
}

impl Shared {
    /// The authorities as `caBundle` has them.
    pub(crate) fn bundle(&self) -> String {
        pem(&self.authorities)
    }
}

/// What is to be done about a Secret.
#[derive(Debug)]
pub(crate) enum Judgement {
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
pub(crate) fn judge(
    data: &Data,
    names: &[String],
    serving: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Judgement, CertificateError> {
    let authority = match Authority::read(data, now) {
        Ok(authority) => authority,
        Err(error) => {
            let mut former = data
                .get(CA_CERTIFICATE)
                .and_then(|pem| certificates(pem.expose(), CA_CERTIFICATE).ok())
                .unwrap_or_default();
            former.extend_from_slice(serving);
            return replace(
                &Authority::new(&former, now)?,
                names,
                now,
                error.to_string(),
            );
        }
    };
    let servable = match leaf(data, &authority, names, now) {
        Ok(servable) => servable,
        Err(error) => return replace(&authority, names, now, error.to_string()),
    };
    if authority.trusted.len() > 1 && now > later(authority.made, OVERLAP) {
        let alone = Authority {
            trusted: authority.trusted.iter().take(1).cloned().collect(),
            ..authority
        };
        return replace(
            &alone,
            names,
            now,
            "the former authority is not needed any more".to_owned(),
        );
    }
    Ok(Judgement::Good(Shared {
        authorities: authority.trusted,
        servable,
    }))
}

/// The leaf of a Secret, where it can stay.
fn leaf(
    data: &Data,
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<Servable, CertificateError> {
    let part = |key: &'static str| {
        data.get(key)
            .map(Secret::expose)
            .ok_or_else(|| bad(key, "it is missing"))
    };
    let servable = Servable::read(part(CERTIFICATE)?, part(KEY)?)?;
    servable.is_accepted(authority.trusted.get(..1).unwrap_or_default(), names, now)?;
    if is_due(&servable.leaf, now) {
        return Err(bad(CERTIFICATE, "two thirds of its life are over"));
    }
    Ok(servable)
}

fn replace(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    why: String,
) -> Result<Judgement, CertificateError> {
    let (certificate, key) = authority.issue(names, now)?;
    let shared = Shared {
        authorities: authority.trusted.clone(),
        servable: Servable::read(certificate.as_bytes(), key.expose())?,
    };
    let data = Data::from([
        (CA_CERTIFICATE.to_owned(), pem(&authority.trusted).into()),
        (CA_KEY.to_owned(), authority.key.serialize_pem().into()),
        (CERTIFICATE.to_owned(), certificate.into()),
        (KEY.to_owned(), key),
    ]);
    Ok(Judgement::Replace { data, shared, why })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::certificates::authority::earlier;

    const HOUR: Duration = Duration::from_hours(1);

    fn names() -> Vec<String> {
        vec![
            "affix-webhook.affix-system.svc".to_owned(),
            "127.0.0.1".to_owned(),
        ]
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
        shared
            .servable
            .is_accepted(&shared.authorities, &names(), now())
            .unwrap();
        assert!(
            shared
                .servable
                .is_accepted(&shared.authorities, &["other.svc".to_owned()], now())
                .is_err()
        );
        assert!(good(&data, later(now(), HOUR * 24 * 4)).is_some());
        let (renewed, again, why) = made(&data, later(now(), HOUR * 24 * 5));
        assert_eq!(why, "tls.crt: two thirds of its life are over");
        assert_eq!(
            (again.authorities.clone(), renewed["ca.key"].expose()),
            (shared.authorities, data["ca.key"].expose())
        );
        assert_ne!(again.servable, shared.servable);
    }

    #[test]
    fn a_clock_that_moved_by_30_days_gets_a_new_leaf_of_the_same_authority() {
        let (data, shared, _) = made(&Data::new(), now());
        let then = later(now(), HOUR * 24 * 30);
        let (data, again, _) = made(&data, then);
        assert_eq!(again.authorities, shared.authorities);
        again
            .servable
            .is_accepted(&again.authorities, &names(), then)
            .unwrap();
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
        first
            .servable
            .is_accepted(&second.authorities, &names(), now())
            .unwrap();
        assert!(good(&data, later(then, HOUR)).is_some());
        let (data, alone, _) = made(&data, later(then, HOUR * 2));
        assert_eq!(alone.authorities.as_slice(), &second.authorities[..1]);
        assert!(good(&data, later(then, HOUR * 2)).is_some());
    }

    #[test]
    fn a_secret_that_was_deleted_leaves_what_is_served_trusted() {
        let (_, first, _) = made(&Data::new(), now());
        let Judgement::Replace { shared, .. } =
            judge(&Data::new(), &names(), &first.authorities, now()).unwrap()
        else {
            panic!()
        };
        assert_eq!(shared.authorities.get(1), first.authorities.first());
    }

    #[test]
    fn each_part_that_is_cut_in_half_or_swapped_is_made_again() {
        let (data, _, _) = made(&Data::new(), now());
        let (other, _, _) = made(&Data::new(), now());
        for key in data.keys() {
            let half = data[key].expose();
            let half = half.get(..half.len() / 2).unwrap().to_vec();
            for broken in [
                Secret::new(half),
                other[key].clone(),
                Secret::new(Vec::new()),
            ] {
                let mut damaged = data.clone();
                damaged.insert(key.clone(), broken);
                let (mended, shared, _) = made(&damaged, now());
                shared
                    .servable
                    .is_accepted(&shared.authorities, &names(), now())
                    .unwrap();
                assert!(good(&mended, now()).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn a_name_that_is_added_is_certified_at_once() {
        let (data, _, _) = made(&Data::new(), now());
        let more = vec!["affix-webhook.other.svc".to_owned()];
        let Judgement::Replace { shared, .. } = judge(&data, &more, &[], now()).unwrap() else {
            panic!("it was good")
        };
        shared
            .servable
            .is_accepted(&shared.authorities, &more, now())
            .unwrap();
    }
}
