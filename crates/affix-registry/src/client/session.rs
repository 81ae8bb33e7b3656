//! The entry points: [`Registries`] for the process, [`Session`] for one pass over one repository.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use crate::access::secret::Secret;
use crate::client::clients::{ClientCache, RegistryClient};
use crate::client::options::{Access, ListingSource, Options, Priority, ReferrersMode};
use crate::error::{Object, Operation, RegistryError};
use crate::oci::{Digest, Host, Reference, Repository, Tag};

/// The name of a manifest in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// A tag.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl Locator {
    /// Returns the digest of a reference, else its tag, or `None` if it has neither.
    #[must_use]
    pub fn of(reference: &Reference) -> Option<Self> {
        let digest = reference.digest.clone().map(Self::Digest);
        digest.or_else(|| reference.tag.clone().map(Self::Tag))
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Locator {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Locator {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// All registries that the process uses, with their connections, tokens, limits and pauses. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    options: Arc<Options>,
    clients: Arc<ClientCache>,
}

impl Registries {
    /// Stores the options. It opens no connection and reads no certificate.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options: Arc::new(options),
            clients: Arc::default(),
        }
    }

    /// Returns the settings of the process.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Opens a session on one repository. It sends no request.
    ///
    /// # Errors
    /// `HostNotAllowed` and `InsecureNotAllowed` if the options forbid it, `InvalidAccess` and `CertificateInvalid` if `access`
    /// cannot be used.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "an access is for one session"
    )]
    pub fn open(
        &self,
        host: &Host,
        repository: &Repository,
        access: Access,
    ) -> Result<Session, RegistryError> {
        let refuse = |why: String| RegistryError::HostNotAllowed {
            host: host.to_string(),
            why,
        };
        let allowed = &self.options.allowed_registries;
        if !allowed.is_empty() && !allowed.iter().any(|pattern| pattern.matches(host)) {
            let patterns: Vec<_> = allowed.iter().map(ToString::to_string).collect();
            return Err(refuse(format!(
                "--allowed-registries has only {}",
                patterns.join(", ")
            )));
        }
        if access.insecure && !self.options.allow_http {
            let why = "insecure: true is ruled out by --insecure-allow-http=false".to_owned();
            return Err(RegistryError::InsecureNotAllowed {
                host: host.to_string(),
                why,
            });
        }
        let scheme = if access.insecure { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/", host.api_host()))
            .map_err(|_| refuse("it is no host name".to_owned()))?;
        if let Some(url::Host::Ipv4(address)) = base.host()
            && address.to_string() != host.name()
        {
            return Err(refuse(format!(
                "it is another spelling of the address {address}: write that"
            )));
        }
        self.session(&base, host, &on_its_registry(host, repository), &access)
    }

    /// Returns a session at the API under `base`.
    pub(crate) fn session(
        &self,
        base: &Url,
        host: &Host,
        repository: &Repository,
        access: &Access,
    ) -> Result<Session, RegistryError> {
        let client = self
            .clients
            .get(&self.options, base, host, repository, access)?;
        Ok(Session {
            inner: Arc::new(Inner {
                options: Arc::clone(&self.options),
                client,
                host: host.clone(),
                repository: repository.clone(),
                mode: access.referrers_mode,
                login_warnings: access.credentials.warnings().to_vec(),
                opened: Instant::now(),
                requests: AtomicU64::new(0),
                received: AtomicU64::new(0),
                seen_tags: Mutex::default(),
                referrers_tags: OnceCell::new(),
                swing: rand::random(),
            }),
            deadline: None,
            priority: Priority::default(),
            is_counted: true,
        })
    }
}

/// Returns the name of a repository at its registry: Docker Hub has those without a namespace under `library/`.
fn on_its_registry(host: &Host, repository: &Repository) -> Repository {
    let is_official =
        host.api_host() == "registry-1.docker.io" && !repository.as_str().contains('/');
    let full = is_official
        .then(|| format!("library/{repository}").parse().ok())
        .flatten();
    full.unwrap_or_else(|| repository.clone())
}

/// One pass over one repository with one credential. Cheap to clone; clones share the counters.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
    deadline: Option<Instant>,
    priority: Priority,
    is_counted: bool,
}

