//! Wildcard patterns.

/// Returns true if `pattern` matches the whole `text`. `*` matches any characters and `?` one byte.
///
/// The time is at most proportional to the product of the lengths.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen, mut retry) = (0, 0, None);
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    at = after;
                    seen = from + 1;
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters_and_a_question_mark_one() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("v1.*", "v1.2", true),
            ("v1.*", "v2.1", false),
            ("*-rc.*", "v1-rc.1", true),
            ("*-rc.*", "v1-rc", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("v?", "v1", true),
            ("v?", "v10", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_glob_of_stars_matches_everything_and_ends(stars in "\\*{1,40}", text in "[a-z.]{0,60}") {
            assert!(glob(&stars, &text));
            assert!(glob(&text, &text));
        }
    }
}
