//! Content digests (image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A registered hash algorithm that this crate can compute (image-spec, descriptor.md, "Registered
/// Algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the usual algorithm.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Returns the name of the algorithm as it appears in a digest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Computes a [`Digest`] of content that arrives in pieces.
pub struct Hasher {
    algorithm: Algorithm,
    context: aws_lc_rs::digest::Context,
}

impl Hasher {
    /// Creates a hasher without content.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let context = aws_lc_rs::digest::Context::new(match algorithm {
            Algorithm::Sha256 => &aws_lc_rs::digest::SHA256,
            Algorithm::Sha512 => &aws_lc_rs::digest::SHA512,
        });
        Self { algorithm, context }
    }

    /// Adds content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Returns the digest of the content.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest {
            algorithm: self.algorithm,
            hex: hex(self.context.finish().as_ref()).into(),
        }
    }
}

/// Returns `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// A digest `algorithm:encoded` of a supported algorithm, with lower-case hexadecimal digits of the
/// right length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Algorithm::Sha256.hash(bytes)
    }

    /// Returns the algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the encoded part: lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns true if `bytes` have this digest.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.algorithm.hash(bytes) == *self
    }

    /// Returns the tag under which clients list referrers on registries without the referrers API
    /// (distribution-spec, "Referrers Tag Schema"): the algorithm, a hyphen, and the encoded part
    /// cut to 64 characters.
    #[must_use]
    pub fn fallback_tag(&self) -> String {
        let encoded = self.hex.get(..64).unwrap_or(&self.hex);
        format!("{}-{encoded}", self.algorithm.as_str())
    }

    /// Returns the tag under which cosign stores signatures beside the image: the fallback tag with
    /// the suffix `.sig`.
    #[must_use]
    pub fn signature_tag(&self) -> String {
        format!("{}.sig", self.fallback_tag())
    }

    /// Returns the first twelve characters of the encoded part, for output to people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reason for which text is not a digest that this crate can verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has no colon.
    #[error("digest {0:?} has no algorithm: write it as sha256:<64 hexadecimal digits>")]
    NoAlgorithm(String),
    /// The algorithm is not supported.
    #[error("digest algorithm {0:?} is not supported: use sha256 or sha512")]
    UnknownAlgorithm(String),
    /// The encoded part does not consist of lower-case hexadecimal digits of the right length.
    #[error(
        "digest {digest:?} is malformed: {algorithm} takes {expected} lower-case hexadecimal digits"
    )]
    Malformed {
        /// The text.
        digest: String,
        /// The algorithm.
        algorithm: &'static str,
        /// The number of digits that the algorithm needs.
        expected: usize,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text
            .split_once(':')
            .ok_or_else(|| DigestError::NoAlgorithm(cut(text)))?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => return Err(DigestError::UnknownAlgorithm(cut(other))),
        };
        let well_formed = encoded.len() == algorithm.hex_len()
            && encoded
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(DigestError::Malformed {
                digest: cut(text),
                algorithm: algorithm.as_str(),
                expected: algorithm.hex_len(),
            });
        }
        Ok(Self {
            algorithm,
            hex: encoded.into(),
        })
    }
}

/// Returns foreign text short enough to be quoted in a message: at most 160 characters after
/// escaping, with an ellipsis if it was cut.
///
/// The limit counts escaped characters because messages quote the text with `{:?}`, which writes up
/// to ten characters for one.
pub fn cut(text: &str) -> String {
    const MAX_LENGTH: usize = 160;
    let mut written = 0;
    let mut begins = text.char_indices();
    let end = begins.find(|(_, c)| {
        written += c.escape_debug().len();
        written > MAX_LENGTH
    });
    match end.and_then(|(at, _)| text.get(..at)) {
        Some(kept) => format!("{kept}…"),
        None => text.to_owned(),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_object_has_the_digest_that_the_image_specification_prints() {
        assert_eq!(
            Digest::sha256(b"{}").to_string(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn a_fallback_tag_cuts_a_sha512_digest_to_64_characters() {
        let digest = Algorithm::Sha512.hash(b"{}");
        assert_eq!(digest.fallback_tag().len(), "sha512-".len() + 64);
        assert!(
            digest
                .to_string()
                .starts_with(&digest.fallback_tag().replace('-', ":"))
        );
    }

    #[test]
    fn an_invalid_digest_is_refused_with_the_valid_form() {
        for (text, said) in [
            ("abc", "has no algorithm"),
            ("md5:abc", "\"md5\" is not supported: use sha256 or sha512"),
            ("sha256:ABC", "takes 64 lower-case hexadecimal digits"),
            (&format!("sha256:{}", "A".repeat(64)), "takes 64 lower-case"),
            (
                &format!("sha512:{}", "a".repeat(64)),
                "takes 128 lower-case",
            ),
        ] {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_to_itself_or_is_refused(text in "\\PC{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                assert_eq!(digest.to_string(), text);
            }
        }
    }
}
