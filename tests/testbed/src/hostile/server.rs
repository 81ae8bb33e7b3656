//! The registry as a test holds it: started by one call, changed at run time, stopped by its drop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::auth::{Auth, Bearer, Denial};
use super::connection::{Acceptor, Arrival};
use super::fault::{Fault, Stage};
use super::image::ImageBuilder;
use super::issuer::{Account, Issuer};
use super::lock;
use super::matcher::Matcher;
use super::op::Op;
use super::quirk::Quirks;
use super::record::{Recorder, Request, transcript};
use super::rules::{Hold, Rule, Rules, Work};
use super::service::Service;
use super::store::Store;
use super::tls::{Authority, Certificate, server_from_pem};

/// A registry on a loopback port. It ends, with all its connections, when it is dropped.
pub struct HostileRegistry {
    address: SocketAddr,
    authority: Option<Authority>,
    service: Arc<Service>,
    acceptor: Arc<Acceptor>,
    accepting: JoinHandle<()>,
}

/// The configuration of a registry at its start.
#[derive(Default)]
#[must_use]
pub struct Builder {
    tls: Option<(Option<Authority>, Certificate)>,
    tls_files: Option<(String, String)>,
    client_certificate: bool,
    http1_only: bool,
    quirks: Quirks,
    auth: Option<Auth>,
    issuer: Issuer,
    token_accounts: bool,
    store: Store,
}

impl Builder {
    /// Over TLS, with a certificate of an authority of its own.
    pub fn tls(mut self) -> Self {
        self.tls = Some((None, Certificate::Good));
        self
    }

    /// Over TLS, with this certificate of this authority.
    pub fn tls_with(mut self, authority: &Authority, certificate: Certificate) -> Self {
        self.tls = Some((Some(authority.clone()), certificate));
        self
    }

    /// Over TLS, with a certificate and key in PEM.
    pub fn tls_files(mut self, certificate: &str, key: &str) -> Self {
        self.tls_files = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// Only for clients that show a certificate.
    pub fn client_certificate_required(mut self) -> Self {
        self.client_certificate = true;
        self
    }

    /// No HTTP/2.
    pub fn http1_only(mut self) -> Self {
        self.http1_only = true;
        self
    }

    /// With these quirks.
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// With this authentication.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// With passwords, for these accounts.
    pub fn passwords(self, accounts: impl IntoIterator<Item = Account>) -> Self {
        self.auth(Auth::Basic(
            accounts.into_iter().collect(),
            Denial::Forbidden,
        ))
    }

    /// With tokens that this registry gives out itself, to these accounts.
    pub fn tokens(mut self, accounts: impl IntoIterator<Item = Account>) -> Self {
        self.issuer.terms(|terms| terms.accounts.extend(accounts));
        self.token_accounts = true;
        self
    }

    /// With `/token` answered by this issuer.
    pub fn issuer(mut self, issuer: &Issuer) -> Self {
        self.issuer = issuer.clone();
        self
    }

    /// With the content of another registry, now and later.
    pub fn store(mut self, store: &Store) -> Self {
        self.store = store.clone();
        self
    }

    /// Starts it on a free port of `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// Where no port can be had or no key be made.
    pub async fn start(self) -> Result<HostileRegistry> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no free port on 127.0.0.1")?;
        let address = listener.local_addr().context("the address of the port")?;
        let mut authority = None;
        let mut tls = None;
        if let Some((given, certificate)) = self.tls {
            let given = given.map_or_else(Authority::new, Ok)?;
            let config = given.server(certificate, self.client_certificate, !self.http1_only)?;
            tls = Some(TlsAcceptor::from(Arc::new(config)));
            authority = Some(given);
        }
        if let Some((certificate, key)) = self.tls_files {
            let http2 = !self.http1_only;
            let config = server_from_pem(&certificate, &key, self.client_certificate, http2)?;
            tls = Some(TlsAcceptor::from(Arc::new(config)));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let auth = match self.auth {
            Some(auth) => auth,
            None if self.token_accounts => Auth::Bearer(Bearer::new(&self.issuer)),
            None => Auth::None,
        };
        let service = Arc::new(Service {
            origin: format!("{scheme}://{address}"),
            store: self.store,
            issuer: self.issuer,
            recorder: Arc::new(Recorder::new()),
            rules: Rules::default(),
            quirks: Mutex::new(self.quirks),
            auth: Mutex::new(auth),
        });
        let acceptor = Arc::new(Acceptor {
            service: Arc::clone(&service),
            tls,
            http2: !self.http1_only,
            accepted: AtomicU64::new(0),
            arrivals: Mutex::default(),
        });
        let accepting = tokio::spawn(Arc::clone(&acceptor).run(listener));
        Ok(HostileRegistry {
            address,
            authority,
            service,
            acceptor,
            accepting,
        })
    }
}

impl HostileRegistry {
    /// A correct registry over plain HTTP, without authentication.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A registry to be described before it starts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `127.0.0.1:<port>`, as a reference names it.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, or `https://…`.
    #[must_use]
    pub fn url(&self) -> String {
        self.service.origin.clone()
    }

