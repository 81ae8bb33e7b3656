//! The reasons of decision 0001: oci-client and this crate against the same registry.

use affix_registry::{ErrorKind, ReferrersMode};
use affix_testbed::hostile::{Account, Fault, HostileRegistry, Matcher, Op, Paging, Quirks, Reply};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::support::{
    NAME, access, attachment, descriptor, digest, image, login, open, open_in, open_mode, options,
    refused, tag,
};

fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

fn reference(registry: &HostileRegistry, suffix: &str) -> Reference {
    format!("{}/{NAME}{suffix}", registry.host())
        .parse()
        .unwrap()
}

fn basic(password: &str) -> RegistryAuth {
    RegistryAuth::Basic("user".to_owned(), password.to_owned())
}

#[tokio::test]
async fn oci_client_takes_a_failed_fallback_listing_for_an_empty_one() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    let subject = image(&registry).digest;
    registry.fault(
        Matcher::on(Op::ManifestGet).fallback_tag(),
        Reply::error(403, "DENIED", "denied"),
    );
    let theirs = client()
        .pull_referrers(&reference(&registry, &format!("@{subject}")), None)
        .await
        .unwrap();
    assert!(theirs.manifests.is_empty(), "{theirs}");
    refused(
        open_mode(&registry, ReferrersMode::TagSchema)
            .referrers(&digest(&subject), None)
            .await,
        ErrorKind::AccessDenied,
        &["HTTP 403 DENIED"],
    );
}

#[tokio::test]
async fn oci_client_reads_only_the_first_page_of_a_listing() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let subject = descriptor(&image);
    for note in ["a", "b", "c"] {
        let (_, bytes) = attachment(&image.descriptor(), note);
        registry.store().put_manifest(
            NAME,
            None,
            crate::support::MANIFEST,
            String::from_utf8(bytes.to_vec()).unwrap(),
        );
    }
    registry.quirks(|quirks| quirks.paging = Paging::Of(1));
    let theirs = client()
        .pull_referrers(&reference(&registry, &format!("@{}", subject.digest)), None)
        .await
        .unwrap();
    let ours = open(&registry)
        .referrers(&subject.digest, None)
        .await
        .unwrap();
    assert_eq!((theirs.manifests.len(), ours.entries.len()), (1, 3));
}

#[tokio::test]
async fn oci_client_does_not_retry() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let fault = || {
        registry.calm();
        registry.fault(Matcher::on(Op::ManifestGet).times(1), Fault::status(503));
    };
    fault();
    let theirs = client()
        .pull_manifest(&reference(&registry, ":v1"), &RegistryAuth::Anonymous)
        .await;
    assert!(theirs.is_err());
    fault();
    open(&registry).manifest(&tag("v1")).await.unwrap();
}

#[tokio::test]
async fn oci_client_keeps_the_first_credential_of_a_registry() {
    let registry = HostileRegistry::builder()
        .passwords([Account::new("user", "new")])
        .start()
        .await
        .unwrap();
    image(&registry);
    let at = reference(&registry, ":v1");
    let theirs = client();
    for password in ["old", "new"] {
        assert!(theirs.pull_manifest(&at, &basic(password)).await.is_err());
    }
    let registries = affix_registry::Registries::new(options());
    let open = |password| open_in(&registries, &registry, login(&registry, "user", password));
    assert!(open("old").manifest(&tag("v1")).await.is_err());
    open("new").manifest(&tag("v1")).await.unwrap();
}

#[tokio::test]
async fn oci_client_fetches_a_token_for_each_of_parallel_requests() {
    let registry = HostileRegistry::builder()
        .tokens([Account::new("user", "secret")])
        .start()
        .await
        .unwrap();
    image(&registry);
    let (at, theirs) = (reference(&registry, ":v1"), client());
    let secret = basic("secret");
    let pulls = (0..4).map(|_| theirs.pull_manifest(&at, &secret));
    for result in futures::future::join_all(pulls).await {
        result.unwrap();
    }
    assert_eq!(registry.count(Op::Token), 4, "{}", registry.transcript());
    registry.clear();
    let session =
        crate::support::open_with(&registry, options(), login(&registry, "user", "secret"));
    let v1 = tag("v1");
    let ours = futures::future::join_all((0..4).map(|_| session.manifest(&v1))).await;
    assert!(ours.iter().all(Result::is_ok), "{ours:?}");
    assert_eq!(registry.count(Op::Token), 1, "{}", registry.transcript());
}

#[tokio::test]
async fn oci_client_panics_if_the_answer_to_a_push_by_digest_has_no_location() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let (at, bytes) = attachment(&image.descriptor(), "a");
    registry.fault(Matcher::on(Op::ManifestPut), Fault::location(None));
    let (client, reference) = (client(), reference(&registry, &format!("@{at}")));
    let body = bytes.clone();
    let theirs = tokio::spawn(async move {
        let content_type = http::HeaderValue::from_static(crate::support::MANIFEST);
        client
            .push_manifest_raw(&reference, body, content_type)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    });
    assert!(theirs.await.unwrap_err().is_panic());
    let session = crate::support::open_with(&registry, options(), access(&registry));
    session
        .put_manifest(&at.into(), crate::support::MANIFEST, bytes)
        .await
        .unwrap();
}
