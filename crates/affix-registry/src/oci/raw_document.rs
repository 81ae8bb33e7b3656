//! Documents with one list of entries whose foreign parts keep their bytes.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::values::without_bom;
use super::{Descriptor, Digest, media_type};

/// One entry of a list with its original bytes. Clones share the bytes.
#[derive(Clone)]
pub struct RawEntry {
    raw: Arc<RawValue>,
    digest: Option<Digest>,
    id: Option<Digest>,
}

impl RawEntry {
    /// Returns the original JSON text of the entry.
    #[must_use]
    pub fn raw(&self) -> &str {
        self.raw.get()
    }

    /// Parses the entry. Returns `None` if it is not a valid descriptor; rewrites keep such an
    /// entry unchanged.
    #[must_use]
    pub fn descriptor(&self) -> Option<Descriptor> {
        serde_json::from_str(self.raw()).ok()
    }

    /// Returns the digest of the entry if it has a valid one, also if the entry is not a complete
    /// descriptor.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the identity of the entry in its list: the digest, unless several entries may share
    /// one.
    #[must_use]
    pub fn id(&self) -> Option<&Digest> {
        self.id.as_ref().or(self.digest.as_ref())
    }

    /// Sets the identity of the entry in its list.
    #[must_use]
    pub(crate) fn with_id(self, id: Digest) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }

    /// Returns an entry that is not a descriptor.
    pub(crate) fn from_json(json: String) -> Option<Self> {
        let raw = RawValue::from_string(json).ok()?;
        Some(Self::from_raw(raw))
    }

    fn from_raw(raw: Box<RawValue>) -> Self {
        #[derive(Deserialize)]
        struct WithDigest {
            digest: Digest,
        }
        let digest = serde_json::from_str(raw.get())
            .ok()
            .map(|WithDigest { digest }| digest);
        Self {
            raw: raw.into(),
            digest,
            id: None,
        }
    }
}

impl fmt::Debug for RawEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw())
    }
}

impl PartialEq for RawEntry {
    fn eq(&self, other: &Self) -> bool {
        self.raw() == other.raw()
    }
}

impl Eq for RawEntry {}

impl From<&Descriptor> for RawEntry {
    fn from(descriptor: &Descriptor) -> Self {
        let raw = serde_json::value::to_raw_value(descriptor)
            .unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            raw: raw.into(),
            digest: Some(descriptor.digest.clone()),
            id: None,
        }
    }
}

impl Serialize for RawEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from_raw)
    }
}

/// A JSON object that keeps the bytes and the order of its fields, and of the entries of one list.
///
/// It represents the content of a fallback tag (distribution-spec, "Listing Referrers") or of a
/// signature tag. Rewriting it does not alter foreign content.
#[derive(Debug, Clone)]
pub struct RawDocument {
    /// The name of the field with the entries.
    list: &'static str,
    /// True if the field is written even if it has no entries.
    has_list: bool,
    before: Vec<(String, Box<RawValue>)>,
    after: Vec<(String, Box<RawValue>)>,
    /// The entries in their order.
    pub entries: Vec<RawEntry>,
}

impl RawDocument {
    /// The list of an image index.
    pub const MANIFESTS: &'static str = "manifests";

    /// Parses a document with the entries in the field `list`. A byte order mark is dropped. A duplicate field is an error because
    /// readers differ in which of the two they use.
    ///
    /// # Errors
    /// If the bytes are not a JSON object, if a field appears twice, or if `list` is neither a list nor `null`.
    pub fn parse(bytes: &[u8], list: &'static str) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(without_bom(bytes));
        let document = Seed(list).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(document)
    }

    /// Returns a document with the given fields before its list, which is empty.
    pub(crate) fn new(list: &'static str, fields: &[(&str, String)]) -> Self {
        let field = |(name, json): &(&str, String)| Some(((*name).to_owned(), raw(json.clone())?));
        Self {
            list,
            has_list: true,
            before: fields.iter().filter_map(field).collect(),
            after: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Returns an empty OCI index, the initial content of a fallback tag.
    #[must_use]
    pub fn empty_index() -> Self {
        Self::new(
            Self::MANIFESTS,
            &[
                ("schemaVersion", "2".to_owned()),
                ("mediaType", format!("{:?}", media_type::OCI_INDEX)),
            ],
        )
    }

    /// Serialises the document. Foreign parts keep their bytes, new parts are compact.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the JSON text of a field other than the list.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.before.iter().chain(&self.after);
        let (_, raw) = fields.find(|(field, _)| field == name)?;
        Some(raw.get())
    }

    /// Sets a field other than the list. A new field follows the others.
    pub(crate) fn set_field(&mut self, name: &str, json: String) {
        let Some(value) = raw(json) else { return };
        let mut fields = self.before.iter_mut().chain(&mut self.after);
        match fields.find(|(field, _)| field == name) {
            Some((_, found)) => *found = value,
            None => self.after.push((name.to_owned(), value)),
        }
    }

    /// Returns the document's own media type, if it states one.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        serde_json::from_str(self.field("mediaType")?).ok()
    }

    /// Returns true if an entry with the identity `id` is a valid descriptor.
    #[must_use]
    pub fn contains(&self, id: &Digest) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.id() == Some(id) && entry.descriptor().is_some())
    }
}

fn raw(json: String) -> Option<Box<RawValue>> {
    RawValue::from_string(json).ok()
}

impl Serialize for RawDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.before {
            map.serialize_entry(name, value)?;
        }
        if self.has_list || !self.entries.is_empty() {
            map.serialize_entry(self.list, &self.entries)?;
        }
        for (name, value) in &self.after {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Deserializes a document with the entries in the field of this name.
struct Seed(&'static str);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = RawDocument;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawDocument, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = RawDocument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDocument, A::Error> {
        let mut document = RawDocument {
            has_list: false,
            ..RawDocument::new(self.0, &[])
        };
        while let Some(name) = map.next_key::<String>()? {
            if document.field(&name).is_some() || (document.has_list && name == self.0) {
                return Err(A::Error::custom(format_args!(
                    "the field {name:?} appears twice"
                )));
            }
            if name == self.0 {
                let entries = map.next_value::<Option<Vec<RawEntry>>>()?;
                document.entries = entries.unwrap_or_default();
                document.has_list = true;
            } else {
                let fields = match document.has_list {
                    true => &mut document.after,
                    false => &mut document.before,
                };
                fields.push((name, map.next_value()?));
            }
        }
        Ok(document)
    }
}
