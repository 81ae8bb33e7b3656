//! The signature tag of cosign (`sha256-<hex>.sig`): an image manifest with one layer for each signature of a subject.
//!
//! Podman, CRI-O, policy-controller and others read it. Several writers share it, on registries of every kind.

use std::collections::HashMap;
use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::client::session::{Locator, Session};
use crate::error::{ErrorKind, Object, Operation, RegistryError};
use crate::oci::{Descriptor, Digest, RawDocument, RawEntry, Tag, media_type};
use crate::protocol::signature_config::config_for;
use crate::protocol::tag_document::{
    TagChange, TagContent, TagDocument, TagOutcome, TagRead, rewrite_after,
};

/// The list of an image manifest.
const LAYERS: &str = "layers";

/// The content of a signature tag.
#[derive(Debug, Clone)]
pub struct SignatureTag {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The layers that are signatures, in their order.
    pub layers: Vec<SignatureLayer>,
}

/// One signature of a signature tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLayer {
    /// The layer, whose content is the signed text.
    pub descriptor: Descriptor,
}

impl SignatureLayer {
    /// The annotation of a layer that holds the signature in base64.
    pub const SIGNATURE: &'static str = "dev.cosignproject.cosign/signature";

    /// Returns the layer of a signature in base64 over `text`.
    #[must_use]
    pub fn new(text: &[u8], signature: String) -> Self {
        let mut descriptor = Descriptor::of(media_type::SIMPLE_SIGNING, text);
        descriptor
            .annotations
            .insert(Self::SIGNATURE.to_owned(), signature);
        Self { descriptor }
    }

    /// Returns the layer of a descriptor if it is a signature.
    fn from_descriptor(descriptor: Descriptor) -> Option<Self> {
        let is_signature = descriptor.media_type == media_type::SIMPLE_SIGNING
            && descriptor.annotations.contains_key(Self::SIGNATURE);
        is_signature.then_some(Self { descriptor })
    }

    /// Returns the signature in base64.
    #[must_use]
    pub fn signature(&self) -> &str {
        let signature = self.descriptor.annotations.get(Self::SIGNATURE);
        signature.map_or("", String::as_str)
    }

    /// Returns the identity of the signature: a hash of its text's digest and of the signature. Several
    /// keys may sign one text.
    #[must_use]
    pub fn id(&self) -> Digest {
        let text = format!("{}\n{}", self.descriptor.digest, self.signature());
        Digest::sha256(text.as_bytes())
    }
}

impl Session {
    /// Reads the signature tag of `subject`. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// `FallbackTagConflict` if the tag does not hold signatures. `LimitExceeded` for too many layers
    /// or bytes. The errors of every request.
    pub async fn signature_tag(
        &self,
        subject: &Digest,
    ) -> Result<Option<SignatureTag>, RegistryError> {
        let document = SignatureDocument::new(self, subject)?;
        let Some(content) = document.read().await?.tag else {
            return Ok(None);
        };
        self.inner.saw_tag(&document.tag);
        let descriptors = content
            .document
            .entries
            .iter()
            .filter_map(RawEntry::descriptor);
        Ok(Some(SignatureTag {
            digest: content.digest,
            layers: descriptors
                .filter_map(SignatureLayer::from_descriptor)
                .collect(),
        }))
    }

    /// Updates the signature tag of `subject` after `first` has succeeded, which is normally the upload
    /// of the signed text, and verifies that concurrent writers did not undo the update. Foreign layers
    /// and fields keep their bytes. Layers that a concurrent writer dropped are restored.
    ///
    /// With `seen_before` the tag is known to exist, so a 404 is verified by repeated reads.
    ///
    /// # Errors
    /// The error of `first`. `FallbackTagConflict` if the tag does not hold signatures. `ImmutableTag`,
    /// `LimitExceeded`. [`RegistryError::Dangling`] if a text of `change.add` does not exist. The errors
    /// of every request.
    pub async fn rewrite_signatures_after(
        &self,
        first: impl Future<Output = Result<(), RegistryError>>,
        subject: &Digest,
        change: TagChange,
        seen_before: bool,
    ) -> Result<TagOutcome, RegistryError> {
        let document = SignatureDocument::new(self, subject)?;
        rewrite_after(document, first, &change, seen_before).await
    }
}

