//! The cache of which repositories have the referrers API.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::client::locks::Locks;
use crate::client::options::ListingSource;
use crate::oci::Repository;

/// Caches which repositories of a registry have the referrers API, and lets one task at a time find out.
#[derive(Default)]
pub(crate) struct ReferrersSupport {
    known: Mutex<HashMap<Repository, (ListingSource, Instant)>>,
    probes: Locks<Repository>,
}

impl ReferrersSupport {
    /// The time after which a repository without the API is probed again.
    const MAX_AGE: Duration = Duration::from_hours(1);
    /// Repositories in the cache.
    const MAX_REPOSITORIES: usize = 10_000;

    /// Returns the cached result at `now`.
    pub(crate) fn of(&self, repository: &Repository, now: Instant) -> Option<ListingSource> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (source, at) = known.get(repository)?;
        let is_current = now.duration_since(*at) < Self::MAX_AGE;
        (*source == ListingSource::Api || is_current).then_some(*source)
    }

    /// Begins a probe, which ends when the guard is dropped. Returns `None` while another task probes.
    pub(crate) fn begin_probe(&self, repository: &Repository) -> Option<OwnedMutexGuard<()>> {
        self.probes.of(repository.clone()).try_lock_owned().ok()
    }

    /// Waits for the end of a probe, which may have failed.
    pub(crate) async fn wait_for_probe(&self, repository: &Repository) {
        let probe = self.probes.of(repository.clone());
        drop(probe.lock().await);
    }

    /// Records that the repository has the API. This result does not expire.
    pub(crate) fn has_api(&self, repository: &Repository, now: Instant) {
        self.record(repository, ListingSource::Api, now);
    }

    /// Records that the repository has no API, unless the API has answered before.
    pub(crate) fn lacks_api(&self, repository: &Repository, now: Instant) {
        self.record(repository, ListingSource::FallbackTag, now);
    }

    fn record(&self, repository: &Repository, source: ListingSource, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MAX_REPOSITORIES && !known.contains_key(repository) {
            known.retain(|_, (source, at)| {
                *source == ListingSource::Api && now.duration_since(*at) < Self::MAX_AGE * 24
            });
            // A hostile registry can have any number of repositories, so the older half is removed.
            if known.len() >= Self::MAX_REPOSITORIES {
                let mut times: Vec<Instant> = known.values().map(|(_, at)| *at).collect();
                let middle = *times.select_nth_unstable(Self::MAX_REPOSITORIES / 2).1;
                known.retain(|_, (_, at)| *at > middle);
            }
        }
        let entry = known.entry(repository.clone()).or_insert((source, now));
        if entry.0 == ListingSource::FallbackTag || source == ListingSource::Api {
            *entry = (source, now);
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_cache_of_repositories_is_bounded_and_keeps_the_newest() {
        let support = ReferrersSupport::default();
        let repository = |nth: usize| format!("team/app-{nth}").parse::<Repository>().unwrap();
        let all = 5 * ReferrersSupport::MAX_REPOSITORIES / 2;
        for nth in 0..all {
            tokio::time::advance(Duration::from_millis(1)).await;
            support.has_api(&repository(nth), Instant::now());
            support.has_api(&repository(nth), Instant::now());
        }
        let many = support.known.lock().unwrap().len();
        assert!(
            (ReferrersSupport::MAX_REPOSITORIES / 2..=ReferrersSupport::MAX_REPOSITORIES)
                .contains(&many),
            "{many}"
        );
        let newest = all - ReferrersSupport::MAX_REPOSITORIES / 2 + 1..all;
        assert!(newest.into_iter().all(|nth| support.of(&repository(nth), Instant::now()) == Some(ListingSource::Api)));
    }
}
