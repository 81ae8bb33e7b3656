//! What waits to be visited: each resource once, in lines of which each moves on by itself.
//!
//! A line has the resources of one registry that somebody waits for, or those that nobody waits for. How many of a line are visited at once
//! is not known here: whoever takes from the queue says which line may move on. A resource whose visit is under way is not
//! visited a second time beside it; what comes meanwhile counts when that visit has ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::controller::watch::cache::Name;

/// Where a resource waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// It needs no turn: it is being deleted and waits within its own time, or it cannot be read.
    Free,
    /// Somebody waits for it. The registry's host.
    Express(Arc<str>),
    /// Nobody does.
    Routine(Arc<str>),
}

/// A resource that waits no longer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    pub(crate) name: Arc<Name>,
    pub(crate) turn: T,
    /// Since when it had waited.
    pub(crate) since: Instant,
}

/// The lines. It is used by one task alone.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: HashMap<Arc<Name>, Place>,
    /// Who stands in a line, and the number of its place: one that stands somewhere else by now has another.
    lines: HashMap<Line, VecDeque<(u64, Arc<Name>)>>,
    /// Lines in which somebody stands, in the order in which they may move on.
    order: VecDeque<Line>,
    /// What is being visited, and where it waits again once that has ended.
    visited: HashMap<Arc<Name>, Option<Line>>,
    number: u64,
}

#[derive(Debug)]
struct Place {
    line: Line,
    number: u64,
    since: Instant,
}

impl Line {
    /// Whether who stands here stays, when it comes once more for the other line.
    fn outranks(&self, other: &Self) -> bool {
        self == other || matches!(other, Self::Routine(_)) && !matches!(self, Self::Routine(_))
    }
}

impl Queue {
    /// The time of a resource has come. Whoever waits already goes to the other line, unless it is one that nobody waits for.
    pub(crate) fn add(&mut self, name: Arc<Name>, line: Line, now: Instant) {
        if let Some(next) = self.visited.get_mut(&name) {
            if !next.as_ref().is_some_and(|next| next.outranks(&line)) {
                *next = Some(line);
            }
            return;
        }
        let before = self.waiting.get(&name);
        if before.is_some_and(|place| place.line.outranks(&line)) {
            return;
        }
        let since = before.map_or(now, |place| place.since);
        self.number += 1;
        let standing = self.lines.entry(line.clone()).or_default();
        if standing.is_empty() {
            self.order.push_back(line.clone());
        }
        standing.push_back((self.number, Arc::clone(&name)));
        self.waiting.insert(
            name,
            Place {
                line,
                number: self.number,
                since,
            },
        );
    }

    /// The next resource whose line may move on, with what `turn` gives for it. Its visit is under way until [`finished`](Self::finished).
    pub(crate) fn take<T>(&mut self, mut turn: impl FnMut(&Line) -> Option<T>) -> Option<Taken<T>> {
        for _ in 0..self.order.len() {
            let line = self.order.pop_front()?;
            let Some(standing) = self.lines.get_mut(&line) else {
                continue;
            };
            let is_here = |(number, name): &(u64, Arc<Name>)| {
                self.waiting
                    .get(name)
                    .is_some_and(|place| place.number == *number)
            };
            while standing.front().is_some_and(|first| !is_here(first)) {
                standing.pop_front();
            }
            let turn = if standing.is_empty() {
                None
            } else {
                turn(&line)
            };
            let taken = turn.and_then(|turn| Some((turn, standing.pop_front()?.1)));
            if standing.is_empty() {
                self.lines.remove(&line);
            } else {
                self.order.push_back(line);
            }
            if let Some((turn, name)) = taken
                && let Some(place) = self.waiting.remove(&name)
            {
                self.visited.insert(Arc::clone(&name), None);
                return Some(Taken {
                    name,
                    turn,
                    since: place.since,
                });
            }
        }
        None
    }

