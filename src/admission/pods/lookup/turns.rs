//! The turns of look-ups: a bounded number runs at a time, shared fairly (threat T35).
//!
//! At the bound, a new look-up takes the turn of a running one that has a weaker claim. A look-up of a
//! dry run has the weakest claim, then one at a host that has not answered lately or that waits for
//! more than a second, then one of the host with the most turns, then one of the requester with the
//! most turns. A caller can therefore neither hold the turns of others with hosts that never answer,
//! nor by naming one host often. Among equal claims, new look-ups wait. See
//! `docs/decisions/0102-let-a-look-up-take-the-turn-of-a-slow-one.md`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Look-ups that run at a time.
const MAX_TURNS: usize = 256;
/// Age from which a look-up counts as slow. A review normally waits no longer.
const SLOW: Duration = Duration::from_secs(1);
/// Time for which an answer of a host counts, and the number of hosts that are remembered.
const ANSWER_TTL: Duration = Duration::from_mins(10);
const MAX_HOSTS: usize = 4096;

/// The source of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Requester {
    /// The namespace of the pod.
    pub(crate) namespace: Arc<str>,
    /// The user, as the API server or a direct caller states it.
    pub(crate) user: Arc<str>,
    /// The request is a dry run.
    pub(crate) is_dry_run: bool,
}

/// The turns of all look-ups.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    running: HashMap<u64, Running>,
    /// The last answer of each host.
    answers: HashMap<Box<str>, Instant>,
}

struct Running {
    requester: Requester,
    host: Box<str>,
    began: Instant,
    taken: CancellationToken,
}

/// The claim of a look-up to its turn. The greatest claim is the weakest.
type Claim = (bool, bool, usize, usize);

/// A turn. Dropping it releases it.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: u64,
    began: Instant,
    taken: CancellationToken,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) async fn acquire(self: &Arc<Self>, requester: &Requester, host: &str) -> Turn {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if let Some(turn) = self.try_acquire(requester, host) {
                return turn;
            }
            released.await;
        }
    }

    fn try_acquire(self: &Arc<Self>, requester: &Requester, host: &str) -> Option<Turn> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.running.len() >= MAX_TURNS {
            let claim = state.claim_of_new(requester, host, now);
            let (id, weakest) = state.weakest(now)?;
            if weakest <= claim {
                return None;
            }
            if let Some(running) = state.running.remove(&id) {
                running.taken.cancel();
            }
        }
        let (id, taken) = (state.next, CancellationToken::new());
        state.next += 1;
        state.running.insert(
            id,
            Running {
                requester: requester.clone(),
                host: host.into(),
                began: now,
                taken: taken.clone(),
            },
        );
        Some(Turn {
            turns: Arc::clone(self),
            id,
            began: now,
            taken,
        })
    }

    /// Records that a host has answered.
    pub(super) fn answered(&self, host: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        state.answers.insert(host.into(), now);
        if state.answers.len() > MAX_HOSTS {
            let mut times: Vec<Instant> = state.answers.values().copied().collect();
            let middle = *times.select_nth_unstable(MAX_HOSTS / 2).1;
            state.answers.retain(|_, at| *at > middle);
        }
    }
}

impl State {
    /// Returns the claim of a look-up that does not run yet.
    fn claim_of_new(&self, requester: &Requester, host: &str, now: Instant) -> Claim {
        let running = || self.running.values();
        (
            requester.is_dry_run,
            !self.answers(host, now),
            running().filter(|running| *running.host == *host).count(),
            running()
                .filter(|running| running.requester == *requester)
                .count(),
        )
    }

    /// Returns the running look-up with the weakest claim, the oldest of several.
    fn weakest(&self, now: Instant) -> Option<(u64, Claim)> {
        let mut by_host: HashMap<&str, usize> = HashMap::new();
        let mut by_requester: HashMap<&Requester, usize> = HashMap::new();
        for running in self.running.values() {
            *by_host.entry(&running.host).or_default() += 1;
            *by_requester.entry(&running.requester).or_default() += 1;
        }
        let claims = self.running.iter().map(|(id, running)| {
            let claim = (
                running.requester.is_dry_run,
                !self.answers(&running.host, now) || now.duration_since(running.began) >= SLOW,
                by_host.get(&*running.host).copied().unwrap_or_default(),
                by_requester
                    .get(&running.requester)
                    .copied()
                    .unwrap_or_default(),
            );
            (*id, claim)
        });
        claims.max_by_key(|(id, claim)| (*claim, Reverse(*id)))
    }

