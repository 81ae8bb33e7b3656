//! Election of a leader by a Lease of the cluster.
//!
//! Every change of the Lease is a `replace` with the resource version that was read, so of two who want it one gets it. Whoever
//! stands by counts from when it saw the record change, by its own monotonic clock: nobody's wall clock is believed. The leader
//! counts from before it sent its last renewal, and stops writing well before anybody else may take over.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::service::Readiness;

use crate::controller::leader::leadership::Leadership;
use crate::controller::metrics::Metrics;
use crate::controller::options::LeaderElection;

/// What the release of the Lease may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// This process as a candidate.
pub(crate) struct Election {
    leases: Api<Lease>,
    options: LeaderElection,
    identity: String,
    leadership: Arc<Leadership>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    state: State,
}

/// Where the candidate stands.
enum State {
    /// It looks at the Lease; what it saw last.
    Standby(Option<Sighting>),
    /// It has the Lease, as last written, and works until `until` if it cannot be renewed.
    Leading { lease: Box<Lease>, until: Instant },
}

/// A record, and since when it is known not to have changed.
struct Sighting {
    version: Option<String>,
    since: Instant,
}

/// A name for this process that no other has: the pod's name says who it is, the rest tells its lives apart.
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
    pub(crate) fn new(
        leases: Api<Lease>,
        options: LeaderElection,
        leadership: Arc<Leadership>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let election = Self {
            leases,
            options,
            identity: identity(),
            leadership,
            readiness,
            metrics,
            state: State::Standby(None),
        };
        election.readiness.wait_for(election.waited_for());
        election.metrics.leader.set(&election.options.name, false);
        election
    }

    fn waited_for(&self) -> String {
        format!("a look at the lease {}", self.options.name)
    }

    /// Stands for election until `stop`.
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
        if self.leadership.term().is_none() {
            self.leadership.end();
        }
        self
    }

    /// Writes no more, and gives the Lease back so that the next one need not wait.
    pub(crate) async fn release(self) {
        let led = self.leadership.term().is_some();
        self.leadership.end();
        if !led {
            return;
        }
        self.metrics.leader.set(&self.options.name, false);
        let released = timeout(FAREWELL, async {
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
                    Err(kube::Error::Api(answer)) if answer.code == 409 => {}
                    other => return other.map(drop),
                }
            }
        });
        match released.await {
            Ok(Ok(())) => tracing::info!(lease = self.options.name, "released the lease"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease was not released: it ends by itself")
            }
            Err(_) => tracing::warn!("the lease was not released in time: it ends by itself"),
        }
    }

    /// One look or one renewal; answers with how long until the next.
    async fn step(&mut self) -> Duration {
        match std::mem::replace(&mut self.state, State::Standby(None)) {
            State::Standby(seen) => self.look(seen).await,
            State::Leading { lease, until } => self.renew(lease, until).await,
        }
    }

    /// Looks at the Lease and takes it where nobody has it.
    async fn look(&mut self, seen: Option<Sighting>) -> Duration {
        let looked = self.bounded(self.leases.get_opt(&self.options.name)).await;
        let now = Instant::now();
        let lease = match looked {
            Ok(lease) => lease,
            Err(error) => {
                self.say(&format!(
                    "the lease {} cannot be read: {error}",
                    self.options.name
                ));
                tracing::warn!(
                    lease = self.options.name,
                    error,
                    "the lease cannot be read; trying again"
                );
                self.state = State::Standby(seen);
                return self.options.retry_period;
            }
        };
        self.readiness.done(&self.waited_for());
        let Some(lease) = lease else {
            return self.take(None).await;
        };
        let seen = seen.filter(|seen| seen.version == lease.metadata.resource_version);
        let seen = seen.unwrap_or_else(|| Sighting {
            version: lease.metadata.resource_version.clone(),
            since: now,
        });
        let wait = remaining(
            &lease,
            &self.identity,
            self.options.lease_duration,
            self.look_every(),
            now.duration_since(seen.since),
        );
        if wait.is_zero() {
            return self.take(Some(lease)).await;
        }
        self.say(&format!(
            "standing by: {} has the lease {}",
            holder(&lease),
            self.options.name
        ));
        self.state = State::Standby(Some(seen));
        wait.min(self.look_every())
    }

    /// Takes the Lease as it was read.
    async fn take(&mut self, found: Option<Lease>) -> Duration {
        let sent = Instant::now();
        let taken = match found {
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.options.name.clone()),
                    ..ObjectMeta::default()
                };
                let lease = self.held(Lease {
                    metadata,
                    spec: None,
                });
                self.bounded(async { self.leases.create(&PostParams::default(), &lease).await })
                    .await
            }
            Some(lease) => {
                let lease = self.held(lease);
                self.bounded(async { self.replace(&lease).await }).await
            }
        };
        match taken {
            Ok(lease) => {
                let until = sent + self.options.renew_deadline;
                self.state = State::Leading {
                    lease: Box::new(lease),
                    until,
                };
                self.leadership.lead_until(until);
                self.metrics.leader.set(&self.options.name, true);
                self.say("");
                tracing::info!(
                    lease = self.options.name,
                    identity = self.identity,
                    "leads now"
                );
                self.options.retry_period
            }
            Err(error) => {
                // Mostly somebody else was quicker; then the next look says who.
                tracing::info!(lease = self.options.name, error, "did not get the lease");
                self.look_every()
            }
        }
    }

    /// Renews the Lease as it was last written.
    async fn renew(&mut self, lease: Box<Lease>, until: Instant) -> Duration {
        let sent = Instant::now();
        if sent >= until {
            return self.lose("it could not be renewed in time");
        }
        let renewed = self.held((*lease).clone());
        let retry = self.options.retry_period;
        match self.bounded(async { self.replace(&renewed).await }).await {
            Ok(lease) => {
                let until = sent + self.options.renew_deadline;
                self.leadership.lead_until(until);
                self.state = State::Leading {
                    lease: Box::new(lease),
                    until,
                };
                retry
            }
            Err(error) => {
                tracing::warn!(
                    lease = self.options.name,
                    error,
                    "the lease was not renewed"
                );
                // A renewal whose answer was lost shows as a conflict with ourselves.
                match self.bounded(self.leases.get_opt(&self.options.name)).await {
                    Ok(Some(found)) if holder(&found) == self.identity => {
                        let pause =
                            if found.metadata.resource_version == lease.metadata.resource_version {
                                retry
                            } else {
                                Duration::ZERO
                            };
                        self.state = State::Leading {
                            lease: Box::new(found),
                            until,
                        };
                        pause.min(until.saturating_duration_since(Instant::now()))
                    }
                    Ok(Some(found)) => self.lose(&format!("{:?} has it", holder(&found))),
                    Ok(None) => self.lose("it was deleted"),
                    Err(_) => {
                        self.state = State::Leading { lease, until };
                        retry.min(until.saturating_duration_since(Instant::now()))
                    }
                }
            }
        }
    }

    fn lose(&mut self, why: &str) -> Duration {
        self.leadership.stand_by();
        self.metrics.leader.set(&self.options.name, false);
        tracing::warn!(
            lease = self.options.name,
            why,
            "leads no longer; passes under way are dropped"
        );
        self.state = State::Standby(None);
        Duration::ZERO
    }

    /// The Lease as this process holds it.
    fn held(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.take().unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let first = old.holder_identity.is_none();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.options.lease_duration)),
            acquire_time: if same {
                old.acquire_time
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(
                old.lease_transitions.unwrap_or_default() + i32::from(!same && !first),
            ),
            renew_time: Some(now),
            ..old
        });
        lease
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        self.leases
            .replace(&self.options.name, &PostParams::default(), lease)
            .await
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, String> {
        match timeout(self.options.renew_deadline / 3, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }

    /// Twice as often as the Lease is renewed, so that a release is noticed soon.
    fn look_every(&self) -> Duration {
        self.options.retry_period / 2
    }

    fn say(&self, text: &str) {
        self.readiness.remark(text);
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

/// How long until the Lease may be taken that has not changed for `unchanged`; zero: now.
///
/// It may be that long older than the look that saw it, as there is between two looks: with this the Lease passes on within its
/// own time of the holder's death. The holder stops writing earlier still (checked in [`LeaderElection::check`]).
fn remaining(
    lease: &Lease,
    identity: &str,
    own: Duration,
    look_every: Duration,
    unchanged: Duration,
) -> Duration {
    // What is ours is of this very process: nobody took it in between.
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
        .saturating_sub(look_every)
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
    const LOOK: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_unchanged_for_as_long_as_its_holder_said() {
        let wait = |holder, seconds, unchanged| {
            remaining(
                &lease(holder, seconds),
                "me",
                OWN,
                LOOK,
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
    fn two_lives_of_one_pod_have_two_identities() {
        assert_ne!(identity(), identity());
    }

    #[test]
    fn a_lease_lasts_whole_seconds_and_never_less_than_it_should() {
        assert_eq!(whole_seconds(Duration::from_secs(15)), 15);
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
    }
}
