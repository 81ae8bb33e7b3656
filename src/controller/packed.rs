//! JSON that is kept for long, in little more than a third of its memory.
//!
//! What serde writes has neither a control character nor a byte that UTF-8 has not, so such bytes can stand for what comes again and
//! again in a resource: a digest, which does not compress, takes half of its text, and the names of fields take a byte each.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value, packed. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed(Arc<[u8]>);

/// Stands for `sha256:` and 64 hexadecimal digits; the 32 bytes of the digest follow.
const DIGEST: u8 = 0;
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
    pub(super) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_vec(value)?;
        let (mut packed, mut rest) = (Vec::with_capacity(text.len() / 2), text.as_slice());
        while let Some((first, after)) = rest.split_first() {
            rest = if let Some((digest, after)) = digest(rest) {
                packed.push(DIGEST);
                packed.extend(digest);
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
    pub(super) fn unpack<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let (mut text, mut rest) = (Vec::with_capacity(self.0.len() * 3), &*self.0);
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first == DIGEST {
                let (digest, after) = rest.split_at(BYTES.min(rest.len()));
                text.extend(ALGORITHM);
                text.extend(
                    digest
                        .iter()
                        .flat_map(|byte| [byte >> 4, byte & 15])
                        .map(|digit| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }),
                );
                rest = after;
            } else if let Some(phrase) = PHRASES.get(usize::from(*first) - 1) {
                text.extend(phrase.as_bytes());
            } else {
                text.push(*first);
            }
        }
        serde_json::from_slice(&text)
    }
}

#[cfg(test)]
impl Packed {
    /// Whether it is the same memory.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
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
    (1..).zip(PHRASES).find_map(|(code, phrase)| Some((code, text.strip_prefix(phrase.as_bytes())?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]
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
        for text in
            [format!("sha256:{}", HEX.to_uppercase()), format!("sha256:{}", &HEX[1..]), format!("sha512:{HEX}{HEX}"), "sha256:".to_owned()]
        {
            let (text, packed) = round(&json!(text));
            assert_eq!(text, packed);
        }
        round(&json!(format!("sha256:{HEX}0")));
    }

    #[test]
    fn every_phrase_comes_back_and_none_hides_another() {
        for (nth, phrase) in PHRASES.iter().enumerate() {
            assert!(phrase.starts_with('"') && nth + 1 < usize::from(b' '), "{phrase}");
            assert!(!PHRASES.iter().take(nth).any(|earlier| phrase.starts_with(earlier)), "{phrase} comes after what it begins with");
        }
    }

    #[test]
    fn a_settled_resource_of_five_targets_takes_two_fifths_of_its_text_at_most() {
        let target = |platform: Option<&str>| {
            let digest = format!("sha256:{HEX}");
            json!({"kind": if platform.is_some() { "Platform" } else { "Index" }, "platform": platform, "digest": digest, "state": "Attached",
                "attachment": digest, "origin": "Made", "created": "2026-11-26T10:00:00Z", "content": digest})
        };
        let targets: Vec<Value> =
            [None, Some("linux/amd64"), Some("linux/arm64"), Some("linux/arm/v7"), Some("linux/s390x")].into_iter().map(target).collect();
        let condition = |kind: &str| {
            json!({"lastTransitionTime": "2026-11-26T10:00:00Z", "message": "5 of 5 targets have the attachment", "observedGeneration": 1,
                "reason": "Attached", "status": "True", "type": kind})
        };
        let conditions = ["Ready", "Resolved", "Attached"].map(condition);
        let status: crate::api::ImageAttachmentStatus = serde_json::from_value(json!({
            "observedGeneration": 1, "conditions": conditions, "targets": targets, "attached": "5/5",
        }))
        .unwrap();
        let (text, packed) = (serde_json::to_vec(&status).unwrap(), Packed::of(&status).unwrap());
        assert_eq!(packed.unpack::<crate::api::ImageAttachmentStatus>().unwrap(), status);
        assert!(packed.0.len() * 5 < text.len() * 2, "{} of {} bytes", packed.0.len(), text.len());
    }

    proptest! {
        #[test]
        fn any_text_comes_back(parts in proptest::collection::vec(prop_oneof![
            any::<String>(), proptest::sample::select(&PHRASES[..]).prop_map(str::to_owned), "sha256:[0-9a-f]{62,66}",
        ], 0..8)) {
            round(&json!(parts));
            round(&json!(parts.concat()));
            round(&json!({parts.concat(): [parts, null, 1.5, true]}));
        }
    }
}
