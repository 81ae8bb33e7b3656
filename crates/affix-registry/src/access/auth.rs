//! Credentials of one registry, and the authentication scheme that the registry asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::access::challenge::{Challenge, TokenService};
use crate::access::docker_config::Credential;
use crate::access::issued_logins::{CurrentLogin, IssuedLogins};
use crate::access::secret::Secret;
use crate::access::tokens::Tokens;
use crate::client::options::Access;
use crate::error::RegistryError;

/// The credential for one registry, with the authentication scheme that the registry asked for.
pub(crate) struct Authenticator {
    pub(crate) credential: Credential,
    /// True if a docker config names credential helpers.
    pub(crate) names_helpers: bool,
    /// The proxy's login in both forms that an answer could contain.
    proxy: Vec<Secret>,
    remembered: Mutex<Option<Remembered>>,
    pub(crate) tokens: Tokens,
    /// The login of a credential that a service issues.
    pub(crate) issued: IssuedLogins,
}

/// The scheme that the registry named last.
struct Remembered {
    scheme: Scheme,
    /// The start of the attempt whose response named it.
    named: Instant,
    /// Whether its token service failed. It gets no request before the registry names it again.
    failed: bool,
}

/// The way in which the registry wants a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer(TokenService),
}

/// The authorization that a request carried.
pub(crate) enum Authorization {
    Nothing,
    Basic(HeaderValue),
    /// A login that a service has issued.
    Issued(HeaderValue, CurrentLogin),
    /// A token from the docker config.
    Configured(HeaderValue),
    /// A token from the token service.
    Token(HeaderValue, Secret),
}

impl Authorization {
    pub(crate) const fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Basic(header)
            | Self::Issued(header, _)
            | Self::Configured(header)
            | Self::Token(header, _) => Some(header),
        }
    }
}

impl Authenticator {
    pub(crate) fn new(credential: Credential, access: &Access) -> Self {
        let proxy = access.proxy.as_ref().and_then(|proxy| {
            let password = proxy.password.clone()?;
            Some(vec![
                basic(proxy.username.as_deref().unwrap_or_default(), &password),
                password,
            ])
        });
        let (names_helpers, proxy) = (
            access.credentials.names_helpers(),
            proxy.unwrap_or_default(),
        );
        Self {
            credential,
            names_helpers,
            proxy,
            remembered: Mutex::default(),
            tokens: Tokens::default(),
            issued: IssuedLogins::default(),
        }
    }

    /// Returns all secrets that messages must not contain. A registry may send back the credential
    /// that it received.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.tokens.secrets();
        secrets.extend(self.proxy.iter().cloned());
        // Those of a service too, which has no credential.
        secrets.extend(self.issued.secrets());
        match &self.credential {
            Credential::Anonymous | Credential::Issued(_) => {}
            Credential::Basic { username, password } => {
                secrets.extend([password.clone(), basic(username, password)]);
            }
            Credential::Identity(token) | Credential::Registry(token) => {
                secrets.push(token.clone());
            }
        }
        secrets
    }

    /// Returns the scheme that the registry named last.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        let remembered = self.remembered();
        remembered.as_ref().map(|known| known.scheme.clone())
    }

    /// Returns the token service that the registry named last, unless it has failed since.
    pub(crate) fn token_service(&self) -> Option<TokenService> {
        match &*self.remembered() {
            Some(Remembered {
                scheme: Scheme::Bearer(service),
                failed: false,
                ..
            }) => Some(service.clone()),
            _ => None,
        }
    }

    /// Remembers the scheme of a 401. `named` is the start of its attempt: responses may arrive in
    /// another order, and the newest one counts.
    pub(crate) fn remember(&self, scheme: Scheme, named: Instant) {
        let mut remembered = self.remembered();
        if remembered.as_ref().is_none_or(|known| known.named <= named) {
            *remembered = Some(Remembered {
                scheme,
                named,
                failed: false,
            });
        }
    }

    /// Records that a token service failed.
    pub(crate) fn record_failure(&self, service: &TokenService) {
        if let Some(known) = &mut *self.remembered()
            && matches!(&known.scheme, Scheme::Bearer(current) if current == service)
        {
            known.failed = true;
        }
    }

    /// Forgets the scheme after a 401 that names none.
    pub(crate) fn forget(&self) {
        *self.remembered() = None;
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Selects the challenge that fits the credential. Bearer is preferred because its tokens
    /// expire.
    pub(crate) fn choose(&self, challenges: &[Challenge]) -> Option<(Scheme, Option<String>)> {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer {
                realm,
                service,
                scope,
                ..
            } => Some((
                Scheme::Bearer(TokenService {
                    realm: realm.clone(),
                    service: service.clone(),
                }),
                scope.clone(),
            )),
            Challenge::Basic => None,
        });
        let has_password = matches!(
            self.credential,
            Credential::Basic { .. } | Credential::Issued(_)
        );
        let basic = has_password && challenges.contains(&Challenge::Basic);
        bearer.or_else(|| basic.then_some((Scheme::Basic, None)))
    }
}

/// Returns `user:password` in base64 (RFC 7617).
pub(crate) fn basic(username: &str, password: &Secret) -> Secret {
    let mut pair = Zeroizing::new(username.as_bytes().to_vec());
    pair.push(b':');
    pair.extend_from_slice(password.expose());
    Secret::new(STANDARD.encode(&*pair))
}

/// Returns an authorization header that logs do not show.
pub(crate) fn sensitive(scheme: &str, secret: &Secret) -> Result<HeaderValue, RegistryError> {
    let mut value = Zeroizing::new(scheme.as_bytes().to_vec());
    value.push(b' ');
    value.extend_from_slice(secret.expose());
    let mut header = HeaderValue::from_bytes(&value).map_err(|_| RegistryError::InvalidAccess {
        what: "token",
        why: "it contains characters that are not allowed in a header".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}
