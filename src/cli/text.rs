//! Text for a terminal: what registries and files hold is shown escaped, so that nothing but this program moves the cursor,
//! changes colours or reorders a line (threat T22).

use std::fmt;

/// Shows text with every control and direction character written out as `\u{…}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clean<'a>(pub &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe(c) {
                write!(f, "{}", c.escape_unicode())?
            } else {
                fmt::Write::write_char(f, c)?
            }
        }
        Ok(())
    }
}

/// The text on one line, escaped, of at most `most` characters; what was cut ends in `…`.
pub(super) fn line(text: &str, most: usize) -> String {
    let kept: String = text.chars().take(most).collect();
    let more = if kept.len() < text.len() { "…" } else { "" };
    format!("{}{more}", Clean(&kept))
}

/// A digest with the first twelve characters of its encoded part.
pub(super) fn short(digest: &affix_registry::oci::Digest) -> String {
    format!("{}:{}", digest.algorithm().as_str(), digest.short())
}

/// A JSON document in which nothing is left that a terminal would act upon, and which still means the same: outside of strings
/// JSON knows no such characters, and inside of them each may be written as `\uXXXX`.
pub(super) fn clean_json(json: &str) -> String {
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

/// Whether a terminal, or a reader of it, takes the character for more than a sign.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction marks, embeddings, overrides and isolates; line and paragraph separators; a byte order mark.
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            // Tags, which hide text in text.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_written_out() {
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
