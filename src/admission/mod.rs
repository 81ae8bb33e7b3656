//! The admission webhooks: they refuse an `ImageAttachment` that cannot work, tell people when they run what is out of date, and
//! turn tags into digests where a namespace asks for that.
//!
//! Owns: the TLS server and its limits, its certificates, the verdicts, and what is known of the images of pods. Refuses: to be
//! needed. Without it every resource is judged the same by the schema and the controller, only later; and whatever it cannot
//! find out in time admits with a warning. It writes to no registry and knows nothing of the controller.

#![allow(dead_code, reason = "pods are judged in the next step")]

mod body;
mod certificate;
mod given;
mod image_attachment;
mod keeper;
mod mark;
mod metrics;
mod options;
mod review;
mod reviewer;
mod routes;
mod run;
mod server;

pub use mark::LifecycleType;
pub use options::{CertificateSource, Lookups, Options, SelfManaged, ServerLimits};
pub use run::{Clock, RunError, run, serve};
