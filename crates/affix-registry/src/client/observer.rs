//! Who is told of what goes over the wire, so that it can be counted.
//!
//! Owns the facts, each as it happens; what becomes of them (metrics, a progress bar, nothing) is the observer's. None of them names a
//! repository, a tag or a digest.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Object, Operation};

/// One try of a request that has ended. Redirects are tries of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// The HTTP method.
    pub method: &'static str,
    /// What it was done to.
    pub object: Object,
    /// The HTTP status; `None` where no answer came, or nobody waited for it any more.
    pub status: Option<u16>,
    /// How long it took, without the wait for a free place.
    pub took: Duration,
}

/// Is told of every request, from whatever task it is made in: it must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A try has ended.
    fn tried(&self, one: Try);

    /// A registry asked, under one credential, to be left alone for `time` more than it had asked before.
    fn paused(&self, time: Duration);
}

/// Nobody listens.
#[derive(Debug)]
pub(crate) struct Unobserved;

impl Observer for Unobserved {
    fn tried(&self, _: Try) {}
    fn paused(&self, _: Duration) {}
}

/// A try under way. It is told of also where its task is dropped.
pub(crate) struct Trial<'a> {
    observer: &'a dyn Observer,
    method: &'static str,
    object: Object,
    begun: Instant,
    status: Option<u16>,
}

impl<'a> Trial<'a> {
    pub(crate) fn begin(observer: &'a dyn Observer, operation: &Operation) -> Self {
        Self {
            observer,
            method: operation.method,
            object: operation.object,
            begun: Instant::now(),
            status: None,
        }
    }

    /// An answer has come.
    pub(crate) const fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let Self {
            method,
            object,
            status,
            ..
        } = *self;
        self.observer.tried(Try {
            method,
            object,
            status,
            took: self.begun.elapsed(),
        });
    }
}
