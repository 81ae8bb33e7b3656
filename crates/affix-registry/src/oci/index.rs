//! Image indexes and Docker manifest lists.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::descriptor::{annotations, null_is_default};
use super::digest::cut;
use super::values::without_bom;
use super::{Descriptor, Digest};

/// An image index or a Docker manifest list as data (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "IndexDocument")]
pub struct ImageIndex {
    /// The document's own media type, if it states one.
    pub media_type: Option<String>,
    /// The artifact type, if the index is an artifact.
    pub artifact_type: Option<String>,
    /// The readable entries. `null` and an absent field are read as empty.
    pub manifests: Vec<Descriptor>,
    /// The entries that are not valid descriptors, such as those with an unknown digest algorithm.
    pub skipped: Vec<SkippedEntry>,
    /// The manifest that the index refers to, if the index is a referrer. A subject that is not a
    /// valid descriptor is read as absent.
    pub subject: Option<Descriptor>,
    /// Annotations. `null` is read as empty, for the map and for a value.
    pub annotations: BTreeMap<String, String>,
}

/// An entry of an index, or a layer of an image manifest, that is not a valid descriptor. It does not
/// affect the other entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The position in the list of entries, from 0.
    pub position: usize,
    /// The digest, if it is valid.
    pub digest: Option<Digest>,
    /// The cause, at most a few hundred characters.
    pub reason: String,
}

impl fmt::Display for SkippedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} is skipped: {}", self.position, self.reason)
    }
}

impl SkippedEntry {
    fn new(position: usize, raw: &RawValue, error: &serde_json::Error) -> Self {
        #[derive(Deserialize)]
        struct WithDigest {
            digest: String,
        }
        let (digest, reason) = match serde_json::from_str(raw.get()) {
            Ok(WithDigest { digest }) => match digest.parse::<Digest>() {
                Ok(digest) => (
                    Some(digest),
                    format!("it is not a descriptor: {}", cut(&error.to_string())),
                ),
                Err(error) => (None, error.to_string()),
            },
            Err(_) => (None, "it has no digest".to_owned()),
        };
        Self {
            position,
            digest,
            reason,
        }
    }
}

/// The fields of an index before its entries are parsed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    manifests: Vec<Box<RawValue>>,
    #[serde(default)]
    subject: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "annotations")]
    annotations: BTreeMap<String, String>,
}

/// Splits a list into the valid descriptors and the others.
pub(super) fn readable(entries: &[Box<RawValue>]) -> (Vec<Descriptor>, Vec<SkippedEntry>) {
    let (mut read, mut skipped) = (Vec::new(), Vec::new());
    for (position, raw) in entries.iter().enumerate() {
        match serde_json::from_str(raw.get()) {
            Ok(descriptor) => read.push(descriptor),
            Err(error) => skipped.push(SkippedEntry::new(position, raw, &error)),
        }
    }
    (read, skipped)
}

/// Parses a descriptor. Returns `None` if it is not valid.
pub(super) fn descriptor(raw: &RawValue) -> Option<Descriptor> {
    serde_json::from_str(raw.get()).ok()
}

impl From<IndexDocument> for ImageIndex {
    fn from(document: IndexDocument) -> Self {
        let (manifests, skipped) = readable(&document.manifests);
        Self {
            media_type: document.media_type,
            artifact_type: document.artifact_type,
            manifests,
            skipped,
            subject: document.subject.as_deref().and_then(descriptor),
            annotations: document.annotations,
        }
    }
}

/// One page of a listing of referrers that borrows from its bytes. Entries are parsed on demand.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferrersPage<'a> {
    #[serde(borrow, default)]
    media_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    manifests: Vec<&'a RawValue>,
}

