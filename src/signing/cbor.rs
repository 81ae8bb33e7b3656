//! Just enough CBOR (RFC 8949) to find the payload of a COSE_Sign1 (RFC 9052, section 4.2).
//!
//! Owns the walk over definite-length items, bounded in depth and never past the end. It refuses indefinite lengths: no
//! signer of images writes them, and what is refused here is merely not looked into.

/// How deep items may nest.
const DEEPEST: usize = 16;

/// The tag of a COSE_Sign1 (RFC 9052, section 2).
const COSE_SIGN1: u64 = 18;

/// The kinds of item that matter here (RFC 8949, section 3.1).
mod major {
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
}

/// The third element of a COSE_Sign1, with or without its tag; `None` where `bytes` are no COSE_Sign1 with an attached payload.
pub(super) fn cose_sign1_payload(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let mut head = reader.head()?;
    if head == (major::TAG, COSE_SIGN1) {
        head = reader.head()?;
    }
    if head != (major::ARRAY, 4) {
        return None;
    }
    let _protected = reader.byte_string()?;
    if !reader.starts_with(major::MAP) {
        return None;
    }
    reader.skip(0)?;
    let payload = reader.byte_string()?;
    let _signature = reader.byte_string()?;
    reader.0.is_empty().then_some(payload)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn starts_with(&self, kind: u8) -> bool {
        self.0.first().is_some_and(|byte| byte >> 5 == kind)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// An item's kind and argument (RFC 8949, section 3).
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = *self.take(1)?.first()?;
        let argument = match first & 0x1f {
            small @ 0..=23 => u64::from(small),
            size @ 24..=27 => self
                .take(1 << (size - 24))?
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
            _ => return None,
        };
        Some((first >> 5, argument))
    }

    fn byte_string(&mut self) -> Option<&'a [u8]> {
        match self.head()? {
            (major::BYTES, length) => self.take(usize::try_from(length).ok()?),
            _ => None,
        }
    }

    /// Steps over one item. A count that no input could hold ends at the end of the input, not after that many rounds.
    fn skip(&mut self, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let (kind, argument) = self.head()?;
        let children = match kind {
            major::BYTES | major::TEXT => {
                self.take(usize::try_from(argument).ok()?)?;
                0
            }
            major::ARRAY => argument,
            major::MAP => argument.checked_mul(2)?,
            major::TAG => 1,
            _ => 0,
        };
        for _ in 0..children {
            self.skip(depth + 1)?;
        }
        Some(())
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
        assert_eq!(cose_sign1_payload(&untagged).unwrap(), b"{}");
        let tagged: Vec<u8> = [0xd2].into_iter().chain(untagged).collect();
        assert_eq!(cose_sign1_payload(&tagged).unwrap(), b"{}");
    }

    #[test]
    fn what_is_no_cose_sign1_has_no_payload() {
        for (bytes, why) in [
            (&[][..], "nothing"),
            (b"{}", "a short text"),
            (&[0x84, 0x40, 0xa0, 0xf6, 0x40], "a detached payload"),
            (&[0x83, 0x40, 0xa0, 0x40], "three elements"),
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
                &[0x84, 0x40, 0xbf, 0xff, 0x40, 0x40],
                "an indefinite length",
            ),
        ] {
            assert_eq!(cose_sign1_payload(bytes), None, "{why}");
        }
        let deep: Vec<u8> = [0x84, 0x40, 0xa1, 0x01]
            .into_iter()
            .chain([0x81; 100_000])
            .collect();
        assert_eq!(cose_sign1_payload(&deep), None);
    }
}
