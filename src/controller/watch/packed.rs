//! JSON that is kept for long, in a quarter of its memory or so.
//!
//! What serde writes has neither a control character nor a byte that UTF-8 has not, so such bytes can stand for what comes again and
//! again in a resource: a digest, whose digits do not compress, takes half of its text or, where it was there before, two bytes; a time
//! takes five; and the names of fields take one each.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value, packed. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed(Arc<[u8]>);

/// Stands for `sha256:` and 64 hexadecimal digits; the 32 bytes of the digest follow.
const DIGEST: u8 = 0;
/// Stands for one that was there before; its place among them follows.
const AGAIN: u8 = 30;
/// Stands for a time in whole seconds of UTC; the seconds since the epoch follow.
const TIME: u8 = 31;
const TIME_TEXT: usize = "2026-11-26T10:00:00Z".len();
const ALGORITHM: &[u8] = b"sha256:";
const BYTES: usize = 32;
/// What a byte from 1 on stands for. Each begins with a quotation mark, and one that begins like another comes before it.
const PHRASES: [&str; 29] = [
    "\"},{\"kind\":\"Platform\",\"platform\":\"",
    "\"targets\":[{\"kind\":\"Index\",\"digest\":\"",
    "\",\"digest\":\"",
    "\",\"state\":\"Attached\",\"attachment\":\"",
    "\",\"state\":\"Skipped\",\"reason\":\"",
    "\",\"state\":\"",
    "\",\"origin\":\"Made\",\"created\":\"",
    "\",\"origin\":\"Adopted\",\"created\":\"",
    "\",\"content\":\"",
    "\"},{\"lastTransitionTime\":\"",
    "\"conditions\":[{\"lastTransitionTime\":\"",
    "\",\"message\":\"",
    "\",\"observedGeneration\":",
    "\"observedGeneration\":",
    "\"reason\":\"Attached\",\"status\":\"True\",\"type\":\"",
    "\"reason\":\"",
    "\",\"reason\":\"",
    "\",\"status\":\"True\",\"type\":\"",
    "\",\"status\":\"False\",\"type\":\"",
    "\"image\":{\"reference\":\"",
    "\"image\":\"",
    "\",\"tag\":\"",
    "\",\"mediaType\":\"application/vnd.oci.image.index.v1+json\"},",
    "\"artifactType\":\"application/vnd.",
    "\"referrersMode\":\"API\",\"attached\":\"",
    "\"referrersMode\":\"TagSchema\",\"attached\":\"",
    "\"annotations\":{\"",
    "\"Resolved\"",
    "\"annotation\":\"",
];

impl Packed {
    /// Packs what a value is as JSON.
    ///
    /// # Errors
    /// Where the value is none that JSON has.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_vec(value)?;
        let (mut packed, mut rest) = (Vec::with_capacity(text.len() / 2), text.as_slice());
        let mut digests: Vec<[u8; BYTES]> = Vec::new();
        while let Some((first, after)) = rest.split_first() {
            rest = if let Some((digest, after)) = digest(rest) {
                match digests
                    .iter()
                    .position(|known| *known == digest)
                    .map(u8::try_from)
                {
                    Some(Ok(place)) => packed.extend([AGAIN, place]),
                    _ => {
                        packed.push(DIGEST);
                        packed.extend(digest);
                        if digests.len() <= usize::from(u8::MAX) {
                            digests.push(digest);
                        }
                    }
                }
                after
            } else if let Some((seconds, after)) = time(rest) {
                packed.push(TIME);
                packed.extend(seconds.to_be_bytes());
                after
            } else if let Some((code, after)) = phrase(rest) {
                packed.push(code);
                after
            } else {
                packed.push(*first);
                after
            };
        }
        Ok(Self(packed.into()))
    }

    /// The value.
    ///
    /// # Errors
    /// Where what was packed is of another type.
    pub(crate) fn unpack<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let (mut text, mut rest) = (Vec::with_capacity(self.0.len() * 3), &*self.0);
        let mut digests: Vec<&[u8]> = Vec::new();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match *first {
                DIGEST => {
                    let digest = take(&mut rest, BYTES);
                    digests.push(digest);
                    write_digest(&mut text, digest);
                }
                AGAIN => {
                    let place = take(&mut rest, 1).first().map(|place| usize::from(*place));
                    write_digest(
                        &mut text,
                        place
                            .and_then(|place| digests.get(place))
                            .unwrap_or(&&[][..]),
                    );
                }
                TIME => {
                    let seconds = take(&mut rest, size_of::<u32>())
                        .try_into()
                        .map_or(0, u32::from_be_bytes);
                    text.extend(written(seconds).bytes());
                }
                code => match PHRASES.get(usize::from(code).wrapping_sub(1)) {
                    Some(phrase) => text.extend(phrase.bytes()),
                    None => text.push(code),
                },
            }
        }
        serde_json::from_slice(&text)
    }
}

#[cfg(test)]
impl Packed {
    /// Whether it is the same memory.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The next bytes of what is left.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    taken
}

fn write_digest(text: &mut Vec<u8>, digest: &[u8]) {
    text.extend(ALGORITHM);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|digit| {
        if digit < 10 {
            b'0' + digit
        } else {
            b'a' - 10 + digit
        }
    }));
}

