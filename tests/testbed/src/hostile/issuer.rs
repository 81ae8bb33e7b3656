//! The token service: accounts, their rights, and the issued tokens. It answers `/token` by GET and
//! by POST (OAuth 2).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::query::Query;
use super::record::Request;
use super::{glob, lock};

/// An action that a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Reads.
    Pull,
    /// Writes.
    Push,
    /// Deletes.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// An account that can log in.
#[derive(Clone, Debug)]
#[must_use]
pub struct Account {
    user: String,
    password: String,
    identity_token: Option<String>,
    allowed: Vec<(String, Vec<Action>)>,
}

impl Account {
    /// An account that may do everything.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            identity_token: None,
            allowed: Vec::new(),
        }
    }

    /// The account may also be used by this refresh token (`identitytoken` of a docker config).
    pub fn identity_token(mut self, token: &str) -> Self {
        self.identity_token = Some(token.to_owned());
        self
    }

    /// Only these actions, in the repositories that match `pattern` (`*` stands for anything). Once this is said, nothing else is allowed.
    pub fn allow(mut self, pattern: &str, actions: &[Action]) -> Self {
        self.allowed.push((pattern.to_owned(), actions.to_vec()));
        self
    }

    /// Returns true if the account has the right.
    pub(super) fn may(&self, action: Action, repository: &str) -> bool {
        let named = |(pattern, actions): &(String, Vec<Action>)| {
            actions.contains(&action) && glob(pattern, repository)
        };
        self.allowed.is_empty() || self.allowed.iter().any(named)
    }

    /// The account of these that a header `Authorization: Basic` names.
    pub(super) fn find<'a>(accounts: &'a [Self], authorization: &str) -> Option<&'a Self> {
        let encoded = authorization.strip_prefix("Basic ")?;
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        accounts
            .iter()
            .find(|account| account.user == user && account.password == password)
    }
}

/// The rules by which tokens are issued.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The accounts that can log in.
    pub accounts: Vec<Account>,
    /// The rights without a login. `None`: no token without a login.
    pub anonymous: Option<Account>,
    /// The form of the answer.
    pub form: TokenForm,
    /// `expires_in`, as announced.
    pub announced: Option<u64>,
    /// The validity of a token, regardless of the announced one.
    pub lifetime: Option<Duration>,
    /// The number of requests that a token is valid for.
    pub uses: Option<u32>,
    /// The methods that are answered.
    pub exchange: Exchange,
    /// A POST is also answered a `refresh_token`.
    pub refresh_token: bool,
    /// Actions that are never granted.
    pub withheld: Vec<Action>,
    /// Makes tokens this much longer, in bytes.
    pub padding: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            anonymous: None,
            form: TokenForm::Both,
            announced: Some(300),
            lifetime: None,
            uses: None,
            exchange: Exchange::Both,
            refresh_token: false,
            withheld: Vec::new(),
            padding: 0,
        }
    }
}

/// The fields of an answer with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenForm {
    /// `token` and `access_token`.
    Both,
    /// `token`.
    Token,
    /// `access_token`.
    AccessToken,
    /// Neither.
    Neither,
    /// `token`, the empty text.
    Empty,
    /// Another body: text that is not JSON, or JSON of another shape.
    Raw(String),
}

/// The methods that yield a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// GET and POST.
    Both,
    /// GET; a POST gets this status.
    GetOnly(u16),
    /// POST; a GET gets this status.
    PostOnly(u16),
}

/// A token service. Clones are the same service.
#[derive(Clone, Default)]
pub struct Issuer {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    terms: Terms,
    grants: BTreeMap<String, Grant>,
    issued: u64,
}

struct Grant {
    account: Account,
    scopes: Vec<(String, Vec<Action>)>,
    uses: Option<u32>,
    until: Option<Instant>,
}

/// The result of checking a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Invalid,
    Insufficient,
}

impl Issuer {
    /// Changes the terms, for tokens to come.
    pub fn terms(&self, change: impl FnOnce(&mut Terms)) {
        change(&mut lock(&self.inner).terms);
    }

    /// Makes every token that was given out invalid.
    pub fn revoke_all(&self) {
        lock(&self.inner).grants.clear();
    }

    /// Returns the number of issued tokens.
    #[must_use]
    pub fn issued(&self) -> u64 {
        lock(&self.inner).issued
    }

    /// Checks that a token allows `action` in `repository` (`None`: anything that needs no scope),
    /// and counts one use.
    pub(super) fn verify(&self, token: &str, needed: Option<(Action, &str)>) -> Verdict {
        let mut inner = lock(&self.inner);
        let Some(grant) = inner.grants.get_mut(token) else {
            return Verdict::Invalid;
        };
        if grant.uses == Some(0) || grant.until.is_some_and(|until| Instant::now() >= until) {
            return Verdict::Invalid;
        }
        grant.uses = grant.uses.map(|uses| uses - 1);
        let Some((action, repository)) = needed else {
            return Verdict::Good;
        };
        let scoped = grant
            .scopes
            .iter()
            .any(|(name, actions)| name == repository && actions.contains(&action));
        if scoped && grant.account.may(action, repository) {
            Verdict::Good
        } else {
            Verdict::Insufficient
        }
    }

