//! Workload identity: tokens of the real API server, exchanged at the endpoints of the clouds for logins of their registries.
//!
//! The clouds are servers of the tests, under the real names and with the shapes of the public documentation; `moto` is one of
//! them where it can be. Each checks what it receives, and the API server reviews the tokens.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use affix::api::Reason;
use affix_testbed::cloud::{Answer, Call, Cloud};
use affix_testbed::hostile::{Account, Auth, Bearer, Denial, HostileRegistry, Matcher, Op, Reply};
use affix_testbed::process::Launch;
use affix_testbed::tools::MOTO;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::Namespace;

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const ECR_API: &str = "api.ecr.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/affix";
const AWS_AUDIENCE: &str = "sts.amazonaws.com";

/// A namespace with a cloud, whose proxy and authority resources use.
struct World {
    namespace: Namespace,
    cloud: Cloud,
    /// The cloud's authority.
    ca_file: NamedTempFile,
}

impl World {
    async fn new(about: &str) -> Self {
        let namespace = Namespace::new(about).await;
        let cloud = Cloud::start().await.unwrap();
        namespace
            .secret("proxy", json!({"address": cloud.proxy()}))
            .await;
        let ca_file = NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), cloud.ca_pem()).unwrap();
        Self {
            namespace,
            cloud,
            ca_file,
        }
    }

    async fn account(&self, name: &str, annotations: Value) {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": annotations},
        });
        self.namespace.apply_object(account).await;
    }

    /// Starts the operator, which trusts the cloud's authority.
    async fn start(&self) -> Controller {
        let kubeconfig = self.namespace.plane.kubeconfig();
        self.start_as(&kubeconfig, "affix=debug,info").await
    }

    async fn start_as(&self, kubeconfig: &Path, log: &str) -> Controller {
        let env = [
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
            ("SSL_CERT_FILE", self.ca_file.path().to_str().unwrap()),
            ("RUST_LOG", log),
        ];
        Controller::start_in(&self.namespace, &["--enable-workload-identity"], &env).await
    }

    /// Applies a note on `team/app:TAG` of a registry.
    async fn attach(&self, name: &str, registry: &str, provider: &str, tag: &str) {
        let spec = with(
            note(&format!("{registry}/team/app:{tag}")),
            json!({
                "insecure": false, "provider": provider, "serviceAccountName": "builder",
                "proxySecretRef": {"name": "proxy"},
            }),
        );
        self.namespace.apply(name, spec).await;
    }

    /// Checks a token as the cloud does: the API server issued it for `builder` of this namespace, for this audience alone, and
    /// for 10 minutes.
    async fn check_token(&self, token: &str, audience: &str) {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.namespace.client.clone());
        let reviewed = api.create(&PostParams::default(), &review).await.unwrap();
        let status = reviewed.status.unwrap();
        assert_eq!(status.authenticated, Some(true), "{status:?}");
        let user = status.user.and_then(|user| user.username);
        let subject = format!("system:serviceaccount:{}:builder", self.namespace.name);
        assert_eq!(user.as_deref(), Some(&*subject));
        let claims = claims(token);
        assert_eq!(claims["aud"], json!([audience]));
        assert_eq!(claims["sub"], json!(subject));
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(life, 600, "{claims}");
    }
}

/// Returns the claims of a JWT.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn aws_annotations() -> Value {
    json!({"eks.amazonaws.com/role-arn": ROLE})
}

/// The answer of STS for a session.
fn sts_session(n: u64) -> Answer {
    Answer::new(
        200,
        format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <Credentials><AccessKeyId>ASIAEXAMPLE{n}</AccessKeyId><SecretAccessKey>c4n4ry-secret-{n}</SecretAccessKey>\
             <SessionToken>c4n4ry-session-{n}</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ),
    )
}

/// Serves STS and the API of ECR. Each login has a password of its own, which the registry accepts from then on, and no other.
fn serve_aws(world: &World, registry: &Arc<HostileRegistry>, lifetime: Duration) -> Arc<AtomicU64> {
    let logins = Arc::new(AtomicU64::new(0));
    let sessions = AtomicU64::new(0);
    world.cloud.service(STS, move |_| {
        sts_session(sessions.fetch_add(1, Ordering::SeqCst) + 1)
    });
    let (counted, accepting) = (Arc::clone(&logins), Arc::clone(registry));
    world.cloud.service(ECR_API, move |_| {
        let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let password = format!("c4n4ry-password-{n}");
        accepting.set_auth(Auth::Basic(
            vec![Account::new("AWS", &password)],
            Denial::Forbidden,
        ));
        let end = Timestamp::now() + SignedDuration::try_from(lifetime).unwrap();
        let token = STANDARD.encode(format!("AWS:{password}"));
        Answer::new(
            200,
            json!({"authorizationData": [{
                "authorizationToken": token, "expiresAt": end.as_millisecond() as f64 / 1000.0,
                "proxyEndpoint": format!("https://{ECR}"),
            }]})
            .to_string(),
        )
    });
    world.cloud.route(ECR, registry.address());
    logins
}

