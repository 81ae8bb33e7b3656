//! Passwords, tokens, challenges and refusals.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use super::client::{Client, NAME, Seen};
use crate::hostile::{
    Account, Action, Auth, Bearer, Challenge, Denial, Exchange, HostileRegistry, Issuer, Matcher,
    Op, Reply, TokenForm,
};

const V1: &str = "/v2/team/app/manifests/v1";
const PULL: &str = "scope=repository:team/app:pull";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn with_tokens() -> (HostileRegistry, Client) {
    let accounts = [
        Account::new("writer", "secret").identity_token("identity"),
        Account::new("reader", "secret").allow("team/*", &[Action::Pull]),
    ];
    let registry = HostileRegistry::builder()
        .tokens(accounts)
        .start()
        .await
        .unwrap();
    registry.image(NAME, "v1").platform("linux/amd64").push();
    let client = Client::new(&registry);
    (registry, client)
}

impl Client {
    async fn as_user(&self, method: Method, path: &str, authorization: &str) -> Seen {
        self.send(method, path, &[("authorization", authorization)], "")
            .await
    }

    async fn token(&self, user: &str, query: &str) -> String {
        let seen = self
            .as_user(
                Method::GET,
                &format!("/token?{query}"),
                &basic(user, "secret"),
            )
            .await;
        assert_eq!(seen.status, 200, "{seen:?}");
        format!("Bearer {}", seen.json()["token"].as_str().unwrap())
    }

    async fn form(&self, form: &'static str) -> Seen {
        self.send(
            Method::POST,
            "/token",
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        )
        .await
    }
}

#[tokio::test]
async fn a_password_is_asked_for_and_checked() {
    let reader = Account::new("reader", "se:cret").allow("team/app", &[Action::Pull]);
    let registry = HostileRegistry::builder()
        .passwords([reader])
        .start()
        .await
        .unwrap();
    registry.image(NAME, "v1").platform("linux/amd64").push();
    let client = Client::new(&registry);
    let without = client.get(V1).await;
    assert_eq!(
        (without.status.as_u16(), without.code()),
        (401, "UNAUTHORIZED".to_owned())
    );
    assert_eq!(
        without.header("www-authenticate"),
        Some("Basic realm=\"registry\"")
    );
    assert_eq!(
        client
            .as_user(Method::GET, V1, &basic("reader", "wrong"))
            .await
            .status,
        401
    );
    let good = basic("reader", "se:cret");
    assert_eq!(client.as_user(Method::GET, V1, &good).await.status, 200);
    assert_eq!(client.as_user(Method::GET, "/v2/", &good).await.status, 200);
    let denied = client.as_user(Method::DELETE, V1, &good).await;
    assert_eq!(
        (denied.status.as_u16(), denied.code()),
        (403, "DENIED".to_owned())
    );
    assert_eq!(
        client
            .as_user(Method::GET, "/v2/other/manifests/v1", &good)
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_token_is_good_for_what_it_was_asked_for() {
    let (registry, client) = with_tokens().await;
    let without = client.get(V1).await;
    let expected = format!(
        "Bearer realm=\"{}/token\",service=\"{}\",scope=\"repository:{NAME}:pull\"",
        registry.url(),
        registry.host()
    );
    assert_eq!(
        (without.status.as_u16(), without.header("www-authenticate")),
        (401, Some(&*expected))
    );
    let pull = client.token("writer", PULL).await;
    assert_eq!(client.as_user(Method::GET, V1, &pull).await.status, 200);
    let push = client
        .as_user(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), &pull)
        .await;
    let challenge = push.header("www-authenticate").unwrap();
    assert_eq!(push.status, 401);
    assert!(
        challenge.ends_with("scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""),
        "{challenge}"
    );
    let both = client
        .token("writer", "scope=repository:team/app:pull,push")
        .await;
    assert_eq!(
        client
            .as_user(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), &both)
            .await
            .status,
        202
    );
    let delete = client.as_user(Method::DELETE, V1, &both).await;
    assert!(
        delete
            .header("www-authenticate")
            .unwrap()
            .contains("scope=\"repository:team/app:delete\"")
    );
    let delete = client
        .token(
            "writer",
            "scope=repository:other:pull&scope=repository:team/app:delete",
        )
        .await;
    assert_eq!(
        client.as_user(Method::DELETE, V1, &delete).await.status,
        202
    );
    assert_eq!(
        (registry.issuer().issued(), registry.count(Op::Token)),
        (3, 3)
    );
}

#[tokio::test]
async fn a_refusal_is_worded_in_three_ways() {
    let (registry, client) = with_tokens().await;
    let token = client
        .token("reader", "scope=repository:team/app:pull,push")
        .await;
    let ways = [
        (Denial::InsufficientScope, 401),
        (Denial::Forbidden, 403),
        (Denial::Hidden, 404),
    ];
    for (denial, status) in ways {
        registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).denial(denial)));
        assert_eq!(
            client
                .as_user(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), &token)
                .await
                .status,
            status
        );
    }
}

