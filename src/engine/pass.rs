//! The pass itself: which of the registry's calls come in which order, and what is saved between them.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::api::{ImageStatus, Leftover, OnConflict, Reason, Superseded, TargetStatus};
use crate::attachment::{Desired, Intent, Problem};
use crate::signing::Signer;
use affix_registry::oci::Descriptor;
use affix_registry::{Access, Locator, Priority, Registries, Session};

use super::claims::Claims;
use super::failure::Failure;
use super::finish::end_of_signatures;
use super::listing::Ahead;
use super::memory::Memory;
use super::observe;
use super::outcome::Outcome;
use super::pinned::news;
use super::signers::Signers;
use super::signing_key::SigningKey;

/// Whether a pass writes to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Attach what is missing.
    #[default]
    Attach,
    /// Only say what would be done.
    Plan,
    /// Only find what equals what is wanted, to be removed by [`Engine::detach`].
    Detach,
}

/// One pass for one resource.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is wanted.
    pub intent: Intent,
    /// What signs, where the resource signs.
    pub key: Option<SigningKey>,
    /// How the registry is reached.
    pub access: Access,
    /// What a newer mark of somebody else means.
    pub on_conflict: OnConflict,
    /// What earlier passes left in status.
    pub memory: Memory,
    /// Whether to write.
    pub mode: Mode,
    /// Look at the registry's listings even where status says that all is done.
    pub verify: bool,
    /// The priority at the registry.
    pub priority: Priority,
    /// Bound of the whole pass.
    pub timeout: Duration,
}

/// What status says while a pass is under way.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The image.
    pub image: &'a ImageStatus,
    /// The rows, with the attachments that will be pushed.
    pub rows: &'a [TargetStatus],
    /// What this resource made and `rows` does not name.
    pub leftovers: &'a [Leftover],
    /// The moves of the tag, with their dates; `None`: as they were.
    pub superseded: Option<&'a [Superseded]>,
    /// What the pass is about to do, for people.
    pub doing: &'static str,
}

/// Where a pass writes down what it is about to do, before it does it.
pub trait Journal: Sync {
    /// Saves what is about to be pushed or has been, with its times, and what earlier passes made. Nothing is pushed or removed if this
    /// fails.
    fn save(&self, draft: &Draft<'_>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// One target is done, well or not.
    fn progress(&self, row: &TargetStatus) {
        let _ = row;
    }
}

/// Limits of a pass that are not the protocol's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most targets that one resource may select. Default 100.
    pub most_targets: usize,
    /// Referrers of one subject from which on status warns: admission controllers stop reading at 50. Default 40.
    pub warn_referrers: usize,
    /// Referrers of one subject at which affix adds no more. Default: no limit of its own.
    pub most_referrers: Option<usize>,
    /// Longest time for a pass, whatever its resource asks for. Default: no limit of its own.
    pub longest_pass: Option<Duration>,
}

impl EngineOptions {
    /// How long a pass may take whose resource asks for `timeout`.
    pub(super) fn bounded(&self, timeout: Duration) -> Duration {
        self.longest_pass
            .map_or(timeout, |longest| longest.min(timeout))
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            most_targets: 100,
            warn_referrers: 40,
            most_referrers: None,
            longest_pass: None,
        }
    }
}

/// Carries out passes. Shared by all resources of a process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    registries: Registries,
    signers: Arc<Signers>,
    pub(super) options: EngineOptions,
}

impl Engine {
    /// An engine over the process's registries.
    #[must_use]
    pub fn new(registries: Registries, options: EngineOptions) -> Self {
        Self {
            registries,
            signers: Arc::default(),
            options,
        }
    }

    /// The registries that the engine works with.
    #[must_use]
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    /// One pass. Every failure is in the outcome; the pass ends within the request's time-out, but for what `journal` takes.
    pub async fn run(
        &self,
        request: &Request,
        journal: &impl Journal,
        claims: &impl Claims,
        now: Timestamp,
    ) -> Outcome {
        let deadline = Instant::now() + self.options.bounded(request.timeout);
        let reference = &request.intent.reference;
        let session = match self.registries.open(
            &reference.host,
            &reference.repository,
            request.access.clone(),
        ) {
            Ok(session) => session.until(deadline).with_priority(request.priority),
            Err(error) => return Outcome::failed(&error.into()),
        };
        let end = OnceLock::new();
        let ahead = Ahead::default();
        let pass = Pass {
            engine: self,
            request,
            session: &session,
            signer: None,
            signatures_end: &end,
            ahead: &ahead,
            deadline,
            now,
        };
        let span = tracing::debug_span!("pass", image = %reference);
        let outcome = pass
            .run(journal, claims)
            .instrument(span)
            .await
            .unwrap_or_else(|failure| Outcome::failed(&failure));
        Outcome {
            requests: session.requests(),
            signatures_end: end.into_inner(),
            ..outcome
        }
    }
}

/// A pass under way.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a Request,
    pub(super) session: &'a Session,
    /// The opened key of a resource that signs, or why there is none.
    pub(super) signer: Option<Result<&'a dyn Signer, &'a Problem>>,
    /// When the signatures of the key end, once it is open and where they do.
    signatures_end: &'a OnceLock<Timestamp>,
    /// Listings that were made early.
    pub(super) ahead: &'a Ahead,
    pub(super) deadline: Instant,
    pub(super) now: Timestamp,
}

