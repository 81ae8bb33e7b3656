//! The turns of look-ups: a bounded number runs at a time, in all and at each host, shared fairly (threat
//! T35).
//!
//! At a bound, a new look-up takes the turn of a running one that has a weaker claim. A look-up of a
//! dry run has the weakest claim, then one that waits for more than a second or whose host has not answered
//! lately, then one whose repository has not, then one of the host with the most turns, then one of the
//! requester with the most turns. A caller can therefore neither hold the turns of others with hosts or
//! repositories that never answer, nor by naming one host often. Among equal claims, new look-ups wait. See
//! `docs/decisions/0102-let-a-look-up-take-the-turn-of-a-slow-one.md`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use affix_registry::oci::{Host, Repository};

/// Look-ups that run at a time.
const MAX_TURNS: usize = 256;
/// Age from which a look-up counts as slow. A review normally waits no longer.
const SLOW: Duration = Duration::from_secs(1);
/// Time after which a waiting look-up compares its claim again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which an answer counts, and the number of hosts and repositories that are remembered.
const ANSWER_TTL: Duration = Duration::from_mins(10);
const MAX_ANSWERS: usize = 4096;

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

/// The place of a look-up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) repository: Repository,
}

/// The turns of all look-ups.
pub(super) struct Turns {
    /// Look-ups that run at one host at a time.
    max_per_host: usize,
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    running: HashMap<u64, Running>,
    /// The last answer of each repository, by host.
    answers: HashMap<Host, HashMap<Repository, Instant>>,
}

struct Running {
    requester: Requester,
    place: Place,
    began: Instant,
    taken: CancellationToken,
}

/// The claim of a look-up to its turn. The greatest claim is the weakest.
type Claim = (bool, Confidence, usize, usize);

/// The expectation of an answer. The greatest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Confidence {
    /// The repository has answered lately.
    Repository,
    /// The host has answered lately.
    Host,
    /// Neither has answered, or the look-up is slow.
    None,
}

/// A turn. Dropping it releases it.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: u64,
    began: Instant,
    taken: CancellationToken,
}

impl Turns {
    pub(super) fn new(max_per_host: usize) -> Self {
        Self {
            max_per_host,
            state: Mutex::default(),
            released: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) async fn acquire(self: &Arc<Self>, requester: &Requester, place: &Place) -> Turn {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if let Some(turn) = self.try_acquire(requester, place) {
                return turn;
            }
            // A running look-up may become slow, which changes its claim.
            let _ = timeout(RETRY_INTERVAL, released).await;
        }
    }

