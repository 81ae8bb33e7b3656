//! T2 and T7: no credential reaches another origin, and no listing continues there.

use affix_registry::oci::Descriptor;
use affix_registry::{Access, ErrorKind, Keychain};
use affix_testbed::hostile::{
    Account, Action, Auth, Authority, Bearer, Certificate, Fault, HostileRegistry, LinkForm,
    Location, Matcher, Op, Paging, Quirks, Reply,
};

use crate::support::{
    EMPTY, MANIFEST, NAME, access, attachment, digest, image, login, open, open_with, options,
    refused, tag, uploads_to,
};

/// Starts a registry with tokens, and one with the same content that requires no login.
async fn pair() -> (HostileRegistry, HostileRegistry) {
    let registry = HostileRegistry::builder()
        .tokens([Account::new("user", "canary-password")])
        .start()
        .await
        .unwrap();
    let other = HostileRegistry::builder()
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    image(&registry);
    (registry, other)
}

#[tokio::test]
async fn t7_a_blob_is_read_from_another_host_without_a_credential() {
    let (registry, other) = pair().await;
    registry.fault(
        Matcher::on(Op::BlobGet).authorized(true),
        Fault::RedirectToHost(307, other.url()),
    );
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    assert_eq!(session.blob(&Descriptor::empty(), 10).await.unwrap(), "{}");
    assert!(
        other.count(Op::BlobGet) == 1 && other.with_credentials().is_empty(),
        "{}",
        other.transcript()
    );
}

#[tokio::test]
async fn t7_a_detour_over_another_host_back_to_the_registry_carries_no_credential() {
    let (registry, other) = pair().await;
    registry.fault(
        Matcher::on(Op::BlobGet).authorized(true),
        Fault::RedirectToHost(307, other.url()),
    );
    other.fault(
        Matcher::on(Op::BlobGet),
        Fault::RedirectTo(
            307,
            format!("{}/v2/secret/thing/manifests/v1", registry.url()),
        ),
    );
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    assert!(session.blob(&Descriptor::empty(), 10).await.is_err());
    let detour = registry.requests_that(&Matcher::any().repository("secret/thing"));
    assert!(
        detour.len() == 1 && !detour[0].has_credentials(),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn t7_an_upload_to_another_host_carries_no_credential() {
    let (registry, other) = pair().await;
    registry.quirks(|quirks| {
        *quirks = Quirks {
            upload_location: Location::Under(other.url()),
            ..Quirks::distribution()
        }
    });
    let session = open_with(
        &registry,
        uploads_to(&other),
        login(&registry, "user", "canary-password"),
    );
    session.put_blob("content".into()).await.unwrap();
    assert!(
        other.count(Op::UploadPut) == 1 && other.with_credentials().is_empty(),
        "{}",
        other.transcript()
    );
}

#[tokio::test]
async fn t7_manifests_are_not_read_from_or_written_to_another_host() {
    let (registry, other) = pair().await;
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    let away = || Fault::RedirectToHost(307, other.url());
    registry.fault(
        Matcher::reads()
            .when(|request| request.op != Op::Token)
            .authorized(true),
        away(),
    );
    registry.fault(Matcher::writes().authorized(true), away());
    let expected = format!("a redirect to {} that is not followed", other.host());
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &[&expected],
    );
    refused(
        session.head(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &[&expected],
    );
    let (at, bytes) = attachment(
        &serde_json::json!({"mediaType": MANIFEST, "digest": EMPTY, "size": 2}),
        "a",
    );
    refused(
        session.put_manifest(&at.into(), MANIFEST, bytes).await,
        ErrorKind::RegistryUnavailable,
        &[&expected],
    );
    assert!(other.requests().is_empty(), "{}", other.transcript());
}

#[tokio::test]
async fn a_redirect_within_the_registry_is_followed_with_its_credential_and_a_loop_ends() {
    let (registry, _) = pair().await;
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    let moved = format!("/v2/{NAME}/manifests/v1?moved=1");
    registry.fault(
        Matcher::on(Op::ManifestGet)
            .authorized(true)
            .when(|request| request.query.is_empty())
            .times(1),
        Fault::RedirectTo(301, moved),
    );
    session.manifest(&tag("v1")).await.unwrap();
    registry.fault(
        Matcher::on(Op::ManifestGet).authorized(true),
        Fault::RedirectLoop(302),
    );
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::LimitExceeded,
        &["too many redirects (the limit is 5)"],
    );
}

#[tokio::test]
async fn t7_a_challenge_of_another_host_is_not_answered() {
    let (registry, other) = pair().await;
    other.set_auth(Auth::Bearer(Bearer::new(&registry.issuer())));
    registry.fault(
        Matcher::on(Op::BlobGet).authorized(true),
        Fault::RedirectToHost(307, other.url()),
    );
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    refused(
        session.blob(&Descriptor::empty(), 10).await,
        ErrorKind::AccessDenied,
        &["HTTP 401 UNAUTHORIZED"],
    );
    assert!(
        other.with_credentials().is_empty() && other.count(Op::Token) == 0,
        "{}",
        other.transcript()
    );
}

#[tokio::test]
async fn t7_a_token_service_over_plain_http_gets_no_login_of_a_registry_over_tls() {
    let plain = HostileRegistry::builder()
        .tokens([Account::new("user", "canary-password")])
        .start()
        .await
        .unwrap();
    let authority = Authority::new().unwrap();
    let auth = Auth::Bearer(Bearer::new(&plain.issuer()).realm(plain.token_url()));
    let registry = HostileRegistry::builder()
        .tls_with(&authority, Certificate::Good)
        .auth(auth)
        .start()
        .await
        .unwrap();
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    let expected = format!("plain HTTP to {} is not allowed", plain.host());
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::InsecureNotAllowed,
        &[&expected, "uses it as its token service"],
    );
    assert!(plain.requests().is_empty());
}