    /// Returns whether a host has answered lately.
    fn answers(&self, host: &str, now: Instant) -> bool {
        self.answers
            .get(host)
            .is_some_and(|at| now.duration_since(*at) < ANSWER_TTL)
    }
}

impl Turn {
    /// Completes when another look-up has taken the turn.
    pub(super) async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Returns whether the look-up has run for long.
    pub(super) fn is_slow(&self) -> bool {
        self.began.elapsed() >= SLOW
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().running.remove(&self.id);
        self.turns.released.notify_one();
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn requester(namespace: &str, is_dry_run: bool) -> Requester {
        Requester {
            namespace: namespace.into(),
            user: "user".into(),
            is_dry_run,
        }
    }

    /// Fills all turns. Each look-up has the host that `host` returns.
    fn fill(turns: &Arc<Turns>, by: &Requester, host: impl Fn(usize) -> String) -> Vec<Turn> {
        (0..MAX_TURNS)
            .map(|nth| turns.try_acquire(by, &host(nth)).unwrap())
            .collect()
    }

    fn taken(turns: &[Turn]) -> Vec<usize> {
        let is_taken = |turn: &Turn| turn.taken().now_or_never().is_some();
        (0..turns.len())
            .filter(|nth| turns.get(*nth).is_some_and(is_taken))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn t35_hosts_that_never_answer_hold_no_turn_of_a_new_look_up() {
        for host in [
            (|nth| format!("r{nth}.example.com")) as fn(usize) -> String,
            |_| "silent.example.com".to_owned(),
        ] {
            let turns = Arc::<Turns>::default();
            let tenant = requester("tenant", false);
            let held = fill(&turns, &tenant, host);
            // The same namespace and user, a host that was never asked.
            let first = turns.try_acquire(&tenant, "registry.example.com").unwrap();
            assert_eq!(taken(&held), [0]);
            turns.answered("registry.example.com");
            drop(first);
            let again = turns.try_acquire(&tenant, "registry.example.com").unwrap();
            let more = turns.try_acquire(&tenant, "registry.example.com").unwrap();
            // A host that answers keeps its turns against new hosts.
            for nth in 0..2 * MAX_TURNS {
                let host = format!("new{nth}.example.com");
                drop(turns.try_acquire(&requester("other", false), &host));
            }
            assert!(taken(&[again, more]).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn t35_a_dry_run_takes_no_turn_of_a_real_look_up_and_yields_its_own() {
        let turns = Arc::<Turns>::default();
        let held = fill(&turns, &requester("tenant", true), |nth| {
            format!("r{nth}.example.com")
        });
        let real = requester("tenant", false);
        let taking: Vec<Turn> = (0..MAX_TURNS)
            .map(|_| turns.try_acquire(&real, "one.example.com").unwrap())
            .collect();
        assert_eq!(taken(&held).len(), MAX_TURNS);
        let dry = requester("other", true);
        assert!(turns.try_acquire(&dry, "registry.example.com").is_none());
        assert!(taken(&taking).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn equal_look_ups_wait_and_a_host_that_became_slow_loses_its_turn() {
        let turns = Arc::<Turns>::default();
        turns.answered("registry.example.com");
        turns.answered("other.example.com");
        let team = requester("team", false);
        let mut held = fill(&turns, &team, |_| "registry.example.com".to_owned());
        assert!(turns.try_acquire(&team, "registry.example.com").is_none());
        let mut waiting = std::pin::pin!(turns.acquire(&team, "registry.example.com"));
        assert!(waiting.as_mut().now_or_never().is_none());
        held.pop();
        let _served = waiting.await;
        assert!(taken(&held).is_empty());
        tokio::time::advance(SLOW).await;
        let _newer = turns.try_acquire(&team, "registry.example.com").unwrap();
        assert_eq!(taken(&held), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_hosts_is_bounded() {
        let turns = Turns::default();
        for nth in 0..3 * MAX_HOSTS {
            tokio::time::advance(Duration::from_millis(1)).await;
            turns.answered(&format!("r{nth}.example.com"));
        }
        let state = turns.lock();
        assert!(state.answers.len() <= MAX_HOSTS);
        let last = format!("r{}.example.com", 3 * MAX_HOSTS - 1);
        assert!(state.answers.contains_key(&*last));
    }
}
