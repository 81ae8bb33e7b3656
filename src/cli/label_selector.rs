//! The grammar of label selectors, as `kubectl -l` reads them.

use std::sync::LazyLock;

use regex::Regex;

/// One requirement of a selector: existence, equality, sets and numbers.
const REQUIREMENT: &str = r"(?x)^\s*(?:
    !?\s*KEY
  | KEY\s*(?:=|==|!=)\s*VALUE
  | KEY\s+(?:in|notin)\s*\(\s*VALUE\s*(?:,\s*VALUE\s*)*\)
  | KEY\s*[<>]\s*-?[0-9]+
)\s*$";
const KEY: &str =
    "(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?";
const VALUE: &str = "(?:[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?";

static PATTERN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&REQUIREMENT.replace("KEY", KEY).replace("VALUE", VALUE)).ok());

/// Checks a label selector, so that a typo ends the start instead of every request to the API server.
///
/// # Errors
/// If a part is not a requirement.
pub(super) fn label_selector(text: &str) -> Result<String, String> {
    for part in split(text) {
        if !PATTERN
            .as_ref()
            .is_some_and(|pattern| pattern.is_match(part))
        {
            return Err(format!(
                "{part:?} is not a requirement: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, separated by commas"
            ));
        }
    }
    Ok(text.to_owned())
}

/// Splits a selector at the commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_kubectl_are_accepted_and_typos_are_refused() {
        for good in [
            "affix.dev/shard=1",
            "a==b, c!=d",
            "a in (1,2),b notin ( x , y )",
            "a,!b,c>1,d<-2",
            "a=",
            "a in (1)",
        ] {
            assert_eq!(label_selector(good), Ok(good.to_owned()), "{good}");
        }
        for bad in [
            "a in (1,2",
            "a=b=c",
            "",
            "a,,b",
            "a in 1",
            "-a=b",
            "a=b c",
            "x/y/z=1",
        ] {
            assert!(label_selector(bad).is_err(), "{bad}");
        }
    }
}
