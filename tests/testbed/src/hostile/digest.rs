//! Digests of content, as the registry computes them. Nothing here is shared with affix's own digests.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256, Sha512};

/// The algorithms that the registry can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// `sha256:` and 64 characters.
    #[default]
    Sha256,
    /// `sha512:` and 128 characters.
    Sha512,
}

impl Algorithm {
    /// The algorithm that `digest` names, where the registry knows it and the encoded part has the right form.
    pub(super) fn of(digest: &str) -> Option<Self> {
        let (name, encoded) = digest.split_once(':')?;
        let (algorithm, length) = match name {
            "sha256" => (Self::Sha256, 64),
            "sha512" => (Self::Sha512, 128),
            _ => return None,
        };
        let hex = encoded
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex && encoded.len() == length).then_some(algorithm)
    }

    /// The digest of `bytes`, in its written form.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> String {
        match self {
            Self::Sha256 => written("sha256", &Sha256::digest(bytes)),
            Self::Sha512 => written("sha512", &Sha512::digest(bytes)),
        }
    }
}

/// The sha256 digest of `bytes`, in its written form.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Algorithm::Sha256.digest(bytes)
}

/// The tag that stands in for the referrers API of the subject with this digest ("Referrers Tag Schema" of the distribution
/// specification: the algorithm is cut to 32 characters, the encoded part to 64).
#[must_use]
pub fn fallback_tag(digest: &str) -> String {
    let (algorithm, encoded) = digest.split_once(':').unwrap_or((digest, ""));
    let cut = |text: &str, to: usize| text.chars().take(to).collect::<String>();
    format!("{}-{}", cut(algorithm, 32), cut(encoded, 64))
}

/// Returns true if `tag` has the form of a fallback tag.
pub(super) fn is_fallback_tag(tag: &str) -> bool {
    tag.strip_prefix("sha256-")
        .or_else(|| tag.strip_prefix("sha512-"))
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn written(name: &str, hash: &[u8]) -> String {
    let mut text = format!("{name}:");
    for byte in hash {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
