//! Whether this process is the one that works, as visits see it.
//!
//! The gate stops writes by the clock, whatever else goes on; the standing ends visits as soon as somebody can act on it.

use tokio::sync::watch;
use tokio::time::Instant;

use affix_registry::WriteGate;

/// A stretch of leading without a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Standby,
    Leading(Term),
    /// The process ends.
    Over,
}

/// The right to work, and who waits for it.
#[derive(Debug)]
pub(crate) struct Leadership {
    standing: watch::Sender<Standing>,
    gate: WriteGate,
}

impl Leadership {
    /// Of a process that shares its work with none: it leads from the start and for good.
    pub(crate) fn alone() -> Self {
        Self {
            standing: watch::Sender::new(Standing::Leading(Term(0))),
            gate: WriteGate::default(),
        }
    }

    /// Of a process that has to be elected.
    pub(crate) fn standby() -> Self {
        Self {
            standing: watch::Sender::new(Standing::Standby),
            gate: WriteGate::closed(),
        }
    }

    /// What every write passes.
    pub(crate) const fn gate(&self) -> &WriteGate {
        &self.gate
    }

    /// Leads until `deadline` at least: begins a term, or goes on with the present one.
    pub(crate) fn lead_until(&self, deadline: Instant) {
        self.gate.open_until(deadline);
        let begin = |standing: &mut Standing| match standing {
            Standing::Leading(_) | Standing::Over => false,
            Standing::Standby => {
                *standing = Standing::Leading(Term(rand::random()));
                true
            }
        };
        self.standing.send_if_modified(begin);
    }

    /// Leads no longer.
    pub(crate) fn stand_by(&self) {
        self.gate.close();
        self.standing.send_if_modified(|standing| {
            let leads = matches!(standing, Standing::Leading(_));
            if leads {
                *standing = Standing::Standby;
            }
            leads
        });
    }

    /// Leads never again.
    pub(crate) fn end(&self) {
        self.gate.close();
        self.standing.send_replace(Standing::Over);
    }

    /// The present term.
    pub(crate) fn term(&self) -> Option<Term> {
        match *self.standing.borrow() {
            Standing::Leading(term) => Some(term),
            Standing::Standby | Standing::Over => None,
        }
    }

    /// Waits for a term; says whether one has begun, and not the process's end.
    pub(crate) async fn begun(&self) -> bool {
        let standing = self
            .standing
            .subscribe()
            .wait_for(|standing| *standing != Standing::Standby)
            .await
            .map(|standing| *standing);
        matches!(standing, Ok(Standing::Leading(_)))
    }

    /// Waits for the end of a term.
    pub(crate) async fn ended(&self, term: Term) {
        let _ = self
            .standing
            .subscribe()
            .wait_for(|standing| *standing != Standing::Leading(term))
            .await;
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
    async fn a_term_ends_even_where_the_next_one_has_begun_before_anybody_looked() {
        let leadership = Leadership::standby();
        assert!(leadership.term().is_none() && leadership.begun().now_or_never().is_none());
        leadership.lead_until(Instant::now() + Duration::from_secs(9));
        let first = leadership.term().unwrap();
        leadership.lead_until(Instant::now() + Duration::from_secs(10));
        assert_eq!(
            leadership.term(),
            Some(first),
            "a renewal begins no new term"
        );
        assert!(leadership.ended(first).now_or_never().is_none());
        leadership.stand_by();
        assert!(!leadership.gate().is_open());
        leadership.lead_until(Instant::now() + Duration::from_secs(10));
        assert!(leadership.ended(first).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_process_that_ends_lets_nobody_wait_and_never_leads_again() {
        let leadership = Leadership::standby();
        leadership.end();
        leadership.stand_by();
        assert_eq!(leadership.begun().now_or_never(), Some(false));
        assert!(Leadership::alone().term().is_some() && Leadership::alone().gate().is_open());
    }
}
