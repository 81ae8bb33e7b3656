//! T38: the hosts that a registry may name for an upload.

use affix_registry::oci::Descriptor;
use affix_registry::{EnvironmentProxy, ErrorKind, Options, Session};
use affix_testbed::hostile::{Fault, HostileRegistry, Location, Matcher, Op, Quirks, Reply};
use affix_testbed::proxy::Proxy;

use crate::support::{
    MANIFEST, access, attachment, image, open_with, options, refused, tag, uploads_to,
};

/// Starts a registry that sends uploads to `base`, or to another server if it is empty.
async fn pair(base: &str) -> (HostileRegistry, HostileRegistry) {
    let registry = HostileRegistry::start().await.unwrap();
    let other = HostileRegistry::builder()
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    image(&registry);
    let base = base.replace("OTHER", &other.host());
    let base = base.replace("PORT", &other.address().port().to_string());
    registry.quirks(|quirks| {
        *quirks = Quirks {
            upload_location: Location::Under(base),
            ..Quirks::distribution()
        }
    });
    (registry, other)
}

fn open(registry: &HostileRegistry, options: Options) -> Session {
    open_with(registry, options, access(registry))
}

#[tokio::test]
async fn t38_an_upload_goes_to_another_host_on_loopback_only_if_a_rule_allows_it() {
    let (registry, other) = pair("http://OTHER").await;
    let port = other.address().port();
    for hosts in [
        vec![],
        vec!["127.0.0.1".to_owned()],
        vec![format!("127.0.0.1:{}", registry.address().port())],
        vec![format!("localhost:{port}"), "*.example.com".to_owned()],
    ] {
        let hosts = hosts.iter().map(|host| host.parse().unwrap());
        let options = Options {
            upload_hosts: hosts.collect(),
            ..options()
        };
        refused(
            open(&registry, options).put_blob("content".into()).await,
            ErrorKind::HostNotAllowed,
            &[
                &format!("{} is not allowed: it is loopback, and", other.host()),
                "--upload-hosts",
                &format!("({} leads there)", registry.host()),
            ],
        );
    }
    assert_eq!(other.connections(), 0);
    for pattern in [other.host().as_str(), "127.0.0.1:*", "*"] {
        let options = Options {
            upload_hosts: vec![pattern.parse().unwrap()],
            ..options()
        };
        let written = open(&registry, options)
            .put_blob(pattern.to_owned().into())
            .await;
        assert!(written.is_ok(), "{pattern}: {written:?}");
    }
    assert_eq!(other.count(Op::UploadPut), 3, "{}", other.transcript());
}

#[tokio::test]
async fn t38_private_addresses_and_forbidden_ones_get_no_upload_without_a_rule() {
    for (base, expected) in [
        ("http://10.0.0.1:PORT", "private"),
        ("http://192.168.1.1:PORT", "private"),
        ("http://100.64.0.1:PORT", "private"),
        ("http://[fd12::1]:PORT", "private"),
        ("http://[::ffff:10.0.0.1]:PORT", "private"),
        ("http://167772161:PORT", "private"),
        ("http://localhost:PORT", "loopback"),
        ("http://127.1:PORT", "loopback"),
        ("http://[::1]:PORT", "loopback"),
        ("http://169.254.1.1:PORT", "link-local"),
        ("http://metadata.google.internal:PORT", "metadata"),
        ("http://kubernetes.default.svc:PORT", "cluster's API"),
    ] {
        let (registry, other) = pair(base).await;
        refused(
            open(&registry, options()).put_blob("content".into()).await,
            ErrorKind::HostNotAllowed,
            &[" is not allowed: ", expected],
        );
        assert_eq!(other.connections(), 0, "{base}");
    }
}

#[tokio::test]
async fn t38_the_address_behind_an_allowed_name_is_checked_when_dialled() {
    let (registry, other) = pair("http://localhost:PORT").await;
    let allowed = Options {
        upload_hosts: vec!["localhost:*".parse().unwrap()],
        ..options()
    };
    let denied = Options {
        cluster_networks: ["127.0.0.0/8", "::1/128"]
            .map(|n| n.parse().unwrap())
            .into(),
        ..allowed.clone()
    };
    let session = open(&registry, denied);
    // A connection that a blob was read over is not used for the upload.
    registry.fault(
        Matcher::on(Op::BlobGet),
        Fault::RedirectToHost(307, format!("http://localhost:{}", other.address().port())),
    );
    session.blob(&Descriptor::empty(), 10).await.unwrap();
    refused(
        session.put_blob("content".into()).await,
        ErrorKind::HostNotAllowed,
        &[
            "localhost is not allowed: it resolves to ",
            "a network of the cluster",
        ],
    );
    assert_eq!(other.count(Op::UploadPut), 0, "{}", other.transcript());
    open(&registry, allowed)
        .put_blob("content".into())
        .await
        .unwrap();
}

#[tokio::test]
async fn t38_an_upload_through_a_proxy_goes_to_another_host_only_if_a_rule_allows_it() {
    let (registry, other) = pair("http://store.invalid").await;
    let proxy = Proxy::to(&other.host(), "user", "word").await.unwrap();
    let url = format!("http://user:word@{}", proxy.host());
    let proxied = Options {
        environment_proxy: EnvironmentProxy::new(&url, &url, "127.0.0.1"),
        ..options()
    };
    refused(
        open(&registry, proxied.clone())
            .put_blob("content".into())
            .await,
        ErrorKind::HostNotAllowed,
        &["store.invalid is not allowed: ", "through a proxy"],
    );
    assert!(proxy.requests().is_empty());
    let allowed = Options {
        upload_hosts: vec!["store.invalid".parse().unwrap()],
        ..proxied
    };
    open(&registry, allowed)
        .put_blob("content".into())
        .await
        .unwrap();
    assert_eq!(other.count(Op::UploadPut), 1);
}

#[tokio::test]
async fn t38_no_write_follows_a_redirect_and_no_request_follows_a_final_location() {
    let (registry, other) = pair("http://OTHER").await;
    registry.quirks(|quirks| *quirks = Quirks::distribution());
    let session = open(&registry, uploads_to(&other));
    let expected = format!("a redirect to {} that is not followed", other.host());
    for op in [Op::UploadStart, Op::UploadPut] {
        for status in [301, 302, 307, 308] {
            registry.calm();
            registry.fault(Matcher::on(op), Fault::RedirectToHost(status, other.url()));
            refused(
                session.put_blob("content".into()).await,
                ErrorKind::RegistryUnavailable,
                &[&expected],
            );
        }
    }
    registry.calm();
    let elsewhere = format!("{}/v2/team/app/blobs/x", other.url());
    registry.fault(
        Matcher::on(Op::UploadStart),
        Reply::empty(201).header("location", elsewhere.clone()),
    );
    session.put_blob("content".into()).await.unwrap();
    registry.calm();
    registry.fault(Matcher::writes(), Fault::location(Some(&elsewhere)));
    let (at, bytes) = attachment(
        &registry
            .store()
            .manifest("team/app", "v1")
            .unwrap()
            .descriptor(),
        "a",
    );
    session
        .put_manifest(&at.into(), MANIFEST, bytes)
        .await
        .unwrap();
    session.manifest(&tag("v1")).await.unwrap();
    assert_eq!(other.connections(), 0, "{}", other.transcript());
}
