//! Leader election with a Lease.
//!
//! Every change of the Lease is a `replace` with the resource version that was read, so only one of two candidates succeeds. A
//! standby measures the age of a Lease on its own monotonic clock, from the moment at which it saw the Lease change; it trusts
//! no wall clock. The leader counts from before it sent its last renewal, and stops writing well before a standby takes over.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::announcement::announce_leader;
use super::leadership::Leadership;
use super::options::LeaderElection;
use crate::service::{ApiServerError, OwningDeployment, Readiness, set_owner};

/// The time that the release of the Lease may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Receives whether this process leads.
type OnChange = Box<dyn Fn(bool) + Send + Sync>;

/// This process as a candidate.
pub(crate) struct Election {
    client: Client,
    leases: Api<Lease>,
    /// The owner of the Lease.
    owner: Option<OwningDeployment>,
    options: LeaderElection,
    identity: String,
    leadership: Arc<Leadership>,
    readiness: Arc<Readiness>,
    on_change: OnChange,
    state: State,
}

/// The state of the candidate.
enum State {
    /// It observes the Lease; its last observation.
    Standby(Option<Observation>),
    /// It holds the Lease, as last written, and leads until `until` unless it renews it.
    Leading { lease: Box<Lease>, until: Instant },
}

/// A version of the Lease, and the time since which it has not changed.
struct Observation {
    version: Option<String>,
    since: Instant,
}

/// Returns a unique name for this process: the pod's name, and a random part that tells restarts apart.
pub(crate) fn identity() -> String {
    let name = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty());
    format!(
        "{}_{:016x}",
        name.as_deref().unwrap_or("affix"),
        rand::random::<u64>()
    )
}

impl Election {
    /// Returns a candidate. `on_change` receives whether it leads.
    pub(crate) fn new(
        (client, namespace): (Client, &str),
        options: LeaderElection,
        leadership: Arc<Leadership>,
        readiness: Arc<Readiness>,
        on_change: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        let owner = options
            .owner
            .clone()
            .map(|name| OwningDeployment::new(client.clone(), namespace, name));
        let election = Self {
            leases: Api::namespaced(client.clone(), namespace),
            client,
            owner,
            options,
            identity: identity(),
            leadership,
            readiness,
            on_change: Box::new(on_change),
            state: State::Standby(None),
        };
        election.readiness.wait_for(election.readiness_check());
        (election.on_change)(false);
        election
    }

    fn readiness_check(&self) -> String {
        format!("the first read of the lease {}", self.options.name)
    }

