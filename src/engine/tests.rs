//! The pure parts of a pass: rows, verdicts, what status remembers, and what is left to remove.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

mod memory;
mod removal;
mod rows;
mod status;
mod verdict;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::remove;
use super::rows::pending;
use crate::api::{ImageStatus, Leftover, Origin, Reason, TargetState, TargetStatus};
use crate::attachment::{Entry, EntryKind};
use affix_registry::oci::{Descriptor, Digest, Reference, media_type};

const NOON: &str = "2026-11-23T12:00:00Z";

fn now() -> Timestamp {
    NOON.parse().unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn subject(name: &str) -> Descriptor {
    Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes())
}

/// A row of a platform whose digest is that of `name`.
fn row(name: &str, state: TargetState, reason: Option<Reason>) -> TargetStatus {
    let platform = format!("linux/{name}").parse().unwrap();
    let entry = Entry {
        subject: subject(name),
        kind: EntryKind::Platform(vec![platform]),
    };
    TargetStatus {
        state,
        reason: reason.map(|reason| reason.to_string()),
        ..pending(&entry)
    }
}

/// A row with an attachment that this resource made.
fn made(name: &str, attachment: &str, state: TargetState) -> TargetStatus {
    TargetStatus {
        attachment: Some(digest(attachment).to_string()),
        origin: Some(Origin::Made),
        created: Some(Time(now())),
        content: Some(digest("content").to_string()),
        ..row(name, state, None)
    }
}

fn leftover(subject: &str, attachment: &str, reason: Reason) -> Leftover {
    remove::leftover(&digest(subject), &digest(attachment), reason, None)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(reference: &str, tag: Option<&str>, name: &str) -> ImageStatus {
    let digest = digest(name).to_string();
    ImageStatus {
        reference: format!("{reference}@{digest}"),
        digest,
        tag: tag.map(str::to_owned),
        media_type: None,
        tag_drift: None,
    }
}

const APP: &str = "registry.example.com/team/app";