/// A registry that accepts nothing until a login is issued.
async fn closed_registry() -> Arc<HostileRegistry> {
    let nobody = Auth::Basic(vec![Account::new("AWS", "none")], Denial::Forbidden);
    Arc::new(
        HostileRegistry::builder()
            .auth(nobody)
            .start()
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn t27_a_token_of_the_service_account_becomes_a_login_to_ecr() {
    let world = World::new("ecr").await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    world.account("builder", aws_annotations()).await;
    let _controller = world.start().await;
    world.attach("ecr", ECR, "aws", "v1").await;
    let status = world.namespace.ready("ecr").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    assert_eq!(logins.load(Ordering::SeqCst), 1);

    let calls = world.cloud.calls(STS);
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(
        call.form("Action").as_deref(),
        Some("AssumeRoleWithWebIdentity")
    );
    assert_eq!(call.form("Version").as_deref(), Some("2011-06-15"));
    assert_eq!(call.form("RoleArn").as_deref(), Some(ROLE));
    let session = call.form("RoleSessionName").unwrap();
    assert!(session.starts_with("builder."), "{session}");
    world
        .check_token(&call.form("WebIdentityToken").unwrap(), AWS_AUDIENCE)
        .await;
    let calls = world.cloud.calls(ECR_API);
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(
        call.header("x-amz-target"),
        Some("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
    );
    assert_eq!(
        call.header("x-amz-security-token"),
        Some("c4n4ry-session-1")
    );
    let authorization = call.header("authorization").unwrap();
    let scope = "Credential=ASIAEXAMPLE1/";
    assert!(
        authorization.contains(scope) && authorization.contains("/eu-west-1/ecr/aws4_request"),
        "{authorization}"
    );
    // The token went to STS alone, and no other host was asked.
    let hosts = [ECR, ECR_API, STS].map(|host| format!("{host}:443"));
    assert_eq!(world.cloud.hosts(), hosts);
    world.namespace.check_rules().await;
}

#[tokio::test]
#[ignore = "needs moto, which is installed from Python's package index"]
async fn moto_accepts_the_exchange_and_issues_a_login() {
    let world = World::new("moto").await;
    let program = tokio::task::spawn_blocking(|| MOTO.ensure())
        .await
        .unwrap()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = affix_testbed::port::free().unwrap();
    let launch = Launch::new("moto", program, folder.path().join("log"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .env("HOME", folder.path());
    let mut moto = launch.start(&world.namespace.tools).unwrap();
    moto.wait_for(Duration::from_mins(2), "moto", |log| {
        log.contains("Running on").then_some(())
    })
    .await
    .unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    world.cloud.route(STS, address);
    world.cloud.route(ECR_API, address);
    // The login that moto issues to everyone.
    let login = format!("{}-auth-token", "123456789012");
    let accounts = vec![Account::new("AWS", &login)];
    let registry = HostileRegistry::builder()
        .auth(Auth::Basic(accounts, Denial::Forbidden))
        .start()
        .await
        .unwrap();
    host(&registry, "v1");
    world.cloud.route(ECR, registry.address());
    world.account("builder", aws_annotations()).await;
    let _controller = world.start().await;
    world.attach("moto", ECR, "aws", "v1").await;
    let status = world.namespace.ready("moto").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
}

#[tokio::test]
async fn ecr_public_is_asked_in_us_east_1() {
    let world = World::new("ecr-public").await;
    let accounts = [Account::new("AWS", "c4n4ry-password")];
    let registry = HostileRegistry::builder()
        .tokens(accounts)
        .start()
        .await
        .unwrap();
    let realm = "https://public.ecr.aws/token";
    registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).realm(realm)));
    host(&registry, "v1");
    world
        .cloud
        .service("sts.us-east-1.amazonaws.com", |_| sts_session(1));
    let api = "api.ecr-public.us-east-1.amazonaws.com";
    world.cloud.service(api, |_| {
        let end = Timestamp::now().as_second() + 43_200;
        let token = STANDARD.encode("AWS:c4n4ry-password");
        let data = json!({"authorizationToken": token, "expiresAt": end});
        Answer::new(200, json!({"authorizationData": data}).to_string())
    });
    world.cloud.route("public.ecr.aws", registry.address());
    world.account("builder", aws_annotations()).await;
    let _controller = world.start().await;
    world.attach("public", "public.ecr.aws", "aws", "v1").await;
    let status = world.namespace.ready("public").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    let calls = world.cloud.calls(api);
    let authorization = calls[0].header("authorization").unwrap();
    assert!(
        authorization.contains("/us-east-1/ecr-public/aws4_request"),
        "{authorization}"
    );
    assert_eq!(
        calls[0].header("x-amz-target"),
        Some("SpencerFrontendService.GetAuthorizationToken")
    );
}

#[tokio::test]
async fn a_federated_credential_of_entra_becomes_a_login_to_acr() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
    const ACR: &str = "team.azurecr.io";
    let world = World::new("acr").await;
    // A refresh token, as ACR issues it.
    let end = Timestamp::now().as_second() + 10_800;
    let refresh = format!(
        "e30.{}.c4n4ry",
        URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{end}}}"#))
    );
    let user = "00000000-0000-0000-0000-000000000000";
    let registry = HostileRegistry::builder()
        .tokens([Account::new(user, &refresh)])
        .start()
        .await
        .unwrap();
    let realm = format!("https://{ACR}/token");
    registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).realm(realm)));
    host(&registry, "v1");
    world.cloud.service("login.microsoftonline.com", |_| {
        Answer::new(
            200,
            json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "c4n4ry-access"})
                .to_string(),
        )
    });
    let exchange = Matcher::any().path("/oauth2/exchange");
    let answer = json!({"refresh_token": refresh}).to_string();
    registry.fault(
        exchange.clone(),
        Reply::body(200, "application/json", answer),
    );
    world.cloud.route(ACR, registry.address());
    world
        .account(
            "builder",
            json!({"azure.workload.identity/client-id": CLIENT, "azure.workload.identity/tenant-id": TENANT}),
        )
        .await;
    let _controller = world.start().await;
    world.attach("acr", ACR, "azure", "v1").await;
    let status = world.namespace.ready("acr").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));

    let calls = world.cloud.calls("login.microsoftonline.com");
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(call.path, format!("/{TENANT}/oauth2/v2.0/token"));
    for (field, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("scope", "https://containerregistry.azure.net/.default"),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
    ] {
        assert_eq!(call.form(field).as_deref(), Some(value));
    }
    let token = call.form("client_assertion").unwrap();
    world
        .check_token(&token, "api://AzureADTokenExchange")
        .await;
    let exchanges = registry.requests_that(&exchange);
    let [exchange] = &exchanges[..] else {
        panic!("{exchanges:?}")
    };
    for (field, value) in [
        ("grant_type", "access_token"),
        ("service", ACR),
        ("tenant", TENANT),
        ("access_token", "c4n4ry-access"),
    ] {
        assert_eq!(exchange.form(field).as_deref(), Some(value));
    }
    // The registry never sees the token of the ServiceAccount.
    assert!(!registry.transcript().contains(&token));
}

