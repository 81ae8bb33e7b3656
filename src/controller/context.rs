//! The state that all reconciliations share.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, PassEvent};
use crate::identity::Identities;
use crate::service::Leadership;

use super::metrics::Metrics;
use super::options::Options;
use super::reconcile::events::Events;
use super::reconcile::object_state::ObjectStates;
use super::sets::memory::SetMemory;
use super::watch::crd_check::CrdCheck;
use super::watch::quota::Quotas;
use super::watch::repository_index::RepositoryIndex;
use super::workqueue::limiter::ConcurrencyLimiter;

/// The state that all reconciliations share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) engine: Engine,
    pub(crate) options: Options,
    /// The logins of clouds, if they are enabled.
    pub(crate) identities: Option<Identities>,
    pub(crate) states: ObjectStates,
    pub(crate) repositories: RepositoryIndex,
    pub(crate) quotas: Quotas,
    pub(crate) sets: SetMemory,
    pub(crate) set_quotas: Quotas,
    pub(crate) limiter: ConcurrencyLimiter,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) crd_check: Arc<CrdCheck>,
    pub(crate) set_crd_check: Arc<CrdCheck>,
    pub(crate) shutdown: CancellationToken,
    events: Events,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        engine: Engine,
        options: Options,
        metrics: Arc<Metrics>,
        leadership: Arc<Leadership>,
        [crd_check, set_crd_check]: [Arc<CrdCheck>; 2],
        shutdown: CancellationToken,
    ) -> Self {
        let quotas = |kind| {
            Quotas::new(
                kind,
                options.max_resources_per_namespace,
                options.max_resource_bytes_per_namespace,
            )
        };
        Self {
            events: Events::new(client.clone()),
            limiter: ConcurrencyLimiter::new(options.concurrent),
            states: ObjectStates::default(),
            repositories: RepositoryIndex::new(&client, &options),
            quotas: quotas("ImageAttachments"),
            sets: SetMemory::default(),
            set_quotas: quotas("ImageAttachmentSets"),
            identities: options.identities(&client),
            client,
            engine,
            options,
            metrics,
            leadership,
            crd_check,
            set_crd_check,
            shutdown,
        }
    }

    /// Publishes an event. A failure is logged and fails nothing else.
    pub(crate) async fn publish<K>(&self, object: &K, event: &PassEvent)
    where
        K: Resource<DynamicType = ()>,
    {
        let regarding = object.object_ref(&());
        if let Err(error) = self
            .events
            .publish(&regarding, event, Timestamp::now())
            .await
        {
            tracing::warn!(
                namespace = object.namespace(),
                name = object.name_any(),
                reason = event.reason.as_str(),
                %error,
                "event not published"
            );
        }
    }
}
