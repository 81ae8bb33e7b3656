//! Parsing of YAML and JSON files with several documents, into the JSON values that `kubectl` would send to the API server.

use std::fmt;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::input::Input;
use crate::cli::output::text::Clean;

/// The location of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Location {
    /// The name of the file in messages.
    pub file: String,
    /// The number of the document in the file, from 1. Empty documents do not count.
    pub document: usize,
    /// The first line, from 1, if it is known.
    pub line: Option<u64>,
    /// The number of the item in a List, from 1.
    pub item: Option<usize>,
}

impl fmt::Display for Location {
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
    /// The location.
    pub location: Location,
    /// The content.
    pub value: Value,
}

/// Returns the options of the YAML parser. Duplicate keys are errors, as in Kubernetes. Errors repeat nothing of the file, because it may
/// contain a Secret.
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

/// Parses the documents of one file. Empty documents are left out.
///
/// # Errors
/// If the text is neither YAML nor JSON. The message names file and line.
pub(in crate::cli) fn parse(input: &Input) -> Result<Vec<Document>, String> {
    let location = |nth: usize, line| Location {
        file: input.name.clone(),
        document: nth + 1,
        line,
        item: None,
    };
    let text = input.text.trim_start_matches('\u{feff}');
    // A YAML parser does not accept all escapes of JSON, so JSON is tried first.
    if text.trim_start().starts_with('{') {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect();
        match values {
            Ok(values) => {
                let documents = values.into_iter().enumerate();
                return Ok(documents
                    .map(|(nth, value)| Document {
                        location: location(nth, None),
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
    let values: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options())
        // This part of the message addresses the programmer, not the author of the file.
        .map_err(|error| {
            error
                .to_string()
                .replace(", set DuplicateKeyPolicy in Options if acceptable", "")
        })
        .map_err(|error| format!("{}: {}", input.name, Clean(&error)))?;
    let documents = values.into_iter().enumerate();
    Ok(documents
        .map(|(nth, spanned)| Document {
            location: location(nth, Some(spanned.referenced.line())),
            value: spanned.value,
        })
        .collect())
}