#[tokio::test]
async fn a_google_identity_logs_in_directly_and_by_impersonation() {
    const GAR: &str = "europe-docker.pkg.dev";
    const EMAIL: &str = "affix@team-1.iam.gserviceaccount.com";
    const PROVIDER: &str =
        "projects/12345/locations/global/workloadIdentityPools/pool/providers/cluster";
    const STS: &str = "sts.googleapis.com";
    const IAM: &str = "iamcredentials.googleapis.com";
    let world = World::new("gar").await;
    let accounts = ["c4n4ry-federated", "c4n4ry-impersonated"]
        .map(|password| Account::new("oauth2accesstoken", password));
    let registry = HostileRegistry::builder()
        .tokens(accounts)
        .start()
        .await
        .unwrap();
    let realm = format!("https://{GAR}/token");
    registry.set_auth(Auth::Bearer(Bearer::new(&registry.issuer()).realm(realm)));
    host(&registry, "v1");
    host(&registry, "v2");
    world.cloud.route(GAR, registry.address());
    world.cloud.service(STS, |_| {
        Answer::new(
            200,
            json!({
                "access_token": "c4n4ry-federated", "expires_in": 3600, "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            })
            .to_string(),
        )
    });
    world.cloud.service(IAM, |_| {
        let end = Timestamp::now() + SignedDuration::from_hours(1);
        let answer = json!({"accessToken": "c4n4ry-impersonated", "expireTime": end.to_string()});
        Answer::new(200, answer.to_string())
    });
    let direct = json!({"gcp.auth.fluxcd.io/workload-identity-provider": PROVIDER});
    world.account("builder", direct.clone()).await;
    let _controller = world.start().await;
    world.attach("direct", GAR, "gcp", "v1").await;
    world.namespace.ready("direct").await;
    let calls = world.cloud.calls(STS);
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    let audience = format!("//iam.googleapis.com/{PROVIDER}");
    for (field, value) in [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", &audience),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
    ] {
        assert_eq!(call.form(field).as_deref(), Some(value));
    }
    let token = call.form("subject_token").unwrap();
    world.check_token(&token, &audience).await;
    assert!(world.cloud.calls(IAM).is_empty());

    // A changed annotation ends the login, for resources that nobody touched too.
    let mut impersonating = direct;
    impersonating["iam.gke.io/gcp-service-account"] = json!(EMAIL);
    world.account("builder", impersonating).await;
    world.attach("impersonated", GAR, "gcp", "v2").await;
    world.namespace.ready("impersonated").await;
    let calls = world.cloud.calls(IAM);
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    let path = format!("/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken");
    assert_eq!(call.path, path);
    assert_eq!(
        call.header("authorization"),
        Some("Bearer c4n4ry-federated")
    );
    assert_eq!(world.cloud.calls(STS).len(), 2);
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn an_account_without_the_cloud_s_annotations_is_told_which() {
    let world = World::new("unannotated").await;
    world.account("builder", json!({})).await;
    let registry = closed_registry().await;
    for host in [ECR, "team.azurecr.io", "europe-docker.pkg.dev"] {
        world.cloud.route(host, registry.address());
    }
    let _controller = world.start().await;
    for (provider, host, annotation) in [
        ("aws", ECR, "eks.amazonaws.com/role-arn"),
        (
            "azure",
            "team.azurecr.io",
            "azure.workload.identity/tenant-id",
        ),
        (
            "gcp",
            "europe-docker.pkg.dev",
            "gcp.auth.fluxcd.io/workload-identity-provider",
        ),
    ] {
        world.attach(provider, host, provider, "v1").await;
        let message = world
            .namespace
            .refused(provider, Reason::IdentityRefused)
            .await;
        let start: String = message.chars().take(100).collect();
        assert!(start.contains(annotation), "{message}");
    }
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn t27_a_refusal_stands_in_the_condition_and_no_redirect_is_followed() {
    let world = World::new("refusing").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    // As STS answers where the trust policy of the role names another account. It repeats the token.
    world.cloud.service(STS, |call| {
        let token = call.form("WebIdentityToken").unwrap_or_default();
        Answer::new(
            403,
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform \
                 sts:AssumeRoleWithWebIdentity {token}</Message></Error><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId>\
                 </ErrorResponse>"
            ),
        )
    });
    let controller = world.start().await;
    world.attach("refused", ECR, "aws", "v1").await;
    let message = world
        .namespace
        .refused("refused", Reason::IdentityRefused)
        .await;
    for part in [
        STS,
        ROLE,
        "HTTP 403: AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let token = world.cloud.calls(STS)[0].form("WebIdentityToken").unwrap();
    let signature = token.rsplit('.').next().unwrap();
    assert!(!message.contains(signature) && !controller.log().contains(signature));
    // A redirect of a cloud is an answer, and the token does not follow it.
    world
        .cloud
        .service("elsewhere.example.com", |_| sts_session(9));
    world.cloud.service(STS, |_| Answer {
        location: Some("https://elsewhere.example.com/".to_owned()),
        ..Answer::new(307, "")
    });
    world
        .namespace
        .wait("refused", "told of the redirect", |object| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.message.contains("HTTP 307"))
        })
        .await;
    assert!(world.cloud.calls("elsewhere.example.com").is_empty());
    assert_eq!(logins.load(Ordering::SeqCst), 0);
    // The trust policy is corrected, and nobody touches the resource.
    let sessions = AtomicU64::new(0);
    world.cloud.service(STS, move |_| {
        sts_session(sessions.fetch_add(1, Ordering::SeqCst) + 1)
    });
    world.namespace.ready("refused").await;
    world.namespace.check_rules().await;
}

#[tokio::test]
async fn a_login_that_ends_in_the_middle_of_a_pass_is_replaced_in_that_pass() {
    let world = World::new("expiry").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    // Two answers are slow, so that the login has an age at which it may be replaced. Then the registry stops to accept it.
    let index = Matcher::on(Op::ManifestGet).authorized(true).times(1);
    registry.on_request(index, |_| tokio::time::sleep(Duration::from_secs(6)));
    let revoked = Arc::clone(&registry);
    let listing = Matcher::on(Op::ReferrersList).authorized(true).times(1);
    registry.on_request(listing, move |_| {
        let revoked = Arc::clone(&revoked);
        async move {
            tokio::time::sleep(Duration::from_secs(6)).await;
            let nobody = vec![Account::new("AWS", "c4n4ry-other")];
            revoked.set_auth(Auth::Basic(nobody, Denial::Forbidden));
        }
    });
    let _controller = world.start().await;
    world.attach("expiring", ECR, "aws", "v1").await;
    let status = world.namespace.ready("expiring").await;
    assert_eq!(status.attached.as_deref(), Some("3/3"));
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    let events = world.namespace.events("expiring").await;
    assert!(
        events.iter().all(|(kind, ..)| kind == "Normal"),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_thousand_resources_of_one_identity_need_one_login() {
    const COUNT: usize = 1000;
    let world = World::new("thousand").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    for n in 0..COUNT {
        world.attach(&format!("one-{n}"), ECR, "aws", "v1").await;
    }
    let _controller = world.start().await;
    for n in 0..COUNT {
        world.namespace.ready(&format!("one-{n}")).await;
    }
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    assert_eq!(world.cloud.calls(STS).len(), 1);
    // The same name with another UID is another identity.
    let accounts: Api<ServiceAccount> =
        Api::namespaced(world.namespace.client.clone(), &world.namespace.name);
    accounts
        .delete("builder", &DeleteParams::default())
        .await
        .unwrap();
    world.account("builder", aws_annotations()).await;
    world.namespace.request("one-0", "again").await;
    world.namespace.ready("one-0").await;
    assert_eq!(world.cloud.calls(STS).len(), 2);
}

#[tokio::test]
async fn t28_workload_identity_is_off_by_default() {
    let world = World::new("off").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    let _logins = serve_aws(&world, &registry, Duration::from_hours(12));
    let _controller = Controller::start(&world.namespace).await;
    world.attach("off", ECR, "aws", "v1").await;
    let message = world.namespace.refused("off", Reason::InvalidSpec).await;
    assert!(message.contains("--enable-workload-identity"), "{message}");
    assert!(world.cloud.hosts().is_empty(), "{:?}", world.cloud.hosts());
}

#[tokio::test]
async fn t28_a_missing_right_is_named_in_the_condition() {
    let world = World::new("rights").await;
    world.account("builder", aws_annotations()).await;
    world.account("affix", json!({})).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    let rules = |accounts: &[&str], tokens: &[&str]| {
        let mut rules = json!([
            {"apiGroups": ["affix.dev"], "resources": ["imageattachments", "imageattachments/status"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        ]);
        let list = rules.as_array_mut().unwrap();
        for (resource, verbs) in [
            ("serviceaccounts", accounts),
            ("serviceaccounts/token", tokens),
        ] {
            if !verbs.is_empty() {
                list.push(json!({"apiGroups": [""], "resources": [resource], "verbs": verbs}));
            }
        }
        rules
    };
    world.namespace.apply_rbac(rules(&[], &["create"])).await;
    let kubeconfig = world
        .namespace
        .plane
        .service_account_kubeconfig(&world.namespace.name, "affix")
        .await
        .unwrap();
    let _controller = world.start_as(&kubeconfig, "affix=debug,info").await;
    world.attach("rights", ECR, "aws", "v1").await;
    let message = world
        .namespace
        .refused("rights", Reason::SecretNotFound)
        .await;
    assert!(
        message.contains("cannot get resource \"serviceaccounts\""),
        "{message}"
    );
    world.namespace.apply_rbac(rules(&["get"], &[])).await;
    let message = world
        .namespace
        .refused("rights", Reason::IdentityRefused)
        .await;
    assert!(
        message.contains("the right create on serviceaccounts/token")
            && message.contains(&format!("in the namespace {}", world.namespace.name))
            && message.contains("rbac.serviceAccountTokens"),
        "{message}"
    );
    assert_eq!(logins.load(Ordering::SeqCst), 0);
    world
        .namespace
        .apply_rbac(rules(&["get"], &["create"]))
        .await;
    world.namespace.ready("rights").await;
}

#[tokio::test]
async fn t27_t11_no_token_of_an_exchange_leaves_affix_elsewhere() {
    let world = World::new("canary").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let _logins = serve_aws(&world, &registry, Duration::from_hours(12));
    let kubeconfig = world.namespace.plane.kubeconfig();
    let controller = world.start_as(&kubeconfig, "trace").await;
    world.attach("good", ECR, "aws", "v1").await;
    world.namespace.ready("good").await;
    // Each service repeats its request in an error.
    let echo = |call: &Call| {
        let headers: Vec<_> = call
            .headers
            .values()
            .map(|value| format!("{value:?}"))
            .collect();
        format!("{} {}", call.body, headers.join(" "))
    };
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    for (n, (host, status)) in [(STS, 400), (STS, 503), (ECR_API, 400), (ECR_API, 503)]
        .into_iter()
        .enumerate()
    {
        world.cloud.service(STS, |_| sts_session(7));
        let seen = Arc::clone(&tokens);
        world.cloud.service(host, move |call| {
            seen.lock().unwrap().extend(call.form("WebIdentityToken"));
            let text = echo(call);
            let xml = format!("<Error><Code>X</Code><Message>{text}</Message></Error>");
            let json =
                json!({"__type": "X", "message": text, "errors": [{"code": "X", "message": text}]});
            let body = if host == STS { xml } else { json.to_string() };
            Answer::new(status, body)
        });
        // Another role is another login.
        let role = json!({"eks.amazonaws.com/role-arn": format!("{ROLE}-{n}")});
        world.account("builder", role).await;
        let name = format!("bad-{n}");
        world.attach(&name, ECR, "aws", "v1").await;
        let reason = if status == 400 {
            Reason::IdentityRefused
        } else {
            Reason::RegistryUnavailable
        };
        world.namespace.refused(&name, reason).await;
    }
    let mut leaving = vec![controller.log(), controller.metrics().await];
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(world.namespace.client.clone(), &world.namespace.name);
    for event in events.list(&ListParams::default()).await.unwrap() {
        leaving.push(serde_json::to_string(&event).unwrap());
    }
    for object in world
        .namespace
        .attachments()
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        leaving.push(serde_json::to_string(&object).unwrap());
    }
    let issued = world.cloud.calls(STS);
    let mut signatures: Vec<String> = issued
        .iter()
        .filter_map(|call| call.form("WebIdentityToken"))
        .chain(tokens.lock().unwrap().clone())
        .map(|token| token.rsplit('.').next().unwrap().to_owned())
        .collect();
    signatures.sort();
    signatures.dedup();
    assert!(signatures.len() > 2, "{signatures:?}");
    for text in &leaving {
        assert_eq!(crate::canary::leak(text), None);
        for signature in &signatures {
            let found = text.lines().find(|line| line.contains(signature));
            assert_eq!(
                found.map(|line| line.chars().take(500).collect::<String>()),
                None
            );
        }
    }
    // No token in a request to the registry, or to ECR.
    let other = format!("{}{:?}", registry.transcript(), world.cloud.calls(ECR_API));
    assert!(
        signatures
            .iter()
            .all(|signature| !other.contains(signature))
    );
}

#[tokio::test]
async fn t27_an_authority_of_the_resource_cannot_stand_in_for_a_cloud() {
    let world = World::new("impostor").await;
    world.account("builder", aws_annotations()).await;
    let registry = closed_registry().await;
    host(&registry, "v1");
    let logins = serve_aws(&world, &registry, Duration::from_hours(12));
    world
        .namespace
        .secret("ca", json!({"ca.crt": world.cloud.ca_pem()}))
        .await;
    // The operator does not trust the authority that the author of the resource brings, nor the proxy behind it.
    let _controller =
        Controller::start_with(&world.namespace, &["--enable-workload-identity"]).await;
    let spec = with(
        note(&format!("{ECR}/team/app:v1")),
        json!({
            "insecure": false, "provider": "aws", "serviceAccountName": "builder",
            "proxySecretRef": {"name": "proxy"}, "certSecretRef": {"name": "ca"},
        }),
    );
    world.namespace.apply("impostor", spec).await;
    let message = world
        .namespace
        .refused("impostor", Reason::CertificateInvalid)
        .await;
    assert!(message.contains(STS), "{message}");
    assert!(world.cloud.calls(STS).is_empty() && logins.load(Ordering::SeqCst) == 0);
}
