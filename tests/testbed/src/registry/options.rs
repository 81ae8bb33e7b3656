//! How a registry is to be: its users, its certificate, its quirks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::tokens::User;
use super::{Kind, Registry};
use crate::certificates::Authority;
use crate::tools::Tools;

/// The user that the testbed itself is where tokens are asked for.
const TESTBED: (&str, &str) = ("testbed", "testbed");

/// Something that real registries do differently. All but the last two are for [`Registry::ociregistry`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// No tag can be moved.
    ImmutableTags,
    /// The referrers listing answers 404, and a push answers `OCI-Subject` all the same, as ECR once did.
    NoReferrersApi,
    /// The listing ignores the filter.
    NoFilter,
    /// A blob in one POST is refused.
    NoSinglePost,
    /// A tag is read without `Docker-Content-Digest`.
    NoDigestHeader,
    /// Nothing can be deleted: 405. This is how distribution always starts; see [`Options::delete_enabled`].
    NoDelete,
    /// An index may name manifests that are not there. [`Registry::distribution`] only: the others never mind.
    MissingChildren,
}

/// A registry that is about to start.
#[derive(Debug, Clone)]
pub struct Options {
    tools: Tools,
    kind: Kind,
    basic: Option<(String, String)>,
    users: Option<Vec<User>>,
    lifetime: Duration,
    authority: Option<Arc<Authority>>,
    quirks: Vec<Quirk>,
    place: Option<Place>,
}

/// Where a registry is that not only this machine's loopback can reach.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `IP:PORT` to listen on.
    pub(super) address: String,
    /// The DNS name by which references and the certificate name it.
    pub(super) name: String,
}

impl Options {
    pub(super) fn new(tools: &Tools, kind: Kind) -> Self {
        let quirks = if kind == Kind::Distribution {
            vec![Quirk::NoDelete]
        } else {
            Vec::new()
        };
        Self {
            tools: tools.clone(),
            kind,
            basic: None,
            users: None,
            lifetime: Duration::from_mins(5),
            authority: None,
            quirks,
            place: None,
        }
    }

    /// The registry listens on `address`, `IP:PORT`, and others call it `name`, which must lead there.
    #[must_use]
    pub fn at(mut self, address: &str, name: &str) -> Self {
        self.place = Some(Place {
            address: address.to_owned(),
            name: name.to_owned(),
        });
        self
    }

    /// Every request must carry this name and password (htpasswd, on distribution).
    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        self.basic = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Every request must carry a token, which a token server beside the registry issues to these users. The testbed itself is
    /// one more user, who may do everything.
    #[must_use]
    pub fn tokens(mut self, users: impl IntoIterator<Item = User>) -> Self {
        let mut users: Vec<User> = users.into_iter().collect();
        users.push(User::new(TESTBED.0, TESTBED.1).may("**", &["pull", "push", "delete"]));
        self.users = Some(users);
        self
    }

    /// How long a token is valid: five minutes where this is not called. distribution takes a token for a minute longer.
    #[must_use]
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The registry, and its token server, speak TLS with a certificate of this authority.
    #[must_use]
    pub fn tls(mut self, authority: &Arc<Authority>) -> Self {
        self.authority = Some(Arc::clone(authority));
        self
    }

    /// Whether manifests and blobs can be deleted. Where this is not called: not on distribution, but on the others.
    #[must_use]
    pub fn delete_enabled(mut self, enabled: bool) -> Self {
        self.quirks.retain(|quirk| *quirk != Quirk::NoDelete);
        if !enabled {
            self.quirks.push(Quirk::NoDelete);
        }
        self
    }

    /// Gives the registry a quirk.
    #[must_use]
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.quirks.push(quirk);
        self
    }

    /// Starts the registry and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where the kind of registry has no such option, or it does not start.
    pub async fn start(self) -> anyhow::Result<Registry> {
        if self.basic.is_some() && self.users.is_some() {
            bail!("a registry has either one password or a token server, not both");
        }
        for quirk in &self.quirks {
            let fits = match quirk {
                Quirk::NoDelete => self.kind != Kind::Liar,
                Quirk::MissingChildren => self.kind == Kind::Distribution,
                _ => self.kind == Kind::OciRegistry,
            };
            if !fits {
                bail!("{:?} cannot have the quirk {quirk:?}", self.kind);
            }
        }
        Registry::start(self.tools.clone(), self).await
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn password(&self) -> Option<(&str, &str)> {
        self.basic
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()))
    }

    pub(super) fn users(&self) -> Option<&[User]> {
        self.users.as_deref()
    }

    pub(super) fn credentials(&self) -> Option<(&str, &str)> {
        self.password()
            .or_else(|| self.users.as_ref().map(|_| TESTBED))
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn authority(&self) -> Option<&Authority> {
        self.authority.as_deref()
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }
}