    /// Answers a request for a token.
    pub(super) fn exchange(&self, request: &Request) -> Answer {
        let mut inner = lock(&self.inner);
        let post = request.method == Method::POST;
        match inner.terms.exchange {
            Exchange::GetOnly(status) if post => return refuse(status),
            Exchange::PostOnly(status) if !post => return refuse(status),
            _ => {}
        }
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let query = Query::parse(if post { &form } else { &request.query });
        let account = if post {
            inner.terms.by_form(&query)
        } else {
            inner.terms.by_header(request)
        };
        let Some(account) = account else {
            return Answer::error(
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "authentication required",
            )
            .header(WWW_AUTHENTICATE, "Basic realm=\"token service\"");
        };
        let scopes = query
            .all("scope")
            .flat_map(str::split_whitespace)
            .filter_map(scope);
        let granted = scopes
            .map(|(repository, actions)| {
                let may = |action: &Action| {
                    account.may(*action, &repository) && !inner.terms.withheld.contains(action)
                };
                let actions = actions.into_iter().filter(may).collect();
                (repository, actions)
            })
            .collect();
        let token = inner.issue(account.clone(), granted);
        let refresh = (post && inner.terms.refresh_token).then(|| {
            account
                .identity_token
                .unwrap_or_else(|| "refresh-me".to_owned())
        });
        inner.terms.answer(&token, refresh)
    }
}

impl Inner {
    fn issue(&mut self, account: Account, scopes: Vec<(String, Vec<Action>)>) -> String {
        self.issued += 1;
        let token = format!(
            "token-{}-{}{}",
            self.issued,
            account.user,
            "x".repeat(self.terms.padding)
        );
        let until = self
            .terms
            .lifetime
            .and_then(|lifetime| Instant::now().checked_add(lifetime));
        let grant = Grant {
            account,
            scopes,
            uses: self.terms.uses,
            until,
        };
        self.grants.insert(token.clone(), grant);
        token
    }
}

impl Terms {
    fn by_header(&self, request: &Request) -> Option<Account> {
        match request.header("authorization") {
            Some(authorization) => Account::find(&self.accounts, authorization).cloned(),
            None => self.anonymous.clone(),
        }
    }

    fn by_form(&self, form: &Query) -> Option<Account> {
        let account = match form.get("grant_type")? {
            "refresh_token" => {
                let token = form.get("refresh_token")?;
                self.accounts
                    .iter()
                    .find(|account| account.identity_token.as_deref() == Some(token))?
            }
            "password" => {
                let (user, password) = (form.get("username")?, form.get("password")?);
                self.accounts
                    .iter()
                    .find(|account| account.user == user && account.password == password)?
            }
            _ => return None,
        };
        Some(account.clone())
    }

    fn answer(&self, token: &str, refresh: Option<String>) -> Answer {
        let names: &[&str] = match &self.form {
            TokenForm::Both => &["token", "access_token"],
            TokenForm::Token | TokenForm::Empty => &["token"],
            TokenForm::AccessToken => &["access_token"],
            TokenForm::Neither => &[],
            TokenForm::Raw(text) => return Answer::new(StatusCode::OK).bytes(text.clone()),
        };
        let value = if self.form == TokenForm::Empty {
            ""
        } else {
            token
        };
        let mut fields: Map<String, Value> = names
            .iter()
            .map(|name| ((*name).to_owned(), json!(value)))
            .collect();
        fields.extend(
            self.announced
                .map(|seconds| ("expires_in".to_owned(), json!(seconds))),
        );
        fields.extend(refresh.map(|refresh| ("refresh_token".to_owned(), json!(refresh))));
        Answer::new(StatusCode::OK)
            .header(CONTENT_TYPE, "application/json")
            .bytes(Value::Object(fields).to_string())
    }
}

fn refuse(status: u16) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::METHOD_NOT_ALLOWED);
    Answer::error(status, "UNSUPPORTED", "not by this method")
}

/// Reads `repository:<name>:<action>,…`; other types of scope grant nothing.
fn scope(text: &str) -> Option<(String, Vec<Action>)> {
    let (name, actions) = text.strip_prefix("repository:")?.rsplit_once(':')?;
    let asked = |action: &Action| actions.split(',').any(|name| name == action.name());
    Some((
        name.to_owned(),
        Action::ALL.into_iter().filter(asked).collect(),
    ))
}