struct SignatureDocument {
    session: Session,
    operation: Operation,
    tag: Tag,
    /// The configs that were read, by digest. `None` for a config that does not exist.
    configs: HashMap<Digest, Option<Bytes>>,
}

impl SignatureDocument {
    fn new(session: &Session, subject: &Digest) -> Result<Self, RegistryError> {
        let name = subject.signature_tag();
        let operation = session.operation("PUT", Object::SignatureTag, &name);
        match name.parse() {
            Ok(tag) => Ok(Self {
                session: session.clone(),
                operation,
                tag,
                configs: HashMap::new(),
            }),
            Err(_) => Err(conflict(operation, "it is not a valid tag".to_owned())),
        }
    }

    /// Returns the error of a tag that does not hold signatures.
    fn no_signatures(&self, operation: &Operation, found: &str) -> RegistryError {
        let what = format!(
            "the tag does not hold signatures but {found}: move that to another tag, or remove it"
        );
        conflict(operation.clone(), self.session.redact(&what))
    }

    /// Refuses a manifest that is not one of signatures.
    fn check(
        &self,
        operation: &Operation,
        document: &RawDocument,
        content_type: Option<&str>,
    ) -> Result<(), RegistryError> {
        let stated = document.media_type().filter(|stated| !stated.is_empty());
        let stated = stated.or_else(|| content_type.map(str::to_owned));
        let stated = stated.unwrap_or_default();
        if media_type::kind(&stated) != media_type::Kind::Image
            || document.field(RawDocument::MANIFESTS).is_some()
        {
            return Err(self.no_signatures(operation, &format!("{stated:?}")));
        }
        let Some(config) = config_of(document) else {
            return Err(self.no_signatures(operation, "a manifest without a config"));
        };
        if !media_type::is_image_config(&config.media_type) {
            let found = format!("a manifest with a config of type {:?}", config.media_type);
            return Err(self.no_signatures(operation, &found));
        }
        let mut layers = document.entries.iter().filter_map(RawEntry::descriptor);
        let is_signed = layers.any(|layer| layer.media_type == media_type::SIMPLE_SIGNING);
        if !is_signed && !document.entries.is_empty() {
            return Err(self.no_signatures(operation, "an image"));
        }
        let max = self.session.options().limits.referrers;
        if document.entries.len() > max {
            return Err(RegistryError::LimitExceeded {
                operation: operation.clone(),
                what: format!("the tag has {} signatures", document.entries.len()),
                limit: max as u64,
            });
        }
        Ok(())
    }

    /// Returns the config under a digest, and whether that took a request.
    async fn config(
        &mut self,
        config: &Descriptor,
    ) -> Result<(Option<Bytes>, bool), RegistryError> {
        if let Some(known) = self.configs.get(&config.digest) {
            return Ok((known.clone(), false));
        }
        let bytes = match self.session.blob(config, config.size).await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.configs.insert(config.digest.clone(), bytes.clone());
        Ok((bytes, true))
    }
}

impl TagDocument for SignatureDocument {
    const ENTRIES: &'static str = "signatures";
    const HAS_DEPENDENT_PARTS: bool = true;
    const PAUSE_MILLIS: u64 = 100;

    fn session(&self) -> &Session {
        &self.session
    }

    fn tag(&self) -> &Tag {
        &self.tag
    }

    fn operation(&self) -> &Operation {
        &self.operation
    }

    fn empty(&self) -> RawDocument {
        let config = Descriptor::plain(media_type::OCI_CONFIG, Digest::sha256(b""), 0);
        RawDocument::new(
            LAYERS,
            &[
                ("schemaVersion", "2".to_owned()),
                ("mediaType", format!("{:?}", media_type::OCI_MANIFEST)),
                ("config", serde_json::to_string(&config).unwrap_or_default()),
            ],
        )
    }

