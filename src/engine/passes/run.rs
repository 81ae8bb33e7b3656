//! The engine: runs a pass within its time limit.

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::api::{PushAccess, Reason, SignatureFormat};
use crate::attachment::{Desired, Problem};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::Journal;
use crate::engine::observe::prefetch::Prefetch;
use crate::engine::observe::resolve;
use crate::engine::options::EngineOptions;
use crate::engine::report::outcome::{Outcome, Report};
use crate::engine::report::verdict::Verdict;
use crate::engine::request::build::{Mode, Request};
use crate::engine::request::key_cache::KeyCache;
use crate::signing::{KeyError, KeylessSigner, KmsKeys, Signer};
use affix_registry::oci::{Descriptor, Digest, Reference};
use affix_registry::{Access, Registries, RegistryError, Session};

use super::delete::{self, Deleted, Deletion};
use super::reconcile_targets::Resolution;
use super::{attach, detach, fast_path, supersede, tag_drift};

/// Runs passes. All resources of a process share one engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    registries: Registries,
    keys: Arc<KeyCache>,
    kms: Arc<KmsKeys>,
    options: EngineOptions,
}

type OpenedKey = Result<Arc<dyn Signer>, Problem>;

impl Engine {
    /// Returns an engine that uses the registry clients of the process.
    #[must_use]
    pub fn new(registries: Registries, options: EngineOptions) -> Self {
        Self {
            registries,
            keys: Arc::default(),
            kms: Arc::default(),
            options,
        }
    }

    /// Returns the registry clients of the engine.
    #[must_use]
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    pub(in crate::engine) const fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Runs one pass. The outcome holds every failure. The pass ends within the time limit of the request, except for the time that
    /// `journal` takes.
    pub async fn run(
        &self,
        request: &Request,
        journal: &impl Journal,
        claims: &impl Claims,
        now: Timestamp,
    ) -> Outcome {
        let deadline = Instant::now() + self.options.bounded(request.timeout);
        let reference = &request.intent.reference;
        let session = match self.open(reference, &request.access, deadline) {
            Ok(session) => session.with_priority(request.priority),
            Err(error) => return Outcome::failed(&error.into()),
        };
        let context = Context {
            options: &self.options,
            limits: &self.registries.options().limits,
            request,
            session: &session,
            signer: None,
            deadline,
            now,
        };
        let mut signing = Signing::default();
        let span = tracing::debug_span!("pass", image = %reference);
        let outcome = self
            .run_pass(&context, journal, claims, &mut signing)
            .instrument(span)
            .await
            .unwrap_or_else(|failure| Outcome::failed(&failure));
        let push_access = if request.asks_push_access && outcome.has_adopted() {
            push_access(&context).await
        } else {
            None
        };
        Outcome {
            requests: session.requests(),
            signatures_end: signing.end,
            key: signing.key,
            push_access,
            ..outcome
        }
    }

    /// Removes the attachments that a pass of [`Mode::Detach`] has `found` for `request`. An attachment that could not be removed is a
    /// failed target and stays a leftover.
    pub async fn detach(&self, request: &Request, found: Outcome) -> Outcome {
        let deadline = Instant::now() + self.options.bounded(request.timeout);
        match self.open(&request.intent.reference, &request.access, deadline) {
            Ok(session) => detach::remove(&session, found, deadline).await,
            Err(error) => Outcome {
                verdict: Verdict::failed(&error.into()),
                ..found
            },
        }
    }

    /// Removes the attachments of a deleted resource that no other resource claims. The call is idempotent.
    pub async fn delete(&self, deletion: &Deletion, claims: &impl Claims) -> Deleted {
        if deletion.count() == 0 {
            return Deleted::default();
        }
        let deadline = Instant::now() + self.options.bounded(deletion.timeout);
        match self.open(&deletion.reference, &deletion.access, deadline) {
            Ok(session) => delete::remove(&session, deletion, claims, deadline).await,
            Err(error) => Deleted {
                failed: Some(error.into()),
                ..Deleted::default()
            },
        }
    }

    fn open(
        &self,
        reference: &Reference,
        access: &Access,
        deadline: Instant,
    ) -> Result<Session, RegistryError> {
        let session =
            self.registries
                .open(&reference.host, &reference.repository, access.clone())?;
        Ok(session.until(deadline))
    }

    /// Tries the fast path, then runs the whole pass.
    async fn run_pass(
        &self,
        context: &Context<'_>,
        journal: &impl Journal,
        claims: &impl Claims,
        signing: &mut Signing,
    ) -> Result<Outcome, Failure> {
        if fast_path::is_possible(context) {
            let key = self.open_key(context).boxed().await;
            let signer = as_signer(key.as_ref());
            *signing = Signing::of(signer);
            if fast_path::is_unchanged(context, signer).await? {
                return Ok(Outcome::unchanged());
            }
        }
        // Boxed: the future of the whole pass is large, and each move would copy it.
        let work = self.work(context, journal, claims, signing).boxed();
        tag_drift::join(context, work).await.map(Outcome::from)
    }