    /// Returns the URL of its token service.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.service.origin)
    }

    /// `<host>/<name>`, where `name` is such as `team/app:v1`.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The authority of its certificate, where it speaks TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The certificate of that authority, as `ca.crt` has it; empty without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::pem)
    }

    /// Returns its content, to be read and changed without the protocol.
    #[must_use]
    pub fn store(&self) -> Store {
        self.service.store.clone()
    }

    /// An image to be put into it.
    pub fn image(&self, repository: &str, tag: &str) -> ImageBuilder {
        ImageBuilder::new(&self.service.store, repository, tag)
    }

    /// Returns the issuer of the tokens at its `/token`.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        self.service.issuer.clone()
    }

    /// Changes its quirks, for requests to come.
    pub fn quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut lock(&self.service.quirks));
    }

    /// Changes its authentication, for requests to come.
    pub fn set_auth(&self, auth: Auth) {
        *lock(&self.service.auth) = auth;
    }

    /// Lets `fault` happen to the requests that `matcher` takes. Faults that take the place of the answer do so before the request has its
    /// effect.
    pub fn fault(&self, matcher: Matcher, fault: impl Into<Fault>) -> Rule {
        self.fault_at(Stage::Before, matcher, fault)
    }

    /// As [`fault`](Self::fault), at another stage: at [`Stage::After`] the request has its effect, and the client does not learn it.
    pub fn fault_at(&self, stage: Stage, matcher: Matcher, fault: impl Into<Fault>) -> Rule {
        self.service
            .rules
            .add(stage, matcher, Work::Fault(fault.into()))
    }

    /// Lets `arrival` happen to the next `times` connections that would be accepted otherwise.
    pub fn next_connections(&self, times: u64, arrival: Arrival) {
        lock(&self.acceptor.arrivals).push((arrival, times));
    }

    /// Runs `hook` at the requests that `matcher` takes, before they have their effect. They wait for it.
    pub fn on_request<F, R>(&self, matcher: Matcher, hook: F) -> Rule
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.hook_at(Stage::Before, matcher, hook)
    }

    /// As [`on_request`](Self::on_request), at another stage.
    pub fn hook_at<F, R>(&self, stage: Stage, matcher: Matcher, hook: F) -> Rule
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.service.rules.add(
            stage,
            matcher,
            Work::Hook(Arc::new(move |request| Box::pin(hook(request)))),
        )
    }

    /// Stops the requests that `matcher` takes, before they have their effect or after it, until the hold is released.
    pub fn hold(&self, stage: Stage, matcher: Matcher) -> Hold {
        self.service.rules.hold(stage, matcher)
    }

    /// Takes back all faults, hooks and arrivals. Quirks and authentication stay.
    pub fn calm(&self) {
        self.service.rules.clear();
        lock(&self.acceptor.arrivals).clear();
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.service.recorder.snapshot()
    }

    /// The requests that `matcher` matches, however often it would take them.
    #[must_use]
    pub fn requests_that(&self, matcher: &Matcher) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| matcher.matches(request))
            .collect()
    }

    /// Returns the number of requests for `op`.
    #[must_use]
    pub fn count(&self, op: Op) -> usize {
        self.requests_that(&Matcher::on(op)).len()
    }

    /// The requests that brought a credential.
    #[must_use]
    pub fn with_credentials(&self) -> Vec<Request> {
        self.requests_that(&Matcher::any().when(Request::has_credentials))
    }

    /// The most requests that were under way at one time, from the head's arrival to the body's end.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.service.recorder.most_at_once()
    }

    /// Returns the number of accepted connections, including those that were ended at once.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.acceptor.accepted.load(Ordering::SeqCst)
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        self.service.recorder.clear();
    }

    /// The requests so far for people, one a line, to be printed by a test that fails. It shows credentials.
    #[must_use]
    pub fn transcript(&self) -> String {
        transcript(&self.requests())
    }

    /// Waits until `count` requests that `matcher` matches have arrived.
    ///
    /// # Errors
    ///
    /// Where they have not within `patience`; the message has the transcript.
    pub async fn wait_for(
        &self,
        matcher: &Matcher,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<Request>> {
        let mut changes = self.service.recorder.watch();
        let enough = async {
            loop {
                let found = self.requests_that(matcher);
                if found.len() >= count || changes.changed().await.is_err() {
                    return found;
                }
            }
        };
        match tokio::time::timeout(patience, enough).await {
            Ok(found) => Ok(found),
            Err(_) => bail!(
                "fewer than {count} such requests within {patience:?}:\n{}",
                self.transcript()
            ),
        }
    }
}

impl Drop for HostileRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
