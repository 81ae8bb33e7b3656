//! In-toto statements: the signed payload of a bundle (in-toto attestation, statement.md).
//!
//! A [`Predicate`] is what a signer states about a subject. A [`SignedStatement`] is a statement that was read from a bundle; the
//! signature over it is verified by its caller, with a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use affix_registry::oci::{Digest, without_bom};

use super::canonical;
use super::{BUNDLE, Bundle, IN_TOTO};
use crate::signing::formats::dsse::{Envelope, pre_authentication_encoding};
use crate::signing::keys::PublicKey;
use crate::signing::signer::parse_part;

/// The type of the statements that affix makes.
pub(super) const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of the statements that `cosign attest` makes.
const EARLIER_STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

/// The maximum size of a predicate, in bytes.
pub const MAX_PREDICATE_BYTES: usize = 16 << 20;

/// The maximum size of the type of an unsigned statement, in bytes. Status has it as a text of this length.
const MAX_TYPE_BYTES: usize = 255;

/// The maximum size of the bundle around a statement, in bytes: a predicate of [`MAX_PREDICATE_BYTES`] in base64, with its subject.
pub const MAX_STATEMENT_BYTES: usize = 24 << 20;

/// An error of a predicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateError {
    /// The document is not JSON, or has too many values.
    #[error("the predicate is not valid JSON: {0}")]
    Malformed(String),
    /// The document is a JSON value of another kind, or absent.
    #[error("the predicate is not a JSON object: it begins with {0:?}")]
    NoObject(char),
    /// The document is not an in-toto statement, or its type or its subjects are malformed.
    #[error("it is not an in-toto statement with a type and subjects")]
    NoStatement,
    /// The document is too large.
    #[error("the predicate has {0} bytes: at most {MAX_PREDICATE_BYTES} are signed")]
    TooLarge(usize),
}

/// A predicate: a JSON object with its type. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Predicate {
    kind: String,
    hash: Digest,
    /// `None`: only its hash is known.
    json: Option<Arc<RawValue>>,
}

impl Predicate {
    /// Parses a predicate of the type `kind`, a URI.
    ///
    /// # Errors
    /// Fails if the document is no JSON object or too large.
    pub fn parse(kind: &str, json: &[u8]) -> Result<Self, PredicateError> {
        let json = without_bom(json).trim_ascii();
        if json.len() > MAX_PREDICATE_BYTES {
            return Err(PredicateError::TooLarge(json.len()));
        }
        let hash = canonical::hash(json).map_err(PredicateError::Malformed)?;
        match json.first() {
            Some(b'{') => {}
            first => {
                let first = first.copied().map_or(' ', char::from);
                return Err(PredicateError::NoObject(first));
            }
        }
        let json: Box<RawValue> = serde_json::from_slice(json)
            .map_err(|error| PredicateError::Malformed(error.to_string()))?;
        Ok(Self {
            kind: kind.to_owned(),
            hash,
            json: Some(json.into()),
        })
    }

    /// Returns a predicate of which only the hash is known. A signer recognises statements of it and cannot sign it.
    #[must_use]
    pub const fn known(kind: String, hash: Digest) -> Self {
        Self {
            kind,
            hash,
            json: None,
        }
    }

    /// Returns the type of the predicate.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the hash of the document in a canonical form: it does not change with white space or the order of fields.
    #[must_use]
    pub const fn hash(&self) -> &Digest {
        &self.hash
    }
}

/// The subject of a statement.
#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A statement to be signed, with the fields in cosign's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'a str,
    subject: [Subject; 1],
    predicate_type: &'a str,
    predicate: &'a RawValue,
}

/// Returns the statement of `predicate` about `subject`, or `None` if only the hash of the predicate is known.
pub(super) fn statement(
    subject: &Digest,
    annotations: &BTreeMap<String, String>,
    predicate: &Predicate,
) -> Option<Vec<u8>> {
    let statement = Statement {
        kind: STATEMENT,
        subject: [Subject {
            digest: BTreeMap::from([(
                subject.algorithm().as_str().to_owned(),
                subject.hex().to_owned(),
            )]),
            annotations: annotations.clone(),
        }],
        predicate_type: &predicate.kind,
        predicate: predicate.json.as_deref()?,
    };
    serde_json::to_vec(&statement).ok()
}

/// A statement from a registry. The parts that can hold many values are not parsed with it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parsed {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(default)]
    subject: Option<Box<RawValue>>,
    predicate_type: String,
    #[serde(default)]
    predicate: Option<Box<RawValue>>,
}