#[tokio::test]
async fn a_token_ends_in_the_middle() {
    let (registry, client) = with_tokens().await;
    registry.issuer().terms(|terms| terms.uses = Some(2));
    let token = client.token("writer", PULL).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(
            client
                .as_user(Method::GET, V1, &token)
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(seen, [200, 200, 401]);
    let refused = client.as_user(Method::GET, V1, &token).await;
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .ends_with("error=\"invalid_token\"")
    );
    registry
        .issuer()
        .terms(|terms| (terms.uses, terms.lifetime) = (None, Some(Duration::from_secs(3))));
    let token = client.token("writer", PULL).await;
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 200);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 401);
    registry.issuer().terms(|terms| terms.lifetime = None);
    let token = client.token("writer", PULL).await;
    registry.issuer().revoke_all();
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 401);
}

#[tokio::test]
async fn an_answer_with_a_token_has_every_form() {
    let (registry, client) = with_tokens().await;
    let ways = [
        (
            TokenForm::Both,
            json!(["access_token", "expires_in", "token"]),
        ),
        (TokenForm::Token, json!(["expires_in", "token"])),
        (
            TokenForm::AccessToken,
            json!(["access_token", "expires_in"]),
        ),
        (TokenForm::Neither, json!(["expires_in"])),
    ];
    for (form, fields) in ways {
        registry.issuer().terms(|terms| terms.form = form);
        let seen = client
            .as_user(Method::GET, "/token", &basic("writer", "secret"))
            .await
            .json();
        assert_eq!(
            json!(seen.as_object().unwrap().keys().collect::<Vec<_>>()),
            fields
        );
    }
    registry
        .issuer()
        .terms(|terms| (terms.form, terms.announced) = (TokenForm::Empty, None));
    let seen = client
        .as_user(Method::GET, "/token", &basic("writer", "secret"))
        .await;
    assert_eq!(seen.json(), json!({"token": ""}));
    registry
        .issuer()
        .terms(|terms| (terms.form, terms.padding) = (TokenForm::Token, 100_000));
    assert!(client.token("writer", PULL).await.len() > 100_000);
    registry
        .issuer()
        .terms(|terms| terms.form = TokenForm::Raw("<html>".to_owned()));
    assert_eq!(
        client
            .as_user(Method::GET, "/token", &basic("writer", "secret"))
            .await
            .text(),
        "<html>"
    );
    registry.fault(Matcher::on(Op::Token), Reply::status(503));
    assert_eq!(
        client
            .as_user(Method::GET, "/token", &basic("writer", "secret"))
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn a_token_is_had_by_post_with_a_password_or_a_refresh_token() {
    let (registry, client) = with_tokens().await;
    registry.issuer().terms(|terms| terms.refresh_token = true);
    let refreshed =
        client.form("grant_type=refresh_token&refresh_token=identity&service=x&client_id=y&scope=repository%3Ateam%2Fapp%3Apull").await;
    assert_eq!(
        (
            refreshed.status.as_u16(),
            refreshed.json()["refresh_token"].as_str()
        ),
        (200, Some("identity"))
    );
    let token = format!(
        "Bearer {}",
        refreshed.json()["access_token"].as_str().unwrap()
    );
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 200);
    let by_password = client
        .form("grant_type=password&username=reader&password=secret&scope=repository:team/app:pull")
        .await;
    assert_eq!(by_password.status, 200);
    assert_eq!(
        client
            .form("grant_type=refresh_token&refresh_token=other")
            .await
            .status,
        401
    );
    assert_eq!(
        registry
            .with_credentials()
            .iter()
            .filter(|request| request.op == Op::Token)
            .count(),
        3
    );
    registry
        .issuer()
        .terms(|terms| terms.exchange = Exchange::GetOnly(405));
    assert_eq!(
        client
            .form("grant_type=refresh_token&refresh_token=identity")
            .await
            .status,
        405
    );
    assert!(
        client
            .token("writer", PULL)
            .await
            .starts_with("Bearer token-")
    );
    registry
        .issuer()
        .terms(|terms| terms.exchange = Exchange::PostOnly(404));
    assert_eq!(client.get("/token").await.status, 404);
}

#[tokio::test]
async fn somebody_without_an_account_gets_what_everybody_gets() {
    let (registry, client) = with_tokens().await;
    assert_eq!(client.get(&format!("/token?{PULL}")).await.status, 401);
    registry
        .issuer()
        .terms(|terms| terms.anonymous = Some(Account::new("", "").allow("*", &[Action::Pull])));
    let seen = client
        .get("/token?scope=repository:team/app:pull,push")
        .await;
    let token = format!("Bearer {}", seen.json()["token"].as_str().unwrap());
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 200);
    assert_eq!(client.as_user(Method::DELETE, V1, &token).await.status, 401);
    registry
        .issuer()
        .terms(|terms| terms.withheld = vec![Action::Pull]);
    let withheld = client.token("writer", PULL).await;
    assert_eq!(client.as_user(Method::GET, V1, &withheld).await.status, 401);
}

