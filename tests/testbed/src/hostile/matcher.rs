//! Matchers: the requests that a fault, a hook or a hold applies to.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use super::digest::is_fallback_tag;
use super::glob;
use super::op::Op;
use super::record::Request;

type Condition = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// Picks requests. Every condition that is set must hold; of the requests that it holds for, the first [`skip`](Self::skip) are let
/// pass and then [`times`](Self::times) are taken.
#[derive(Clone, Default)]
#[must_use]
pub struct Matcher {
    ops: Vec<Op>,
    conditions: Vec<Condition>,
    skip: u64,
    times: Option<u64>,
    until: Option<Instant>,
}

impl Matcher {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests for `op`.
    pub fn on(op: Op) -> Self {
        Self {
            ops: vec![op],
            ..Self::default()
        }
    }

    /// Requests that change something.
    pub fn writes() -> Self {
        Self::any().when(|request| request.op.is_write())
    }

    /// Requests that change nothing and are not for a token.
    pub fn reads() -> Self {
        Self::any().when(|request| !request.op.is_write() && request.op != Op::Token)
    }

    /// Requests for `op` too.
    pub fn or(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Only with this method.
    pub fn method(self, method: Method) -> Self {
        self.when(move |request| request.method == method)
    }

    /// Only where the path has the form of `pattern`, in which `*` stands for anything.
    pub fn path(self, pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        self.when(move |request| glob(&pattern, &request.path))
    }

    /// Only in this repository.
    pub fn repository(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.when(move |request| request.repository.as_deref() == Some(&*name))
    }

    /// Only for this tag or digest (also as the `digest` of an upload), in which `*` stands for anything.
    pub fn reference(self, pattern: impl Into<String>) -> Self {
        let pattern = pattern.into();
        self.when(move |request| {
            request
                .reference
                .as_deref()
                .is_some_and(|reference| glob(&pattern, reference))
                || request
                    .parameter("digest")
                    .is_some_and(|digest| glob(&pattern, &digest))
        })
    }

    /// Only for a tag of the form of a fallback tag.
    pub fn fallback_tag(self) -> Self {
        self.when(|request| request.reference.as_deref().is_some_and(is_fallback_tag))
    }

    /// Only manifests that name a subject.
    pub fn with_subject(self) -> Self {
        self.when(|request| {
            serde_json::from_slice::<serde_json::Value>(&request.body).is_ok_and(|manifest| {
                manifest
                    .get("subject")
                    .is_some_and(|subject| !subject.is_null())
            })
        })
    }

    /// Only with (`true`) or without (`false`) an `Authorization`.
    pub fn authorized(self, authorized: bool) -> Self {
        self.when(move |request| request.headers.contains_key("authorization") == authorized)
    }

    /// Only where `condition` holds. A condition on the body holds for no request whose body has not been read yet ([`Stage::Early`](super::Stage)).
    pub fn when(mut self, condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.conditions.push(Arc::new(condition));
        self
    }

    /// Let the first `count` pass.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Only the `nth`, counted from 1.
    pub fn nth(self, nth: u64) -> Self {
        self.skip(nth.saturating_sub(1)).times(1)
    }

    /// At most `count` of them.
    pub fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Only within `span` from now.
    pub fn within(mut self, span: Duration) -> Self {
        self.until = Instant::now().checked_add(span);
        self
    }

    /// Returns true if the conditions hold, regardless of counts.
    #[must_use]
    pub fn matches(&self, request: &Request) -> bool {
        (self.ops.is_empty() || self.ops.contains(&request.op))
            && self.conditions.iter().all(|condition| condition(request))
    }

    /// Returns true if the request after `seen` matching ones is selected.
    pub(super) fn takes(&self, seen: u64) -> bool {
        let in_time = self.until.is_none_or(|until| Instant::now() < until);
        let in_count = self
            .times
            .is_none_or(|times| seen < self.skip.saturating_add(times));
        in_time && in_count && seen >= self.skip
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("ops", &self.ops)
            .field("conditions", &self.conditions.len())
            .field("skip", &self.skip)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}
