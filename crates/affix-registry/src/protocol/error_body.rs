//! Error bodies (distribution-spec, "Error Codes"), prepared for messages.
//!
//! The text is untrusted: it is shortened, and control characters and secrets are removed. Request
//! ids and times are removed, too, because a status must not change with every request. HTML is
//! ignored.

use serde::Deserialize;

use crate::access::secret::Secret;
use crate::oci::Digest;

/// The parsed error body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    /// The codes, for example `MANIFEST_UNKNOWN`. At most 8.
    pub(crate) codes: Vec<String>,
    /// The messages in one line of at most 200 characters. It may be empty.
    pub(crate) text: String,
    /// Digests in the `detail` of codes that contain `UNKNOWN`. At most 1000.
    pub(crate) unknown: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Error {
        #[serde(default)]
        code: serde_json::Value,
        #[serde(default)]
        message: serde_json::Value,
        #[serde(default)]
        detail: serde_json::Value,
    },
    /// The form of other services, such as Vault.
    Text(String),
}

impl Entry {
    /// Returns code, message and detail.
    fn into_parts(self) -> (serde_json::Value, serde_json::Value, serde_json::Value) {
        match self {
            Self::Error {
                code,
                message,
                detail,
            } => (code, message, detail),
            Self::Text(text) => (
                serde_json::Value::Null,
                text.into(),
                serde_json::Value::Null,
            ),
        }
    }
}

const MAX_CODES: usize = 8;
const MAX_DIGESTS: usize = 1000;
const MAX_CHARACTERS: usize = 200;

impl ErrorBody {
    /// Parses a body, which may be truncated. `secrets` are redacted.
    #[must_use]
    pub(crate) fn parse(bytes: &[u8], secrets: &[Secret]) -> Self {
        let Ok(document) = serde_json::from_slice::<Document>(bytes) else {
            return Self {
                text: plain_text(bytes, secrets),
                ..Self::default()
            };
        };
        let mut body = Self::default();
        let mut texts: Vec<String> = Vec::new();
        for entry in document.errors {
            let (code, message, detail) = entry.into_parts();
            let code = code.as_str().unwrap_or_default();
            let is_code = !code.is_empty()
                && code.len() <= 64
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if is_code
                && redact(code, secrets) == code
                && body.codes.len() < MAX_CODES
                && !body.codes.iter().any(|known| known == code)
            {
                body.codes.push(code.to_owned());
            }
            let text = clean(&redact(message.as_str().unwrap_or_default(), secrets));
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
            if code.contains("UNKNOWN") {
                digests(&detail, &mut body.unknown);
            }
        }
        body.text = truncate(&texts.join("; "));
        body
    }
}

