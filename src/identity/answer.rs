//! Answers of token services, as JSON or XML.

use affix_registry::{LoginAnswer, LoginClient, RegistryError, Secret};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A secret text of a JSON document.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct SecretText(pub(super) Secret);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl SecretText {
    /// Returns the text.
    pub(super) fn text(&self) -> &str {
        text(&self.0)
    }
}

/// Returns the text of a secret that was made from one.
pub(super) fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}

/// Parses the JSON of a successful answer.
///
/// # Errors
/// `LoginRefused` for another status, with the code and the message of the answer, and for a malformed body. serde's error
/// could quote a token, so it is left out.
pub(super) fn json<T: DeserializeOwned>(
    client: LoginClient<'_>,
    answer: &LoginAnswer,
    action: &str,
) -> Result<T, RegistryError> {
    if !answer.is_success() {
        return Err(client.refused(answer, action, &json_error(answer.body())));
    }
    serde_json::from_slice(answer.body()).map_err(|_| {
        client.refused(
            answer,
            action,
            "the answer is not what the service documents",
        )
    })
}

/// Returns code and message of an error in one of the forms of AWS, Entra, ACR and Google.
fn json_error(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |path: &str| {
        let value = document.pointer(path)?.as_str()?;
        Some(value.rsplit_once('#').map_or(value, |(_, name)| name)).filter(|text| !text.is_empty())
    };
    let code = [
        "/__type",
        "/error",
        "/error/status",
        "/errors/0/code",
        "/code",
    ]
    .into_iter()
    .find_map(text);
    let message = [
        "/error_description",
        "/error/message",
        "/errors/0/message",
        "/message",
        "/Message",
    ]
    .into_iter()
    .find_map(text)
    // Entra appends ids and the time of the request.
    .map(|message| message.split(" Trace ID:").next().unwrap_or(message));
    let parts: Vec<&str> = code.into_iter().chain(message).collect();
    parts.join(": ")
}

/// Returns the text of the first element `name` of an XML document of AWS, which has neither attributes nor CDATA there.
pub(super) fn xml_text(body: &[u8], name: &str) -> Option<String> {
    let document = std::str::from_utf8(body).ok()?;
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let unescaped = entities
        .into_iter()
        .fold(text.trim().to_owned(), |text, (entity, c)| {
            text.replace(entity, c)
        });
    (!unescaped.is_empty()).then_some(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_read_from_each_cloud_s_form_of_an_error() {
        for (body, cause) in [
            (
                r#"{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record. Trace ID: 1"}"#,
                "invalid_client: AADSTS700213: No matching federated identity record.",
            ),
            (
                r#"{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}"#,
                "PERMISSION_DENIED: Permission denied",
            ),
            (
                r#"{"__type":"com.amazonaws#AccessDeniedException","Message":"not authorized"}"#,
                "AccessDeniedException: not authorized",
            ),
            (
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
                "UNAUTHORIZED: authentication required",
            ),
            ("<html>", ""),
            (r#"{"error":7}"#, ""),
        ] {
            assert_eq!(json_error(body.as_bytes()), cause);
        }
    }

    #[test]
    fn xml_elements_are_read_with_their_entities() {
        let body =
            b"<R><Code>AccessDenied</Code><Message> a &lt;b&gt; &amp;amp; </Message><E></E></R>";
        assert_eq!(xml_text(body, "Code").as_deref(), Some("AccessDenied"));
        assert_eq!(xml_text(body, "Message").as_deref(), Some("a <b> &amp;"));
        assert_eq!(xml_text(body, "E"), None);
        assert_eq!(xml_text(body, "Absent"), None);
        assert_eq!(xml_text(&[0xff], "Code"), None);
    }
}
