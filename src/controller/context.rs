//! What all reconciliations share.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource as _, ResourceExt as _};
use std::sync::Arc;

use crate::api::{ImageAttachment, Reason};
use crate::engine::{Draft, Engine, Failure, Journal, Note, status_in_progress};

use super::leader::leadership::Leadership;
use super::metrics::Metrics;
use super::options::Options;
use super::reconcile::events::Events;
use super::reconcile::object_state::Objects;
use super::reconcile::status_writer::Ledger;
use super::watch::crd_check::Definition;
use super::watch::repository_index::Neighbours;
use super::workqueue::limiter::Lanes;

/// The field manager of everything that affix writes to the API server.
pub(crate) const MANAGER: &str = "affix";
/// The client has no time-out of its own for reads.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(30);

/// Shared by all reconciliations.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) engine: Engine,
    pub(crate) options: Options,
    pub(crate) objects: Objects,
    pub(crate) neighbours: Neighbours,
    pub(crate) lanes: Lanes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) definition: Arc<Definition>,
    events: Events,
}

/// The API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// It refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The resource was deleted meanwhile: there is nothing to do for it any more.
    #[error("the resource is gone")]
    Gone,
    /// Others write the same object again and again.
    #[error("others keep writing the resource at the same time")]
    Contended,
    /// It did not answer.
    #[error("the API server did not answer within {} s", API_TIMEOUT.as_secs())]
    TimedOut,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        engine: Engine,
        options: Options,
        metrics: Arc<Metrics>,
        leadership: Arc<Leadership>,
        definition: Arc<Definition>,
    ) -> Self {
        let instance = std::env::var("HOSTNAME").ok();
        let events = Events::new(client.clone(), MANAGER, instance);
        let lanes = Lanes::new(options.concurrent);
        let (objects, neighbours) = (Objects::default(), Neighbours::default());
        Self {
            client,
            engine,
            options,
            objects,
            neighbours,
            lanes,
            metrics,
            leadership,
            definition,
            events,
        }
    }

    /// Bounds a call to the API server.
    pub(crate) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        Ok(tokio::time::timeout(API_TIMEOUT, call)
            .await
            .map_err(|_| ClusterError::TimedOut)??)
    }

    /// Publishes an event; one that fails fails nothing.
    pub(crate) async fn publish(&self, object: &ImageAttachment, note: &Note) {
        let published = self
            .bounded(
                self.events
                    .tell(&object.object_ref(&()), note, Timestamp::now()),
            )
            .await;
        if let Err(error) = published {
            let (namespace, name, reason) =
                (object.namespace(), object.name_any(), note.reason.as_str());
            tracing::warn!(namespace, name, %error, reason, "an event was not published");
        }
    }
}

/// Writes down in status what a pass is about to push.
pub(crate) struct StatusJournal<'a> {
    pub(crate) ledger: &'a Ledger<'a>,
    pub(crate) object: &'a ImageAttachment,
    pub(crate) now: Timestamp,
}

impl Journal for StatusJournal<'_> {
    async fn save(&self, draft: &Draft<'_>) -> Result<(), Failure> {
        let previous = self.object.status.clone().unwrap_or_default();
        let generation = self.object.metadata.generation.unwrap_or_default();
        let written = self
            .ledger
            .write(&status_in_progress(&previous, draft, generation, self.now))
            .await;
        written.map_err(|error| {
            Failure::new(
                Reason::Progressing,
                format_args!("status cannot be saved before the registry is written to: {error}"),
            )
        })
    }
}