    /// A visit has ended. What has come meanwhile waits from now on.
    pub(crate) fn finished(&mut self, name: &Arc<Name>, now: Instant) {
        if let Some(line) = self.visited.remove(name).flatten() {
            self.add(Arc::clone(name), line, now);
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn name(name: &str) -> Arc<Name> {
        Arc::new(Name::new(Some("team"), name))
    }

    fn express(host: &str) -> Line {
        Line::Express(host.into())
    }

    fn routine(host: &str) -> Line {
        Line::Routine(host.into())
    }

    fn queue(waiting: &[(&str, Line)]) -> Queue {
        let mut queue = Queue::default();
        for (resource, line) in waiting {
            queue.add(name(resource), line.clone(), Instant::now());
        }
        queue
    }

    /// Takes what `may` lets pass, until nothing more comes.
    fn taken(queue: &mut Queue, may: impl Fn(&Line) -> bool) -> Vec<String> {
        std::iter::from_fn(|| queue.take(|line| may(line).then_some(())))
            .map(|taken| taken.name.to_string())
            .collect()
    }

    #[test]
    fn a_line_moves_in_order_and_lines_take_turns() {
        let lines = [
            ("a1", routine("a")),
            ("a2", routine("a")),
            ("a3", routine("a")),
            ("b1", routine("b")),
            ("c1", express("a")),
        ];
        let mut queue = queue(&lines);
        assert_eq!(
            taken(&mut queue, |_| true),
            ["team/a1", "team/b1", "team/c1", "team/a2", "team/a3"]
        );
        assert_eq!(
            (queue.len(), queue.lines.len(), queue.order.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_line_that_may_not_move_holds_up_no_other() {
        let mut queue = queue(&[
            ("a1", routine("dead")),
            ("a2", routine("dead")),
            ("b", routine("alive")),
            ("c", express("dead")),
            ("d", Line::Free),
        ]);
        assert_eq!(
            taken(&mut queue, |line| *line != routine("dead")),
            ["team/b", "team/c", "team/d"]
        );
        assert_eq!(queue.len(), 2);
        assert_eq!(taken(&mut queue, |_| true), ["team/a1", "team/a2"]);
    }

    #[test]
    fn whoever_somebody_comes_to_wait_for_leaves_the_routine_and_does_not_go_back() {
        let mut queue = queue(&[
            ("a", routine("r")),
            ("b", routine("r")),
            ("b", express("r")),
            ("b", routine("r")),
        ]);
        assert_eq!(queue.len(), 2);
        assert_eq!(taken(&mut queue, |line| *line == express("r")), ["team/b"]);
        assert_eq!(taken(&mut queue, |_| true), ["team/a"]);
    }

    #[test]
    fn one_whose_image_has_changed_waits_for_the_registry_that_it_names_now() {
        let mut queue = queue(&[("a", express("old")), ("a", express("new"))]);
        assert_eq!(
            (
                queue.len(),
                taken(&mut queue, |line| *line == express("old"))
            ),
            (1, Vec::new())
        );
        assert_eq!(taken(&mut queue, |_| true), ["team/a"]);
    }

    #[test]
    fn what_is_being_visited_is_visited_once_more_when_that_has_ended_and_only_if_something_came() {
        let mut queue = queue(&[("a", routine("r"))]);
        assert_eq!(taken(&mut queue, |_| true), ["team/a"]);
        for line in [express("r"), routine("r")] {
            queue.add(name("a"), line, Instant::now());
        }
        assert!(taken(&mut queue, |_| true).is_empty());
        queue.finished(&name("a"), Instant::now());
        assert_eq!(taken(&mut queue, |line| *line == express("r")), ["team/a"]);
        queue.finished(&name("a"), Instant::now());
        assert!(taken(&mut queue, |_| true).is_empty() && queue.visited.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_counts_from_its_begin_whatever_line_it_ends_in() {
        let (mut queue, began) = (queue(&[("a", routine("r"))]), Instant::now());
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        queue.add(name("a"), express("r"), Instant::now());
        assert_eq!(queue.take(|_| Some(())).unwrap().since, began);
    }
}
