//! Text for a terminal. Text from registries and files is escaped, so that it cannot move the cursor, change colours or reorder a line
//! (threat T22).

use std::fmt;

/// A text that is displayed with every control and direction character escaped as `\u{…}`.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Clean<'a>(pub &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

/// Returns the text on one line, escaped and cut to `max` characters. A cut text ends in `…`.
pub(in crate::cli) fn line(text: &str, max: usize) -> String {
    let kept: String = text.chars().take(max).collect();
    let ellipsis = if kept.len() < text.len() { "…" } else { "" };
    format!("{}{ellipsis}", Clean(&kept))
}

/// Returns a digest with the first twelve characters of its encoded part.
pub(in crate::cli) fn short(digest: &affix_registry::oci::Digest) -> String {
    format!("{}:{}", digest.algorithm().as_str(), digest.short())
}

/// Escapes the characters of a JSON document that a terminal would act upon. The document keeps its meaning: such characters occur
/// in strings only, where each may be written as `\uXXXX`.
pub(in crate::cli) fn clean_json(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                clean.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Returns whether a character controls a terminal or changes the direction of text.
pub(in crate::cli) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction marks, embeddings, overrides and isolates; line and paragraph separators; byte order marks.
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            // Tag characters, which are invisible.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            Clean("a\x1b[2Jb\r\n\u{9b}1m\u{202e}x").to_string(),
            "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}1m\\u{202e}x"
        );
        assert_eq!(Clean("über 日本 …").to_string(), "über 日本 …");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(line("äöü", 2), "äö…");
        assert_eq!(line("äöü", 3), "äöü");
    }

    #[test]
    fn clean_json_means_the_same() {
        let value = serde_json::json!({"a": "\u{9b}1m\u{7f}\u{202e}\u{e0041}\x1b", "b": ["ü\n"]});
        let clean = clean_json(&serde_json::to_string_pretty(&value).unwrap_or_default());
        assert!(!clean.chars().any(|c| is_unsafe(c) && c != '\n'), "{clean}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&clean).ok(),
            Some(value)
        );
    }
}
