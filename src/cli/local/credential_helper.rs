//! The protocol of docker's credential helpers: `docker-credential-NAME get` reads the server from stdin and prints the login as JSON.
//!
//! Helpers run for the command line only. The configuration in a Secret never selects a program.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::wait::announced;
use crate::cli::output::text::line;

/// The time limit of a helper. Some of them ask the user, or an identity provider.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The part of the output that is read, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

/// A login of a helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// User name and password.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A refresh token for the token service of the registry.
    IdentityToken(Zeroizing<String>),
}

/// The output of a helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for the login of a server. Returns `None` if the helper has none.
///
/// # Errors
/// If the helper cannot be run, fails, exceeds the time limit or prints something else.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Login>, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(allowed) {
        let shown = line(name, 80);
        return Err(format!(
            "the credential helper {shown:?} is not a name: write NAME of a program docker-credential-NAME on the PATH"
        ));
    }
    let program = format!("docker-credential-{name}");
    let answer = announced(
        || format!("waiting for {program}, which has the login to {server}"),
        tokio::time::timeout(TIME_LIMIT, run(&program, server)),
    );
    match answer.await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "{program} did not finish within {} s: run `echo {server} | {program} get` to see the cause",
            TIME_LIMIT.as_secs()
        )),
    }
}

async fn run(program: &str, server: &str) -> Result<Option<Login>, String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "{program} is not on the PATH: install it, or log in with a file that REGISTRY_AUTH_FILE names"
            ),
            _ => format!("{program} cannot be run: {error}"),
        })?;
    let failed = |error: std::io::Error| format!("{program} failed: {error}");
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read the server closes the pipe. Its output decides.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = stdout.take(MAX_OUTPUT);
        stdout.read_to_end(&mut output).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        parse(&output).map_err(|error| format!("{program} {error}"))
    } else {
        let text = String::from_utf8_lossy(&output);
        if is_not_found(&text) {
            return Ok(None);
        }
        Err(format!(
            "{program} failed ({status}): {}",
            line(text.trim(), 200)
        ))
    }
}

/// Returns whether a failed helper reports that it has no login. The text is a constant of the protocol.
fn is_not_found(text: &str) -> bool {
    text.contains("credentials not found")
}

fn parse(output: &[u8]) -> Result<Option<Login>, String> {
    let Output { username, secret } = serde_json::from_slice(output)
        .map_err(|_| "printed no login: expected JSON with Username and Secret".to_owned())?;
    let secret = Zeroizing::new(secret);
    Ok(match (username.as_str(), secret.is_empty()) {
        ("", true) => None,
        (TOKEN_USER, _) => Some(Login::IdentityToken(secret)),
        _ => Some(Login::Password {
            username,
            password: secret,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_a_password_an_identity_token_or_nothing() {
        let parsed = |text: &str| parse(text.as_bytes());
        assert_eq!(
            parsed(r#"{"ServerURL":"r.io","Username":"u","Secret":"p"}"#),
            Ok(Some(Login::Password {
                username: "u".to_owned(),
                password: "p".to_owned().into(),
            }))
        );
        assert_eq!(
            parsed(r#"{"Username":"<token>","Secret":"t"}"#),
            Ok(Some(Login::IdentityToken("t".to_owned().into())))
        );
        assert_eq!(parsed(r#"{"Username":"","Secret":""}"#), Ok(None));
        assert!(parsed("password: p").is_err_and(|error| !error.contains("p: p")));
    }

    #[tokio::test]
    async fn a_helper_is_a_name_and_never_a_path() {
        for name in ["", "../sh", "/bin/sh", "a b"] {
            let refused = get(name, "r.io").await;
            assert!(refused.is_err_and(|error| error.contains("is not a name")));
        }
    }
}