#[tokio::test]
async fn the_realm_is_on_another_host() {
    let issuer = Issuer::default();
    issuer.terms(|terms| terms.accounts.push(Account::new("writer", "secret")));
    let tokens = HostileRegistry::builder()
        .issuer(&issuer)
        .start()
        .await
        .unwrap();
    let auth = Auth::Bearer(Bearer::new(&issuer).realm(tokens.token_url()));
    let registry = HostileRegistry::builder().auth(auth).start().await.unwrap();
    registry.image(NAME, "v1").platform("linux/amd64").push();
    let client = Client::new(&registry);
    let challenge = client
        .get(V1)
        .await
        .header("www-authenticate")
        .unwrap()
        .to_owned();
    assert!(
        challenge.contains(&format!("realm=\"{}/token\"", tokens.url())),
        "{challenge}"
    );
    let seen = client
        .as_user(
            Method::GET,
            &format!("{}?{PULL}", tokens.token_url()),
            &basic("writer", "secret"),
        )
        .await;
    let token = format!("Bearer {}", seen.json()["token"].as_str().unwrap());
    assert_eq!(client.as_user(Method::GET, V1, &token).await.status, 200);
    assert_eq!(
        (
            tokens.with_credentials().len(),
            registry.with_credentials().len()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_challenge_is_worded_in_every_way() {
    let (registry, client) = with_tokens().await;
    let url = registry.url();
    let host = registry.host();
    let ways = [
        (
            Challenge::NoScope,
            Some(format!("Bearer realm=\"{url}/token\",service=\"{host}\"")),
        ),
        (
            Challenge::NoService,
            Some(format!(
                "Bearer realm=\"{url}/token\",scope=\"repository:team/app:pull\""
            )),
        ),
        (
            Challenge::AfterBasic,
            Some(format!(
                "Basic realm=\"a, \\\"b\\\"\", Bearer realm=\"{url}/token\",service=\"{host}\",scope=\"repository:team/app:pull\""
            )),
        ),
        (
            Challenge::Odd,
            Some(format!(
                "bearer  SERVICE = \"{host}\" , x=token , Realm=\"{url}\\/token\" ,\tScope=\"repository:team/app:pull\""
            )),
        ),
        (
            Challenge::Raw("Bearer".to_owned()),
            Some("Bearer".to_owned()),
        ),
        (Challenge::None, None),
    ];
    for (challenge, expected) in ways {
        registry.set_auth(Auth::Bearer(
            Bearer::new(&registry.issuer()).challenge(challenge),
        ));
        let seen = client.get(V1).await;
        assert_eq!(
            (seen.status.as_u16(), seen.header("www-authenticate")),
            (401, expected.as_deref())
        );
    }
}
