//! Observation of requests, for metrics.
//!
//! Events are reported as they happen. None of them names a repository, a tag or a digest, so they can become labels of metrics.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Object, Operation};

/// One attempt of a request that has ended. Each redirect is an attempt of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// The HTTP method.
    pub method: &'static str,
    /// The kind of object that the request is about.
    pub object: Object,
    /// The HTTP status; `None` for an attempt without a response, or that was cancelled.
    pub status: Option<u16>,
    /// The duration, without the wait for the rate limiter.
    pub took: Duration,
}

/// Receives the events of all requests. It is called from the task of the request and must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Called when an attempt has ended.
    fn tried(&self, one: Try);

    /// Called when a registry has asked for a pause under one credential. `time` is the time by which the pause has grown.
    fn paused(&self, time: Duration);
}

/// Ignores all events.
#[derive(Debug)]
pub(crate) struct Unobserved;

impl Observer for Unobserved {
    fn tried(&self, _: Try) {}
    fn paused(&self, _: Duration) {}
}

/// An attempt in progress. Dropping it reports it, also if its task is cancelled.
pub(crate) struct Attempt<'a> {
    observer: &'a dyn Observer,
    method: &'static str,
    object: Object,
    begun: Instant,
    status: Option<u16>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn begin(observer: &'a dyn Observer, operation: &Operation) -> Self {
        Self {
            observer,
            method: operation.method,
            object: operation.object,
            begun: Instant::now(),
            status: None,
        }
    }

    /// Records the status of the response.
    pub(crate) const fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Attempt<'_> {
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
