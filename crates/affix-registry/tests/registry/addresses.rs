//! T1: the hosts and addresses that may be dialled.

use affix_registry::{Access, ErrorKind, Options, Proxy, Registries};
use affix_testbed::hostile::{Auth, Bearer, Fault, HostileRegistry, Matcher, Op};

use crate::support::{NAME, access, image, open_with, options, refused, tag};

fn open(options: Options, host: &str, access: Access) -> Result<(), affix_registry::RegistryError> {
    Registries::new(options)
        .open(&host.parse().unwrap(), &NAME.parse().unwrap(), access)
        .map(drop)
}

fn insecure() -> Access {
    Access {
        insecure: true,
        ..Access::default()
    }
}

#[tokio::test]
async fn t1_hosts_that_are_forbidden_addresses_are_refused_before_anything_is_dialled() {
    for (host, expected) in [
        ("169.254.169.254", "link-local"),
        ("[::ffff:169.254.169.254]", "link-local"),
        ("127.0.0.1:5000", "--allow-loopback allows it"),
        ("[::1]:5000", "loopback"),
        ("0.0.0.0", "unspecified"),
        (
            "2852039166:80",
            "another spelling of the address 169.254.169.254",
        ),
        (
            "0251.0376.0251.0376",
            "another spelling of the address 169.254.169.254",
        ),
        ("0x8.0x8.0x8.0x8", "another spelling of the address 8.8.8.8"),
        ("metadata.google.internal", "metadata service"),
        ("localhost:5000", "loopback name"),
    ] {
        refused(
            open(Options::default(), host, insecure()),
            ErrorKind::HostNotAllowed,
            &[&format!("{host} is not allowed: "), expected],
        );
    }
    refused(
        open(
            Options {
                deny_private_networks: true,
                ..Options::default()
            },
            "10.0.0.1",
            insecure(),
        ),
        ErrorKind::HostNotAllowed,
        &["--deny-private-networks is set"],
    );
}

#[tokio::test]
async fn t1_a_name_is_checked_by_the_address_that_it_resolves_to_when_dialled() {
    let registry = HostileRegistry::start().await.unwrap();
    let denied = Options {
        denied_addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        ..options()
    };
    let host = format!("localhost:{}", registry.address().port())
        .parse()
        .unwrap();
    let session = Registries::new(denied)
        .open(&host, &NAME.parse().unwrap(), access(&registry))
        .unwrap();
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::HostNotAllowed,
        &["localhost is not allowed: it resolves to ", "denied"],
    );
    assert_eq!(registry.connections(), 0);
}

#[tokio::test]
async fn t1_redirects_realms_upload_locations_and_proxies_obey_the_same_policy() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let session = open_with(&registry, options(), access(&registry));
    // Link-local addresses without a metadata service. If the policy failed, this test would do no
    // harm.
    for target in [
        "http://169.254.1.1/",
        "http://2851995905/",
        "http://0xa9fe0101/",
        "http://[::ffff:a9fe:101]/",
    ] {
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
        registry.fault(
            Matcher::on(Op::UploadStart),
            affix_testbed::hostile::Reply::empty(202).header("location", target),
        );
        refused(
            session.put_blob("x".into()).await,
            ErrorKind::HostNotAllowed,
            &["is not allowed: ", "metadata"],
        );
        registry.set_auth(Auth::Bearer(
            Bearer::new(&registry.issuer()).realm(format!("{target}token")),
        ));
        let fresh = open_with(&registry, options(), access(&registry));
        refused(
            fresh.manifest(&tag(&image.tag)).await,
            ErrorKind::HostNotAllowed,
            &["is not allowed: ", "metadata"],
        );
        registry.set_auth(Auth::None);
    }
    let proxy = Proxy {
        address: "http://169.254.169.254:3128".to_owned(),
        username: None,
        password: None,
    };
    let access = Access {
        proxy: Some(proxy),
        ..insecure()
    };
    refused(
        open(options(), "registry.example.com", access),
        ErrorKind::HostNotAllowed,
        &["proxy 169.254.169.254:3128 is not allowed"],
    );
}

#[tokio::test]
async fn a_registry_outside_of_the_list_and_forbidden_plain_http_are_refused() {
    let listed = Options {
        allowed_registries: vec!["ghcr.io".parse().unwrap(), "*.example.com".parse().unwrap()],
        ..options()
    };
    refused(
        open(listed.clone(), "quay.io", insecure()),
        ErrorKind::HostNotAllowed,
        &["quay.io is not allowed: --allowed-registries has only ghcr.io, *.example.com"],
    );
    open(listed, "a.example.com", insecure()).unwrap();
    let strict = Options {
        allow_http: false,
        ..options()
    };
    refused(
        open(strict, "a.example.com", insecure()),
        ErrorKind::InsecureNotAllowed,
        &["ruled out by --insecure-allow-http=false"],
    );
}

#[tokio::test]
async fn a_proxy_is_used_for_every_request() {
    // The proxy is the registry itself. It receives the absolute URL of a host that does not exist.
    let registry = HostileRegistry::builder()
        .http1_only()
        .start()
        .await
        .unwrap();
    image(&registry);
    let proxy = Proxy {
        address: registry.url(),
        username: Some("u".to_owned()),
        password: Some("canary-proxy".into()),
    };
    let access = Access {
        proxy: Some(proxy),
        ..insecure()
    };
    let session = Registries::new(options())
        .open(
            &"registry.invalid".parse().unwrap(),
            &NAME.parse().unwrap(),
            access,
        )
        .unwrap();
    session.manifest(&tag("v1")).await.unwrap();
    let requests = registry.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.header("host") == Some("registry.invalid")),
        "{}",
        registry.transcript()
    );
    assert!(
        requests
            .iter()
            .all(|request| request.header("proxy-authorization").is_some())
    );
    for (address, expected) in [
        ("socks5://x:1", "http://host:port"),
        ("x:1", "http://host:port"),
        ("http://u:canary@x:1", "holds a login"),
    ] {
        let proxy = Proxy {
            address: address.to_owned(),
            username: None,
            password: None,
        };
        let error = refused(
            open(
                options(),
                "r.io",
                Access {
                    proxy: Some(proxy),
                    ..insecure()
                },
            ),
            ErrorKind::InvalidAccess,
            &["proxy address cannot be used", expected],
        );
        assert!(!error.to_string().contains("canary"));
    }
}