    async fn work(
        &self,
        context: &Context<'_>,
        journal: &impl Journal,
        claims: &impl Claims,
        signing: &mut Signing,
    ) -> Result<Report, Failure> {
        let request = context.request;
        let prefetch = Prefetch::default();
        let formats = request.intent.desired.formats();
        let has_referrers = formats.contains(&SignatureFormat::Bundle);
        // Every referrer needs the empty blob, so its check runs concurrently with the fetch of the image.
        let check_empty = async {
            match request.mode {
                Mode::Attach if has_referrers => context
                    .session
                    .has_blob(&Descriptor::empty().digest)
                    .await
                    .unwrap_or(false),
                Mode::Attach | Mode::Plan | Mode::Detach => true,
            }
        };
        if has_referrers {
            prefetch.start_root(context);
        }
        let resolve = async {
            let resolved =
                resolve::resolve(context.session, &request.intent.reference, context.limits).await;
            // A tag that is only watched gets nothing.
            let is_signed = request.key.is_some()
                && !matches!(request.intent.desired, Desired::WhenSuperseded(_));
            if let (Ok(resolved), true) = (&resolved, is_signed && has_referrers) {
                prefetch.start_targets(context, &resolved.image);
            }
            resolved
        };
        let (found, key) = tokio::join!(
            context.in_time(async { tokio::join!(resolve, check_empty) }),
            // Boxed: its future, with the requests to services, would be a part of that of the pass.
            self.open_key(context).boxed()
        );
        let signer = as_signer(key.as_ref());
        *signing = Signing::of(signer);
        let (resolved, has_empty_blob) = found?;
        let context = &Context { signer, ..*context };
        let wanted = match &request.intent.desired {
            Desired::WhenSuperseded(_) if request.mode == Mode::Detach => {
                return Err(Failure::new(
                    Reason::InvalidSpec,
                    "spec.endOfLife.whenSuperseded: its marks carry dates that only the status of a cluster's resource knows: give the digest in \
                     spec.image and the date in spec.endOfLife.date",
                ));
            }
            Desired::WhenSuperseded(wanted) => Some(wanted),
            Desired::Content { .. } | Desired::Signature { .. } | Desired::Attestation { .. } => {
                None
            }
        };
        let resolution = Resolution {
            resolved: resolved?,
            has_empty_blob,
            prefetch: &prefetch,
        };
        match wanted {
            Some(wanted) => {
                supersede::supersede(context, wanted, &resolution, journal, claims).await
            }
            None => attach::attach(context, &resolution, journal, claims).await,
        }
    }

    /// Opens the key of a resource that signs, and the way to the services that log and timestamp its signatures.
    async fn open_key(&self, context: &Context<'_>) -> Option<OpenedKey> {
        let key = context.request.key.as_ref()?;
        // The rest of the time is for the push, and for the services' own failure instead of that of the pass.
        let left = context.deadline.saturating_duration_since(Instant::now());
        let deadline = context.deadline - left / 4;
        let publisher = key.trust().map(|trust| {
            let publisher = trust.publisher(&self.registries, context.now, deadline);
            Arc::new(publisher)
        });
        if let (Some((identity, annotations)), Some(publisher)) = (key.keyless(), &publisher) {
            let (publisher, annotations) = (Arc::clone(publisher), annotations.clone());
            let opened = KeylessSigner::open(publisher, identity.clone(), annotations).await;
            let opened = opened.map(|signer| Arc::new(signer) as Arc<dyn Signer>);
            return Some(opened.map_err(|error| key.problem(&error)));
        }
        let opened = self.open_private_key(context).boxed().await?;
        if let Some(timestamps) = key.timestamps() {
            let timestamper = Arc::new(timestamps.timestamper(&self.registries, deadline));
            let timestamping = |signer: Arc<dyn Signer>| {
                let timestamping = signer.timestamping(timestamper);
                timestamping.ok_or_else(|| key.problem(&KeyError::Unable.into()))
            };
            return Some(opened.and_then(timestamping));
        }
        let Some(publisher) = publisher else {
            return Some(opened);
        };
        let publishing = |signer: Arc<dyn Signer>| {
            let publishing = signer.publishing(publisher);
            publishing.map_err(|error| key.problem(&error.into()))
        };
        Some(opened.and_then(publishing))
    }

    async fn open_private_key(&self, context: &Context<'_>) -> Option<OpenedKey> {
        let request = context.request;
        let key = request.key.as_ref()?;
        if let Some((of_service, annotations)) = key.kms() {
            let opened = self.kms.cosign_signer(
                &self.registries,
                of_service,
                annotations.clone(),
                (context.deadline, request.verify),
            );
            let opened = opened
                .await
                .map(|signer| Arc::new(signer) as Arc<dyn Signer>);
            return Some(opened.map_err(|error| key.problem(&error)));
        }
        let opened = timeout_at(context.deadline, self.keys.open(key, context.now)).await;
        Some(match opened {
            Ok(opened) => opened.map_err(|error| key.problem(&error.into())),
            Err(_) => Err(Problem::new(
                Reason::Progressing,
                "the key is not open yet: keys are opened one after the other",
            )),
        })
    }
}

/// Asks the registry for the right to push. `None`: it gave no clear answer.
async fn push_access(context: &Context<'_>) -> Option<PushAccess> {
    match context.in_time(context.session.may_push()).await {
        Ok(Ok(true)) => Some(PushAccess::Accepted),
        Ok(Ok(false)) => Some(PushAccess::Refused),
        Ok(Err(_)) | Err(_) => None,
    }
}

fn as_signer(key: Option<&OpenedKey>) -> Option<Result<&Arc<dyn Signer>, &Problem>> {
    key.map(OpenedKey::as_ref)
}

/// The properties of the opened key that the outcome reports.
#[derive(Default)]
struct Signing {
    /// The time at which its signatures end.
    end: Option<Timestamp>,
    key: Option<Digest>,
}

impl Signing {
    fn of(signer: Option<Result<&Arc<dyn Signer>, &Problem>>) -> Self {
        let signer = signer.and_then(Result::ok);
        Self {
            end: signer.and_then(|signer| signer.ends()),
            key: signer.map(|signer| signer.key_id()),
        }
    }
}