impl<'a> ReferrersPage<'a> {
    /// Parses a page.
    ///
    /// # Errors
    /// If the bytes are not a JSON object, or if `manifests` is neither a list nor `null` or
    /// appears twice.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        let bytes = without_bom(bytes);
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(serde_json::Error::custom(
                "the document is not a JSON object",
            )); // serde would read a list as the fields in their order
        }
        serde_json::from_slice(bytes)
    }

    /// Returns the document's own media type, if it states one.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        serde_json::from_str(self.media_type?.get()).ok()
    }

    /// Returns the JSON text of the entries in their order. `null` and an absent field are read as
    /// empty.
    pub fn raw(&self) -> impl ExactSizeIterator<Item = &'a str> {
        self.manifests.iter().map(|entry| entry.get())
    }

    /// Returns the entries that are valid descriptors, each parsed on demand.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> {
        self.raw()
            .filter_map(|entry| serde_json::from_str(entry).ok())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::super::{RawDocument, RawEntry};
    use super::*;

    const FOREIGN: &str = r#"{ "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,  "x-unknown": {"b":1.50,"a":[ ]},"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"ü":"\u00fc<>&"} }"#;

    #[test]
    fn foreign_content_survives_a_rewrite_byte_for_byte() {
        let text = format!(
            r#"{{"schemaVersion":2,"x":{{ "deep" : 1e400 }},"manifests":[{FOREIGN},{{"odd":true}}],"mediaType":"m","annotations":{{"k":"v"}}}}"#
        );
        let mut index = RawDocument::parse(text.as_bytes(), RawDocument::MANIFESTS).unwrap();
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), text);
        index
            .entries
            .push(RawEntry::from(&Descriptor::of("m", b"x")));
        let written = String::from_utf8(index.to_bytes()).unwrap();
        assert!(
            written.contains(FOREIGN)
                && written.contains(r#"{"odd":true},{"mediaType":"m","digest":"#),
            "{written}"
        );
        assert_eq!(index.media_type().as_deref(), Some("m"));
        assert!(index.entries[1].descriptor().is_none());
    }

    #[test]
    fn null_and_absent_entries_are_none() {
        for text in [
            r#"{"schemaVersion":2,"manifests":null}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"manifests":[]}"#,
        ] {
            assert!(
                RawDocument::parse(text.as_bytes(), RawDocument::MANIFESTS)
                    .unwrap()
                    .entries
                    .is_empty(),
                "{text}"
            );
            assert!(
                serde_json::from_str::<ImageIndex>(text)
                    .unwrap()
                    .manifests
                    .is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_duplicate_field_is_refused() {
        for text in [
            r#"{"manifests":[],"manifests":[]}"#,
            r#"{"mediaType":"a","mediaType":"b"}"#,
        ] {
            assert!(
                RawDocument::parse(text.as_bytes(), RawDocument::MANIFESTS)
                    .unwrap_err()
                    .to_string()
                    .contains("appears twice"),
                "{text}"
            );
            assert!(serde_json::from_str::<ImageIndex>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_fallback_tag_is_an_oci_index() {
        assert_eq!(
            RawDocument::empty_index().to_bytes(),
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }

    #[test]
    fn one_unreadable_entry_is_skipped_with_its_reason_and_kept_in_a_rewrite() {
        let good = r#"{"mediaType":"m","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        for (odd, reason, has_digest) in [
            (
                r#"{ "mediaType":"m", "digest":"blake3:00", "size":2}"#,
                "\"blake3\" is not supported",
                false,
            ),
            (r#"{"digest":"sha256:1","size":2}"#, "takes 64", false),
            (r#"{"digest":null}"#, "it has no digest", false),
            ("null", "it has no digest", false),
            ("7", "it has no digest", false),
            (
                &good.replace(":2}", ":\"x\"}"),
                "it is not a descriptor",
                true,
            ),
        ] {
            let text =
                format!(r#"{{"schemaVersion":2,"manifests":[{odd}, {good}],"annotations":null}}"#);
            let index: ImageIndex = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (index.manifests.len(), index.skipped.len()),
                (1, 1),
                "{odd}"
            );
            let skipped = &index.skipped[0];
            assert_eq!(
                (skipped.position, skipped.digest.is_some()),
                (0, has_digest),
                "{odd}"
            );
            assert!(skipped.reason.contains(reason), "{odd}: {skipped}");
            let mut raw = RawDocument::parse(text.as_bytes(), RawDocument::MANIFESTS).unwrap();
            assert_eq!(raw.entries.len(), 2);
            raw.entries.push(RawEntry::from(&Descriptor::of("m", b"x")));
            let written = String::from_utf8(raw.to_bytes()).unwrap();
            assert!(written.contains(&format!("[{odd},{good},{{")), "{written}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_dropped() {
        let text = b"\xEF\xBB\xBF{\"mediaType\":null,\"manifests\":[{}]}";
        let index = RawDocument::parse(text, RawDocument::MANIFESTS).unwrap();
        assert_eq!((index.entries.len(), index.media_type()), (1, None));
        assert_eq!(index.to_bytes(), text[3..]);
        assert_eq!(ReferrersPage::parse(text).unwrap().raw().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn an_odd_entry_never_hides_the_others(
            odd in "[a-z0-9+.]{0,10}:?[a-zA-Z0-9]{0,80}|\\PC{0,40}",
            position in 0..4_usize,
        ) {
            let good = |n: usize| serde_json::json!(Descriptor::of("m", &[n as u8]));
            let mut entries: Vec<_> = (0..3).map(good).collect();
            entries.insert(position, serde_json::json!({"digest": odd, "size": 1}));
            let text = serde_json::json!({"manifests": entries}).to_string();
            let index: ImageIndex = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(index.manifests.len() + index.skipped.len(), 4);
            proptest::prop_assert!(index.manifests.len() >= 3);
            let raw = RawDocument::parse(text.as_bytes(), RawDocument::MANIFESTS).unwrap();
            proptest::prop_assert_eq!(raw.entries[position].raw(), entries[position].to_string());
        }

        #[test]
        fn any_bytes_are_an_index_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Ok(index) = RawDocument::parse(&bytes, RawDocument::MANIFESTS) {
                let again = RawDocument::parse(&index.to_bytes(), RawDocument::MANIFESTS).unwrap();
                proptest::prop_assert_eq!(index.to_bytes(), again.to_bytes());
            }
        }
    }
}
