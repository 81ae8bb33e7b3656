//! Reads the payload of a COSE_Sign1 message (RFC 9052, section 4.2).
//!
//! `minicbor` borrows from the input, skips items in a loop and allocates nothing, so neither deep nesting nor a large
//! count costs memory or stack. Messages of indefinite length are not read: no image signer writes them.

use minicbor::Decoder;
use minicbor::data::{Tag, Type};

/// The tag of a COSE_Sign1 message (RFC 9052, section 2).
const COSE_SIGN1: Tag = Tag::new(18);

/// Returns the attached payload of a COSE_Sign1 message, with or without its tag, or `None` for other input.
pub(super) fn sign1_payload(bytes: &[u8]) -> Option<&[u8]> {
    parse(&mut Decoder::new(bytes)).ok().flatten()
}

fn parse<'a>(decoder: &mut Decoder<'a>) -> Result<Option<&'a [u8]>, minicbor::decode::Error> {
    if decoder.datatype()? == Type::Tag && decoder.tag()? != COSE_SIGN1 {
        return Ok(None);
    }
    if decoder.array()? != Some(4) {
        return Ok(None);
    }
    let _protected_header = decoder.bytes()?;
    if decoder.datatype()? != Type::Map {
        return Ok(None);
    }
    decoder.skip()?;
    let payload = decoder.bytes()?;
    let _signature = decoder.bytes()?;
    let is_complete = decoder.position() == decoder.input().len();
    Ok(is_complete.then_some(payload))
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
                &[0x84, 0x40, 0xbf, 0xff, 0x40, 0x40],
                "an indefinite length",
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
