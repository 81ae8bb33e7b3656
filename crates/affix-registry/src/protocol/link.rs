//! `Link` headers (RFC 8288) of listings: the target of `rel="next"`.

/// Returns the target of the first `rel="next"`, relative or absolute as written.
pub(crate) fn next<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<String> {
    lines.into_iter().find_map(next_of_line)
}

fn next_of_line(line: &str) -> Option<String> {
    let mut rest = line;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, following) = split_once_unquoted(after, ',');
        if has_rel_next(parameters) {
            return Some(target.trim().to_owned());
        }
        rest = following?;
    }
}

/// Splits at the first `separator` outside of quotes.
fn split_once_unquoted(text: &str, separator: char) -> (&str, Option<&str>) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                return (
                    text.get(..at).unwrap_or(text),
                    text.get(at + c.len_utf8()..),
                );
            }
            _ => {}
        }
    }
    (text, None)
}

/// Evaluates the first `rel` parameter (RFC 8288, section 3.3). Its value is a list.
fn has_rel_next(parameters: &str) -> bool {
    let mut rest = Some(parameters);
    while let Some(text) = rest {
        let (parameter, following) = split_once_unquoted(text, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            return value
                .trim()
                .trim_matches('"')
                .split_ascii_whitespace()
                .any(|rel| rel.eq_ignore_ascii_case("next"));
        }
        rest = following;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_however_the_header_is_written() {
        for line in [
            r#"</v2/a/referrers/x?n=1&last=b>; rel="next""#,
            "</v2/a/referrers/x?n=1&last=b>;rel=next",
            r#"</first>; rel="first", </v2/a/referrers/x?n=1&last=b>; title="a, <b>; rel=\"next"; REL="prefetch NEXT""#,
            r#"  < /v2/a/referrers/x?n=1&last=b > ; Rel = "next" "#,
        ] {
            assert_eq!(
                next([line]).as_deref(),
                Some("/v2/a/referrers/x?n=1&last=b"),
                "{line}"
            );
        }
        assert_eq!(
            next([r#"</a>; rel="prev""#, r#"<https://r.io/b>; rel="next""#]).as_deref(),
            Some("https://r.io/b")
        );
    }

    #[test]
    fn no_next_is_none() {
        for line in [
            "",
            "<",
            "</a>",
            r#"</a>; rel="prev""#,
            r#"</a>; rel="nextish""#,
            r#"</a>; rel="prev"; rel="next""#,
            "rel=next",
        ] {
            assert_eq!(next([line]), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_and_never_panics(line in "([<>;,=\"\\\\ ]|rel|next|/a|é)*|\\PC{0,200}") {
            let _ = next([line.as_str()]);
        }
    }
}
