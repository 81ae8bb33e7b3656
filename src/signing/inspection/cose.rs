//! Reads the payload of a COSE_Sign1 message (RFC 9052, section 4.2).
//!
//! The caller limits the size of a message. This module limits the nesting and keeps nothing of the headers, so a message
//! never takes much more memory than its own size.

use std::fmt;

use ciborium::tag::Accepted;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The maximum depth of nested items.
const MAX_DEPTH: usize = 16;

/// The tag of a COSE_Sign1 message (RFC 9052, section 2).
const COSE_SIGN1: u64 = 18;

/// The protected header, the unprotected header, the payload and the signature.
type Sign1 = Accepted<(ByteString, IgnoredMap, ByteString, ByteString), COSE_SIGN1>;

/// Returns the attached payload of a COSE_Sign1 message, with or without its tag, or `None` for other input.
pub(super) fn sign1_payload(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let Accepted((_, _, payload, _)): Sign1 =
        ciborium::de::from_reader_with_recursion_limit(&mut bytes, MAX_DEPTH).ok()?;
    bytes.is_empty().then_some(payload.0)
}

/// A byte string.
struct ByteString(Vec<u8>);

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = ByteString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<ByteString, E> {
                Ok(ByteString(bytes.to_vec()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<ByteString, E> {
                Ok(ByteString(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// A map whose entries are skipped.
struct IgnoredMap;

impl<'de> Deserialize<'de> for IgnoredMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = IgnoredMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<IgnoredMap, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(IgnoredMap)
            }
        }

        deserializer.deserialize_map(Entries)
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
    fn the_payload_is_the_third_element_with_or_without_the_tag() {
        let untagged = [
            0x84, 0x41, 0xa0, 0xa1, 0x18, 0x21, 0x81, 0x41, 0x01, 0x42, b'{', b'}', 0x41, 0xff,
        ];
        assert_eq!(sign1_payload(&untagged).unwrap(), b"{}");
        let tagged: Vec<u8> = [0xd2].into_iter().chain(untagged).collect();
        assert_eq!(sign1_payload(&tagged).unwrap(), b"{}");
    }

    #[test]
    fn other_input_has_no_payload() {
        for (bytes, why) in [
            (&[][..], "no bytes"),
            (b"{}", "a short text"),
            (&[0x84, 0x40, 0xa0, 0xf6, 0x40], "a detached payload"),
            (&[0x83, 0x40, 0xa0, 0x40], "three elements"),
            (&[0xd1, 0x84, 0x40, 0xa0, 0x40, 0x40], "another tag"),
            (&[0x84, 0x40, 0x80, 0x40, 0x40], "an array for a map"),
            (&[0x84, 0x40, 0xa0, 0x40, 0x40, 0x00], "bytes after the end"),
            (
                &[0x84, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "a length beyond the input",
            ),
            (
                &[
                    0x84, 0x40, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00,
                ],
                "a count beyond the input",
            ),
            (
                &[0x9f, 0x40, 0xa0, 0x40, 0x40, 0xff],
                "an array of indefinite length",
            ),
        ] {
            assert_eq!(sign1_payload(bytes), None, "{why}");
        }
    }

    #[test]
    fn deep_nesting_and_many_items_end_without_a_panic() {
        for (items, why) in [
            (vec![0x81; 1 << 20], "an array in an array"),
            (vec![0xc1; 1 << 20], "a tag on a tag"),
            (
                [vec![0x9b; 1], vec![0xff; 8], vec![0x00; 1 << 20]].concat(),
                "a large array",
            ),
        ] {
            let bytes: Vec<u8> = [0x84, 0x40, 0xa1, 0x01].into_iter().chain(items).collect();
            assert_eq!(sign1_payload(&bytes), None, "{why}");
        }
    }
}
