//! A resource of a list or a watch before its spec and status are parsed.
//!
//! A list of resources with large files must not be in memory at once. The consumer of a list implements `Deserialize` with
//! [`RawAttachment`] and keeps of each resource only what it needs, while the list is read (threat T36).

use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::spec::ImageAttachmentSpec;
use super::status::ImageAttachmentStatus;

/// Maximum number of characters of an error. The parser quotes the value that it rejects.
const MAX_ERROR_CHARS: usize = 512;

/// A resource whose spec and status are JSON text.
#[derive(Deserialize, Debug)]
pub struct RawAttachment {
    /// The metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl RawAttachment {
    /// Returns the size of spec and status in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = [&self.spec, &self.status].into_iter().flatten();
        texts.map(|text| text.get().len()).sum()
    }

    /// Parses spec and status.
    ///
    /// # Errors
    /// The message of the parser.
    pub fn parse(&self) -> Result<(ImageAttachmentSpec, Option<ImageAttachmentStatus>), String> {
        self.parse_as()
    }

    /// Parses spec and status of another kind.
    ///
    /// # Errors
    /// The message of the parser.
    pub fn parse_as<S, T>(&self) -> Result<(S, Option<T>), String>
    where
        S: DeserializeOwned,
        T: DeserializeOwned,
    {
        let message = |error: serde_json::Error| {
            let text = error.to_string();
            text.chars().take(MAX_ERROR_CHARS).collect::<String>()
        };
        let spec = self.spec.as_deref().map_or("{}", RawValue::get);
        let status = self.status.as_deref().map_or("null", RawValue::get);
        Ok((
            serde_json::from_str(spec).map_err(message)?,
            serde_json::from_str(status).map_err(message)?,
        ))
    }
}
