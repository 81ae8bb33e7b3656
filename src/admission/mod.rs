//! The admission webhooks. They refuse invalid `ImageAttachment` resources, report pods whose images
//! have reached their end of life, and replace tags by digests in namespaces that request it.
//!
//! The webhooks are optional. Without them, the schema and the controller apply the same rules later.
//! If a registry or the API server does not answer in time, a review admits the object with a warning.
//! The webhooks never write to a registry and do not use the controller.
//!
//! Layers, each of which uses only those before it: `review` (requests, verdicts, ImageAttachments),
//! `pods`, `reports`, `configurations`, `certificates`, `server`.

mod certificates;
mod configurations;
mod metrics;
mod options;
mod pods;
mod reports;
mod review;
mod run;
mod server;

pub use crate::inventory::ReportFormat;
pub use options::{
    CertificateSource, Clock, Configurations, DefaultMode, ImagePattern, LookupIdentity, Lookups,
    Options, ReportOptions, SelfManaged, ServerLimits, UncheckedPolicy,
};
pub use run::{run, self_check, serve};

/// Reviews an `ImageAttachment` without requests to the cluster or a registry, for benchmarks. Returns
/// `None` if `review` is not an AdmissionReview.
#[doc(hidden)]
#[must_use]
pub fn review_offline(review: &[u8], registries: &affix_registry::Registries) -> Option<Vec<u8>> {
    let request = review::request::parse(review).ok()?;
    let verdict = review::image_attachment::judge(&request, registries)
        .err()
        .unwrap_or_default();
    serde_json::to_vec(&review::response::answer(&request.uid, verdict)).ok()
}
