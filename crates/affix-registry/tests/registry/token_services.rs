//! T37: the token service is the one that the registry named last, and one that failed is forgotten.

use affix_registry::{Access, ErrorKind, Registries};
use affix_testbed::hostile::{
    Account, Auth, Bearer, Challenge, HostileRegistry, Matcher, Op, Reply, RetryAfter, Stage,
};

use crate::support::{access, image, login, open_in, options, refused, tag};

/// Starts a registry with tokens, and a token service of the same issuer on another host.
async fn pair() -> (HostileRegistry, HostileRegistry) {
    let registry = HostileRegistry::builder()
        .tokens([Account::new("user", "canary-password")])
        .start()
        .await
        .unwrap();
    image(&registry);
    let service = HostileRegistry::builder()
        .issuer(&registry.issuer())
        .start()
        .await
        .unwrap();
    (registry, service)
}

/// Makes the registry name this token service.
fn name(registry: &HostileRegistry, realm: impl Into<String>) {
    registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).realm(realm)));
}

fn user(registry: &HostileRegistry) -> Access {
    login(registry, "user", "canary-password")
}

#[tokio::test]
async fn t37_a_bad_realm_is_forgotten_once_the_registry_names_a_good_one() {
    let (registry, service) = pair().await;
    for (realm, kind, text) in [
        (
            "http://169.254.169.254/token",
            ErrorKind::HostNotAllowed,
            "link-local",
        ),
        (
            "http://127.0.0.1:1/token",
            ErrorKind::RegistryUnavailable,
            "connection refused",
        ),
        (
            "not a URL",
            ErrorKind::RegistryUnavailable,
            "not a valid URL",
        ),
    ] {
        for access in [user(&registry), access(&registry)] {
            registry.issuer().terms(|terms| {
                terms.anonymous = Some(Account::new("", ""));
            });
            let registries = Registries::new(options());
            name(&registry, realm);
            let session = open_in(&registries, &registry, access.clone());
            refused(session.manifest(&tag("v1")).await, kind, &[text]);
            name(&registry, service.token_url());
            let session = open_in(&registries, &registry, access);
            session.manifest(&tag("v1")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn t37_a_service_that_fails_is_replaced_within_the_request_and_gets_no_more_logins() {
    let (registry, service) = pair().await;
    let registries = Registries::new(options());
    name(&registry, service.token_url());
    let session = open_in(&registries, &registry, user(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    service.fault(
        Matcher::on(Op::Token),
        Reply::error(403, "DENIED", "closed"),
    );
    name(&registry, registry.token_url());
    service.clear();
    // The token of the old service allows only pulls.
    session.put_blob("content".into()).await.unwrap();
    assert_eq!(service.count(Op::Token), 1, "{}", service.transcript());
    service.calm();
    service.clear();
    registry.issuer().revoke_all();
    session.put_blob("other".into()).await.unwrap();
    let later = open_in(&registries, &registry, user(&registry));
    later.manifest(&tag("v1")).await.unwrap();
    assert!(service.requests().is_empty(), "{}", service.transcript());
}

#[tokio::test]
async fn t37_a_service_that_failed_gets_no_login_unless_the_registry_names_it_again() {
    let (registry, service) = pair().await;
    let registries = Registries::new(options());
    name(&registry, service.token_url());
    service.fault(Matcher::on(Op::Token), Reply::status(404));
    let session = open_in(&registries, &registry, user(&registry));
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::NotFound,
        &["GET token at", &service.host()],
    );
    service.calm();
    service.clear();
    name(&registry, registry.token_url());
    session.manifest(&tag("v1")).await.unwrap();
    assert!(service.requests().is_empty(), "{}", service.transcript());
    let later = open_in(&Registries::new(options()), &registry, user(&registry));
    name(&registry, service.token_url());
    later.manifest(&tag("v1")).await.unwrap();
    assert_eq!(service.count(Op::Token), 1, "{}", service.transcript());
}

#[tokio::test]
async fn t37_of_challenges_that_arrive_in_another_order_the_newest_counts() {
    let (registry, service) = pair().await;
    let session = open_in(&Registries::new(options()), &registry, user(&registry));
    name(&registry, service.token_url());
    let mut hold = registry.hold(Stage::After, Matcher::on(Op::UploadStart));
    let writing = tokio::spawn({
        let session = session.clone();
        async move { session.put_blob("content".into()).await }
    });
    hold.reached().await.unwrap();
    name(&registry, registry.token_url());
    session.manifest(&tag("v1")).await.unwrap();
    hold.release();
    writing.await.unwrap().unwrap();
    assert!(service.requests().is_empty(), "{}", service.transcript());
}

#[tokio::test]
async fn t37_the_newest_challenge_counts_although_the_old_service_still_works() {
    let (registry, service) = pair().await;
    let registries = Registries::new(options());
    name(&registry, service.token_url());
    let session = open_in(&registries, &registry, user(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    name(&registry, registry.token_url());
    registry.issuer().revoke_all();
    service.clear();
    session.manifest(&tag("v1")).await.unwrap();
    session.put_blob("content".into()).await.unwrap();
    assert!(service.requests().is_empty(), "{}", service.transcript());
}

#[tokio::test]
async fn t37_a_registry_that_no_longer_wants_a_login_is_used_without_one() {
    let (registry, service) = pair().await;
    let registries = Registries::new(options());
    name(&registry, service.token_url());
    let session = open_in(&registries, &registry, user(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    service.fault(Matcher::on(Op::Token), Reply::status(404));
    registry.set_auth(Auth::None);
    session.put_blob("content".into()).await.unwrap();
}

#[tokio::test]
async fn t37_a_token_refused_without_a_challenge_is_not_sent_again() {
    let (registry, _) = pair().await;
    let registries = Registries::new(options());
    let session = open_in(&registries, &registry, user(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    let former = registry.requests().pop().unwrap();
    let former = former.header("authorization").map(str::to_owned);
    assert!(former.is_some());
    registry.issuer().revoke_all();
    registry.set_auth(Auth::Bearer(
        Bearer::new(&registry.issuer()).challenge(Challenge::None),
    ));
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["HTTP 401"],
    );
    registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer())));
    registry.clear();
    session.manifest(&tag("v1")).await.unwrap();
    let sent: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    assert!(sent[0].is_none() && !sent.contains(&former), "{sent:?}");
}

#[tokio::test]
async fn t37_a_service_that_refuses_gets_the_login_once_for_each_wave() {
    let (registry, service) = pair().await;
    let registries = Registries::new(options());
    name(&registry, service.token_url());
    let session = open_in(&registries, &registry, user(&registry));
    session.manifest(&tag("v1")).await.unwrap();
    service.fault(
        Matcher::on(Op::Token),
        Reply::error(401, "UNAUTHORIZED", "no"),
    );
    service.clear();
    let writes = (0..8).map(|_| {
        let session = session.clone();
        async move { session.put_blob("content".into()).await }
    });
    for write in futures::future::join_all(writes).await {
        refused(write, ErrorKind::AuthenticationFailed, &["GET token at"]);
    }
    assert_eq!(service.count(Op::Token), 1, "{}", service.transcript());
}

#[tokio::test]
async fn t37_without_a_login_no_knowledge_is_shared_between_tenants() {
    let (registry, service) = pair().await;
    registry.issuer().terms(|terms| {
        terms.anonymous = Some(Account::new("", ""));
    });
    let registries = Registries::new(options());
    let open = |tenant: &str| {
        let access = Access {
            tenant: tenant.to_owned(),
            ..access(&registry)
        };
        open_in(&registries, &registry, access)
    };
    name(&registry, service.token_url());
    open("a").manifest(&tag("v1")).await.unwrap();
    name(&registry, registry.token_url());
    service.clear();
    registry.clear();
    open("b").manifest(&tag("v1")).await.unwrap();
    assert!(service.requests().is_empty(), "{}", service.transcript());
    assert!(!registry.requests()[0].has_credentials());
    // A pause is knowledge as well.
    let paused = Reply::status(429).retry_after(RetryAfter::Seconds(600));
    registry.fault(Matcher::on(Op::ManifestGet).times(1), paused);
    refused(
        open("a").manifest(&tag("v1")).await,
        ErrorKind::RateLimited,
        &[],
    );
    open("b").manifest(&tag("v1")).await.unwrap();
    // With the same login, it is shared.
    let with_login = |tenant: &str| Access {
        tenant: tenant.to_owned(),
        ..user(&registry)
    };
    let first = open_in(&registries, &registry, with_login("a"));
    first.manifest(&tag("v1")).await.unwrap();
    let second = open_in(&registries, &registry, with_login("b"));
    second.manifest(&tag("v1")).await.unwrap();
    assert_eq!(second.requests(), 1);
}
