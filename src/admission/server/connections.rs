//! Seats: how many connections there are, and which of them leaves when a new one needs its place.
//!
//! Who connects and then says nothing must not keep the API server out. So there is always a seat for a new connection, unless
//! every other one has a review under way, and those end by themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All seats.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    occupants: HashMap<u64, Occupant>,
}

#[derive(Debug)]
struct Occupant {
    /// Reviews under way.
    reviews: usize,
    /// Whether it ever had one: who never did goes first.
    had_one: bool,
    idle_since: Instant,
    leave: CancellationToken,
}

/// One connection's seat. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    leave: CancellationToken,
}

/// A review under way on a connection.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Seat>);

impl Seats {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free seat, or that of the connection that has idled the longest, which is told to leave. `None`: nobody idles.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Arc<Seat>> {
        let mut taken = self.taken();
        if taken.occupants.len() >= self.most {
            let idle = taken
                .occupants
                .iter()
                .filter(|(_, occupant)| occupant.reviews == 0);
            let (&id, _) =
                idle.min_by_key(|(id, occupant)| (occupant.had_one, occupant.idle_since, **id))?;
            if let Some(occupant) = taken.occupants.remove(&id) {
                occupant.leave.cancel();
            }
        }
        let (id, leave) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.occupants.insert(
            id,
            Occupant {
                reviews: 0,
                had_one: false,
                idle_since: Instant::now(),
                leave: leave.clone(),
            },
        );
        Some(Arc::new(Seat {
            seats: Arc::clone(self),
            id,
            leave,
        }))
    }
}

impl Seat {
    /// Ends when another connection needs the seat.
    pub(crate) async fn needed(&self) {
        self.leave.cancelled().await;
    }

    /// Says that a review is under way, until what is returned is dropped.
    pub(crate) fn review(self: &Arc<Self>) -> UnderWay {
        if let Some(occupant) = self.seats.taken().occupants.get_mut(&self.id) {
            occupant.reviews += 1;
            occupant.had_one = true;
        }
        UnderWay(Arc::clone(self))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(occupant) = self.0.seats.taken().occupants.get_mut(&self.0.id) {
            occupant.reviews = occupant.reviews.saturating_sub(1);
            occupant.idle_since = Instant::now();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().occupants.remove(&self.id);
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    async fn later() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_takes_the_seat_of_who_never_asked_then_of_who_idled_the_longest() {
        let seats = Seats::new(3);
        let asked_early = seats.take().unwrap();
        drop(asked_early.review());
        later().await;
        let asked_late = seats.take().unwrap();
        drop(asked_late.review());
        later().await;
        let silent = seats.take().unwrap();
        let left = |seat: &Seat| seat.needed().now_or_never().is_some();

        let fourth = seats.take().unwrap();
        drop(fourth.review());
        assert_eq!(
            (left(&asked_early), left(&asked_late), left(&silent)),
            (false, false, true)
        );
        let _fifth = seats.take().unwrap().review();
        assert_eq!(
            (left(&asked_early), left(&asked_late), left(&fourth)),
            (true, false, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_with_a_review_under_way_loses_a_seat() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().unwrap(), seats.take().unwrap());
        let (_once, twice) = (first.review(), [second.review(), second.review()]);
        assert!(seats.take().is_none());
        let [one, other] = twice;
        drop(one);
        assert!(seats.take().is_none());
        drop(other);
        assert!(seats.take().is_some() && second.needed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_is_free_again_when_its_connection_has_gone() {
        let seats = Seats::new(1);
        let first = seats.take().unwrap();
        let review = first.review();
        drop((first, review));
        let second = seats.take().unwrap();
        assert!(second.needed().now_or_never().is_none());
    }
}
