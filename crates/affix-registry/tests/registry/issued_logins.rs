//! Logins that a service issues: when it is asked, who shares a login, and what replaces one that is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use affix_registry::oci::Digest;
use affix_registry::{
    Access, ErrorKind, IssuedLogin, Keychain, LoginClient, LoginSource, Registries, RegistryError,
};
use affix_testbed::hostile::{Account, Auth, Bearer, Denial, HostileRegistry};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};

use crate::support::{access, image, open_in, options, tag};

/// The age at which a refused login is replaced.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Issues `password-1`, `password-2` and so on.
#[derive(Debug)]
struct Passwords {
    key: Digest,
    issued: Arc<AtomicU64>,
}

impl LoginSource for Passwords {
    fn key(&self) -> &Digest {
        &self.key
    }

    fn describe(&self) -> String {
        "the login of builder".to_owned()
    }

    fn issue<'a>(
        &'a self,
        _: LoginClient<'a>,
    ) -> BoxFuture<'a, Result<IssuedLogin, RegistryError>> {
        async {
            let n = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(IssuedLogin {
                username: "user".to_owned(),
                password: format!("password-{n}").into(),
                lifetime: Duration::from_hours(1),
            })
        }
        .boxed()
    }
}

fn issuing(registry: &HostileRegistry, key: &str, issued: &Arc<AtomicU64>) -> Access {
    let source = Passwords {
        key: Digest::sha256(key.as_bytes()),
        issued: Arc::clone(issued),
    };
    Access {
        credentials: Keychain::issued(&registry.host().parse().unwrap(), Arc::new(source)),
        ..access(registry)
    }
}

fn basic(password: &str) -> Auth {
    Auth::Basic(vec![Account::new("user", password)], Denial::Forbidden)
}

#[tokio::test]
async fn a_login_is_issued_when_the_registry_asks_and_shared_by_its_key() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let (registries, issued) = (Registries::new(options()), Arc::default());
    let read = |key: &'static str| {
        let session = open_in(&registries, &registry, issuing(&registry, key, &issued));
        async move { session.manifest(&tag("v1")).await }
    };
    read("a").await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 0, "the registry is open");
    registry.set_auth(basic("password-1"));
    for result in join_all((0..20).map(|_| read("a"))).await {
        result.unwrap();
    }
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let error = read("b").await.unwrap_err();
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    assert!(
        error.to_string().contains("the login of builder was sent"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_login_is_replaced_within_the_request_once_it_has_an_age() {
    for has_tokens in [false, true] {
        let account = |n: u32| Account::new("user", &format!("password-{n}"));
        let registry = HostileRegistry::builder()
            .tokens([account(1)])
            .start()
            .await
            .unwrap();
        let accept = |n: u32| {
            registry
                .issuer()
                .terms(|terms| terms.accounts = vec![account(n)]);
            registry.issuer().revoke_all();
            registry.set_auth(if has_tokens {
                Auth::Bearer(Bearer::new(&registry.issuer()))
            } else {
                basic(&format!("password-{n}"))
            });
        };
        image(&registry);
        accept(1);
        let (registries, issued) = (Registries::new(options()), Arc::default());
        let session = open_in(&registries, &registry, issuing(&registry, "a", &issued));
        session.manifest(&tag("v1")).await.unwrap();
        // A new login would be refused again: each request would cost the service one more.
        accept(2);
        for _ in 0..3 {
            let error = session.manifest(&tag("v1")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
        }
        assert_eq!(issued.load(Ordering::SeqCst), 1);
        tokio::time::sleep(MIN_AGE).await;
        session.manifest(&tag("v1")).await.unwrap();
        assert_eq!(issued.load(Ordering::SeqCst), 2, "tokens: {has_tokens}");
    }
}