    fn entry(&self, descriptor: &Descriptor) -> RawEntry {
        identified(RawEntry::from(descriptor))
    }

    async fn read(&self) -> Result<TagRead, RegistryError> {
        let operation = self
            .session
            .operation("GET", Object::SignatureTag, &self.tag);
        let at = Locator::Tag(self.tag.clone());
        let session = self.session.uncounted();
        let answer = session.ask_manifest(&operation, &at).await?;
        let sent = answer.sent;
        let raw = match answer.status {
            404 => {
                return Ok(TagRead {
                    sent,
                    tag: None,
                    names_subject: false,
                });
            }
            200..=299 => self.session.checked(&operation, &at, answer)?,
            _ => return Err(self.session.refusal(&operation, &answer)),
        };
        let mut document = RawDocument::parse(&raw.bytes, LAYERS).map_err(|error| {
            self.no_signatures(&operation, &format!("a malformed document: {error}"))
        })?;
        let content_type = raw.content_type.as_deref().map(media_type::essence);
        self.check(&operation, &document, content_type)?;
        document.entries = document.entries.into_iter().map(identified).collect();
        Ok(TagRead {
            sent,
            tag: Some(TagContent {
                digest: raw.digest,
                document,
            }),
            names_subject: false,
        })
    }

    async fn has_content(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.session.has_blob(digest).await
    }

    async fn prepare(
        &mut self,
        base: Option<&TagContent>,
        document: &mut RawDocument,
    ) -> Result<bool, RegistryError> {
        let before = base.and_then(|base| config_of(&base.document));
        let (bytes, mut has_sent) = match &before {
            Some(config) => self.config(config).await?,
            None => (None, false),
        };
        let layers = base.map_or(&[][..], |base| &base.document.entries);
        let bytes = config_for(bytes.as_deref(), layers, &document.entries).map_err(|error| {
            let found = format!("a manifest with a malformed config: {error}");
            self.no_signatures(&self.operation, &found)
        })?;
        let (bytes, digest) = (Bytes::from(bytes.clone()), Digest::sha256(&bytes));
        if !matches!(self.configs.get(&digest), Some(Some(_))) {
            self.session.put_blob(bytes.clone()).await?;
            self.configs.insert(digest.clone(), Some(bytes.clone()));
            has_sent = true;
        }
        let config = document.field("config").unwrap_or_default();
        if let Ok(mut config) = RawDocument::parse(config.as_bytes(), "") {
            config.set_field("digest", format!("{:?}", digest.to_string()));
            config.set_field("size", bytes.len().to_string());
            if config.field("data").is_some() {
                config.set_field("data", format!("{:?}", STANDARD.encode(&bytes)));
            }
            let config = String::from_utf8_lossy(&config.to_bytes()).into_owned();
            document.set_field("config", config);
        }
        Ok(has_sent)
    }

    fn written(&self, document: &RawDocument) -> (String, Bytes) {
        let stated = document.media_type().filter(|stated| !stated.is_empty());
        let media_type = stated.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
        (media_type, document.to_bytes().into())
    }

    fn conflict(&self) -> RegistryError {
        self.no_signatures(&self.operation, "the image itself")
    }
}

fn conflict(operation: Operation, what: String) -> RegistryError {
    RegistryError::FallbackTagConflict { operation, what }
}

fn config_of(document: &RawDocument) -> Option<Descriptor> {
    serde_json::from_str(document.field("config")?).ok()
}

/// Sets the identity of a layer. Signatures of several keys may have one digest.
fn identified(entry: RawEntry) -> RawEntry {
    let layer = entry.descriptor().and_then(SignatureLayer::from_descriptor);
    let id = layer.map_or_else(
        || Digest::sha256(entry.raw().as_bytes()),
        |layer| layer.id(),
    );
    entry.with_id(id)
}
