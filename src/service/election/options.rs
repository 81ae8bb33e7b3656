//! Options of leader election.

use std::time::Duration;

/// Options of leader election.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    /// The namespace of the Lease. `None`: that of the pod, or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// The name of the Lease. Replicas that share their work share the name; other installations must use another one.
    pub name: String,
    /// The Deployment that owns the Lease, in the same namespace. `None`: the Lease has no owner.
    pub owner: Option<String>,
    /// The time after a renewal for which no other replica takes the Lease. The Lease states it in whole seconds, rounded up.
    pub lease_duration: Duration,
    /// The time after a renewal for which the leader keeps working.
    pub renew_deadline: Duration,
    /// The time between two renewals.
    pub retry_period: Duration,
}

impl LeaderElection {
    /// Checks that a leader that cannot renew the Lease stops before another replica takes it.
    ///
    /// # Errors
    /// The message names the duration to change.
    pub fn check(&self) -> Result<(), String> {
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if retry.is_zero() || renew < retry * 2 {
            return Err(format!(
                "renew deadline {renew:?} is below twice the retry period {retry:?}, or the retry period is 0: raise the renew deadline"
            ));
        }
        if lease < renew + retry {
            return Err(format!(
                "lease duration {lease:?} is below renew deadline plus retry period, {:?}: raise the lease duration",
                renew + retry
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_would_allow_two_leaders_are_rejected() {
        let check = |lease, renew, retry| {
            let [lease_duration, renew_deadline, retry_period] =
                [lease, renew, retry].map(Duration::from_secs);
            LeaderElection {
                namespace: None,
                owner: None,
                name: "affix".to_owned(),
                lease_duration,
                renew_deadline,
                retry_period,
            }
            .check()
        };
        assert_eq!(check(15, 10, 2), Ok(()));
        assert_eq!(check(12, 10, 2), Ok(()));
        for (lease, renew, retry) in [(11, 10, 2), (10, 10, 2), (15, 3, 2), (15, 10, 0)] {
            assert!(
                check(lease, renew, retry).is_err(),
                "{lease} {renew} {retry}"
            );
        }
    }
}
