//! The public face: [`Registries`] for the process, [`Session`] for one pass over one repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::error::RegistryError;
use super::options::{Access, Options};
use super::referrers::ListingSource;
use crate::oci::{Digest, Host, Reference, Repository, Tag};

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl Locator {
    /// The digest of a reference where it has one, else its tag. (A parsed reference has at least one of them.)
    #[must_use]
    pub fn of(reference: &Reference) -> Option<Self> {
        let digest = reference.digest.clone().map(Self::Digest);
        digest.or_else(|| reference.tag.clone().map(Self::Tag))
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// All registries that the process talks to: their connections, tokens, limits and pauses. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    shared: Arc<Options>,
}

impl Registries {
    /// Nothing is dialled and no certificate is read before the first [`open`](Self::open).
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { shared: Arc::new(options) }
    }

    /// What the process allows.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared
    }

    /// Opens a session on one repository; asks nothing of the registry yet.
    ///
    /// # Errors
    /// `HostNotAllowed`, `InsecureNotAllowed`, and `InvalidAccess` or `CertificateInvalid` where what the pass brings along
    /// cannot be used.
    pub fn open(&self, host: &Host, repository: &Repository, access: Access) -> Result<Session, RegistryError> {
        let _ = access;
        Ok(Session {
            inner: Arc::new(Inner { host: host.clone(), repository: repository.clone(), requests: AtomicU64::new(0) }),
            deadline: None,
        })
    }
}

/// One repository, one credential, one pass. Counts its requests. Cheap to clone; clones share the count.
#[derive(Clone)]
pub struct Session {
    pub(super) inner: Arc<Inner>,
    pub(super) deadline: Option<Instant>,
}

pub(super) struct Inner {
    pub(super) host: Host,
    pub(super) repository: Repository,
    requests: AtomicU64,
}

impl Session {
    /// The same session with the time by which the caller wants to be done: no wait for the registry goes beyond it.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The registry.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// Requests sent so far, tries and token requests included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// How referrers of this repository are kept: by mode, or as the registry has shown; `None` before it was asked.
    #[must_use]
    pub fn referrers_mode(&self) -> Option<ListingSource> {
        None
    }
}
