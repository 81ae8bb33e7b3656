//! YAML and JSON, several documents a file, as JSON values: what `kubectl` would send to the API server.

use std::fmt;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::input::Input;
use crate::cli::text::Clean;

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Place {
    /// The file, as messages name it.
    pub file: String,
    /// Which of the file's documents that are not empty, counted from 1.
    pub document: usize,
    /// The line on which it begins, counted from 1, where known.
    pub line: Option<u64>,
    /// Which item of a List, counted from 1.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file, self.document)?;
        if let Some(line) = self.line.filter(|line| *line > 0) {
            write!(f, " (line {line})")?;
        }
        match self.item {
            Some(item) => write!(f, ", item {item}"),
            None => Ok(()),
        }
    }
}

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Document {
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub value: Value,
}

/// How YAML is read: as strictly as Kubernetes does, with nothing of the file repeated in messages (it may hold a Secret).
pub(in crate::cli) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        budget: serde_saphyr::budget! {
            max_documents: 10_000,
            max_nodes: 1_000_000,
        },
    }
}

/// The documents of one file; empty ones are left out.
///
/// # Errors
/// Where the text is neither YAML nor JSON; the message names file and line.
pub(in crate::cli) fn parse(input: &Input) -> Result<Vec<Document>, String> {
    let place = |nth: usize, line| Place {
        file: input.name.clone(),
        document: nth + 1,
        line,
        item: None,
    };
    // JSON is nearly YAML; where it is JSON, JSON's own parser knows its escapes best.
    if input.text.trim_start().starts_with('{') {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&input.text)
            .into_iter()
            .collect();
        match values {
            Ok(values) => {
                let documents = values.into_iter().enumerate();
                return Ok(documents
                    .map(|(nth, value)| Document {
                        place: place(nth, None),
                        value,
                    })
                    .collect());
            }
            Err(error) if input.name.ends_with(".json") => {
                return Err(format!("{}: {error}", input.name));
            }
            Err(_) => {}
        }
    }
    let values: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(&input.text, options())
            // The parser speaks to programmers: how it is told to allow this is nothing that a file can do.
            .map_err(|error| {
                error
                    .to_string()
                    .replace(", set DuplicateKeyPolicy in Options if acceptable", "")
            })
            .map_err(|error| format!("{}: {}", input.name, Clean(&error)))?;
    let documents = values.into_iter().enumerate();
    Ok(documents
        .map(|(nth, spanned)| Document {
            place: place(nth, Some(spanned.referenced.line())),
            value: spanned.value,
        })
        .collect())
}