    /// Takes part in the election until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        loop {
            let pause = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pause = self.step() => pause,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        if self.leadership.epoch().is_none() {
            self.leadership.stop();
        }
        self
    }

    /// Stops writing and releases the Lease, so that the next leader does not have to wait for its end.
    pub(crate) async fn release(self) {
        let was_leader = self.leadership.epoch().is_some();
        self.leadership.stop();
        if !was_leader {
            return;
        }
        (self.on_change)(false);
        let released = timeout(RELEASE_TIMEOUT, async {
            loop {
                let Some(mut lease) = self.leases.get_opt(&self.options.name).await? else {
                    return Ok(());
                };
                if holder(&lease) != self.identity {
                    return Ok(());
                }
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                match self.replace(&lease).await {
                    Err(error) if error.code() == Some(409) => {}
                    other => return other.map(drop),
                }
            }
        });
        match released.await {
            Ok(Ok(())) => tracing::info!(lease = self.options.name, "released the lease"),
            Ok(Err(error)) => tracing::warn!(
                lease = self.options.name,
                %error,
                "lease not released; it expires by itself"
            ),
            Err(_) => tracing::warn!(
                lease = self.options.name,
                error = "the API server did not answer in time",
                "lease not released; it expires by itself"
            ),
        }
    }

    /// Observes or renews the Lease once. Returns the delay until the next step.
    async fn step(&mut self) -> Duration {
        match std::mem::replace(&mut self.state, State::Standby(None)) {
            State::Standby(last) => self.observe(last).await,
            State::Leading { lease, until } => self.renew(lease, until).await,
        }
    }

    /// Reads the Lease, and takes it if it is free.
    async fn observe(&mut self, last: Option<Observation>) -> Duration {
        let read = self.bounded(self.leases.get_opt(&self.options.name)).await;
        let now = Instant::now();
        let lease = match read {
            Ok(lease) => lease,
            Err(error) => {
                self.readiness.remark(&format!(
                    "cannot read the lease {}: {error}",
                    self.options.name
                ));
                tracing::warn!(
                    lease = self.options.name,
                    error,
                    "cannot read the lease; retrying"
                );
                self.state = State::Standby(last);
                return self.options.retry_period;
            }
        };
        self.readiness.done(&self.readiness_check());
        let Some(lease) = lease else {
            return self.take(None).await;
        };
        let last = last.filter(|last| last.version == lease.metadata.resource_version);
        let last = last.unwrap_or_else(|| Observation {
            version: lease.metadata.resource_version.clone(),
            since: now,
        });
        let wait = remaining(
            &lease,
            &self.identity,
            self.options.lease_duration,
            self.observe_period(),
            now.duration_since(last.since),
        );
        if wait.is_zero() {
            return self.take(Some(lease)).await;
        }
        self.readiness.remark(&format!(
            "standing by: {} holds the lease {}",
            holder(&lease),
            self.options.name
        ));
        self.state = State::Standby(Some(last));
        wait.min(self.observe_period())
    }

    /// Takes the Lease in the version that was read.
    async fn take(&mut self, found: Option<Lease>) -> Duration {
        let is_new = found.is_none();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.options.name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        self.own(&mut lease).await;
        let sent = Instant::now();
        let lease = self.held(lease);
        let taken = if is_new {
            let params = PostParams::default();
            self.bounded(self.leases.create(&params, &lease)).await
        } else {
            self.bounded(self.replace(&lease)).await
        };
        match taken {
            Ok(lease) => {
                announce_leader(&self.client, &lease, &self.identity);
                self.lead(lease, sent);
                (self.on_change)(true);
                self.readiness.remark("");
                tracing::info!(
                    lease = self.options.name,
                    identity = self.identity,
                    "acquired the lease"
                );
                self.options.retry_period
            }
            Err(error) => {
                // Usually another replica took it first.
                tracing::info!(lease = self.options.name, error, "lease not acquired");
                self.observe_period()
            }
        }
    }

    /// Makes the Deployment the owner of the Lease, so that both are deleted together.
    async fn own(&self, lease: &mut Lease) {
        let Some(owner) = &self.owner else { return };
        match self.bounded(owner.reference()).await {
            Ok(owner) => {
                set_owner(&mut lease.metadata, owner);
            }
            Err(error) => tracing::warn!(
                lease = self.options.name,
                error,
                "cannot read the Deployment that owns the lease; the lease stays after an uninstall"
            ),
        }
    }

    /// Leads by a Lease that was written with a request sent at `sent`.
    fn lead(&mut self, lease: Lease, sent: Instant) {
        let until = sent + self.options.renew_deadline;
        self.leadership.lead_until(until);
        self.state = State::Leading {
            lease: Box::new(lease),
            until,
        };
    }

    /// Renews the Lease in the version that was last written.
    async fn renew(&mut self, lease: Box<Lease>, until: Instant) -> Duration {
        let sent = Instant::now();
        if sent >= until {
            return self.lose("the lease was not renewed in time");
        }
        let renewed = self.held((*lease).clone());
        let retry = self.options.retry_period;
        let error = match self.bounded(self.replace(&renewed)).await {
            Ok(lease) => {
                self.lead(lease, sent);
                return retry;
            }
            Err(error) => error,
        };
        tracing::warn!(lease = self.options.name, error, "lease not renewed");
        // A renewal whose answer was lost shows as a conflict with this process's own write.
        let (lease, pause) = match self.bounded(self.leases.get_opt(&self.options.name)).await {
            Ok(Some(found)) if holder(&found) == self.identity => {
                let is_same = found.metadata.resource_version == lease.metadata.resource_version;
                (
                    Box::new(found),
                    if is_same { retry } else { Duration::ZERO },
                )
            }
            Ok(Some(found)) => {
                return self.lose(&format!("{:?} holds the lease", holder(&found)));
            }
            Ok(None) => return self.lose("the lease was deleted"),
            Err(_) => (lease, retry),
        };
        self.state = State::Leading { lease, until };
        pause.min(until.saturating_duration_since(Instant::now()))
    }

    fn lose(&mut self, cause: &str) -> Duration {
        self.leadership.stand_by();
        (self.on_change)(false);
        tracing::warn!(
            lease = self.options.name,
            error = cause,
            "lost the lease; work in flight is cancelled"
        );
        self.state = State::Standby(None);
        Duration::ZERO
    }

    /// Returns the Lease with this process as its holder, renewed now.
    fn held(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.take().unwrap_or_default();
        let is_holder = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let is_new = old.holder_identity.is_none();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.options.lease_duration)),
            acquire_time: if is_holder {
                old.acquire_time
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(
                old.lease_transitions.unwrap_or_default() + i32::from(!is_holder && !is_new),
            ),
            renew_time: Some(now),
            ..old
        });
        lease
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiServerError> {
        let params = PostParams::default();
        Ok(self
            .leases
            .replace(&self.options.name, &params, lease)
            .await?)
    }

    /// Runs a request that leaves time for two retries before the renew deadline.
    async fn bounded<T, E: Into<ApiServerError>>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        match timeout(self.options.renew_deadline / 3, request).await {
            Ok(answer) => answer.map_err(|error| error.into().to_string()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }

    /// Returns half the renewal period, so that a standby notices a release soon.
    fn observe_period(&self) -> Duration {
        self.options.retry_period / 2
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).unwrap_or(i32::MAX)
}

