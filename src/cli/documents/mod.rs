//! The documents that `-f` gives: ImageAttachments, ImageAttachmentSets, and the ConfigMaps, Secrets and ServiceAccounts that they reference.
//!
//! Documents come from files, folders and stdin, several in each, in YAML or JSON. They are validated with the rules of the schema. As in
//! the cluster, a resource uses objects of its own namespace only (threat T5). Two objects of one name and unknown fields are errors.
//! Objects of other kinds are skipped with a notice, so that `-f` may name a kustomize folder.

mod args;
mod input;
mod object;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::{
    ImageAttachment, ImageAttachmentSet, ImageAttachmentSetStatus, ImageAttachmentSpec,
    ImageAttachmentStatus, Pinned, check_set_status, check_status,
};
use crate::engine::{Names, Sources};
use affix_registry::Keychain;

use super::exit::Error;
use super::output::text::Clean;
use object::{GROUP, Object, Parsed};

pub(super) use args::{FileArgs, ScopeArgs};
pub(super) use input::{Input, read};
pub(super) use parse::{Document, Location, options, parse};

/// An ImageAttachment of a document.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// The location of the document.
    pub location: Location,
    /// The namespace, or `default`.
    pub namespace: String,
    /// The resource. It has a status only after [`Documents::read_status`].
    pub object: ImageAttachment,
    /// The status as it was given.
    pub status: Option<Value>,
}

/// An ImageAttachmentSet of a document.
#[derive(Debug, Clone)]
pub(super) struct SetDocument {
    /// The location of the document.
    pub location: Location,
    /// The namespace, or `default`.
    pub namespace: String,
    /// The set. It has a status only after [`Documents::read_status_of_sets`].
    pub object: ImageAttachmentSet,
    /// The status as it was given.
    status: Option<Value>,
}

impl SetDocument {
    /// Returns `namespace/name`.
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name())
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
}

impl Attachment {
    /// Returns `namespace/name`.
    pub(super) fn label(&self) -> String {
        format!(
            "{}/{}",
            self.namespace,
            self.object.metadata.name.as_deref().unwrap_or_default()
        )
    }
}

/// All objects of all documents.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    /// The ImageAttachments, in the order of the documents.
    pub attachments: Vec<Attachment>,
    /// The ImageAttachmentSets, in the order of the documents.
    pub sets: Vec<SetDocument>,
    /// Messages about skipped documents.
    pub notices: Vec<String>,
    /// The files with objects that were not skipped.
    pub files: BTreeSet<String>,
    others: BTreeMap<(String, String, &'static str), Object>,
}

impl Documents {
    /// Reads the documents of the flags.
    ///
    /// # Errors
    /// Bad input: all errors at once, each with file, document and field.
    pub(super) fn load(args: &FileArgs) -> Result<Self, Error> {
        let documents = Self::from_inputs(&read(args)?, Pinned::Final, args.scope.namespace())?;
        documents.require_attachments()?;
        Ok(documents)
    }

    /// Refuses documents without an ImageAttachment and without an ImageAttachmentSet.
    ///
    /// # Errors
    /// Bad input.
    pub(super) fn require_attachments(&self) -> Result<(), Error> {
        if self.attachments.is_empty() && self.sets.is_empty() {
            let skipped: Vec<String> = self
                .notices
                .iter()
                .map(|notice| format!("; {notice}"))
                .collect();
            return Err(Error::bad_input(format_args!(
                "no ImageAttachment found in the files of -f{}",
                skipped.concat()
            )));
        }
        Ok(())
    }

