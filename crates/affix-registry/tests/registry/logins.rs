//! Logins: the credentials that are sent, the number of token requests, and the text of refusals.

use std::time::Duration;

use affix_registry::{Access, Deletion, ErrorKind, Keychain, Registries};
use affix_testbed::hostile::{
    Account, Action, Auth, Bearer, Challenge, Denial, Exchange, HostileRegistry, Matcher, Op,
    TokenForm,
};
use serde_json::json;

use crate::support::{
    MANIFEST, NAME, access, attachment, by, digest, image, login, open_in, open_with, options,
    refused, tag,
};

fn config(registry: &HostileRegistry, login: &serde_json::Value) -> Access {
    let config = json!({"auths": {registry.host(): login}}).to_string();
    Access {
        credentials: Keychain::parse(config.as_bytes()).unwrap(),
        ..access(registry)
    }
}

async fn with_tokens() -> HostileRegistry {
    let account = Account::new("user", "password").identity_token("identity");
    let registry = HostileRegistry::builder()
        .tokens([account])
        .start()
        .await
        .unwrap();
    image(&registry);
    registry
}

#[tokio::test]
async fn nothing_is_shown_before_the_registry_asks_and_then_at_once() {
    let registry = HostileRegistry::builder()
        .passwords([Account::new("user", "password")])
        .start()
        .await
        .unwrap();
    image(&registry);
    let registries = Registries::new(options());
    for expected in [2, 1] {
        let session = open_in(&registries, &registry, login(&registry, "user", "password"));
        session.manifest(&tag("v1")).await.unwrap();
        assert_eq!(session.requests(), expected);
    }
    assert_eq!(
        registry
            .requests_that(&Matcher::any().authorized(false))
            .len(),
        1
    );
    registry.set_auth(Auth::None);
    registry.clear();
    open_with(&registry, options(), login(&registry, "user", "password"))
        .manifest(&tag("v1"))
        .await
        .unwrap();
    assert!(registry.with_credentials().is_empty());
}