/// Returns the time until the Lease may be taken if it has not changed for `unchanged`. Zero: now.
///
/// The Lease may have changed up to one `observe_period` before the standby saw it. That period is subtracted, so the Lease
/// passes on within its own duration after the holder's death. The holder stops writing earlier still
/// ([`LeaderElection::check`]).
fn remaining(
    lease: &Lease,
    identity: &str,
    own: Duration,
    observe_period: Duration,
    unchanged: Duration,
) -> Duration {
    // The identity is unique to this process, so a Lease with it was not taken in between.
    if holder(lease).is_empty() || holder(lease) == identity {
        return Duration::ZERO;
    }
    let stated = lease
        .spec
        .as_ref()
        .and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok())
        .filter(|seconds| *seconds > 0);
    let duration = stated.map_or(own, Duration::from_secs);
    duration
        .saturating_sub(observe_period)
        .saturating_sub(unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(ToOwned::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
    }

    const OWN: Duration = Duration::from_secs(15);
    const OBSERVE: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_taken_when_free_own_or_unchanged_for_its_stated_duration() {
        let wait = |holder, seconds, unchanged| {
            remaining(
                &lease(holder, seconds),
                "me",
                OWN,
                OBSERVE,
                Duration::from_secs(unchanged),
            )
        };
        assert_eq!(wait(None, None, 0), Duration::ZERO);
        assert_eq!(wait(Some(""), Some(15), 0), Duration::ZERO);
        assert_eq!(wait(Some("me"), Some(15), 0), Duration::ZERO);
        assert_eq!(wait(Some("you"), Some(30), 0), Duration::from_secs(29));
        assert_eq!(wait(Some("you"), Some(30), 28), Duration::from_secs(1));
        assert_eq!(wait(Some("you"), Some(30), 29), Duration::ZERO);
        for odd in [None, Some(0), Some(-5)] {
            assert_eq!(
                wait(Some("you"), odd, 4),
                Duration::from_secs(10),
                "{odd:?}"
            );
        }
    }

    #[test]
    fn restarts_of_one_pod_have_different_identities() {
        assert_ne!(identity(), identity());
    }

    #[test]
    fn a_lease_duration_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_secs(15)), 15);
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
    }
}
