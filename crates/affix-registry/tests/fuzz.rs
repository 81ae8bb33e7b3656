//! Runs the properties of `fuzz/` without a fuzzer: on the corpus, on mutations of it, and on
//! random bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics fails, as it should"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use affix_registry::fuzzing::PROPERTIES;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("fuzz")
        .join(name)
}

fn names(folder: &Path, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries
        .map(|name| name.strip_suffix(suffix).unwrap_or(&name).to_owned())
        .collect()
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    let found: Vec<_> = names(&folder, "")
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect();
    assert!(
        found.len() >= 5,
        "the corpus of {target} has {} files",
        found.len()
    );
    found
}

#[test]
fn every_property_has_a_fuzz_target_and_a_corpus_and_vice_versa() {
    let properties: BTreeSet<String> = PROPERTIES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names(&folder("fuzz_targets"), ".rs"), properties);
    assert_eq!(names(&folder("corpus"), ""), properties);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in properties {
        let source = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(
            source.contains(&format!("affix_registry::fuzzing::{name}(")),
            "{source}"
        );
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
    }
}

#[test]
fn the_corpus_breaks_no_property() {
    for (target, property) in PROPERTIES {
        for (name, bytes) in corpus(target) {
            println!("{target}/{name}"); // printed if the property panics
            property(&bytes);
        }
    }
}

#[test]
fn random_bytes_break_no_property() {
    for (target, property) in PROPERTIES {
        let mut runner = TestRunner::new(Config {
            cases: 512,
            failure_persistence: None,
            ..Config::default()
        });
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\PC{0,120}".prop_map(String::into_bytes),
            "[\\[\\]{}\":,a-z0-9=<>;/ .*\\\\-]{0,120}".prop_map(String::into_bytes),
        ];
        println!("{target}");
        runner
            .run(&bytes, |bytes| {
                property(&bytes);
                Ok(())
            })
            .unwrap();
    }
}

/// Mutates the corpus as a fuzzer would.
#[test]
fn mutations_of_the_corpus_break_no_property() {
    for (target, property) in PROPERTIES {
        let corpus = corpus(target);
        let changes = prop::collection::vec(
            (
                0..5_u8,
                any::<prop::sample::Index>(),
                any::<prop::sample::Index>(),
                any::<u8>(),
            ),
            1..6,
        );
        let spoiled = (any::<prop::sample::Index>(), changes).prop_map(move |(which, changes)| {
            let mut bytes = corpus[which.index(corpus.len())].1.clone();
            for (kind, at, other, byte) in changes {
                let (at, other) = (at.index(bytes.len() + 1), other.index(bytes.len() + 1));
                let (from, to) = (at.min(other), at.max(other));
                match kind {
                    0 => drop(bytes.drain(from..to)),
                    1 => bytes.insert(at, byte),
                    2 => bytes.extend_from_within(from..to),
                    3 => bytes
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|old| *old = byte),
                    _ => bytes.extend_from_slice(&corpus[usize::from(byte) % corpus.len()].1),
                }
            }
            bytes
        });
        println!("{target}");
        let mut runner = TestRunner::new(Config {
            cases: 2048,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&spoiled, |bytes| {
                property(&bytes);
                Ok(())
            })
            .unwrap();
    }
}
