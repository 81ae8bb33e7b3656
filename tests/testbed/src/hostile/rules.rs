//! The rules that a test has laid down: which faults, hooks and holds are for which requests, and how often they were used.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::fault::{Fault, Stage};
use super::lock;
use super::matcher::Matcher;
use super::record::Request;

/// Timeout of [`Hold::reached`].
const PATIENCE: Duration = Duration::from_secs(30);

/// Code of a test that runs at a request.
pub(super) type Hook = Arc<dyn Fn(Request) -> BoxFuture<'static, ()> + Send + Sync>;

/// The effect of a rule.
#[derive(Clone)]
pub(super) enum Work {
    Fault(Fault),
    Hook(Hook),
}

struct Entry {
    id: u64,
    stage: Stage,
    matcher: Matcher,
    work: Work,
    seen: u64,
    taken: u64,
}

#[derive(Default)]
struct Book {
    next: u64,
    entries: Vec<Entry>,
}

/// All rules of a registry, in the order in which they were laid down.
#[derive(Clone, Default)]
pub(super) struct Rules {
    book: Arc<Mutex<Book>>,
}

/// A rule that was laid down. It stays when this is dropped.
#[derive(Clone)]
pub struct Rule {
    id: u64,
    rules: Rules,
}

impl Rules {
    pub(super) fn add(&self, stage: Stage, matcher: Matcher, work: Work) -> Rule {
        let mut book = lock(&self.book);
        let id = book.next;
        book.next += 1;
        book.entries.push(Entry {
            id,
            stage,
            matcher,
            work,
            seen: 0,
            taken: 0,
        });
        Rule {
            id,
            rules: self.clone(),
        }
    }

    pub(super) fn clear(&self) {
        lock(&self.book).entries.clear();
    }

    /// Returns the effects for this stage of a request. Of the faults that replace the answer only
    /// the first is used and counted: two rules with a 503 and a 429 apply one after the other.
    pub(super) fn take(&self, stage: Stage, request: &Request) -> Vec<Work> {
        let mut replaced = false;
        let mut work = Vec::new();
        for entry in lock(&self.book)
            .entries
            .iter_mut()
            .filter(|entry| entry.stage == stage)
        {
            let replaces = matches!(&entry.work, Work::Fault(fault) if fault.replaces());
            if (replaces && replaced) || !entry.matcher.matches(request) {
                continue;
            }
            let takes = entry.matcher.takes(entry.seen);
            entry.seen += 1;
            if takes {
                entry.taken += 1;
                replaced |= replaces;
                work.push(entry.work.clone());
            }
        }
        work
    }

    /// Stops the requests that `matcher` takes until the hold is released.
    pub(super) fn hold(&self, stage: Stage, matcher: Matcher) -> Hold {
        let (gate, open) = watch::channel(false);
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let hook: Hook = Arc::new(move |request| {
            let mut open = open.clone();
            let arrived = arrived.clone();
            Box::pin(async move {
                // If the hold is gone, there is nothing to wait for.
                let _ = arrived.send(request);
                let _ = open.wait_for(|open| *open).await;
            })
        });
        let rule = self.add(stage, matcher, Work::Hook(hook));
        Hold {
            gate,
            arrivals,
            rule,
        }
    }
}

impl Rule {
    /// Returns the number of requests that the rule was used for.
    #[must_use]
    pub fn used(&self) -> u64 {
        let book = lock(&self.rules.book);
        book.entries
            .iter()
            .find(|entry| entry.id == self.id)
            .map_or(0, |entry| entry.taken)
    }

    /// Takes the rule back.
    pub fn lift(&self) {
        lock(&self.rules.book)
            .entries
            .retain(|entry| entry.id != self.id);
    }
}

/// Stops requests in the middle. They go on when it is released or dropped.
#[must_use = "a hold that is dropped holds nothing"]
pub struct Hold {
    gate: watch::Sender<bool>,
    arrivals: mpsc::UnboundedReceiver<Request>,
    rule: Rule,
}

impl Hold {
    /// Waits for the next request that is stopped here.
    ///
    /// # Errors
    ///
    /// Where none comes within 30 seconds.
    pub async fn reached(&mut self) -> Result<Request> {
        let next = tokio::time::timeout(PATIENCE, self.arrivals.recv()).await;
        next.context("no request reached the hold within 30 seconds")?
            .context("the rule of the hold was lifted")
    }

    /// Lets all go on that are stopped here, and stops no more.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.rule.lift();
        self.gate.send_replace(true);
    }
}