#[tokio::test]
async fn t7_redirects_from_tls_to_plain_http_are_refused() {
    let plain = HostileRegistry::start().await.unwrap();
    let registry = HostileRegistry::builder().tls().start().await.unwrap();
    image(&registry);
    registry.fault(
        Matcher::on(Op::BlobGet),
        Fault::RedirectToHost(307, plain.url()),
    );
    let session = open_with(&registry, options(), access(&registry));
    refused(
        session.blob(&Descriptor::empty(), 10).await,
        ErrorKind::InsecureNotAllowed,
        &["leads there"],
    );
    assert!(plain.requests().is_empty());
}

#[tokio::test]
async fn a_token_service_on_another_host_gets_the_login_and_the_registry_only_the_token() {
    let (registry, other) = pair().await;
    let service = HostileRegistry::builder()
        .issuer(&registry.issuer())
        .start()
        .await
        .unwrap();
    registry.set_auth(Auth::Bearer(
        Bearer::new(&registry.issuer()).realm(service.token_url()),
    ));
    let session = open_with(
        &registry,
        options(),
        login(&registry, "user", "canary-password"),
    );
    session.manifest(&tag("v1")).await.unwrap();
    assert!(
        service.requests()[0]
            .header("authorization")
            .unwrap()
            .starts_with("Basic ")
    );
    let sent: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    assert!(
        sent.len() == 1 && sent[0].starts_with("Bearer token-"),
        "{sent:?}"
    );
    drop(other);
}

