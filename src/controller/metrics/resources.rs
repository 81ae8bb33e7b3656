//! The state of all watched resources, counted at each scrape.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::api::TargetState;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::summary::{STATES, Summary};
use crate::service::Leadership;

use super::conditions::{ConditionCounts, gauge};

/// The caches of the watches, and the expiry of signing certificates by UID.
#[derive(Default)]
pub(crate) struct Resources {
    watches: Mutex<Vec<Watch>>,
    certificates: Mutex<HashMap<String, Timestamp>>,
}

/// The cache of one watch. Only the leader counts it, or each standby would add to the sum over all replicas.
#[derive(Clone)]
struct Watch {
    store: Store<CacheEntry>,
    leadership: Arc<Leadership>,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resources")
    }
}

impl Resources {
    /// Adds the cache of a watch.
    pub(crate) fn add(&self, store: Store<CacheEntry>, leadership: Arc<Leadership>) {
        self.watches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Watch { store, leadership });
    }

    /// Records the expiry of the signatures of a resource. `None`: they do not expire.
    pub(crate) fn set_signatures_end(&self, uid: &str, end: Option<Timestamp>) {
        let mut certificates = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match end {
            Some(end) => drop(certificates.insert(uid.to_owned(), end)),
            None => drop(certificates.remove(uid)),
        }
    }

    fn count(&self) -> Counts {
        let watches = self
            .watches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let stores = watches
            .iter()
            .filter(|watch| watch.leadership.epoch().is_some())
            .map(|watch| &watch.store);
        let mut counts = Counts::default();
        let mut certificates = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut present = HashSet::new();
        for object in stores.flat_map(Store::state) {
            let Some(summary) = object.summary() else {
                continue;
            };
            counts.add(
                object.meta().namespace.as_deref().unwrap_or_default(),
                summary,
            );
            if !certificates.is_empty() {
                present.extend(object.uid());
            }
        }
        certificates.retain(|uid, _| present.contains(uid));
        counts.first_expiry = certificates.values().min().copied();
        counts
    }
}

/// The number of resources and targets in each state.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    conditions: ConditionCounts,
    targets: BTreeMap<TargetState, u64>,
    first_expiry: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, namespace: &str, summary: &Summary) {
        self.conditions.add(
            namespace,
            summary.is_suspended,
            summary.has_ready,
            summary.conditions.iter().flatten().copied(),
        );
        for (state, count) in STATES
            .into_iter()
            .zip(summary.targets)
            .filter(|(_, count)| *count > 0)
        {
            *self.targets.entry(state).or_default() += u64::from(count);
        }
    }
}

impl Collector for Resources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counts = self.count();
        let help = "Resources by namespace and by the type, status and reason of their conditions; a suspended one has the reason Suspended";
        let suspended = (
            "affix_suspended_resources",
            "Suspended resources by namespace",
        );
        let conditions = ("affix_resource_conditions", help);
        counts
            .conditions
            .encode(&mut encoder, [conditions, suspended])?;
        let mut metric = encoder.encode_descriptor(
            "affix_targets",
            "Targets of all resources, by state",
            None,
            MetricType::Gauge,
        )?;
        for state in STATES {
            let count = counts.targets.get(&state).copied().unwrap_or_default();
            gauge(&mut metric, &[("state", &format!("{state:?}"))], count)?;
        }
        if let Some(end) = counts.first_expiry {
            let help = "Expiry of the first certificate in use, in seconds since the epoch";
            let name = "affix_certificate_expiry_timestamp";
            let mut metric =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            gauge(
                &mut metric,
                &[("use", "signing")],
                u64::try_from(end.as_second()).unwrap_or_default(),
            )?;
        }
        Ok(())
    }
}