impl Pass<'_> {
    async fn run(&self, journal: &impl Journal, claims: &impl Claims) -> Result<Outcome, Failure> {
        match self.rest().await? {
            Some(outcome) => Ok(outcome),
            // Boxed, since the whole pass is in it: a future that is handed on is copied from stack to stack.
            None => {
                self.telling_of_tag(Box::pin(self.work(journal, claims)))
                    .await
            }
        }
    }

    async fn work(&self, journal: &impl Journal, claims: &impl Claims) -> Result<Outcome, Failure> {
        let request = self.request;
        let limits = &self.engine.registries.options().limits;
        // The empty blob is needed by every attachment, so it is asked for beside the image.
        let check_empty = async {
            match request.mode {
                Mode::Attach => self
                    .session
                    .has_blob(&Descriptor::empty().digest)
                    .await
                    .unwrap_or(false),
                Mode::Plan | Mode::Detach => true,
            }
        };
        self.list_root_ahead();
        let resolve = async {
            let resolved = observe::resolve(self.session, &request.intent.reference, limits).await;
            if let (Ok(resolved), true) = (&resolved, request.key.is_some()) {
                self.list_targets_ahead(&resolved.image);
            }
            resolved
        };
        let (found, key) = tokio::join!(
            self.in_time(async { tokio::join!(resolve, check_empty) }),
            self.open_key()
        );
        let (resolved, empty_is_there) = found?;
        let signer = key.as_ref().map(|key| key.as_ref().map(|signer| &**signer));
        let pass = Pass { signer, ..*self };
        match &request.intent.desired {
            Desired::WhenSuperseded(_) if request.mode == Mode::Detach => Err(Failure::new(
                Reason::InvalidSpec,
                "spec.endOfLife.whenSuperseded: its marks carry dates that only the status of a cluster's resource knows: give the digest in \
                 spec.image and the date in spec.endOfLife.date",
            )),
            Desired::WhenSuperseded(wanted) => {
                pass.supersede(wanted, &resolved?, empty_is_there, journal, claims)
                    .await
            }
            Desired::Content { .. } | Desired::Signature { .. } => {
                pass.attach(&resolved?, empty_is_there, journal, claims)
                    .await
            }
        }
    }

    /// The outcome of a pass that finds all as status says; `None` where there is more to do than to look.
    async fn rest(&self) -> Result<Option<Outcome>, Failure> {
        let request = self.request;
        if request.mode != Mode::Attach || request.verify || !request.memory.is_whole() {
            return Ok(None);
        }
        // Only the opened key tells whether it is the one that signed.
        let signer = match self.open_key().await {
            None => None,
            Some(Ok(signer)) => Some(signer),
            Some(Err(_)) => return Ok(None),
        };
        if !request
            .memory
            .is_settled(&request.intent, signer.as_deref(), self.now)
        {
            return Ok(None);
        }
        let Some(mut notes) = self.in_time(self.look()).await?? else {
            return Ok(None);
        };
        let news = notes
            .iter()
            .filter_map(|said| news(request, said))
            .collect();
        notes.extend(signer.as_deref().and_then(end_of_signatures));
        Ok(Some(Outcome {
            notes: news,
            ..Outcome::unchanged(notes)
        }))
    }

    /// The signer of a resource that signs, or why there is none.
    async fn open_key(&self) -> Option<Result<Arc<dyn Signer>, Problem>> {
        let key = self.request.key.as_ref()?;
        let opened = timeout_at(self.deadline, self.engine.signers.open(key, self.now)).await;
        if let Ok(Ok(signer)) = &opened
            && let Some(end) = signer.ends()
        {
            let _ = self.signatures_end.set(end);
        }
        Some(match opened {
            Ok(opened) => opened.map_err(|error| key.problem(&error)),
            Err(_) => Err(Problem::new(
                Reason::Progressing,
                "the key is not open yet: keys are opened one after the other",
            )),
        })
    }

    /// The signer, where there is one.
    pub(super) fn signer(&self) -> Option<&dyn Signer> {
        self.signer.and_then(Result::ok)
    }

    /// A look at a settled image: `Some` where it is as status says, with what is to be said of its tag. A digest without a tag is
    /// asked nothing.
    async fn look(&self) -> Result<Option<Vec<String>>, Failure> {
        let reference = &self.request.intent.reference;
        let seen = self.request.memory.image.as_ref();
        match (&reference.tag, &reference.digest) {
            (_, Some(digest)) if seen != Some(digest) => Ok(None),
            (Some(_), Some(_)) => Ok(Some(self.ask_of_tag().await.into_iter().collect())),
            (Some(tag), None) => {
                let head = self.session.head(&Locator::Tag(tag.clone())).await?;
                Ok((seen == Some(&head.digest)).then(Vec::new))
            }
            (None, _) => Ok(Some(Vec::new())),
        }
    }

    /// Bounds work by the pass's deadline.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline, work)
            .await
            .map_err(|_| self.timed_out())
    }

    /// A pass that time has cut short. What it did stays, and a registry that is slow now may not be so later: whichever of the two
    /// limits it was, it is tried again.
    pub(super) fn timed_out(&self) -> Failure {
        let (asked, allowed) = (
            self.request.timeout,
            self.engine.options.bounded(self.request.timeout),
        );
        let (host, asked_seconds) = (&self.request.intent.reference.host, asked.as_secs_f64());
        let message = if allowed < asked {
            format!(
                "{host} is slow: the pass was not done within {} s, the operator's limit for one pass (--max-pass-time), where spec.timeout \
                 asks for {asked_seconds} s",
                allowed.as_secs_f64()
            )
        } else {
            format!("{host} did not answer within spec.timeout ({asked_seconds} s)")
        };
        Failure::new(Reason::RegistryUnavailable, message)
    }
}
