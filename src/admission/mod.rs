//! The admission webhooks: they refuse an `ImageAttachment` that cannot work, tell people when they run what is out of date, and
//! turn tags into digests where a namespace asks for that.
//!
//! Owns: the TLS server and its limits, its certificates, the verdicts, and what is known of the images of pods. Refuses: to be
//! needed. Without it every resource is judged the same by the schema and the controller, only later; and whatever it cannot
//! find out in time admits with a warning. It writes to no registry and knows nothing of the controller.

mod advice;
mod authority;
mod body;
mod certificate;
mod credentials;
mod facts;
mod flights;
mod given;
mod image_attachment;
mod image_name;
mod keeper;
mod knowledge;
mod lookup;
mod mark;
mod metrics;
mod options;
mod pods;
mod review;
mod reviewer;
mod routes;
mod run;
mod seats;
mod server;
mod shared_certificate;
mod watch;
mod workload;

pub use mark::LifecycleType;
pub use options::{CertificateSource, Lookups, Options, SelfManaged, ServerLimits};
pub use run::{Clock, run, serve};

/// What is answered to a review of an `ImageAttachment`, as it comes, without asking the cluster or a registry: for what measures it.
/// `None`: it is no review.
#[doc(hidden)]
#[must_use]
pub fn answer_alone(review: &[u8], registries: &affix_registry::Registries) -> Option<Vec<u8>> {
    let request = review::read(review).ok()?;
    let verdict = image_attachment::judge(&request, registries)
        .err()
        .unwrap_or_default();
    serde_json::to_vec(&review::answer(&request.uid, verdict)).ok()
}
