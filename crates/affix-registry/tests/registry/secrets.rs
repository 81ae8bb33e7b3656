//! T11: no log line at trace level and no error contains a canary password, token or key.

use std::cell::Cell;
use std::io::Write;
use std::sync::{Arc, Mutex};

use affix_registry::{Access, Keychain, Registries};
use affix_testbed::hostile::{Account, Auth, Denial, HostileRegistry, Matcher, Op, Reply};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{MANIFEST, access, attachment, by, image, login, open_in, options, tag};

thread_local! {
    /// True if log lines of this thread are recorded. The subscriber is global, because the
    /// interest cache of `tracing` is shared by all threads.
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if LISTENS.get() {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns the canary that the text contains: plain or in base64, whole or cut.
fn leaked(text: &str) -> Option<&'static str> {
    [
        "canary", "Y2FuYXJ5", "NhbmFye", "jYW5hcn", "token-1-", "token-2-",
    ]
    .into_iter()
    .find(|needle| text.contains(needle))
}

#[tokio::test(flavor = "current_thread")]
async fn t11_no_canary_is_in_a_log_line_or_an_error() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(captured.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    LISTENS.set(true);
    let account = || Account::new("user", "canary-password").identity_token("canary-identity");
    let mut expected = String::new();
    for tls in [false, true] {
        let builder = HostileRegistry::builder().tokens([account()]);
        let registry = if tls { builder.tls() } else { builder }
            .start()
            .await
            .unwrap();
        let image = image(&registry);
        let (at, bytes) = attachment(&image.descriptor(), "a");
        let identity = Keychain::parse(
            json!({"auths": {registry.host(): {"identitytoken": "canary-identity"}}})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        let given = Keychain::parse(
            json!({"auths": {registry.host(): {"registrytoken": "canary-given"}}})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        let logins = [
            login(&registry, "user", "canary-password"),
            login(&registry, "user", "canary-wrong"),
            Access {
                credentials: identity,
                ..access(&registry)
            },
            Access {
                credentials: given,
                ..access(&registry)
            },
        ];
        for echo in [0, 401, 403, 400, 503] {
            for auth in [
                Auth::Bearer(affix_testbed::hostile::Bearer::new(&registry.issuer())),
                Auth::Basic(vec![account()], Denial::Forbidden),
            ] {
                registry.set_auth(auth);
                registry.calm();
                if echo != 0 {
                    registry.fault(Matcher::any().authorized(true), Reply::echo(echo));
                    registry.fault(Matcher::on(Op::Token), Reply::echo(echo));
                }
                for access in &logins {
                    expected += &format!("{access:?}\n");
                    let session = open_in(&Registries::new(options()), &registry, access.clone());
                    let results = [
                        session.manifest(&tag("v1")).await.map(drop),
                        session
                            .put_manifest(&by(&at), MANIFEST, bytes.clone())
                            .await
                            .map(drop),
                        session.put_blob("{}".into()).await.map(drop),
                    ];
                    for error in results.into_iter().filter_map(Result::err) {
                        expected += &format!("{error}\n{error:?}\n");
                    }
                }
            }
        }
    }
    assert!(
        expected.contains("HTTP 401")
            && expected.contains("HTTP 403")
            && expected.contains("HTTP 503"),
        "{expected}"
    );
    assert_eq!(expected.lines().find(|line| leaked(line).is_some()), None);
    let log = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    assert!(
        log.contains("attempt failed") && log.lines().count() > 100,
        "the log was captured: {log}"
    );
    assert_eq!(log.lines().find(|line| leaked(line).is_some()), None);
}
