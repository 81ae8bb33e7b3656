//! Signature version 4 of AWS, for requests without a query.
//!
//! See `docs/decisions/0140-sign-aws-requests-without-the-sdk.md`.

use affix_registry::Secret;
use affix_registry::oci::Digest;
use aws_lc_rs::hmac;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The credentials of a session.
pub(super) struct Credentials {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    /// The token of a temporary session.
    pub(super) session_token: Option<Secret>,
}

/// A request to sign.
pub(super) struct Signable<'a> {
    pub(super) method: &'a str,
    /// The path of the URL, in the encoding of the request.
    pub(super) path: &'a str,
    /// Header names in lower case, with `host`. The signature covers all of them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// The scope of a signature.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: Timestamp,
}

/// The headers that a signature adds.
pub(super) struct Signed {
    pub(super) date: String,
    pub(super) authorization: String,
}

impl Scope<'_> {
    /// Returns the value of `x-amz-date`.
    fn date(&self) -> String {
        let now = self.now.to_zoned(TimeZone::UTC);
        now.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    fn name(&self, day: &str) -> String {
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }
}

/// Signs a request. The caller adds the returned headers, and `x-amz-security-token` for a temporary session.
pub(super) fn sign(request: &Signable<'_>, scope: &Scope<'_>, credentials: &Credentials) -> Signed {
    let date = scope.date();
    let day = date.get(..8).unwrap_or_default();
    let token = credentials.session_token.as_ref().map(super::answer::text);
    let mut headers: Vec<(&str, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (*name, collapsed(value)))
        .collect();
    headers.push(("x-amz-date", date.clone()));
    headers.extend(token.map(|token| ("x-amz-security-token", token.to_owned())));
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let canonical = format!(
        "{}\n{}\n\n{lines}\n{names}\n{}",
        request.method,
        request.path,
        Digest::sha256(request.body).hex()
    );
    let scope_name = scope.name(day);
    let text = format!(
        "{ALGORITHM}\n{date}\n{scope_name}\n{}",
        Digest::sha256(canonical.as_bytes()).hex()
    );
    let secret = [b"AWS4", credentials.secret_key.expose()].concat();
    let secret = zeroize::Zeroizing::new(secret);
    let key = [day, scope.region, scope.service, "aws4_request"]
        .into_iter()
        .fold(key(&secret), |signing, part| {
            key(hmac::sign(&signing, part.as_bytes()).as_ref())
        });
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope_name}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    );
    Signed {
        date,
        authorization,
    }
}

fn key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a header value without spaces at its ends, and with single spaces within.
fn collapsed(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