impl Parsed {
    /// Returns the subjects, or `None` if they are malformed.
    fn subjects(&self) -> Option<Vec<Subject>> {
        match &self.subject {
            Some(subject) => parse_part(subject.get().as_bytes()),
            None => Some(Vec::new()),
        }
    }
}

/// A statement without a signature, as BuildKit puts it beside a platform.
pub struct UnsignedStatement {
    subjects: Vec<Subject>,
    predicate: Predicate,
}

impl UnsignedStatement {
    /// Parses a statement.
    ///
    /// # Errors
    /// Fails if it is not an in-toto statement, or if its predicate is no JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, PredicateError> {
        let malformed = || PredicateError::NoStatement;
        let parsed: Parsed = serde_json::from_slice(without_bom(json)).map_err(|_| malformed())?;
        if !parsed.kind.starts_with("https://in-toto.io/Statement/") {
            return Err(malformed());
        }
        let kind = parsed.predicate_type.as_str();
        if kind.len() > MAX_TYPE_BYTES || !kind.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed());
        }
        let predicate = parsed.predicate.as_deref().map_or("null", RawValue::get);
        Ok(Self {
            subjects: parsed.subjects().ok_or_else(malformed)?,
            predicate: Predicate::parse(kind, predicate.as_bytes())?,
        })
    }

    /// Returns the predicate.
    #[must_use]
    pub const fn predicate(&self) -> &Predicate {
        &self.predicate
    }

    /// Returns true if one of the subjects has the digest.
    #[must_use]
    pub fn is_about(&self, subject: &Digest) -> bool {
        self.subjects.iter().any(|stated| names(stated, subject))
    }
}

/// A statement in a Sigstore bundle, with the signature over it. The signature is verified by [`Self::verifies`] alone.
pub struct SignedStatement {
    /// The digest of the bundle's key as it states it, or an empty text.
    pub(super) hint: String,
    signed: Vec<u8>,
    signature: Vec<u8>,
    kind: String,
    subjects: Vec<Subject>,
    predicate_type: String,
    predicate: Option<Box<RawValue>>,
}

impl SignedStatement {
    /// Parses a bundle. `None`: it holds no in-toto statement with exactly one signature.
    #[must_use]
    pub fn parse(bundle: &[u8]) -> Option<Self> {
        let bundle = parse_part::<Bundle>(bundle)?;
        if bundle.media_type != BUNDLE || bundle.dsse_envelope.payload_type != IN_TOTO {
            return None;
        }
        let hint = bundle.hint();
        Self::from_envelope(&bundle.dsse_envelope, hint)
    }

    fn from_envelope(envelope: &Envelope, hint: String) -> Option<Self> {
        let (payload, signature) = envelope.open()?;
        let parsed: Parsed = serde_json::from_slice(&payload).ok()?;
        Some(Self {
            hint,
            signed: pre_authentication_encoding(IN_TOTO, &payload),
            signature,
            subjects: parsed.subjects()?,
            kind: parsed.kind,
            predicate_type: parsed.predicate_type,
            predicate: parsed.predicate,
        })
    }

    /// Returns the type of the predicate.
    #[must_use]
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// Returns the predicate as JSON; `{}` if there is none.
    #[must_use]
    pub fn predicate(&self) -> &str {
        self.predicate.as_deref().map_or("{}", RawValue::get)
    }

    /// Returns true if one of the subjects has the digest.
    #[must_use]
    pub fn is_about(&self, subject: &Digest) -> bool {
        self.subjects.iter().any(|stated| names(stated, subject))
    }

    /// Returns true if `key` made the signature.
    #[must_use]
    pub fn verifies(&self, key: &PublicKey) -> bool {
        self.verifies_with(|message, signature| key.verifies(message, signature))
    }

    pub(super) fn verifies_with(&self, verify: impl FnOnce(&[u8], &[u8]) -> bool) -> bool {
        verify(&self.signed, &self.signature)
    }

    /// Returns true if it states `predicate` about `subject` alone.
    pub(super) fn states(
        &self,
        subject: &Digest,
        annotations: &BTreeMap<String, String>,
        predicate: &Predicate,
    ) -> bool {
        let [stated] = self.subjects.as_slice() else {
            return false;
        };
        [STATEMENT, EARLIER_STATEMENT].contains(&self.kind.as_str())
            && self.predicate_type == predicate.kind
            && names(stated, subject)
            && stated.annotations == *annotations
            && canonical::hash(self.predicate().as_bytes()).as_ref() == Ok(&predicate.hash)
    }
}

fn names(stated: &Subject, subject: &Digest) -> bool {
    stated
        .digest
        .get(subject.algorithm().as_str())
        .is_some_and(|hex| hex.eq_ignore_ascii_case(subject.hex()))
}
