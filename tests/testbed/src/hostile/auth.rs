//! Authorization: none, passwords, or tokens, and the form of refusals.

use http::StatusCode;
use http::header::WWW_AUTHENTICATE;

use super::answer::Answer;
use super::issuer::{Account, Action, Issuer, Verdict};
use super::op::Op;
use super::record::Request;

/// The authentication of a registry.
#[derive(Clone, Default)]
pub enum Auth {
    /// No authentication: every request is allowed.
    #[default]
    None,
    /// These accounts, by `Authorization: Basic`, refused in this way where an account is not allowed something.
    Basic(Vec<Account>, Denial),
    /// Tokens of an issuer.
    Bearer(Bearer),
}

/// Authentication by tokens.
#[derive(Clone)]
#[must_use]
pub struct Bearer {
    issuer: Issuer,
    realm: Option<String>,
    challenge: Challenge,
    denial: Denial,
}

/// The `WWW-Authenticate` header of a 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// `Bearer` with realm, service and scope.
    Full,
    /// Without the scope.
    NoScope,
    /// Without the service.
    NoService,
    /// `Basic` first, then `Bearer`, in one header.
    AfterBasic,
    /// `bearer` in lower case, with blanks and escapes that the grammar allows.
    Odd,
    /// This text.
    Raw(String),
    /// No header at all.
    None,
}

/// The refusal of a request with a valid credential that lacks the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Denial {
    /// 401 with `error="insufficient_scope"` (distribution).
    #[default]
    InsufficientScope,
    /// 403 `DENIED`.
    Forbidden,
    /// 404 `NAME_UNKNOWN`: the repository is hidden.
    Hidden,
}

impl Bearer {
    /// Tokens of `issuer`, which is reached at this registry's own `/token` unless [`realm`](Self::realm) says otherwise.
    pub fn new(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.clone(),
            realm: None,
            challenge: Challenge::Full,
            denial: Denial::default(),
        }
    }

    /// Sends clients there for a token: the `/token` of another registry, or any URL.
    pub fn realm(mut self, url: impl Into<String>) -> Self {
        self.realm = Some(url.into());
        self
    }

    /// Words the challenge so.
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.challenge = challenge;
        self
    }

    /// Words the refusal so.
    pub fn denial(mut self, denial: Denial) -> Self {
        self.denial = denial;
        self
    }

    fn answer(&self, origin: &str, scope: &str, error: Option<&str>) -> Answer {
        let realm = self
            .realm
            .clone()
            .unwrap_or_else(|| format!("{origin}/token"));
        let service = origin.split_once("://").map_or(origin, |(_, host)| host);
        let scope = if scope.is_empty() {
            String::new()
        } else {
            format!(",scope=\"{scope}\"")
        };
        let error = error
            .map(|error| format!(",error=\"{error}\""))
            .unwrap_or_default();
        let full = format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}{error}");
        let value = match &self.challenge {
            Challenge::Full => full,
            Challenge::NoScope => format!("Bearer realm=\"{realm}\",service=\"{service}\"{error}"),
            Challenge::NoService => format!("Bearer realm=\"{realm}\"{scope}{error}"),
            Challenge::AfterBasic => format!("Basic realm=\"a, \\\"b\\\"\", {full}"),
            Challenge::Odd => {
                format!(
                    "bearer  SERVICE = \"{service}\" , x=token , Realm=\"{}\" {}{error}",
                    realm.replace("/token", "\\/token"),
                    scope.replace(",s", ",\tS")
                )
            }
            Challenge::Raw(text) => text.clone(),
            Challenge::None => return unauthorized(),
        };
        unauthorized().header(WWW_AUTHENTICATE, &value)
    }
}

impl Auth {
    /// Refuses a request that may not be.
    pub(super) fn check(&self, request: &Request, origin: &str) -> Result<(), Box<Answer>> {
        let needed = needed(request);
        let authorization = request.header("authorization");
        match self {
            Self::None => Ok(()),
            Self::Basic(accounts, denial) => {
                let challenge =
                    || unauthorized().header(WWW_AUTHENTICATE, "Basic realm=\"registry\"");
                match authorization.and_then(|authorization| Account::find(accounts, authorization))
                {
                    None => Err(Box::new(challenge())),
                    Some(account)
                        if needed
                            .is_none_or(|(action, repository)| account.may(action, repository)) =>
                    {
                        Ok(())
                    }
                    Some(_) => Err(Box::new(denied(*denial, challenge))),
                }
            }
            Self::Bearer(bearer) => {
                let scope = needed
                    .map(|(action, repository)| scope(action, repository))
                    .unwrap_or_default();
                let Some(token) =
                    authorization.and_then(|authorization| authorization.strip_prefix("Bearer "))
                else {
                    return Err(Box::new(bearer.answer(origin, &scope, None)));
                };
                match bearer.issuer.verify(token, needed) {
                    Verdict::Good => Ok(()),
                    Verdict::Invalid => Err(Box::new(bearer.answer(
                        origin,
                        &scope,
                        Some("invalid_token"),
                    ))),
                    Verdict::Insufficient => {
                        let challenge =
                            || bearer.answer(origin, &scope, Some("insufficient_scope"));
                        Err(Box::new(denied(bearer.denial, challenge)))
                    }
                }
            }
        }
    }
}

/// Returns the right that a request needs.
fn needed(request: &Request) -> Option<(Action, &str)> {
    let repository = request.repository.as_deref()?;
    let action = match request.op {
        Op::ManifestDelete | Op::BlobDelete => Action::Delete,
        op if op.is_write() => Action::Push,
        _ => Action::Pull,
    };
    Some((action, repository))
}

fn scope(action: Action, repository: &str) -> String {
    let actions = match action {
        Action::Push => "pull,push",
        other => other.name(),
    };
    format!("repository:{repository}:{actions}")
}

fn denied(denial: Denial, challenge: impl FnOnce() -> Answer) -> Answer {
    match denial {
        Denial::InsufficientScope => challenge(),
        Denial::Forbidden => Answer::error(
            StatusCode::FORBIDDEN,
            "DENIED",
            "requested access to the resource is denied",
        ),
        Denial::Hidden => Answer::error(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "repository name not known to registry",
        ),
    }
}

fn unauthorized() -> Answer {
    Answer::error(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required",
    )
}
