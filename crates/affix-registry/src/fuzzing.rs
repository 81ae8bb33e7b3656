//! Properties of the parsers of untrusted bytes.
//!
//! Each property is a function that panics if it does not hold. The targets in `fuzz/` run these
//! functions under a fuzzer. `tests/fuzz.rs` runs them on the corpus and on random bytes.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a property that is broken is told by a panic, and nothing but tests calls these"
)]

use crate::oci::{
    Host, Manifest, Platform, PlatformPattern, RawDocument, RawEntry, Reference, ReferrersPage,
    Repository, cut, media_type, value_bound,
};

/// A property of one parser.
pub type Property = fn(&[u8]);

/// All properties, by the name of their fuzz target and corpus.
pub const PROPERTIES: [(&str, Property); 9] = [
    ("reference", reference),
    ("platform", platform),
    ("manifest", manifest),
    ("referrers_listing", referrers_listing),
    ("www_authenticate", www_authenticate),
    ("link", link),
    ("retry_after", retry_after),
    ("docker_config", docker_config),
    ("error_body", error_body),
];

/// Maximum length of a parser's error message, in characters.
const MAX_MESSAGE: usize = 1024;

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Error messages about hostile input are short.
fn is_short(error: &impl ToString) {
    let message = error.to_string();
    assert!(
        message.chars().count() <= MAX_MESSAGE,
        "a message of {} characters",
        message.chars().count()
    );
}

/// A reference survives printing and parsing, and its host contains no path.
pub fn reference(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match text.parse::<Reference>() {
        Ok(reference) => {
            let again = reference
                .to_string()
                .parse::<Reference>()
                .expect("what a reference is written as is a reference");
            assert_eq!(again, reference);
            assert!(
                !reference.host.as_str().contains(['/', '@', '?', '#', '\\']),
                "{:?} is no host",
                reference.host.as_str()
            );
        }
        Err(error) => is_short(&error),
    }
}

/// A platform pattern survives printing and parsing, and matching does not panic.
pub fn platform(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some(platform) = Platform::from_config(bytes) {
        assert_eq!(platform.normalised(), platform.normalised().normalised());
    }
    match text.parse::<PlatformPattern>() {
        Ok(pattern) => {
            let again = pattern
                .to_string()
                .parse::<PlatformPattern>()
                .expect("what a pattern is written as is a pattern");
            assert_eq!(again.as_str(), pattern.as_str());
            let _ = pattern.matches(None);
        }
        Err(error) => is_short(&error),
    }
}

/// A manifest parses as an index or an image or is rejected, under each media type. An image
/// survives printing and parsing.
pub fn manifest(bytes: &[u8]) {
    let served = [
        None,
        Some(media_type::OCI_INDEX),
        Some(media_type::OCI_MANIFEST),
        Some(media_type::DOCKER_LIST),
    ];
    for content_type in served {
        match Manifest::parse(content_type, bytes) {
            Ok((_, Manifest::Image(image))) => {
                let written = serde_json::to_vec(&image).expect("an image is JSON");
                let (_, again) = Manifest::parse(content_type, &written)
                    .expect("what was read once is read again");
                assert_eq!(again, Manifest::Image(image));
            }
            Ok((_, Manifest::Index(index))) => {
                assert!(index.manifests.len() <= value_bound(bytes) + 1);
            }
            Err(error) => is_short(&error),
        }
    }
}

/// A listing keeps its bytes when it is written again, entry by entry.
pub fn referrers_listing(bytes: &[u8]) {
    match RawDocument::parse(bytes, RawDocument::MANIFESTS) {
        Ok(index) => {
            let written = index.to_bytes();
            let again = RawDocument::parse(&written, RawDocument::MANIFESTS)
                .expect("what was read once is read again");
            assert_eq!(again.to_bytes(), written);
            assert_eq!(again.entries, index.entries);
            assert!(index.entries.len() <= value_bound(bytes) + 1);
            let page = ReferrersPage::parse(bytes).expect("a whole index is a page of a listing");
            assert!(
                page.raw().eq(index.entries.iter().map(RawEntry::raw))
                    && page.media_type() == index.media_type()
            );
            let described: Vec<_> = index
                .entries
                .iter()
                .filter_map(RawEntry::descriptor)
                .collect();
            assert!(page.descriptors().eq(described.iter().cloned()));
            assert!(index.entries.iter().filter_map(RawEntry::digest).count() >= described.len());
        }
        // The parser quotes its input. The client truncates that.
        Err(error) => is_short(&format!("{:?}", cut(&error.to_string()))),
    }
}

/// A header contains no more challenges than words.
pub fn www_authenticate(bytes: &[u8]) {
    let Some(line) = text(bytes) else { return };
    assert!(parsers::www_authenticate(line) <= line.split([',', ' ', '\t']).count());
}

/// The target of the next page is part of the header.
pub fn link(bytes: &[u8]) {
    let Some(line) = text(bytes) else { return };
    if let Some(target) = parsers::link(line) {
        assert!(line.contains(&target), "{target:?} is not in the header");
    }
}

/// A wait fits a clock.
pub fn retry_after(bytes: &[u8]) {
    let Some(value) = text(bytes) else { return };
    if let Some(wait) = parsers::retry_after(value) {
        assert!(wait.as_secs() <= u64::from(u32::MAX), "{wait:?}");
    }
}

/// A docker config parses or is rejected with a short message.
pub fn docker_config(bytes: &[u8]) {
    let host: Host = "registry.example.com:5000".parse().expect("it is a host");
    let repository: Repository = "team/app".parse().expect("it is a repository");
    if let Err(error) = parsers::docker_config(bytes, &host, &repository) {
        is_short(&error);
    }
}

/// The text of an error body is one short line without control characters, and its codes are words.
pub fn error_body(bytes: &[u8]) {
    let (codes, text) = parsers::error_body(bytes);
    assert!(
        text.chars().count() <= 201 && !text.contains(char::is_control),
        "{text:?}"
    );
    let is_word = |code: &String| {
        code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    assert!(codes.len() <= 8 && codes.iter().all(is_word), "{codes:?}");
}

mod parsers {
    //! The private parsers of registry answers.

    use crate::access::challenge::Challenge;
    use crate::access::docker_config::Keychain;
    use crate::oci::{Host, Repository};
    use crate::protocol::error_body::ErrorBody;
    use std::time::{Duration, SystemTime};

    /// Parses `WWW-Authenticate` and returns the number of recognised challenges.
    pub(super) fn www_authenticate(line: &str) -> usize {
        Challenge::parse_all([line]).len()
    }

    /// Parses `Link` and returns the target of the next page.
    pub(super) fn link(line: &str) -> Option<String> {
        crate::protocol::link::next([line])
    }

    /// Parses `Retry-After` relative to the epoch.
    pub(super) fn retry_after(value: &str) -> Option<Duration> {
        crate::http::retry_after::parse(value, SystemTime::UNIX_EPOCH)
    }

    /// Parses an error body and returns its codes and its text.
    pub(super) fn error_body(bytes: &[u8]) -> (Vec<String>, String) {
        let read = ErrorBody::parse(bytes, &[]);
        (read.codes, read.text)
    }

    /// Parses a docker config and looks up a login in it.
    pub(super) fn docker_config(
        bytes: &[u8],
        host: &Host,
        repository: &Repository,
    ) -> Result<(), String> {
        let _ = Keychain::parse_dockercfg(bytes).map(|keychain| keychain.find(host, repository));
        let keychain = Keychain::parse(bytes).map_err(|error| error.to_string())?;
        let _ = keychain.find(host, repository);
        Ok(())
    }
}