/// Collects the digests within a `detail`. The parser bounds its depth.
fn digests(detail: &serde_json::Value, found: &mut Vec<Digest>) {
    match detail {
        serde_json::Value::String(text) => {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'));
            for digest in words.filter_map(|word| word.parse().ok()) {
                if found.len() < MAX_DIGESTS && !found.contains(&digest) {
                    found.push(digest);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| digests(item, found)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|field| digests(field, found));
        }
        _ => {}
    }
}

/// Returns one short line of a body that is not JSON. HTML yields nothing.
fn plain_text(bytes: &[u8], secrets: &[Secret]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.starts_with(['<', '{', '[']) || text.contains('\u{fffd}') {
        String::new()
    } else {
        truncate(&clean(&redact(text, secrets)))
    }
}

/// Replaces secrets by an ellipsis. Secrets below 4 characters are ignored, because they would
/// match any text.
pub(crate) fn redact(text: &str, secrets: &[Secret]) -> String {
    let needles = secrets
        .iter()
        .filter_map(|secret| std::str::from_utf8(secret.expose()).ok())
        .filter(|needle| needle.len() >= 4);
    needles.fold(text.to_owned(), |text, needle| text.replace(needle, "…"))
}

/// Returns one line. Control characters and spaces become one space, and volatile words become an
/// ellipsis.
fn clean(text: &str) -> String {
    let visible = text.chars().map(|c| {
        if c.is_control() || is_format(c) {
            ' '
        } else {
            c
        }
    });
    let line: String = visible.take(8 * MAX_CHARACTERS).collect();
    let words = line
        .split_whitespace()
        .map(|word| if is_volatile(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns true for characters that reorder or redact text: bidirectional controls, zero-width
/// characters, separators.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns true if a word looks like a request id or a time. Digests are kept.
fn is_volatile(word: &str) -> bool {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if core.contains("sha256:")
        || core.contains("sha512:")
        || core.starts_with("sha256-")
        || core.starts_with("sha512-")
    {
        return false;
    }
    let value = core
        .rsplit_once(['=', ':'])
        .map_or(core, |(_, value)| value);
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    let hexlike = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let id = value.len() >= 16 && hexlike(value) && digits(value) >= 4;
    let date = core.len() >= 16
        && core.contains('T')
        && core.matches(':').count() >= 2
        && digits(core) >= 10;
    let clock = core.len() >= 7
        && core.matches(':').count() == 2
        && core
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'));
    let token = value.len() >= 40
        && digits(value) >= 4
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_+/=.".contains(&b));
    let number = core.len() >= 9 && digits(core) == core.len();
    id || date || clock || token || number
}

/// Returns untrusted text as one short line without volatile words.
pub(crate) fn one_line(text: &str) -> String {
    truncate(&clean(text))
}

fn truncate(text: &str) -> String {
    if text.chars().count() <= MAX_CHARACTERS {
        return text.to_owned();
    }
    text.chars()
        .take(MAX_CHARACTERS)
        .chain("…".chars())
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use oci_client::errors::OciEnvelope;

    use super::*;
    use crate::error::{ErrorAnswer, Object, Operation};

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn codes_messages_and_unknown_digests_are_read() {
        let body = format!(
            r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"{DIGEST}"}},
                {{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{{"digest":"{DIGEST}"}}}}]}}"#
        );
        let read = ErrorBody::parse(body.as_bytes(), &[]);
        assert!(
            read.codes == ["MANIFEST_BLOB_UNKNOWN"] && read.text == "blob unknown to registry",
            "{read:?}"
        );
        assert_eq!(
            read.unknown
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            [DIGEST]
        );
    }

    #[test]
    fn volatile_words_are_removed_and_digests_stay() {
        for (text, cleaned) in [
            (
                "denied, RequestId: 6bf7a1b4-2d0c-4f3a-9a57-0e1c1f2a3b4c",
                "denied, RequestId: …",
            ),
            ("failed at 2026-11-23T17:33:35.123Z now", "failed at … now"),
            (
                "failed at 17:33:35 (id=00f067aa0ba902b7a3ce929d0e0e4736)",
                "failed at … …",
            ),
            ("trace 1763912345678", "trace …"),
            ("a\u{0}b\u{1b}[31mc\r\nd \u{202e}x", "a b [31mc d x"),
            (&format!("unknown {DIGEST}"), &format!("unknown {DIGEST}")),
            (
                "team/deadbeefdeadbeef-app is immutable",
                "team/deadbeefdeadbeef-app is immutable",
            ),
        ] {
            assert_eq!(clean(text), cleaned, "{text}");
        }
    }

    #[test]
    fn secrets_are_redacted_wherever_an_answer_contains_them() {
        let secrets = ["hunter2".into(), "dXNlcjpodW50ZXIy".into()];
        for body in [
            r#"{"errors":[{"code":"hunter2","message":"bad password hunt\u0065r2 (dXNlcjpodW50ZXIy)"}]}"#,
            "bad password hunter2 dXNlcjpodW50ZXIy",
            &format!("{}hunter2", "x ".repeat(96)),
        ] {
            let read = format!("{:?}", ErrorBody::parse(body.as_bytes(), &secrets));
            assert!(!read.contains("hunt") && !read.contains("dXNl"), "{read}");
        }
    }

    #[test]
    fn pages_are_left_out_and_long_text_is_cut() {
        for page in [
            "<html><body>nginx</body></html>",
            "  <!DOCTYPE html>",
            r#"{"errors":"#,
            "[1",
            "\u{fffd}",
        ] {
            assert_eq!(
                ErrorBody::parse(page.as_bytes(), &[]),
                ErrorBody::default(),
                "{page}"
            );
        }
        assert_eq!(
            ErrorBody::parse(b"404 page not found\n", &[]).text,
            "404 page not found"
        );
        assert_eq!(
            ErrorBody::parse("ü ".repeat(500).as_bytes(), &[])
                .text
                .chars()
                .count(),
            201
        );
    }

    /// oci-client's `OciEnvelope` refuses the whole body if one entry lacks a code or has another
    /// type, and Artifactory sends entries without a code. The parser here reads every entry.
    #[test]
    fn an_error_body_that_oci_client_reads_has_the_same_codes_here() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/error_body");
        let mut bodies: Vec<Vec<u8>> = std::fs::read_dir(corpus)
            .into_iter()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.ok()?.path()).ok())
            .collect();
        assert!(bodies.len() > 5);
        bodies.push(
            br#"{"errors":[{"code":"TOOMANYREQUESTS"},{"code":"ARTIFACT_LOCKED","message":"m"}]}"#
                .to_vec(),
        );
        let mut read = 0;
        for body in bodies {
            let Ok(theirs) = serde_json::from_slice::<OciEnvelope>(&body) else {
                continue;
            };
            read += 1;
            let theirs: Vec<_> = theirs.errors.into_iter().map(|error| error.code).collect();
            let answered = ErrorAnswer {
                operation: Operation {
                    method: "GET",
                    object: Object::Manifest,
                    what: String::new(),
                    host: String::new(),
                    repository: None,
                },
                status: 400,
                codes: ErrorBody::parse(&body, &[]).codes,
                text: String::new(),
                unknown: Vec::new(),
            };
            assert!(answered.error_codes().eq(theirs));
        }
        assert!(read >= 3, "{read}");
        let artifactory = br#"{"errors":[{"status":403,"message":"Forbidden"}]}"#;
        assert!(serde_json::from_slice::<OciEnvelope>(artifactory).is_err());
        assert_eq!(ErrorBody::parse(artifactory, &[]).text, "Forbidden");
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_read_and_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), message in "\\PC{0,400}") {
            let _ = ErrorBody::parse(&bytes, &[]);
            let json = serde_json::json!({"errors": [{"code": "X", "message": message, "detail": [message, {"a": 1}]}]});
            let read = ErrorBody::parse(json.to_string().as_bytes(), &[]);
            assert!(read.text.chars().count() <= 201 && !read.text.contains(char::is_control));
        }
    }
}
