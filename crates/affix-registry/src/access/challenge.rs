//! `WWW-Authenticate` (RFC 9110, section 11.6.1) with the schemes of registries: Basic and Bearer.

/// A supported challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password (RFC 7617).
    Basic,
    /// A token from a token service (distribution, "Token Authentication Specification").
    Bearer {
        /// URL of the token service.
        realm: String,
        /// Name of the registry at the token service.
        service: Option<String>,
        /// The scope that the token needs.
        scope: Option<String>,
        /// The reason for which the token was rejected (RFC 6750, section 3.1).
        error: Option<String>,
    },
}

impl Challenge {
    /// Parses the challenges of all header lines in their order. Unsupported schemes and Bearer
    /// challenges without a realm are skipped. Parsing of a line stops at malformed text.
    pub(crate) fn parse_all<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        lines.into_iter().flat_map(parse_line).collect()
    }
}

fn parse_line(line: &str) -> Vec<Challenge> {
    let mut input = Input(line);
    let mut found = Vec::new();
    let mut scheme: Option<(String, Vec<(String, String)>)> = None;
    loop {
        input.skip(|c| c == ',' || c.is_ascii_whitespace());
        let Some(word) = input.token() else { break };
        match input.value_after_equals() {
            // `name=value` is a parameter of the current challenge.
            Parameter::Value(value) => {
                if let Some((_, parameters)) = &mut scheme {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
            }
            // A word without `=` begins the next challenge.
            Parameter::None => {
                found.extend(scheme.take().and_then(challenge));
                scheme = Some((word.to_ascii_lowercase(), Vec::new()));
                input.skip_token68();
            }
            Parameter::Malformed => break,
        }
    }
    found.extend(scheme.and_then(challenge));
    found
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let value = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm").filter(|realm| !realm.is_empty())?,
            service: value("service").filter(|service| !service.is_empty()),
            scope: value("scope").filter(|scope| !scope.is_empty()),
            error: value("error"),
        }),
        _ => None,
    }
}

enum Parameter {
    Value(String),
    None,
    Malformed,
}

struct Input<'a>(&'a str);

impl Input<'_> {
    fn skip(&mut self, of: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(of);
    }

    /// Reads a `token` of RFC 9110, section 5.6.2.
    fn token(&mut self) -> Option<String> {
        let end = self
            .0
            .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
            .unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!token.is_empty()).then(|| token.to_owned())
    }

    fn value_after_equals(&mut self) -> Parameter {
        let Some(after) = self.0.trim_start().strip_prefix('=') else {
            return Parameter::None;
        };
        self.0 = after.trim_start();
        if !self.0.starts_with('"') {
            return self.token().map_or(Parameter::Malformed, Parameter::Value);
        }
        let mut value = String::new();
        let mut characters = self.0.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Parameter::Value(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) => value.push(escaped),
                    None => return Parameter::Malformed,
                },
                c => value.push(c),
            }
        }
        Parameter::Malformed
    }

    /// Skips the token68 value of `Negotiate <token68>`, which otherwise looks like a scheme.
    fn skip_token68(&mut self) {
        let blob = self.0.trim_start();
        let end = blob
            .find(|c: char| c == ',' || c.is_ascii_whitespace())
            .unwrap_or(blob.len());
        let Some((word, rest)) = blob.split_at_checked(end) else {
            return;
        };
        let core = word.trim_end_matches('=');
        let is_token68 = core
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        if is_token68 && (core.len() < word.len() || core.contains(['/', '+'])) {
            self.0 = rest;
        }
    }
}

/// The token service that a challenge names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenService {
    /// Its URL.
    pub(crate) realm: String,
    /// The registry's name there.
    pub(crate) service: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
            error: None,
        }
    }

    #[test]
    fn a_bearer_challenge_is_read_with_commas_inside_its_quotes() {
        let line = r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:team/app:pull,push""#;
        assert_eq!(
            Challenge::parse_all([line]),
            [bearer(
                "https://auth.example.com/token",
                Some("registry.example.com"),
                Some("repository:team/app:pull,push")
            )]
        );
    }

    #[test]
    fn several_challenges_are_read_from_one_line_and_from_many() {
        let both = [bearer("https://a/t", None, None), Challenge::Basic];
        assert_eq!(
            Challenge::parse_all([r#"bearer realm="https://a/t", BASIC realm="x, y""#]),
            both
        );
        assert_eq!(
            Challenge::parse_all([r#"Bearer realm="https://a/t""#, "Basic"]),
            both
        );
        assert_eq!(
            Challenge::parse_all([
                r#"Negotiate YWJjZA==, Bearer realm = "https://a/t" , Basic realm=x"#
            ]),
            both
        );
        assert_eq!(
            Challenge::parse_all([r#"Negotiate, Digest realm="a", nonce="b", Basic"#]),
            [Challenge::Basic]
        );
    }

    #[test]
    fn quoted_pairs_and_errors_are_read() {
        let found =
            Challenge::parse_all([r#"Bearer realm="https://a/\"t\\",error="insufficient_scope""#]);
        assert_eq!(
            found,
            [Challenge::Bearer {
                realm: r#"https://a/"t\"#.into(),
                service: None,
                scope: None,
                error: Some("insufficient_scope".into())
            }]
        );
    }

    #[test]
    fn unsupported_and_malformed_challenges_are_skipped() {
        for line in [
            "",
            ",,,",
            "Bearer",
            r#"Bearer realm="""#,
            r#"Bearer realm="unclosed"#,
            "NTLM",
            "=x",
            r#"Bearer realm="a\"#,
        ] {
            assert_eq!(Challenge::parse_all([line]), [], "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_and_never_panics(line in "(Bearer|Basic|realm|scope|[=\",\\\\ a/+é])*|\\PC{0,200}") {
            let _ = Challenge::parse_all([line.as_str()]);
        }
    }
}
