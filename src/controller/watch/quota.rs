//! The quota of a namespace: the number of its resources and the sum of their sizes (threat T36).
//!
//! The oldest resources have the quota. The others are reported and not reconciled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use crate::api::Reason;
use crate::attachment::Problem;

/// The quota of every namespace, and the resources that count against it.
#[derive(Debug)]
pub(crate) struct Quotas {
    /// The plural of the kind, for messages.
    kind: &'static str,
    /// The most resources.
    max_resources: usize,
    /// The most bytes of spec and status.
    max_bytes: u64,
    namespaces: Mutex<HashMap<String, Usage>>,
}

/// The resources of a namespace, the oldest first.
#[derive(Debug, Default)]
struct Usage {
    sizes: BTreeMap<Age, u64>,
    created: HashMap<String, Option<Timestamp>>,
    bytes: u64,
}

/// The creation time and the UID of a resource.
type Age = (Option<Timestamp>, String);

impl Quotas {
    /// `kind` is the plural of the kind, for messages.
    pub(crate) fn new(kind: &'static str, max_resources: usize, max_bytes: u64) -> Self {
        Self {
            kind,
            max_resources,
            max_bytes,
            namespaces: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Usage>> {
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a resource as the watch delivers it.
    pub(crate) fn observe(&self, meta: &ObjectMeta, size: Option<usize>) {
        let size = size.map_or(0, |size| size as u64);
        let created = meta.creation_timestamp.as_ref().map(|created| created.0);
        let uid = meta.uid.clone().unwrap_or_default();
        let mut namespaces = self.lock();
        let usage = namespaces
            .entry(meta.namespace.clone().unwrap_or_default())
            .or_default();
        usage.remove(&uid);
        usage.bytes += size;
        usage.created.insert(uid.clone(), created);
        usage.sizes.insert((created, uid), size);
    }

    /// Removes a deleted resource.
    pub(crate) fn remove(&self, meta: &ObjectMeta) {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut namespaces = self.lock();
        if let Some(usage) = namespaces.get_mut(namespace) {
            usage.remove(meta.uid.as_deref().unwrap_or_default());
            if usage.sizes.is_empty() {
                namespaces.remove(namespace);
            }
        }
    }

    /// Removes all other resources.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|_, usage| {
            let gone: Vec<String> = usage
                .created
                .keys()
                .filter(|uid| !uids.contains(*uid))
                .cloned()
                .collect();
            gone.iter().for_each(|uid| usage.remove(uid));
            !usage.sizes.is_empty()
        });
    }

    /// Returns the problem of a resource that exceeds the quota of its namespace.
    pub(crate) fn problem(&self, namespace: &str, uid: &str) -> Option<Problem> {
        let namespaces = self.lock();
        let usage = namespaces.get(namespace)?;
        if usage.sizes.len() <= self.max_resources && usage.bytes <= self.max_bytes {
            return None;
        }
        let mut bytes = 0;
        for (position, ((_, listed), size)) in usage.sizes.iter().enumerate() {
            bytes += size;
            let over = if position >= self.max_resources {
                let limit = self.max_resources;
                Some(format!(
                    "more than {limit} {}, the operator's limit (--max-resources-per-namespace)",
                    self.kind
                ))
            } else if bytes > self.max_bytes {
                let limit = self.max_bytes;
                Some(format!(
                    "{} of more than {limit} bytes, the operator's limit (--max-resource-bytes-per-namespace)",
                    self.kind
                ))
            } else {
                None
            };
            if listed == uid {
                let message = format!(
                    "namespace {namespace} has {}: the oldest are reconciled; delete some, or move files to ConfigMaps",
                    over?
                );
                return Some(Problem::new(Reason::LimitExceeded, message));
            }
        }
        None
    }
}

impl Usage {
    fn remove(&mut self, uid: &str) {
        if let Some(created) = self.created.remove(uid) {
            let size = self.sizes.remove(&(created, uid.to_owned()));
            self.bytes -= size.unwrap_or_default();
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(namespace: &str, uid: &str, created: &str) -> ObjectMeta {
        let meta =
            json!({"namespace": namespace, "name": uid, "uid": uid, "creationTimestamp": created});
        serde_json::from_value(meta).unwrap()
    }

    #[test]
    fn t36_the_oldest_resources_of_a_namespace_have_the_quota() {
        let quotas = Quotas::new("ImageAttachments", 2, 100_000);
        let over = |uid: &str| {
            let problem = quotas.problem("team", uid);
            problem.map(|problem| problem.message)
        };
        for (uid, day) in [("c", 3), ("a", 1), ("b", 2)] {
            quotas.observe(
                &meta("team", uid, &format!("2026-11-0{day}T00:00:00Z")),
                Some(10),
            );
        }
        quotas.observe(&meta("other", "d", "2026-11-09T00:00:00Z"), Some(10));
        assert_eq!((over("a"), over("b")), (None, None));
        assert!(over("c").unwrap().contains("--max-resources-per-namespace"));
        assert_eq!(quotas.problem("other", "d"), None);

        quotas.observe(&meta("team", "a", "2026-11-01T00:00:00Z"), Some(90_000));
        quotas.observe(&meta("team", "b", "2026-11-02T00:00:00Z"), Some(20_000));
        assert_eq!(over("a"), None);
        assert!(
            over("b")
                .unwrap()
                .contains("--max-resource-bytes-per-namespace")
        );

        quotas.remove(&meta("team", "a", "2026-11-01T00:00:00Z"));
        assert_eq!((over("b"), over("c")), (None, None));
        quotas.retain(&HashSet::from(["d".to_owned()]));
        assert!(quotas.lock().get("team").is_none());
    }
}
