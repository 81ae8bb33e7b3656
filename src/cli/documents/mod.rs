//! What `-f` gives: ImageAttachments, and the ConfigMaps, Secrets and ServiceAccounts that they name.
//!
//! Owns: reading files, folders and stdin; several YAML or JSON documents in each; the schema's rules without a cluster.
//! Refuses: objects of another namespace (as in the cluster, threat T5), two objects of one name, and fields that the schema
//! does not know. Kinds that are nothing to affix are passed over with a notice, so that `-f` may name a kustomize folder.

mod input;
mod object;
mod parse;
mod schema;
mod spec_rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize as _;
use serde_json::Value;

use crate::api::{ImageAttachment, ImageAttachmentStatus};
use crate::engine::{Names, Sources};
use affix_registry::Keychain;

use super::exit::Error;
use super::text::Clean;
use object::{Object, Read};

pub(super) use input::{Input, read};
pub(super) use parse::{Document, Place, options, parse};

/// The argument that names documents.
#[derive(Debug, clap::Args)]
pub(super) struct FileArgs {
    /// A file, a folder (its .yaml, .yml and .json files) or - for stdin, with the ImageAttachments and the ConfigMaps, Secrets
    /// and ServiceAccounts that they name; may be repeated
    #[arg(short = 'f', long = "filename", required = true, num_args = 1.., value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// An ImageAttachment and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Where it stands.
    pub place: Place,
    /// Its namespace; `default` where the document names none.
    pub namespace: String,
    /// What it says; without a status, but for what [`Documents::read_status`] has read.
    pub object: ImageAttachment,
    /// The status as it was given.
    status: Option<Value>,
}

impl Attachment {
    /// `namespace/name`.
    pub(super) fn label(&self) -> String {
        format!(
            "{}/{}",
            self.namespace,
            self.object.metadata.name.as_deref().unwrap_or_default()
        )
    }
}

/// All objects that were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    /// In the order in which they were given.
    pub attachments: Vec<Attachment>,
    /// What was passed over, for people to read.
    pub notices: Vec<String>,
    /// The files that hold objects which were not passed over.
    pub files: BTreeSet<String>,
    others: BTreeMap<(String, String, &'static str), Object>,
}

impl Documents {
    /// Reads what the arguments name.
    ///
    /// # Errors
    /// Bad input: everything that is wrong at once, each with file, document and field.
    pub(super) fn load(args: &FileArgs) -> Result<Self, Error> {
        let documents = Self::gather(&read(&args.files)?)?;
        documents.require_attachments()?;
        Ok(documents)
    }

    /// # Errors
    /// Bad input, where there is no ImageAttachment at all.
    pub(super) fn require_attachments(&self) -> Result<(), Error> {
        if self.attachments.is_empty() {
            let passed: Vec<String> = self
                .notices
                .iter()
                .map(|notice| format!("; {notice}"))
                .collect();
            return Err(Error::bad_input(format_args!(
                "there is no ImageAttachment in what -f names{}",
                passed.concat()
            )));
        }
        Ok(())
    }

    /// Takes objects from texts.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(super) fn gather(inputs: &[Input]) -> Result<Self, Error> {
        let mut gathering = Gathering::default();
        for input in inputs {
            match parse(input) {
                Ok(documents) => documents
                    .into_iter()
                    .for_each(|document| gathering.add(document, input.found)),
                Err(error) => gathering.errors.push(error),
            }
        }
        if gathering.errors.is_empty() {
            Ok(gathering.documents)
        } else {
            Err(Error::BadInput(gathering.errors))
        }
    }

    /// Takes the resources' status for what it says, as far as it can be read; fields of a newer affix are passed over.
    ///
    /// # Errors
    /// Bad input, for each field that is none of a status.
    pub(super) fn read_status(&mut self) -> Result<(), Error> {
        let mut errors = Vec::new();
        for attachment in &mut self.attachments {
            let Some(given) = &attachment.status else {
                continue;
            };
            let mut wrong = schema::check_status(given);
            match ImageAttachmentStatus::deserialize(given) {
                Ok(status) => attachment.object.status = Some(status),
                Err(error) if wrong.is_empty() => {
                    wrong.push(format!("status: {}", Clean(&error.to_string())))
                }
                Err(_) => {}
            }
            let place = &attachment.place;
            errors.extend(wrong.into_iter().map(|error| {
                format!("{place}: {error}; without the field status, a plan begins from nothing")
            }));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::BadInput(errors))
        }
    }

    /// What a resource refers to, from its own namespace only; `login` stands in where it names no login.
    pub(super) fn sources(&self, attachment: &Attachment, login: Keychain) -> Sources {
        let mut sources = Sources {
            fallback_credentials: login,
            ..Sources::default()
        };
        let account = Names::of(&attachment.object.spec).service_account;
        for ((namespace, name, _), object) in &self.others {
            if *namespace != attachment.namespace {
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
                    sources.image_pull_secrets = Some(secrets.clone())
                }
                Object::ServiceAccount(_) | Object::Attachment(..) => {}
            }
        }
        sources
    }
}

#[derive(Default)]
struct Gathering {
    documents: Documents,
    errors: Vec<String>,
    places: BTreeMap<(String, String, &'static str), Place>,
}

impl Gathering {
    fn add(&mut self, Document { place, value }: Document, found: bool) {
        match object::read(value) {
            Ok(Read::List(items)) => {
                for (nth, value) in items.into_iter().enumerate() {
                    self.add(
                        Document {
                            place: Place {
                                item: Some(nth + 1),
                                ..place.clone()
                            },
                            value,
                        },
                        found,
                    );
                }
            }
            Ok(Read::NoKind) if found => {
                self.documents.notices.push(format!(
                    "{place}: a document without apiVersion and kind is passed over"
                ));
            }
            Ok(Read::NoKind) => self.errors.push(format!(
                "{place}: apiVersion, kind: they are missing, and are required"
            )),
            Ok(Read::PassedOver(what)) => self
                .documents
                .notices
                .push(format!("{place}: {what} is passed over")),
            Ok(Read::Object {
                kind,
                namespace,
                name,
                object,
            }) => self.keep(place, kind, namespace, name, object),
            Err(errors) => self
                .errors
                .extend(errors.into_iter().map(|error| format!("{place}: {error}"))),
        }
    }

    fn keep(
        &mut self,
        place: Place,
        kind: &'static str,
        namespace: String,
        name: String,
        object: Object,
    ) {
        let key = (namespace, name, kind);
        if let Some(first) = self.places.get(&key) {
            let (namespace, name, kind) = key;
            self.errors.push(format!(
                "{place}: metadata.name: the {kind} {namespace}/{name} stands in {first} already"
            ));
            return;
        }
        self.places.insert(key.clone(), place.clone());
        self.documents.files.insert(place.file.clone());
        match object {
            Object::Attachment(object, status) => {
                self.documents.attachments.push(Attachment {
                    place,
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
