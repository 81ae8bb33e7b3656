//! Bounds on JSON documents that are computed before parsing, and the byte order mark.

/// Returns the bytes without a leading UTF-8 byte order mark, which some tools write before JSON.
#[must_use]
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Returns an upper bound on the number of values in a JSON document: opening brackets plus commas
/// outside of strings. Bytes that are not JSON have a bound, too.
///
/// A limit on bytes is not enough, because four bytes of JSON can occupy a hundred bytes in memory.
#[must_use]
pub fn value_bound(bytes: &[u8]) -> usize {
    let (mut values, mut quoted, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'{' | b'[' if !quoted => values += 1,
            _ => {}
        }
    }
    values
}

/// Returns the length of the longest string in a JSON document, in bytes as written.
///
/// A limit on it is needed because serde_json quotes a string of the wrong type in its error, with
/// up to six times its size.
#[must_use]
pub fn longest_text(bytes: &[u8]) -> usize {
    let (mut longest, mut begun, mut escaped) = (0, None, false);
    for (at, byte) in bytes.iter().enumerate() {
        match (byte, begun) {
            _ if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', Some(start)) => {
                longest = longest.max(at - start);
                begun = None;
            }
            (b'"', None) => begun = Some(at + 1),
            _ => {}
        }
    }
    begun.map_or(longest, |start| longest.max(bytes.len() - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_commas_count_outside_of_strings() {
        for (text, values) in [
            ("", 0),
            ("7", 0),
            ("[1,2,3]", 3),
            (r#"{"a,[{":"\",,","b":[{}]}"#, 4),
            (r#"["\\",","]"#, 2),
        ] {
            assert_eq!(value_bound(text.as_bytes()), values, "{text}");
        }
    }

    #[test]
    fn the_longest_text_counts_escapes_and_unterminated_texts() {
        for (text, longest) in [
            ("", 0),
            ("[7]", 0),
            (r#"{"ab":"c"}"#, 2),
            (r#"["a","\"\\"]"#, 4),
            (r#"["a","bcd"#, 3),
        ] {
            assert_eq!(longest_text(text.as_bytes()), longest, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_longer_than_its_bound(texts in proptest::collection::vec("\\PC{0,20}", 0..6)) {
            let document = serde_json::to_string(&texts).unwrap_or_default();
            let longest = texts.iter().map(String::len).max().unwrap_or_default();
            proptest::prop_assert!(longest_text(document.as_bytes()) >= longest, "{}", document);
        }

        #[test]
        fn no_document_has_more_elements_than_its_bound(lists in proptest::collection::vec(proptest::collection::vec("\\PC{0,6}", 0..6), 0..6)) {
            let text = serde_json::to_string(&lists).unwrap_or_default();
            let elements: usize = lists.iter().map(Vec::len).sum();
            proptest::prop_assert!(value_bound(text.as_bytes()) >= elements, "{}", text);
        }
    }
}
