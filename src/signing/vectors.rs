//! The test vectors that the real tools made (`tests/vectors/signing/README.md`).
#![allow(
    clippy::expect_used,
    reason = "a test that lacks its vectors fails, as it should"
)]

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::{Descriptor, Digest, media_type};

/// The password of every encrypted key.
pub(super) const PASSWORD: &[u8] = b"affix";

/// The signing time of notation's envelopes.
pub(super) const SIGNED_AT: &str = "2026-11-23T19:04:09Z";

/// Returns the content of a vector.
pub(super) fn read(name: &str) -> Vec<u8> {
    let file = format!(
        "{}/tests/vectors/signing/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&file).expect(name)
}

/// Returns the signed image.
pub(super) fn subject() -> Descriptor {
    Descriptor::of(media_type::OCI_MANIFEST, &read("subject.json"))
}

/// Returns an image without a signature.
pub(super) fn another() -> Descriptor {
    Descriptor::plain(media_type::OCI_MANIFEST, Digest::sha256(b"another"), 7)
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}
