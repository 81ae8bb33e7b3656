//! The role of this process in leader election, as reconciliations see it.
//!
//! Two things stop a process that lost the Lease. The write gate rejects writes by the clock, even if no task runs in time. A
//! change of role cancels reconciliations as soon as the election task notices the loss.

use tokio::sync::watch;
use tokio::time::Instant;

use affix_registry::WriteGate;

/// An uninterrupted period of leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Standby,
    Leader(Epoch),
    /// The process is shutting down.
    Stopped,
}

/// The role of this process and the gate that its writes pass.
#[derive(Debug)]
pub(crate) struct Leadership {
    role: watch::Sender<Role>,
    gate: WriteGate,
}

impl Leadership {
    /// Returns the leadership of a process without leader election: it leads until it stops.
    pub(crate) fn permanent() -> Self {
        Self {
            role: watch::Sender::new(Role::Leader(Epoch(0))),
            gate: WriteGate::default(),
        }
    }

    /// Returns the leadership of a process that has to be elected.
    pub(crate) fn standby() -> Self {
        Self {
            role: watch::Sender::new(Role::Standby),
            gate: WriteGate::closed(),
        }
    }

    /// Returns the gate that every write passes.
    pub(crate) const fn gate(&self) -> &WriteGate {
        &self.gate
    }

    /// Leads until `deadline`: starts an epoch, or extends the current one.
    pub(crate) fn lead_until(&self, deadline: Instant) {
        self.gate.open_until(deadline);
        self.role.send_if_modified(|role| {
            let starts = *role == Role::Standby;
            if starts {
                *role = Role::Leader(Epoch(rand::random()));
            }
            starts
        });
    }

    /// Ends the current epoch.
    pub(crate) fn stand_by(&self) {
        self.gate.close();
        self.role.send_if_modified(|role| {
            let ends = matches!(role, Role::Leader(_));
            if ends {
                *role = Role::Standby;
            }
            ends
        });
    }

    /// Ends the current epoch and prevents a new one.
    pub(crate) fn stop(&self) {
        self.gate.close();
        self.role.send_replace(Role::Stopped);
    }

    /// Returns the current epoch.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match *self.role.borrow() {
            Role::Leader(epoch) => Some(epoch),
            Role::Standby | Role::Stopped => None,
        }
    }

    /// Waits for an epoch to start. Returns `false` if the process stops instead.
    pub(crate) async fn started(&self) -> bool {
        let mut roles = self.role.subscribe();
        let role = roles.wait_for(|role| *role != Role::Standby).await;
        matches!(role.as_deref(), Ok(Role::Leader(_)))
    }

    /// Waits for the end of an epoch.
    pub(crate) async fn ended(&self, epoch: Epoch) {
        let mut roles = self.role.subscribe();
        let _ = roles.wait_for(|role| *role != Role::Leader(epoch)).await;
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::time::Duration;

    #[tokio::test]
    async fn an_epoch_ends_even_if_the_next_one_has_started_unobserved() {
        let leadership = Leadership::standby();
        assert!(leadership.epoch().is_none() && leadership.started().now_or_never().is_none());
        leadership.lead_until(Instant::now() + Duration::from_secs(9));
        let first = leadership.epoch().unwrap();
        leadership.lead_until(Instant::now() + Duration::from_secs(10));
        assert_eq!(
            leadership.epoch(),
            Some(first),
            "a renewal starts no new epoch"
        );
        assert!(leadership.ended(first).now_or_never().is_none());
        leadership.stand_by();
        assert!(!leadership.gate().is_open());
        leadership.lead_until(Instant::now() + Duration::from_secs(10));
        assert!(leadership.ended(first).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_stopped_process_never_leads_again() {
        let leadership = Leadership::standby();
        leadership.stop();
        leadership.stand_by();
        assert_eq!(leadership.started().now_or_never(), Some(false));
        assert!(
            Leadership::permanent().epoch().is_some() && Leadership::permanent().gate().is_open()
        );
    }
}
