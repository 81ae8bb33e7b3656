//! The context of a pass: its request, its session with the registry, its signer and its deadline.

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::api::Reason;
use crate::attachment::Problem;
use crate::signing::Signer;
use affix_registry::{Limits, Session};

use super::failure::Failure;
use super::options::EngineOptions;
use super::request::build::Request;

/// The context of one pass. Free functions of the engine take it by reference.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Context<'a> {
    pub(in crate::engine) options: &'a EngineOptions,
    pub(in crate::engine) limits: &'a Limits,
    pub(in crate::engine) request: &'a Request,
    pub(in crate::engine) session: &'a Session,
    /// The opened key of a resource that signs, or the problem with it.
    pub(in crate::engine) signer: Option<Result<&'a Arc<dyn Signer>, &'a Problem>>,
    pub(in crate::engine) deadline: Instant,
    pub(in crate::engine) now: Timestamp,
}

impl<'a> Context<'a> {
    /// Returns the signer if the key is open.
    pub(in crate::engine) fn open_signer(&self) -> Option<&'a Arc<dyn Signer>> {
        self.signer.and_then(Result::ok)
    }

    /// Returns the signer of a resource that signs.
    ///
    /// # Errors
    /// Fails with the problem of the key, or with `SecretNotFound` if there is none.
    pub(in crate::engine) fn signer(&self) -> Result<&'a Arc<dyn Signer>, Problem> {
        match self.signer {
            Some(opened) => opened.map_err(Clone::clone),
            None => Err(Problem::new(
                Reason::SecretNotFound,
                "the resource signs, and no key was given to sign with",
            )),
        }
    }

    /// Runs `work` until the deadline of the pass.
    pub(in crate::engine) async fn in_time<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        timeout_at(self.deadline, work)
            .await
            .map_err(|_| self.timed_out())
    }

    /// Returns the failure of a pass that exceeded its deadline. It is retried for either limit: the registry may answer faster later.
    pub(in crate::engine) fn timed_out(&self) -> Failure {
        let asked = self.request.timeout;
        let allowed = self.options.bounded(asked);
        let (host, asked_seconds) = (&self.request.intent.reference.host, asked.as_secs_f64());
        let message = if allowed < asked {
            format!(
                "{host} is slow: the pass was not done within {} s, the operator's limit for one pass (--max-pass-time), where spec.timeout \
                 asks for {asked_seconds} s",
                allowed.as_secs_f64()
            )
        } else {
            format!("{host} did not answer within spec.timeout ({asked_seconds} s)")
        };
        Failure::new(Reason::RegistryUnavailable, message)
    }
}