    /// Collects the objects of texts.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(super) fn from_inputs(
        inputs: &[Input],
        pinned: Pinned,
        namespace: &str,
    ) -> Result<Self, Error> {
        let mut collector = Collector::new(pinned, namespace);
        for input in inputs {
            if let Some(why) = &input.skipped {
                collector.documents.notices.push(format!("{why}; skipped"));
                continue;
            }
            match parse(input) {
                Ok(documents) => documents
                    .into_iter()
                    .for_each(|document| collector.add(document, input.from_folder)),
                // A folder also has files of other programs. A file that mentions affix is never skipped: an image would stay unsigned.
                Err(error) if input.from_folder && !input.text.contains(GROUP) => collector
                    .documents
                    .notices
                    .push(format!("{error}: skipped, because the file is not YAML")),
                Err(error) => collector.errors.push(error),
            }
        }
        if collector.errors.is_empty() {
            Ok(collector.documents)
        } else {
            Err(Error::BadInput(collector.errors))
        }
    }

    /// Returns whether the documents contain an object.
    pub(super) fn contains(&self, kind: &'static str, namespace: &str, name: &str) -> bool {
        self.others
            .contains_key(&(namespace.to_owned(), name.to_owned(), kind))
    }

    /// Parses the status of the ImageAttachments. Fields of a newer version of affix are ignored.
    ///
    /// # Errors
    /// Bad input, for each malformed field.
    pub(super) fn read_status(&mut self) -> Result<(), Error> {
        let mut errors = Vec::new();
        for attachment in &mut self.attachments {
            match parse_status::<ImageAttachmentStatus>(attachment.status.as_ref(), check_status) {
                Ok(status) => attachment.object.status = status,
                Err(wrong) => errors.extend(located(&attachment.location, wrong)),
            }
        }
        refuse(errors)
    }

    /// Parses the status of the ImageAttachmentSets, and of the ImageAttachments for which `is_child` returns true.
    ///
    /// # Errors
    /// As [`read_status`](Self::read_status).
    pub(super) fn read_status_of_sets(
        &mut self,
        is_child: impl Fn(&SetDocument, &Attachment) -> bool,
    ) -> Result<(), Error> {
        let mut errors = Vec::new();
        for set in &mut self.sets {
            match parse_status::<ImageAttachmentSetStatus>(set.status.as_ref(), check_set_status) {
                Ok(status) => set.object.status = status,
                Err(wrong) => errors.extend(located(&set.location, wrong)),
            }
        }
        for attachment in &mut self.attachments {
            if !self.sets.iter().any(|set| is_child(set, attachment)) {
                continue;
            }
            match parse_status::<ImageAttachmentStatus>(attachment.status.as_ref(), check_status) {
                Ok(status) => attachment.object.status = status,
                Err(wrong) => errors.extend(located(&attachment.location, wrong)),
            }
        }
        refuse(errors)
    }

    /// Returns the objects that a resource references, from its own namespace only. `login` applies if the resource names no login.
    pub(super) fn sources(&self, attachment: &Attachment, login: Keychain) -> Sources {
        self.sources_of(&attachment.namespace, &attachment.object.spec, login)
    }

    /// Returns the objects that a spec in a namespace references, as [`sources`](Self::sources) does.
    pub(super) fn sources_of(
        &self,
        namespace: &str,
        spec: &ImageAttachmentSpec,
        login: Keychain,
    ) -> Sources {
        let mut sources = Sources {
            fallback_credentials: login,
            ..Sources::default()
        };
        let account = Names::of(spec).service_account;
        for ((own, name, _), object) in &self.others {
            if own != namespace {
                continue;
            }
            match object {
                Object::ConfigMap(data) => {
                    sources.config_maps.insert(name.clone(), data.clone());
                }
                Object::Secret(secret) => {
                    sources.secrets.insert(name.clone(), secret.clone());
                }
                Object::ServiceAccount(secrets) if account.as_ref() == Some(name) => {
                    sources.image_pull_secrets = Some(secrets.clone());
                }
                Object::ServiceAccount(_) | Object::Attachment(..) | Object::Set(..) => {}
            }
        }
        sources
    }
}

/// Parses a status.
fn parse_status<T: serde::de::DeserializeOwned>(
    given: Option<&Value>,
    check: impl Fn(&Value) -> Vec<String>,
) -> Result<Option<T>, Vec<String>> {
    let Some(given) = given else {
        return Ok(None);
    };
    let wrong: Vec<String> = check(given)
        .iter()
        .map(|error| Clean(error).to_string())
        .collect();
    match T::deserialize(given) {
        _ if !wrong.is_empty() => Err(wrong),
        Ok(status) => Ok(Some(status)),
        Err(error) => Err(vec![format!("status: {}", Clean(&error.to_string()))]),
    }
}

