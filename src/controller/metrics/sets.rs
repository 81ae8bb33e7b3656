//! The state of all watched sets, counted at each scrape.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::controller::sets::entry::SetEntry;
use crate::service::Leadership;

use super::conditions::{ConditionCounts, gauge};

/// The caches of the watches of sets. Only the leader counts them, or each standby would add to the sum over all replicas.
#[derive(Default)]
pub(crate) struct Sets(Mutex<Vec<(Store<SetEntry>, Arc<Leadership>)>>);

impl fmt::Debug for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sets")
    }
}

impl Sets {
    /// Adds the cache of a watch.
    pub(crate) fn add(&self, store: Store<SetEntry>, leadership: Arc<Leadership>) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push((store, leadership));
    }

    /// Returns the UIDs of all cached sets.
    pub(crate) fn uids(&self) -> HashSet<String> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = watches.iter().flat_map(|(store, _)| store.state());
        sets.filter_map(|set| set.uid()).collect()
    }
}

impl Collector for Sets {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let watches = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let leading = watches
            .iter()
            .filter(|(_, leadership)| leadership.epoch().is_some());
        let mut counts = ConditionCounts::default();
        let (mut children, mut ready) = (0, 0);
        for set in leading.flat_map(|(store, _)| store.state()) {
            let Some(summary) = set.summary() else {
                continue;
            };
            counts.add(
                set.meta().namespace.as_deref().unwrap_or_default(),
                summary.is_suspended,
                summary.has_ready,
                summary.conditions.iter().flatten().copied(),
            );
            children += u64::from(summary.children);
            ready += u64::from(summary.ready);
        }
        let help = "Sets by namespace and by the type, status and reason of their conditions; a suspended one has the reason Suspended";
        let suspended = ("affix_suspended_sets", "Suspended sets by namespace");
        counts.encode(&mut encoder, [("affix_set_conditions", help), suspended])?;
        let help = "Children of all sets, by whether they are ready";
        let name = "affix_set_children";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[("ready", "true")], ready)?;
        gauge(
            &mut metric,
            &[("ready", "false")],
            children.saturating_sub(ready),
        )
    }
}