    fn try_acquire(self: &Arc<Self>, requester: &Requester, place: &Place) -> Option<Turn> {
        let now = Instant::now();
        let mut state = self.lock();
        let at_host = state.count(|running| running.place.host == place.host);
        let is_host_full = at_host >= self.max_per_host;
        if is_host_full || state.running.len() >= MAX_TURNS {
            let claim = (
                requester.is_dry_run,
                state.confidence(place, now),
                at_host,
                state.count(|running| running.requester == *requester),
            );
            let host = is_host_full.then_some(&place.host);
            let (id, weakest) = state.weakest(host, now)?;
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
                place: place.clone(),
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

    /// Records that a repository has answered.
    pub(super) fn answered(&self, place: &Place) {
        let now = Instant::now();
        let mut state = self.lock();
        let repositories = state.answers.entry(place.host.clone()).or_default();
        repositories.insert(place.repository.clone(), now);
        let count: usize = state.answers.values().map(HashMap::len).sum();
        if count > MAX_ANSWERS {
            let answers = state.answers.values();
            let mut times: Vec<Instant> = answers.flat_map(HashMap::values).copied().collect();
            let middle = *times.select_nth_unstable(MAX_ANSWERS / 2).1;
            state.answers.retain(|_, repositories| {
                repositories.retain(|_, at| *at > middle);
                !repositories.is_empty()
            });
        }
    }
}

impl State {
    fn count(&self, has: impl Fn(&Running) -> bool) -> usize {
        self.running.values().filter(|running| has(running)).count()
    }

    /// Returns the running look-up with the weakest claim, the oldest of several, at one host or in all.
    fn weakest(&self, host: Option<&Host>, now: Instant) -> Option<(u64, Claim)> {
        let mut by_host: HashMap<&Host, usize> = HashMap::new();
        let mut by_requester: HashMap<&Requester, usize> = HashMap::new();
        for running in self.running.values() {
            *by_host.entry(&running.place.host).or_default() += 1;
            *by_requester.entry(&running.requester).or_default() += 1;
        }
        let claims = self
            .running
            .iter()
            .filter(|(_, running)| host.is_none_or(|host| running.place.host == *host))
            .map(|(id, running)| {
                let count = |found: Option<&usize>| found.copied().unwrap_or_default();
                let confidence = if now.duration_since(running.began) >= SLOW {
                    Confidence::None
                } else {
                    self.confidence(&running.place, now)
                };
                let claim = (
                    running.requester.is_dry_run,
                    confidence,
                    count(by_host.get(&running.place.host)),
                    count(by_requester.get(&running.requester)),
                );
                (*id, claim)
            });
        claims.max_by_key(|(id, claim)| (*claim, Reverse(*id)))
    }

    /// Returns the expectation of an answer for a new look-up.
    fn confidence(&self, place: &Place, now: Instant) -> Confidence {
        let is_recent = |at: &Instant| now.duration_since(*at) < ANSWER_TTL;
        let Some(repositories) = self.answers.get(&place.host) else {
            return Confidence::None;
        };
        if repositories.get(&place.repository).is_some_and(is_recent) {
            Confidence::Repository
        } else if repositories.values().any(is_recent) {
            Confidence::Host
        } else {
            Confidence::None
        }
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

    const MAX_PER_HOST: usize = 16;

    fn turns() -> Arc<Turns> {
        Arc::new(Turns::new(MAX_PER_HOST))
    }

    fn requester(namespace: &str, is_dry_run: bool) -> Requester {
        Requester {
            namespace: namespace.into(),
            user: "user".into(),
            is_dry_run,
        }
    }

    fn place(name: &str) -> Place {
        let (host, repository) = name.split_once('/').unwrap();
        Place {
            host: host.parse().unwrap(),
            repository: repository.parse().unwrap(),
        }
    }

    /// Returns the turns of `count` look-ups at the places that `name` returns.
    fn fill(
        turns: &Arc<Turns>,
        by: &Requester,
        count: usize,
        name: impl Fn(usize) -> String,
    ) -> Vec<Turn> {
        (0..count)
            .map(|nth| turns.try_acquire(by, &place(&name(nth))).unwrap())
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
        let (turns, tenant) = (turns(), requester("tenant", false));
        let app = place("registry.example.com/team/app");
        let held = fill(&turns, &tenant, MAX_TURNS, |nth| {
            format!("r{nth}.example.com/app")
        });
        // The same namespace and user, a host that was never asked.
        let first = turns.try_acquire(&tenant, &app).unwrap();
        assert_eq!(taken(&held), [0]);
        turns.answered(&app);
        drop(first);
        let kept = [(); 2].map(|()| turns.try_acquire(&tenant, &app).unwrap());
        // A repository that answers keeps its turns against new hosts.
        for nth in 0..2 * MAX_TURNS {
            let new = place(&format!("new{nth}.example.com/app"));
            drop(turns.try_acquire(&requester("other", false), &new));
        }
        assert!(taken(&kept).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn t35_slow_repositories_hold_no_turn_of_another_repository_at_their_host() {
        let (turns, tenant) = (turns(), requester("tenant", false));
        let app = place("registry.example.com/team/app");
        turns.answered(&app);
        let held = fill(&turns, &tenant, MAX_PER_HOST, |nth| {
            format!("registry.example.com/tenant/r{nth}")
        });
        let _known = turns.try_acquire(&tenant, &app).unwrap();
        assert_eq!(taken(&held), [0]);
        let new = place("registry.example.com/team/new");
        assert!(turns.try_acquire(&tenant, &new).is_none());
        let _other = turns.try_acquire(&requester("team", false), &new).unwrap();
        assert_eq!(taken(&held), [0, 1]);
        // Waits until a look-up of its own requester is slow.
        let _waited = turns.acquire(&tenant, &new).await;
        assert_eq!(taken(&held), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn t35_a_dry_run_takes_no_turn_of_a_real_look_up_and_yields_its_own() {
        let (turns, real) = (turns(), requester("tenant", false));
        let host = |nth| format!("r{nth}.example.com/app");
        let held = fill(&turns, &requester("tenant", true), MAX_TURNS, host);
        let taking = fill(&turns, &real, MAX_TURNS, |nth| {
            format!("one{}.example.com/app", nth / MAX_PER_HOST)
        });
        assert_eq!(taken(&held).len(), MAX_TURNS);
        let app = place("registry.example.com/app");
        assert!(turns.try_acquire(&requester("other", true), &app).is_none());
        assert!(taken(&taking).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn equal_look_ups_wait_and_one_that_became_slow_loses_its_turn() {
        let (turns, team) = (turns(), requester("team", false));
        let app = place("registry.example.com/app");
        turns.answered(&app);
        let mut held = fill(&turns, &team, MAX_PER_HOST, |_| {
            "registry.example.com/app".to_owned()
        });
        let mut waiting = std::pin::pin!(turns.acquire(&team, &app));
        assert!(waiting.as_mut().now_or_never().is_none());
        held.pop();
        let _served = waiting.await;
        assert!(taken(&held).is_empty());
        tokio::time::advance(SLOW).await;
        let _newer = turns.try_acquire(&team, &app).unwrap();
        assert_eq!(taken(&held), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_places_is_bounded() {
        let turns = turns();
        let name = |nth| place(&format!("r{nth}.example.com/app"));
        for nth in 0..MAX_ANSWERS + 2 {
            tokio::time::advance(Duration::from_millis(1)).await;
            turns.answered(&name(nth));
        }
        let state = turns.lock();
        assert!(state.answers.len() <= MAX_ANSWERS);
        assert!(state.answers.contains_key(&name(MAX_ANSWERS + 1).host));
    }
}