fn located(location: &Location, wrong: Vec<String>) -> impl Iterator<Item = String> {
    wrong.into_iter().map(move |error| {
        format!("{location}: {error}; remove the field status to go on without it")
    })
}

fn refuse(errors: Vec<String>) -> Result<(), Error> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::BadInput(errors))
    }
}

struct Collector<'a> {
    pinned: Pinned,
    namespace: &'a str,
    documents: Documents,
    errors: Vec<String>,
    locations: BTreeMap<(String, String, &'static str), Location>,
}

impl<'a> Collector<'a> {
    fn new(pinned: Pinned, namespace: &'a str) -> Self {
        Self {
            pinned,
            namespace,
            documents: Documents::default(),
            errors: Vec::new(),
            locations: BTreeMap::new(),
        }
    }

    fn add(&mut self, Document { location, value }: Document, from_folder: bool) {
        match object::parse(value, self.pinned, self.namespace) {
            Ok(Parsed::List(items)) => {
                for (nth, value) in items.into_iter().enumerate() {
                    self.add(
                        Document {
                            location: Location {
                                item: Some(nth + 1),
                                ..location.clone()
                            },
                            value,
                        },
                        from_folder,
                    );
                }
            }
            Ok(Parsed::NoKind) if from_folder => {
                self.documents.notices.push(format!(
                    "{location}: skipped, because apiVersion and kind are missing"
                ));
            }
            Ok(Parsed::NoKind) => self.errors.push(format!(
                "{location}: apiVersion, kind: they are missing, and are required"
            )),
            Ok(Parsed::OtherKind(kind)) => self.documents.notices.push(format!(
                "{location}: skipped, because affix does not use {kind}"
            )),
            Ok(Parsed::Object {
                kind,
                namespace,
                name,
                object,
            }) => self.keep(location, (namespace, name, kind), object, from_folder),
            Ok(Parsed::Encrypted(kind)) => self.documents.notices.push(format!(
                "{location}: skipped, because the {kind} is encrypted with SOPS: decrypt it and give the result with -f, if it is needed"
            )),
            // A folder also has objects of other programs. A resource that needs one of them fails by itself.
            Err(refused) if from_folder && !refused.is_of_affix => {
                self.documents.notices.push(format!(
                    "{location}: skipped, because affix cannot read it: {}",
                    refused.errors.join("; ")
                ));
            }
            Err(refused) => self.errors.extend(
                refused
                    .errors
                    .into_iter()
                    .map(|error| format!("{location}: {error}")),
            ),
        }
    }

    fn keep(
        &mut self,
        location: Location,
        key: (String, String, &'static str),
        object: Object,
        from_folder: bool,
    ) {
        if let Some(first) = self.locations.get(&key) {
            let (namespace, name, kind) = &key;
            let label = format!("the {kind} {namespace}/{name}");
            // A folder can have several variants of an object. A resource that needs it fails by itself.
            if from_folder && !matches!(object, Object::Attachment(..) | Object::Set(..)) {
                self.documents.notices.push(format!(
                    "{location}: skipped, because {label} is also in {first}: neither of them is used"
                ));
                self.documents.others.remove(&key);
                return;
            }
            self.errors.push(format!(
                "{location}: metadata.name: {label} is already in {first}"
            ));
            return;
        }
        self.locations.insert(key.clone(), location.clone());
        self.documents.files.insert(location.file.clone());
        match object {
            Object::Attachment(object, status) => {
                self.documents.attachments.push(Attachment {
                    location,
                    namespace: key.0,
                    object: *object,
                    status,
                });
            }
            Object::Set(object, status) => {
                self.documents.sets.push(SetDocument {
                    location,
                    namespace: key.0,
                    object: *object,
                    status,
                });
            }
            other => {
                self.documents.others.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests;