#[tokio::test]
async fn one_token_serves_parallel_requests_and_later_sessions() {
    let registry = with_tokens().await;
    let registries = Registries::new(options());
    let session = open_in(&registries, &registry, login(&registry, "user", "password"));
    let reads = (0..20).map(|_| {
        let session = session.clone();
        tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
    assert_eq!(registry.count(Op::Token), 1, "{}", registry.transcript());
    registry.clear();
    let later = open_in(&registries, &registry, login(&registry, "user", "password"));
    later.manifest(&tag("v1")).await.unwrap();
    assert_eq!(later.requests(), 1, "{}", registry.transcript());
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_pass_is_renewed_once() {
    let registry = with_tokens().await;
    let session = open_with(&registry, options(), login(&registry, "user", "password"));
    session.manifest(&tag("v1")).await.unwrap();
    registry.issuer().revoke_all();
    registry.clear();
    let reads = (0..8).map(|_| {
        let session = session.clone();
        tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
    assert_eq!(registry.count(Op::Token), 1, "{}", registry.transcript());
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_before_it_ends() {
    let registry = with_tokens().await;
    registry
        .issuer()
        .terms(|terms| (terms.announced, terms.lifetime) = (Some(4), Some(Duration::from_secs(4))));
    let session = open_with(&registry, options(), login(&registry, "user", "password"));
    session.manifest(&tag("v1")).await.unwrap();
    // Three quarters of its lifetime.
    tokio::time::sleep(Duration::from_secs(3)).await;
    registry.clear();
    session.manifest(&tag("v1")).await.unwrap();
    let refused = registry
        .requests()
        .iter()
        .filter(|request| request.status() == Some(401))
        .count();
    assert_eq!(
        (registry.count(Op::Token), refused),
        (1, 0),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_long_token_is_used_and_one_beyond_the_limit_is_refused() {
    let registry = with_tokens().await;
    for (padding, expected) in [(7_000, true), (20_000, false), (900_000, false)] {
        registry.issuer().terms(|terms| terms.padding = padding);
        let read = open_with(&registry, options(), login(&registry, "user", "password"))
            .manifest(&tag("v1"))
            .await;
        if expected {
            read.unwrap();
        } else {
            refused(
                read,
                ErrorKind::LimitExceeded,
                &[
                    "GET token at",
                    "the answer is too large, in bytes (the limit is 16384)",
                ],
            );
        }
    }
}

#[tokio::test]
async fn delete_is_asked_for_only_when_something_is_deleted() {
    let registry = with_tokens().await;
    let image = digest(&registry.store().tag(NAME, "v1").unwrap());
    let session = open_with(&registry, options(), login(&registry, "user", "password"));
    let subject = registry
        .store()
        .manifest(NAME, &image.to_string())
        .unwrap()
        .descriptor();
    let (at, bytes) = attachment(&subject, "a");
    session.referrers(&image, None).await.unwrap();
    session
        .put_manifest(&by(&at), MANIFEST, bytes)
        .await
        .unwrap();
    let scopes = |registry: &HostileRegistry| -> Vec<String> {
        registry
            .requests_that(&Matcher::on(Op::Token))
            .iter()
            .filter_map(|request| request.parameter("scope"))
            .collect()
    };
    assert_eq!(
        scopes(&registry),
        [
            format!("repository:{NAME}:pull"),
            format!("repository:{NAME}:pull,push")
        ]
    );
    assert_eq!(session.delete_manifest(&at).await.unwrap(), Deletion::Done);
    assert_eq!(
        scopes(&registry).last().unwrap(),
        &format!("repository:{NAME}:pull,delete")
    );
}

#[tokio::test]
async fn every_form_of_login_and_of_token_answer_works() {
    let registry = with_tokens().await;
    for value in [
        json!({"auth": "dXNlcjpwYXNzd29yZA=="}),
        json!({"username": "user", "password": "password"}),
        json!({"identitytoken": "identity"}),
    ] {
        for form in [TokenForm::Both, TokenForm::Token, TokenForm::AccessToken] {
            registry.issuer().terms(|terms| terms.form = form);
            open_with(&registry, options(), config(&registry, &value))
                .manifest(&tag("v1"))
                .await
                .unwrap();
        }
    }
    registry
        .issuer()
        .terms(|terms| terms.exchange = Exchange::PostOnly(404));
    open_with(
        &registry,
        options(),
        config(&registry, &json!({"identitytoken": "identity"})),
    )
    .manifest(&tag("v1"))
    .await
    .unwrap();
    let request = registry
        .requests_that(&Matcher::on(Op::Token))
        .pop()
        .unwrap();
    assert_eq!(
        (
            request.form("grant_type").as_deref(),
            request.form("service")
        ),
        (Some("refresh_token"), Some(registry.host()))
    );
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let registry = with_tokens().await;
    let session = open_with(
        &registry,
        options(),
        config(&registry, &json!({"registrytoken": "given"})),
    );
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["HTTP 401", "the registry token for"],
    );
    assert_eq!(
        registry.requests()[0].header("authorization"),
        Some("Bearer given")
    );
    assert_eq!(registry.count(Op::Token), 0);
}

#[tokio::test]
async fn every_wording_of_a_challenge_is_understood() {
    let registry = with_tokens().await;
    for challenge in [
        Challenge::Full,
        Challenge::NoScope,
        Challenge::NoService,
        Challenge::AfterBasic,
        Challenge::Odd,
    ] {
        registry.set_auth(Auth::Bearer(
            Bearer::new(&registry.issuer()).challenge(challenge.clone()),
        ));
        let session = open_with(&registry, options(), login(&registry, "user", "password"));
        assert!(
            session.manifest(&tag("v1")).await.is_ok(),
            "{challenge:?}\n{}",
            registry.transcript()
        );
    }
    for challenge in [
        Challenge::None,
        Challenge::Raw("Bearer".to_owned()),
        Challenge::Raw("Negotiate".to_owned()),
    ] {
        registry.set_auth(Auth::Bearer(
            Bearer::new(&registry.issuer()).challenge(challenge),
        ));
        let session = open_with(&registry, options(), login(&registry, "user", "password"));
        refused(
            session.manifest(&tag("v1")).await,
            ErrorKind::AuthenticationFailed,
            &["HTTP 401", "were sent"],
        );
    }
}

#[tokio::test]
async fn wrong_missing_and_insufficient_logins_read_differently() {
    let registry = with_tokens().await;
    registry.issuer().terms(|terms| {
        terms
            .accounts
            .push(Account::new("reader", "password").allow("*", &[Action::Pull]));
    });
    let name = format!("{}/{NAME}", registry.host());
    let session = open_with(&registry, options(), access(&registry));
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &[
            "GET token at",
            "HTTP 401",
            &format!("(no login is configured for {name})"),
        ],
    );
    let session = open_with(&registry, options(), login(&registry, "user", "wrong"));
    let error = refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &[
            "HTTP 401",
            &format!("(the user name and password for {name} were sent)"),
        ],
    );
    assert!(error.status() == Some(401) && !error.is_transient());
    for denial in [Denial::InsufficientScope, Denial::Forbidden] {
        registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).denial(denial)));
        let session = open_with(&registry, options(), login(&registry, "reader", "password"));
        let (at, bytes) = attachment(
            &json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 2}),
            "a",
        );
        refused(
            session.put_manifest(&by(&at), MANIFEST, bytes).await,
            ErrorKind::AccessDenied,
            &["PUT manifest sha256:", "HTTP 40"],
        );
        assert!(session.manifest(&tag("v1")).await.is_ok());
    }
    registry.set_auth(Auth::Basic(
        vec![Account::new("user", "password")],
        Denial::Forbidden,
    ));
    registry.clear();
    let session = open_with(&registry, options(), login(&registry, "user", "wrong"));
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["HTTP 401"],
    );
    assert_eq!(
        registry.requests().len(),
        2,
        "a login that was refused is not sent again: {}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_token_service_that_answers_nonsense_is_an_error_and_is_not_quoted() {
    let registry = with_tokens().await;
    for form in [
        TokenForm::Neither,
        TokenForm::Empty,
        TokenForm::Raw("canary".to_owned()),
        TokenForm::Raw(r#"{"token":["canary"]}"#.to_owned()),
    ] {
        registry.issuer().terms(|terms| terms.form = form);
        let session = open_with(&registry, options(), login(&registry, "user", "password"));
        let error = refused(
            session.manifest(&tag("v1")).await,
            ErrorKind::RegistryUnavailable,
            &["GET token at", "the token service's answer"],
        );
        assert!(!error.to_string().contains("canary"));
    }
}

#[tokio::test]
async fn a_credential_helper_is_not_run_and_the_refusal_says_so() {
    let registry = with_tokens().await;
    let credentials = Keychain::parse(br#"{"credsStore":"desktop","auths":{}}"#).unwrap();
    let session = open_with(
        &registry,
        options(),
        Access {
            credentials,
            ..access(&registry)
        },
    );
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &["names a credential helper, which is not run"],
    );
}

#[tokio::test]
async fn odd_entries_of_a_docker_config_are_named_only_where_a_login_is_missing() {
    let registry = with_tokens().await;
    image(&registry);
    let open_as = |config: serde_json::Value| {
        let credentials = Keychain::parse(config.to_string().as_bytes()).unwrap();
        let access = Access {
            credentials,
            ..access(&registry)
        };
        Registries::new(options()).open(
            &registry.host().parse().unwrap(),
            &NAME.parse().unwrap(),
            access,
        )
    };
    let odd = serde_json::json!({"my_host:8082": {"auth": "dTpw"}, "https://": {"auth": "dTpw"}, "a b": {"auth": "dTpw"}, "": {"auth": "dTpw"}, "other.example.com": {"auth": "!"}});
    let mut auths = odd.clone();
    auths[registry.host()] = serde_json::json!({"username": "user", "password": "password"});
    let session = open_as(serde_json::json!({"auths": auths})).unwrap();
    session.manifest(&tag("v1")).await.unwrap();
    let session = open_as(serde_json::json!({"auths": odd})).unwrap();
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::AuthenticationFailed,
        &[
            "no login is configured for",
            "is skipped: it names no registry",
        ],
    );
    auths[registry.host()] = serde_json::json!({"auth": "!"});
    refused(
        open_as(serde_json::json!({"auths": auths})).map(|_| ()),
        ErrorKind::InvalidAccess,
        &[
            "the docker config cannot be used: the login of",
            "must be the base64 of user:password",
        ],
    );
}
