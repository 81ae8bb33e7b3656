//! How much a JSON document is made of, told before it is parsed.

/// A bound on the values of a JSON document: one for each bracket that opens and one for each comma outside of strings, which is
/// at least the number of its fields and elements less one. Bytes that are no JSON have some number too.
///
/// Four bytes of JSON become up to a hundred in memory, so a cap on bytes alone bounds nothing.
#[must_use]
pub(crate) fn most_values(bytes: &[u8]) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_commas_count_and_those_in_strings_do_not() {
        for (text, values) in [("", 0), ("7", 0), ("[1,2,3]", 3), (r#"{"a,[{":"\",,","b":[{}]}"#, 4), (r#"["\\",","]"#, 2)] {
            assert_eq!(most_values(text.as_bytes()), values, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_document_has_more_elements_than_its_bound(lists in proptest::collection::vec(proptest::collection::vec("\\PC{0,6}", 0..6), 0..6)) {
            let text = serde_json::to_string(&lists).unwrap_or_default();
            let elements: usize = lists.iter().map(Vec::len).sum();
            proptest::prop_assert!(most_values(text.as_bytes()) >= elements, "{}", text);
        }
    }
}
