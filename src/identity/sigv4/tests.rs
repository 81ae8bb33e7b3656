//! The vectors of AWS's signing test suite (version 4, signed headers) for requests of the kind that affix sends.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

const AUTHORITY: &str =
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
const STS_TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

type Headers<'a> = &'a [(&'a str, &'a str)];
/// Name, method, headers, body, session token, signed headers and signature.
type Vector<'a> = (
    &'a str,
    &'a str,
    Headers<'a>,
    &'a [u8],
    Option<&'a str>,
    &'a str,
    &'a str,
);

const HOST: (&str, &str) = ("host", "example.amazonaws.com");

fn authorization(
    method: &str,
    headers: Headers<'_>,
    body: &[u8],
    session_token: Option<&str>,
) -> String {
    let request = Signable {
        method,
        path: "/",
        headers,
        body,
    };
    let scope = Scope {
        region: "us-east-1",
        service: "service",
        now: "2015-08-30T12:36:00Z".parse().unwrap(),
    };
    let credentials = Credentials {
        access_key: "AKIDEXAMPLE".to_owned(),
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        session_token: session_token.map(Secret::from),
    };
    let signed = sign(&request, &scope, &credentials);
    assert_eq!(signed.date, "20150830T123600Z");
    signed.authorization
}

#[test]
fn requests_are_signed_as_in_the_published_test_suite() {
    let trimmed = [
        HOST,
        ("my-header1", "value1"),
        ("my-header2", " \"a   b   c\" "),
    ];
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        HOST,
        ("content-length", "13"),
        (
            "x-amz-content-sha256",
            "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
        ),
    ];
    let vanilla: Headers<'_> = &[HOST];
    let vectors: [Vector<'_>; 6] = [
        (
            "get-vanilla",
            "GET",
            vanilla,
            b"",
            None,
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "post-vanilla",
            "POST",
            vanilla,
            b"",
            None,
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "get-header-value-trim",
            "GET",
            &trimmed,
            b"",
            None,
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            &form,
            b"Param1=value1",
            None,
            "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        ),
        (
            "post-sts-header-before",
            "POST",
            vanilla,
            b"",
            Some(STS_TOKEN),
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
        (
            "get-vanilla-with-session-token",
            "GET",
            vanilla,
            b"",
            Some("6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"),
            "host;x-amz-date;x-amz-security-token",
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
    ];
    for (name, method, headers, body, token, names, signature) in vectors {
        assert_eq!(
            authorization(method, headers, body, token),
            format!("{AUTHORITY}, SignedHeaders={names}, Signature={signature}"),
            "{name}"
        );
    }
}
