//! Proxies of the environment and of a pass, against a proxy that forwards and tunnels.

use affix_registry::{
    Access, EnvironmentProxy, ErrorKind, Options, Proxy, Registries, Session, TlsOptions,
};
use affix_testbed::hostile::{Authority, Certificate, Fault, HostileRegistry, Matcher, Op};
use affix_testbed::proxy;

use crate::support::{NAME, access, image, open_with, options, refused, tag};

/// The name in the certificate of a registry with [`Certificate::OtherName`].
const TLS_NAME: &str = "elsewhere.example";

/// Options of an operator whose environment names this proxy for `http` and `https`, under the default address rules.
fn behind(proxy: &proxy::Proxy) -> Options {
    let url = format!("http://user:word@{}", proxy.host());
    Options {
        environment_proxy: EnvironmentProxy::new(&url, &url, "internal.example"),
        allow_loopback: false,
        ..options()
    }
}

fn session(options: Options, host: &str, access: Access) -> Session {
    Registries::new(options)
        .open(&host.parse().unwrap(), &NAME.parse().unwrap(), access)
        .unwrap()
}

fn insecure() -> Access {
    Access {
        insecure: true,
        ..Access::default()
    }
}

fn of_pass(proxy: &proxy::Proxy, password: &str) -> Option<Proxy> {
    Some(Proxy {
        address: proxy.url(),
        username: Some("user".to_owned()),
        password: Some(password.into()),
    })
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_of_the_environment() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let proxy = proxy::Proxy::to(&registry.host(), "user", "word")
        .await
        .unwrap();
    let session = session(behind(&proxy), "registry.invalid", insecure());
    session.manifest(&tag("v1")).await.unwrap();
    session.put_blob("content".into()).await.unwrap();
    let lines = proxy.requests();
    assert!(
        !lines.is_empty()
            && lines
                .iter()
                .all(|line| line.contains(" http://registry.invalid/v2/")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn https_goes_through_a_tunnel_of_the_proxy_of_the_environment() {
    let authority = Authority::new().unwrap();
    let registry = HostileRegistry::builder()
        .tls_with(&authority, Certificate::OtherName)
        .start()
        .await
        .unwrap();
    image(&registry);
    let proxy = proxy::Proxy::to(&registry.host(), "user", "word")
        .await
        .unwrap();
    let session = session(behind(&proxy), TLS_NAME, access(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    assert_eq!(
        proxy.requests(),
        [format!("CONNECT {TLS_NAME}:443 HTTP/1.1")]
    );
    // The proxy's login is for the proxy alone.
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("proxy-authorization").is_none()),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn the_proxy_of_a_pass_takes_precedence_over_the_environment() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let to = async || {
        proxy::Proxy::to(&registry.host(), "user", "word")
            .await
            .unwrap()
    };
    let (environment, of_the_pass) = (to().await, to().await);
    let options = Options {
        allow_loopback: true,
        ..behind(&environment)
    };
    let access = Access {
        proxy: of_pass(&of_the_pass, "word"),
        ..insecure()
    };
    let session = session(options, "registry.invalid", access);
    session.manifest(&tag("v1")).await.unwrap();
    assert!(environment.requests().is_empty() && !of_the_pass.requests().is_empty());
}

#[tokio::test]
async fn the_operator_may_name_a_proxy_on_loopback_and_a_tenant_may_not() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let proxy = proxy::Proxy::to(&registry.host(), "user", "word")
        .await
        .unwrap();
    let by_operator = session(behind(&proxy), "registry.invalid", insecure());
    by_operator.manifest(&tag("v1")).await.unwrap();
    let by_tenant = Registries::new(behind(&proxy)).open(
        &"registry.invalid".parse().unwrap(),
        &NAME.parse().unwrap(),
        Access {
            proxy: of_pass(&proxy, "word"),
            ..insecure()
        },
    );
    refused(
        by_tenant,
        ErrorKind::HostNotAllowed,
        &["proxy 127.0.0.1", "--allow-loopback allows it"],
    );
}

#[tokio::test]
async fn t1_hosts_that_are_forbidden_stay_forbidden_behind_a_proxy() {
    let registry = HostileRegistry::start().await.unwrap();
    let proxy = proxy::Proxy::to(&registry.host(), "user", "word")
        .await
        .unwrap();
    for host in [
        "169.254.169.254",
        "metadata.google.internal",
        "127.0.0.1:5000",
        "[::ffff:169.254.169.254]",
    ] {
        let opened = Registries::new(behind(&proxy)).open(
            &host.parse().unwrap(),
            &NAME.parse().unwrap(),
            insecure(),
        );
        refused(opened, ErrorKind::HostNotAllowed, &[host]);
    }
    assert!(proxy.requests().is_empty());
    let session = session(behind(&proxy), "registry.invalid", insecure());
    for target in ["http://169.254.1.1/", "http://metadata.google.internal/"] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::BlobGet),
            Fault::RedirectTo(307, target.to_owned()),
        );
        let descriptor = affix_registry::oci::Descriptor::empty();
        refused(
            session.blob(&descriptor, 10).await,
            ErrorKind::HostNotAllowed,
            &["is not allowed: ", "metadata"],
        );
    }
    let lines = proxy.requests();
    assert!(
        lines.iter().all(|line| line.contains("registry.invalid")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn no_proxy_and_loopback_are_requested_directly() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let proxy = proxy::Proxy::to(&registry.host(), "user", "word")
        .await
        .unwrap();
    let loopback = Options {
        allow_loopback: true,
        ..behind(&proxy)
    };
    let session_of_loopback = open_with(&registry, loopback, access(&registry));
    session_of_loopback.manifest(&tag("v1")).await.unwrap();
    // A direct connection resolves the name itself, and there is no such name.
    refused(
        session(behind(&proxy), "r.internal.example", insecure())
            .manifest(&tag("v1"))
            .await,
        ErrorKind::RegistryUnavailable,
        &["r.internal.example"],
    );
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}

#[tokio::test]
async fn a_wrong_login_and_an_unusable_proxy_are_named_without_the_login() {
    let registry = HostileRegistry::start().await.unwrap();
    let proxy = proxy::Proxy::to(&registry.host(), "user", "another")
        .await
        .unwrap();
    for access in [
        insecure(),
        Access {
            tls: TlsOptions {
                ca_pem: Some(Authority::new().unwrap().pem().into()),
                client: None,
            },
            ..Access::default()
        },
    ] {
        let error = refused(
            session(behind(&proxy), "registry.invalid", access)
                .manifest(&tag("v1"))
                .await,
            ErrorKind::AuthenticationFailed,
            &["proxySecretRef", "HTTPS_PROXY"],
        );
        assert!(!error.to_string().contains("word:") && !error.to_string().contains("user:"));
    }
    let socks = Options {
        environment_proxy: EnvironmentProxy::new("socks5://user:word@proxy:1080", "", ""),
        ..options()
    };
    let error = refused(
        session(socks, "registry.invalid", insecure())
            .manifest(&tag("v1"))
            .await,
        ErrorKind::RegistryUnavailable,
        &["the proxy in HTTP_PROXY or ALL_PROXY is no http:// or https:// URL"],
    );
    assert!(!error.to_string().contains("word"), "{error}");
}
