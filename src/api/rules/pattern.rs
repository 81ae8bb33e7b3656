//! Regular expressions that the API server and the command line evaluate alike.
//!
//! CEL uses RE2, and the crate `regex` has the same syntax. Two differences matter here: a pattern is anchored explicitly, and white space is
//! spelled out, because `\s` is ASCII in RE2 and Unicode in `regex`.

use std::sync::OnceLock;

use regex::Regex;

/// A digest of an algorithm that affix computes.
pub(super) static DIGEST: Pattern = Pattern::new("^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$");

/// A platform, `os[/arch[/variant]][:os.version]`, where a part may be `*`.
pub(super) static PLATFORM: Pattern = Pattern::new(
    r"^([A-Za-z0-9_.-]{1,64}|\*)(/([A-Za-z0-9_.-]{1,64}|\*)){0,2}(:([A-Za-z0-9_.+~-]{0,63}[A-Za-z0-9_+~-]|\*))?$",
);

/// A regular expression, compiled when it is first used.
pub(super) struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(super) const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// Returns whether a text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.compiled()
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }

    /// Returns whether the regular expression compiles.
    #[cfg(test)]
    pub(super) fn is_valid(&self) -> bool {
        self.compiled().is_some()
    }

    /// Returns the CEL expression that matches `self`.
    pub(super) fn expression(&self) -> String {
        self.expression_on("self")
    }

    /// Returns the CEL expression that matches another operand.
    pub(super) fn expression_on(&self, operand: &str) -> String {
        format!("{operand}.matches('{}')", self.text.replace('\\', r"\\"))
    }

    fn compiled(&self) -> &Option<Regex> {
        self.compiled.get_or_init(|| Regex::new(self.text).ok())
    }
}