/// The time that a text begins with, in seconds since the epoch, and what follows it.
fn time(text: &[u8]) -> Option<(u32, &[u8])> {
    let (time, after) = text.split_at_checked(TIME_TEXT)?;
    if !time.first()?.is_ascii_digit() || time.last() != Some(&b'Z') {
        return None;
    }
    let parsed: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
    let seconds = u32::try_from(parsed.as_second()).ok()?;
    (written(seconds).as_bytes() == time).then_some((seconds, after))
}

fn written(seconds: u32) -> String {
    Timestamp::from_second(i64::from(seconds))
        .unwrap_or_default()
        .to_string()
}

/// The digest that a text begins with, and what follows it.
fn digest(text: &[u8]) -> Option<([u8; BYTES], &[u8])> {
    let (digits, after) = text.strip_prefix(ALGORITHM)?.split_at_checked(2 * BYTES)?;
    let mut digest = [0; BYTES];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some((digest, after))
}

/// The byte of the phrase that a text begins with, and what follows it.
fn phrase(text: &[u8]) -> Option<(u8, &[u8])> {
    if text.first() != Some(&b'"') {
        return None;
    }
    (1..)
        .zip(PHRASES)
        .find_map(|(code, phrase)| Some((code, text.strip_prefix(phrase.as_bytes())?)))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn round(value: &Value) -> (usize, usize) {
        let packed = Packed::of(value).unwrap();
        assert_eq!(packed.unpack::<Value>().unwrap(), *value);
        (value.to_string().len(), packed.0.len())
    }

    #[test]
    fn a_digest_takes_33_bytes_and_what_only_looks_like_one_stays_as_it_is() {
        assert_eq!(round(&json!(format!("sha256:{HEX}"))), (73, 35));
        for text in [
            format!("sha256:{}", HEX.to_uppercase()),
            format!("sha256:{}", &HEX[1..]),
            format!("sha512:{HEX}{HEX}"),
            "sha256:".to_owned(),
        ] {
            let (text, packed) = round(&json!(text));
            assert_eq!(text, packed);
        }
        round(&json!(format!("sha256:{HEX}0")));
    }

    #[test]
    fn a_digest_that_was_there_before_takes_two_bytes_and_a_time_five() {
        let digest = format!("sha256:{HEX}");
        assert_eq!(
            round(&json!([digest, digest, digest])).1,
            "[\"\",\"\",\"\"]".len() + 33 + 2 + 2
        );
        let many: Vec<String> = (0..300)
            .chain(0..300)
            .map(|nth| format!("sha256:{nth:064x}"))
            .collect();
        round(&json!(many));
        assert_eq!(round(&json!("2026-11-26T10:00:00Z")), (22, 7));
        for odd in [
            "2026-11-26t10:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-02-30T10:00:00Z",
            "2200-11-26T10:00:00Z",
            "2026-11-26T10:00:60Z",
        ] {
            let (text, packed) = round(&json!(odd));
            assert_eq!(text, packed, "{odd}");
        }
    }

    #[test]
    fn every_phrase_comes_back_and_none_hides_another() {
        for (nth, phrase) in PHRASES.iter().enumerate() {
            assert!(
                phrase.starts_with('"') && nth + 1 < usize::from(AGAIN),
                "{phrase}"
            );
            assert!(
                !PHRASES
                    .iter()
                    .take(nth)
                    .any(|earlier| phrase.starts_with(earlier)),
                "{phrase} comes after what it begins with"
            );
        }
    }

    #[test]
    fn a_settled_resource_of_five_targets_takes_a_quarter_of_its_text() {
        let target = |platform: Option<&str>| {
            let digest = format!("sha256:{HEX}");
            json!({"kind": if platform.is_some() { "Platform" } else { "Index" }, "platform": platform, "digest": digest, "state": "Attached",
                "attachment": digest, "origin": "Made", "created": "2026-11-26T10:00:00Z", "content": digest})
        };
        let targets: Vec<Value> = [
            None,
            Some("linux/amd64"),
            Some("linux/arm64"),
            Some("linux/arm/v7"),
            Some("linux/s390x"),
        ]
        .into_iter()
        .map(target)
        .collect();
        let condition = |kind: &str| {
            json!({"lastTransitionTime": "2026-11-26T10:00:00Z", "message": "5 of 5 targets have the attachment", "observedGeneration": 1,
                "reason": "Attached", "status": "True", "type": kind})
        };
        let conditions = ["Ready", "Resolved", "Attached"].map(condition);
        let status: crate::api::ImageAttachmentStatus = serde_json::from_value(json!({
            "observedGeneration": 1, "conditions": conditions, "targets": targets, "attached": "5/5",
        }))
        .unwrap();
        let (text, packed) = (
            serde_json::to_vec(&status).unwrap(),
            Packed::of(&status).unwrap(),
        );
        assert_eq!(
            packed
                .unpack::<crate::api::ImageAttachmentStatus>()
                .unwrap(),
            status
        );
        assert!(
            packed.0.len() * 4 < text.len(),
            "{} of {} bytes",
            packed.0.len(),
            text.len()
        );
    }

    proptest! {
        #[test]
        fn any_text_comes_back(parts in proptest::collection::vec(prop_oneof![
            any::<String>(), proptest::sample::select(&PHRASES[..]).prop_map(str::to_owned), "sha256:[0-9a-f]{62,66}", "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z",
        ], 0..8)) {
            round(&json!(parts));
            round(&json!(parts.concat()));
            round(&json!({parts.concat(): [parts, null, 1.5, true]}));
        }
    }
}
