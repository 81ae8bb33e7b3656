//! The main loop: it queues resources that have changed or are due, and reconciles them as permits become free.
//!
//! The loop runs in the task that polls the watches, so a reconcile starts with everything that the watches have delivered.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;

use crate::controller::context::Context;
use crate::controller::reconcile::reconciler::{InFlight, reconcile};
use crate::controller::sets::reconcile::reconcile_set;
use crate::controller::watch::resource_watch::WatchEvent;
use crate::controller::workqueue::caches::{Caches, Entry};
use crate::controller::workqueue::flow::Flow;
use crate::controller::workqueue::queue::WorkQueue;

/// Reconciles until `shutdown`, then waits for the reconciles in flight.
pub(crate) async fn run_workers(
    context: Arc<Context>,
    caches: Caches,
    mut events: impl Stream<Item = WatchEvent> + Unpin,
    shutdown: CancellationToken,
) {
    let (mut queue, mut workers) = (WorkQueue::default(), JoinMap::new());
    let caches = Arc::new(caches);
    let metrics = &context.metrics.queue;
    loop {
        let is_leader = context.leadership.epoch().is_some();
        while is_leader && let Some(taken) = queue.take(|flow| context.limiter.try_acquire(flow)) {
            metrics.observe_wait(taken.queued_at.elapsed());
            let Some(entry) = caches.get(&taken.name) else {
                queue.finish(&taken.name, None);
                continue;
            };
            match entry {
                Entry::Attachment(entry) => {
                    let in_flight = InFlight::start(&entry, Arc::clone(&context));
                    workers.spawn(taken.name, reconcile(entry, in_flight, taken.permit));
                }
                Entry::Set(entry) => {
                    let (context, caches) = (Arc::clone(&context), Arc::clone(&caches));
                    let work = reconcile_set(entry, caches, context, taken.permit);
                    workers.spawn(taken.name, work);
                }
            }
        }
        // The queue of a standby is not a backlog.
        metrics.set_depth(if is_leader { queue.len() } else { 0 });
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some((name, requeue_after)) = workers.join_next() => {
                let requeue_after = requeue_after.unwrap_or_else(|_| {
                    context.metrics.reconciles.count_panic();
                    Some(context.options.max_retry_delay)
                });
                queue.finish(&name, requeue_after);
            }
            Some(event) = events.next() => match event {
                WatchEvent::Changed(name, flow, due) => {
                    metrics.count_add();
                    queue.add_until(&name, flow, due);
                }
                WatchEvent::Deleted(name) => queue.cancel_delay(&name),
            },
            name = queue.next_due() => if let Some(entry) = caches.get(&name) {
                metrics.count_add();
                if queue.is_queued(&name) {
                    // A deletion whose time is over leaves its flow.
                    queue.add(name, Flow::unlimited(entry.namespace()));
                } else {
                    let longest_wait = entry.longest_wait(context.options.deletion_timeout);
                    queue.add_until(&name, entry.flow(), longest_wait);
                }
            },
            // Without this, the queue would wait for the next event although a permit is free.
            () = context.limiter.left() => {}
            true = context.leadership.started(), if !is_leader => {}
        }
    }
    while workers.join_next().await.is_some() {}
}