#[tokio::test]
async fn t2_a_link_to_another_origin_fails_the_listing() {
    let (registry, other) = pair().await;
    registry.set_auth(Auth::Basic(
        vec![Account::new("user", "canary-password")],
        Default::default(),
    ));
    let subject = digest(&registry.store().tag(NAME, "v1").unwrap());
    let port = registry.address().port();
    for form in [
        LinkForm::Under(other.url()),
        LinkForm::SchemeRelative(other.host()),
        LinkForm::Under(format!("https://{}", registry.host())),
        LinkForm::Under(format!("http://localhost:{port}")),
        LinkForm::Under(format!("http://user@{}", other.host())),
        LinkForm::Under("http://169.254.1.1".to_owned()),
    ] {
        registry.quirks(|quirks| {
            (quirks.paging, quirks.made_up_entries, quirks.link) = (Paging::Of(1), 3, form.clone());
        });
        let session = open_with(
            &registry,
            options(),
            login(&registry, "user", "canary-password"),
        );
        let expected = format!(
            "GET referrers of {subject} at {}/{NAME}: the next page is at ",
            registry.host()
        );
        refused(
            session.referrers(&subject, None).await,
            ErrorKind::RegistryUnavailable,
            &[&expected, "another origin"],
        );
        registry.quirks(|quirks| quirks.tags_per_page = Some(1));
        registry.store().put_tag(NAME, "v2", &subject.to_string());
        refused(
            session.list_tags(10, |_| true).await,
            ErrorKind::RegistryUnavailable,
            &["another origin"],
        );
    }
    assert!(other.requests().is_empty(), "{}", other.transcript());
}

#[tokio::test]
async fn t24_a_token_of_one_credential_is_not_sent_for_another() {
    let (registry, _) = pair().await;
    registry.issuer().terms(|terms| {
        terms
            .accounts
            .push(Account::new("reader", "other").allow("*", &[Action::Pull]));
    });
    let registries = affix_registry::Registries::new(options());
    let open = |access: Access| crate::support::open_in(&registries, &registry, access);
    open(login(&registry, "user", "canary-password"))
        .manifest(&tag("v1"))
        .await
        .unwrap();
    registry.clear();
    let anonymous = open(access(&registry));
    refused(
        anonymous.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["no login is configured for"],
    );
    open(login(&registry, "reader", "other"))
        .manifest(&tag("v1"))
        .await
        .unwrap();
    let sent: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    assert!(
        sent.iter().all(|header| !header.contains("-user")),
        "{sent:?}"
    );
    let elsewhere =
        Keychain::login("elsewhere.example.com", "user", "canary-password".into()).unwrap();
    let session = open(Access {
        credentials: elsewhere,
        ..access(&registry)
    });
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["no login is configured for"],
    );
}

#[tokio::test]
async fn t1_another_host_s_answer_is_quoted_only_if_it_is_a_registry_error() {
    let (registry, inside) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    image(&registry);
    let blob = registry.store().put_blob(NAME, "layer");
    registry.fault(
        Matcher::on(Op::BlobGet),
        Fault::RedirectToHost(307, inside.url()),
    );
    let descriptor = Descriptor::plain("a/b", digest(&blob), 5);
    for (answer, expected, hidden) in [
        (
            Reply::body(404, "text/plain", "the inner secret is 42"),
            "HTTP 404",
            "inner",
        ),
        (
            Reply::error(404, "BLOB_UNKNOWN", "no such blob"),
            "HTTP 404 BLOB_UNKNOWN: no such blob",
            "inner",
        ),
    ] {
        inside.calm();
        inside.fault(Matcher::any(), answer);
        let error = refused(
            open(&registry).blob(&descriptor, 100).await,
            ErrorKind::NotFound,
            &[expected],
        );
        assert!(!error.to_string().contains(hidden), "{error}");
    }
    registry.calm();
    registry.fault(
        Matcher::on(Op::BlobGet),
        Reply::body(404, "text/plain", "text of the registry itself"),
    );
    refused(
        open(&registry).blob(&descriptor, 100).await,
        ErrorKind::NotFound,
        &["text of the registry itself"],
    );
}

#[tokio::test]
async fn t7_a_url_with_a_login_in_it_is_asked_nowhere() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let host = registry.host();
    registry.fault(
        Matcher::on(Op::ManifestGet),
        Fault::RedirectTo(
            307,
            format!("http://admin:admin@{host}/v2/{NAME}/manifests/v1"),
        ),
    );
    refused(
        open(&registry).manifest(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &["leads to a URL that cannot be asked"],
    );
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none()),
        "{}",
        registry.transcript()
    );
}
