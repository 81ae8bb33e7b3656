//! The layers of `src/`: each uses only the layers below it.
//!
//! The registry crate is the lowest layer, and the compiler checks that. This test reads the imports of the other layers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, the lowest first. Layers of one row do not use each other.
const LAYERS: [&[&str]; 9] = [
    &["api"],
    &["identity"],
    &["attachment", "signing"],
    &["engine"],
    &["service"],
    &["inventory"],
    &["controller", "admission"],
    &["cli"],
    &["main", "lib"],
];

/// Returns the position of a layer, or `None` for a name that is not a layer.
fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

/// Returns whether a file of one layer may use another layer.
fn may_use(user: &str, used: &str) -> bool {
    user == used || rank(used) < rank(user)
}

/// Returns the layers of `crate::` that a text uses, outside of comments.
fn used_layers(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    let mut layers = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at..].trim_start_matches("crate::");
        let names = match rest.strip_prefix('{') {
            Some(group) => group_names(group),
            None => vec![first_name(rest)],
        };
        layers.extend(names.into_iter().filter(|name| rank(name).is_some()));
    }
    layers
}

/// Returns the first segments of a group such as `api::{Reason, crd}, engine::Mode}`.
fn group_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(group[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Returns all Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
    all
}

#[test]
fn each_layer_uses_only_the_layers_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for file in files(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap();
        let layer = Path::new(first.as_os_str()).file_stem().unwrap();
        let layer = layer.to_str().unwrap();
        assert!(
            rank(layer).is_some(),
            "{layer} is not a layer: add it to LAYERS"
        );
        *seen.entry(layer.to_owned()).or_default() += 1;
        let used = used_layers(&std::fs::read_to_string(&file).unwrap());
        violations.extend(
            used.iter()
                .filter(|used| !may_use(layer, used))
                .map(|used| format!("src/{} uses {used}", inside.display())),
        );
    }
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(seen.len() > 7, "{seen:?}");
}

#[test]
fn an_import_against_the_layers_is_found() {
    for (user, text, found) in [
        ("engine", "use crate::controller::Options;", true),
        ("engine", "use crate::{api::Reason, controller};", true),
        (
            "engine",
            "use crate::{\n    api::{Reason, crd},\n    controller::{run, Options},\n};",
            true,
        ),
        ("engine", "fn f() { crate::admission::run() }", true),
        ("signing", "use crate::attachment::Intent;", true),
        ("engine", "use crate::api::{Reason, controller};", false),
        ("engine", "// crate::controller runs it", false),
        ("cli", "use crate::controller::Options;", false),
    ] {
        let violates = used_layers(text).iter().any(|used| !may_use(user, used));
        assert_eq!(violates, found, "{user}: {text}");
    }
}
