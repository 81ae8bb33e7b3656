//! Tests of the pure parts of a pass, with their helpers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

mod leftovers;
mod previous;
mod status;
mod table;
mod verdict;

use k8s_openapi::jiff::Timestamp;

use super::records::leftover::LeftoverRecord;
use super::records::target::TargetRecord;
use crate::api::{ImageStatus, Origin, Reason, TargetState};
use crate::attachment::{Created, Entry, EntryKind};
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

/// Returns the record of a platform whose digest is that of `name`.
fn target(name: &str, state: TargetState, reason: Option<Reason>) -> TargetRecord {
    let platform = format!("linux/{name}").parse().unwrap();
    let entry = Entry {
        subject: subject(name),
        kind: EntryKind::Platform(vec![platform]),
    };
    TargetRecord {
        state,
        reason,
        ..TargetRecord::pending(&entry)
    }
}

/// Returns the record of a target with an attachment that this resource made.
fn made(name: &str, attachment: &str, state: TargetState) -> TargetRecord {
    TargetRecord {
        attachment: Some(digest(attachment)),
        origin: Some(Origin::Made),
        created: Some(Created::at(now())),
        content: Some(digest("content")),
        ..target(name, state, None)
    }
}

fn leftover(subject: &str, attachment: &str, reason: Reason) -> LeftoverRecord {
    LeftoverRecord::new(&digest(subject), &digest(attachment), reason)
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