pub(crate) struct Inner {
    options: Arc<Options>,
    pub(crate) client: Arc<RegistryClient>,
    host: Host,
    repository: Repository,
    pub(crate) mode: ReferrersMode,
    /// Warnings on logins that were skipped. They belong to the pass, since clients are shared.
    login_warnings: Vec<String>,
    opened: Instant,
    requests: AtomicU64,
    received: AtomicU64,
    /// Fallback tags and signature tags that exist, as read in this pass.
    seen_tags: Mutex<HashSet<Tag>>,
    /// The tags of the form of fallback tags, listed at most once in this pass.
    pub(crate) referrers_tags: OnceCell<Vec<Tag>>,
    /// Uniform in 0 to 1. Spreads the pauses of processes that write the same fallback tags at the same time.
    pub(crate) swing: f64,
}

impl Inner {
    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of bytes so far.
    pub(crate) fn count_bytes(&self, bytes: usize) -> u64 {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the warnings on skipped logins for a message, at most two.
    pub(crate) fn login_warnings(&self) -> String {
        let shown = self.login_warnings.iter().take(2);
        shown.map(|warning| format!("; {warning}")).collect()
    }

    /// Returns the secrets that messages must not contain.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.client.auth.secrets()
    }

    /// Records that a tag exists.
    pub(crate) fn saw_tag(&self, tag: &Tag) {
        self.seen_tags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tag.clone());
    }

    pub(crate) fn has_seen_tag(&self, tag: &Tag) -> bool {
        self.seen_tags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(tag)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}/{})", self.inner.host, self.inner.repository)
    }
}

impl Session {
    /// Sets the deadline of the caller. No wait for the registry goes beyond it.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the priority of the session's requests. Default [`Priority::Interactive`].
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Returns a session whose responses do not count toward [`Limits::session_bytes`](crate::Limits::session_bytes). It is
    /// for reads whose number the caller bounds and whose content it drops at once, such as candidates in waves. The limits
    /// on each response hold.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self {
            is_counted: false,
            ..self.clone()
        }
    }

    pub(crate) const fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub(crate) const fn priority(&self) -> Priority {
        self.priority
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
            .unwrap_or_else(|| self.inner.opened + self.inner.options.timeouts.patience)
    }

    /// Returns the settings of the process.
    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Returns the registry.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// Returns the repository, by its name at the registry.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// Returns the key under which tokens and capabilities are shared: one for each registry, access and credential.
    #[must_use]
    pub fn identity(&self) -> &Digest {
        &self.inner.client.identity
    }

    /// Returns the requests sent so far, with retries, redirects and token requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// Returns the way in which this repository stores referrers: by mode, or as the registry has shown. `None` before the first
    /// response about referrers.
    #[must_use]
    pub fn referrers_mode(&self) -> Option<ListingSource> {
        match self.inner.mode {
            ReferrersMode::Api => Some(ListingSource::Api),
            ReferrersMode::TagSchema => Some(ListingSource::FallbackTag),
            ReferrersMode::Auto => self
                .inner
                .client
                .support
                .of(&self.inner.repository, Instant::now()),
        }
    }

    /// Describes a request for messages. `which` names the object and may be empty.
    pub(crate) fn operation(
        &self,
        method: &'static str,
        object: Object,
        which: impl fmt::Display,
    ) -> Operation {
        let what = format!("{object} {which}").trim_end().to_owned();
        Operation {
            method,
            object,
            what,
            host: self.inner.host.to_string(),
            repository: Some(self.inner.repository.clone()),
        }
    }

    /// Returns a URL of this repository: `/v2/<repository>/<path>`.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.inner.client.transport.base().clone();
        url.set_path(&format!("/v2/{}/{path}", self.inner.repository));
        url
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn an_official_image_of_docker_hub_is_in_library() {
        for (host, name, full) in [
            ("docker.io", "alpine", "library/alpine"),
            ("index.docker.io", "alpine", "library/alpine"),
            ("docker.io", "team/alpine", "team/alpine"),
            ("quay.io", "alpine", "alpine"),
        ] {
            assert_eq!(
                on_its_registry(&host.parse().unwrap(), &name.parse().unwrap()).as_str(),
                full
            );
        }
    }
}
