//! The admission webhooks: they refuse an `ImageAttachment` that cannot work, tell people when they run what is out of date, and
//! turn tags into digests where a namespace asks for that.
//!
//! Owns: the TLS server and its limits, its certificates, the verdicts, and what is known of the images of pods. Refuses: to be
//! needed. Without it every resource is judged the same by the schema and the controller, only later; and whatever it cannot
//! find out in time admits with a warning. It writes to no registry and knows nothing of the controller.

mod certificates;
mod metrics;
mod options;
mod pods;
mod review;
mod run;
mod server;

pub use options::{
    CertificateSource, Clock, LifecycleType, Lookups, Options, SelfManaged, ServerLimits,
};
pub use run::{run, serve};

/// What is answered to a review of an `ImageAttachment`, as it comes, without asking the cluster or a registry: for what measures it.
/// `None`: it is no review.
#[doc(hidden)]
#[must_use]
pub fn answer_alone(review: &[u8], registries: &affix_registry::Registries) -> Option<Vec<u8>> {
    let request = review::request::parse(review).ok()?;
    let verdict = review::image_attachment::judge(&request, registries)
        .err()
        .unwrap_or_default();
    serde_json::to_vec(&review::response::answer(&request.uid, verdict)).ok()
}
