//! The loop of the operator: what has changed or is due waits in the queue, and is visited as soon as there is a turn for it.
//!
//! All of it runs in the task that follows the watches, so a visit begins with what they have brought, and not with less.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;

use crate::controller::context::Context;
use crate::controller::reconcile::reconciler::{Begun, line_of, reconcile};
use crate::controller::watch::cache::{Name, Stored};
use crate::controller::workqueue::alarms::Alarms;
use crate::controller::workqueue::queue::{Line, Queue};

/// A resource to be visited, as a watch tells it.
pub(crate) type Arrival = (Arc<Name>, Line);

/// What the watches have brought: of all namespaces in one, or of some in one each.
#[derive(Default)]
pub(crate) struct Stores(HashMap<Option<Box<str>>, Store<Stored>>);

impl Stores {
    /// Adds the store of a watch: of one namespace, or of all.
    pub(crate) fn add(&mut self, namespace: Option<&str>, store: Store<Stored>) {
        self.0.insert(namespace.map(Into::into), store);
    }

    fn get(&self, name: &Name) -> Option<Arc<Stored>> {
        self.0
            .get(name.namespace())
            .or_else(|| self.0.get(&None))?
            .get(&name.key())
    }
}

/// Visits what arrives and what is due, until `shutdown`; then it waits for the visits under way.
pub(crate) async fn visit_all(
    context: Arc<Context>,
    stores: Stores,
    arrivals: impl Stream<Item = Arrival> + Unpin,
    alarms: Arc<Alarms>,
    shutdown: CancellationToken,
) {
    let (mut arrivals, mut queue, mut visits) = (arrivals, Queue::default(), JoinMap::new());
    let metrics = &context.metrics.queue;
    loop {
        let leads = context.leadership.term().is_some();
        while leads && let Some(taken) = queue.take(|line| context.lanes.offer(line)) {
            metrics.began(taken.since.elapsed());
            let Some(object) = stores.get(&taken.name) else {
                queue.finished(&taken.name, Instant::now());
                continue;
            };
            alarms.cancel(&taken.name);
            let begun = Begun::with(&object, Arc::clone(&context));
            visits.spawn(taken.name, reconcile(object, begun, taken.turn));
        }
        // Who stands by has nothing to do yet.
        metrics.set_depth(if leads { queue.len() } else { 0 });
        let mut add = |name, line| {
            metrics.added();
            queue.add(name, line, Instant::now());
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some((name, next)) = visits.join_next() => {
                let next = next.unwrap_or_else(|_| {
                    context.metrics.reconciles.panicked();
                    Some(context.options.max_retry_delay)
                });
                if let Some(at) = next.and_then(|next| Instant::now().checked_add(next)) {
                    alarms.set(Arc::clone(&name), at);
                }
                queue.finished(&name, Instant::now());
            }
            Some((name, line)) = arrivals.next() => add(name, line),
            name = alarms.next() => {
                if let Some(object) = stores.get(&name) {
                    add(name, line_of(&object, false));
                }
            }
            true = context.leadership.begun(), if !leads => {}
        }
    }
    while visits.join_next().await.is_some() {}
}
