//! The logins of the user: the files of docker and podman, and credential helpers.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use affix_testbed::cloud::Cloud;
use affix_testbed::registry::Registry;
use affix_testbed::run::Ran;
use affix_testbed::tools::Tool;
use serde_json::json;

use super::fixture::{Fixture, code};

async fn private_registry() -> Fixture {
    Fixture::with(|tools| Registry::distribution(tools).basic("alice", "secret")).await
}

/// Writes a credential helper for one server, and returns the PATH with it.
fn helper(fixture: &Fixture, name: &str, script: &str) -> String {
    let path = fixture.file(&format!("bin/docker-credential-{name}"), script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = path.rsplit_once('/').unwrap().0;
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

/// Returns a script that knows the password of one server.
fn knows(server: &str) -> String {
    format!(
        "#!/bin/sh\nread -r server\n[ \"$1\" = get ] || exit 2\nif [ \"$server\" = '{server}' ]; then\n  \
         echo '{{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"secret\"}}'\nelse\n  \
         echo 'credentials not found in native keychain'; exit 1\nfi\n"
    )
}

async fn tree(fixture: &Fixture, environment: &[(&str, &str)]) -> Ran {
    let image = fixture.image.tagged();
    let mut run = fixture.run(&["tree", "--plain-http", &image]);
    for (name, value) in environment {
        run = run.env(*name, *value);
    }
    run.output().await.unwrap()
}

#[tokio::test]
async fn a_credential_helper_of_the_user_gives_the_login() {
    let fixture = private_registry().await;
    let host = fixture.registry.host();
    for config in [
        json!({"credsStore": "test"}),
        json!({"credsStore": "test", "auths": {host: {}}}),
        json!({"credHelpers": {host: "test"}}),
        json!({"credHelpers": {host: "test"}, "credsStore": "absent"}),
    ] {
        fixture.file(".docker/config.json", &config.to_string());
        let path = helper(&fixture, "test", &knows(host));
        let listed = tree(&fixture, &[("PATH", &path)]).await;
        assert_eq!(code(&listed), 0, "{config}: {}{}", listed.out, listed.err);
        let absent = tree(&fixture, &[]).await;
        assert_eq!(code(&absent), 1, "{config}: {}{}", absent.out, absent.err);
        assert!(
            absent
                .err
                .contains("docker-credential-test is not on the PATH"),
            "{}",
            absent.err
        );
        assert!(!listed.err.contains("secret"), "{}", listed.err);
    }
}

#[tokio::test]
async fn odd_entries_of_the_users_files_spoil_no_login() {
    let fixture = private_registry().await;
    let host = fixture.registry.host();
    let login = json!({"username": "alice", "password": "secret"});
    let config = json!({"auths": {host: login}}).to_string();
    fixture.file(".docker/config.json", &format!("\u{feff}{config}"));
    let listed = tree(&fixture, &[]).await;
    assert_eq!(code(&listed), 0, "{}{}", listed.out, listed.err);
    assert!(listed.err.is_empty(), "{}", listed.err);
    // An empty name selects the logins of the file, as with docker.
    let config = json!({"auths": {host: login}, "credsStore": "absent",
        "credHelpers": {host: "", "other.example.com": 7}});
    fixture.file(".docker/config.json", &config.to_string());
    let listed = tree(&fixture, &[]).await;
    assert_eq!(code(&listed), 0, "{}{}", listed.out, listed.err);
    assert!(
        listed
            .err
            .contains("the credential helper of \"other.example.com\"")
            && !listed.err.contains("docker-credential-absent"),
        "{}",
        listed.err
    );
}

/// Reads the image with the other tools, and returns those that could.
async fn others(fixture: &Fixture, environment: &[(&str, &str)]) -> Vec<&'static str> {
    let image = fixture.image.tagged();
    let host = format!("reg={},tls=disabled", fixture.registry.host());
    let mut could = Vec::new();
    for (name, tool, args) in [
        (
            "oras",
            Tool::Oras,
            vec!["manifest", "fetch", "--descriptor", "--plain-http", &image],
        ),
        ("crane", Tool::Crane, vec!["digest", "--insecure", &image]),
        (
            "regctl",
            Tool::Regctl,
            vec!["--host", &host, "manifest", "head", &image],
        ),
    ] {
        let run = environment
            .iter()
            .fold(fixture.tool(tool, &args), |run, (name, value)| {
                run.env(*name, *value)
            });
        if code(&run.output().await.unwrap()) == 0 {
            could.push(name);
        }
    }
    could
}

#[tokio::test]
async fn a_login_that_another_tool_reads_is_read() {
    let fixture = private_registry().await;
    let host = fixture.registry.host();
    let path = helper(&fixture, "test", &knows(host));
    let login = json!({"username": "alice", "password": "secret"});
    let auth = json!({"auth": "YWxpY2U6c2VjcmV0"});
    let odd = json!({"auth": "%%%"});
    for config in [
        json!({"credsStore": "test"}),
        json!({"credHelpers": {host: "test"}}),
        json!({"credsStore": "test", "auths": {host: {}}}),
        json!({"auths": {host: login}}),
        json!({"auths": {host: auth}}),
        json!({"auths": {host: auth, "my_host:8082": login, "a b": login, "https://": login}}),
        json!({"auths": {host: auth, "other.example.com": odd}}),
        json!({"auths": {format!("http://{host}"): auth}}),
        json!({"auths": {format!("https://{host}/v1/"): auth}}),
        json!({"auths": {host: auth}, "currentContext": "x", "plugins": null, "HttpHeaders": {"a": "b"}}),
    ] {
        fixture.file(".docker/config.json", &config.to_string());
        let listed = tree(&fixture, &[("PATH", &path)]).await;
        let could = others(&fixture, &[("PATH", &path)]).await;
        assert!(
            code(&listed) == 0 || could.is_empty(),
            "{config}: {could:?} read it, affix did not: {}",
            listed.err
        );
        assert_eq!(code(&listed), 0, "{config}: {}", listed.err);
    }
    // Without a login, none of them can: the comparison above means something.
    fixture.file(".docker/config.json", "{}");
    assert_eq!(others(&fixture, &[]).await, Vec::<&str>::new());
}

#[tokio::test]
async fn a_helper_without_the_login_leaves_the_logins_of_the_files() {
    let fixture = private_registry().await;
    let path = helper(&fixture, "test", &knows("other.example.com"));
    let login = json!({"username": "alice", "password": "secret"});
    let config = json!({"credsStore": "test", "auths": {fixture.registry.host(): login}});
    fixture.file(".docker/config.json", &config.to_string());
    let listed = tree(&fixture, &[("PATH", &path)]).await;
    assert_eq!(code(&listed), 0, "{}{}", listed.out, listed.err);
    assert!(listed.err.is_empty(), "{}", listed.err);
    // A helper that fails is named, with its message.
    let path = helper(&fixture, "test", "#!/bin/sh\necho locked; exit 3\n");
    let listed = tree(&fixture, &[("PATH", &path)]).await;
    assert_eq!(code(&listed), 0, "{}{}", listed.out, listed.err);
    assert!(
        listed.err.contains("docker-credential-test failed") && listed.err.contains("locked"),
        "{}",
        listed.err
    );
}

#[tokio::test]
async fn the_files_of_podman_and_the_variables_give_the_login() {
    let fixture = private_registry().await;
    let login = json!({"username": "alice", "password": "secret"});
    let right = json!({"auths": {fixture.registry.host(): login}}).to_string();
    let wrong = json!({"auths": {fixture.registry.host(): {"username": "x", "password": "y"}}});
    let folder = |path: String| path.rsplit_once('/').unwrap().0.to_owned();
    assert_eq!(code(&tree(&fixture, &[]).await), 1);

    let runtime = fixture.file("run/containers/auth.json", &right);
    let runtime = folder(folder(runtime));
    assert_eq!(
        code(&tree(&fixture, &[("XDG_RUNTIME_DIR", &runtime)]).await),
        0
    );
    fixture.file(".config/containers/auth.json", &right);
    assert_eq!(code(&tree(&fixture, &[]).await), 0);
    fixture.file(".docker/config.json", &wrong.to_string());
    assert_eq!(code(&tree(&fixture, &[]).await), 1);
    let docker = folder(fixture.file("docker/config.json", &right));
    assert_eq!(
        code(&tree(&fixture, &[("DOCKER_CONFIG", &docker)]).await),
        0
    );
    let file = fixture.file("auth.json", &right);
    assert_eq!(
        code(&tree(&fixture, &[("REGISTRY_AUTH_FILE", &file)]).await),
        0
    );
}

#[tokio::test]
async fn the_helper_of_a_secret_is_never_run() {
    let fixture = private_registry().await;
    let host = fixture.registry.host();
    let path = helper(&fixture, "test", "#!/bin/sh\ntouch \"$HOME/ran\"\nexit 1\n");
    let config = json!({"auths": {host: {}}, "credHelpers": {host: "test"}, "credsStore": "test"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config.to_string()}});
    let mut resource = super::fixture::mark(&fixture.image.pinned());
    resource["spec"]["secretRef"] = json!({"name": "login"});
    let attach = fixture
        .run(&["attach", "-f", "-"])
        .env("PATH", &path)
        .input(format!("{secret}\n{resource}"))
        .output()
        .await
        .unwrap();
    assert_eq!(code(&attach), 1, "{}{}", attach.out, attach.err);
    let ran = fixture.files().iter().any(|file| file.ends_with("ran"));
    assert!(!ran, "the helper was run: {}", attach.err);
}

#[tokio::test]
async fn the_login_of_the_user_takes_the_place_of_an_identity_in_a_cloud() {
    const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let fixture =
        Fixture::with(|tools| Registry::ociregistry(tools).basic("alice", "secret")).await;
    let cloud = Cloud::start().await.unwrap();
    cloud.route(ECR, fixture.registry.host().parse().unwrap());
    let (proxy, authority) = (cloud.proxy(), fixture.file("ca.crt", cloud.ca_pem()));
    let mut resource = super::fixture::resource(
        "a",
        json!({
            "image": format!("{ECR}/team/app:v1"), "artifact": {"artifactType": "a/b"},
            "provider": "aws", "serviceAccountName": "builder",
        }),
    );
    resource["spec"]["insecure"] = json!(false);
    let run = async |args: &[&str]| {
        let run = fixture.run(args).input(resource.to_string());
        let run = run
            .env("HTTPS_PROXY", &proxy)
            .env("SSL_CERT_FILE", &authority);
        run.output().await.unwrap()
    };
    let attach: &[&str] = &["attach", "-f", "-"];
    let refused = run(attach).await;
    assert_eq!(code(&refused), 1, "{}{}", refused.out, refused.err);
    let text = format!("{}{}", refused.out, refused.err);
    assert!(text.contains("no login is configured for"), "{text}");
    let login = json!({"username": "alice", "password": "secret"});
    let config = json!({"auths": {ECR: login}}).to_string();
    fixture.file(".docker/config.json", &config);
    for args in [
        &["plan", "-f", "-"],
        &["pin", "-f", "-"],
        attach,
        &["detach", "--yes", "-f", "-"],
    ] {
        let ran = run(args).await;
        assert_eq!(code(&ran), 0, "{args:?}: {}{}", ran.out, ran.err);
        // The resource is for the operator too, so its provider stays.
        assert!(args[0] != "pin" || ran.out.contains("aws"), "{}", ran.out);
    }
    assert_eq!(cloud.hosts(), [format!("{ECR}:443")]);
}

#[tokio::test]
async fn unknown_hosts_and_refused_connections_end_the_command_without_retries() {
    let fixture = Fixture::new().await;
    let free = affix_testbed::port::free().unwrap();
    for (host, cause) in [
        (format!("127.0.0.1:{free}"), "connection refused"),
        ("registry.invalid".to_owned(), "cannot be resolved"),
    ] {
        let image = format!("{host}/team/app:v1");
        let resource = super::fixture::resource(
            "a",
            json!({"image": image, "artifact": {"artifactType": "a/b"}}),
        );
        for (args, input) in [
            (vec!["tree", "--plain-http", &image], String::new()),
            (vec!["pin", "-f", "-"], resource.to_string()),
            (vec!["plan", "-f", "-"], resource.to_string()),
        ] {
            let begun = Instant::now();
            let ran = fixture.affix(&args, &input).await;
            let took = begun.elapsed();
            assert_eq!(code(&ran), 1, "{}{}", ran.out, ran.err);
            // The retries of a request that could succeed later take more than 10 s.
            assert!(
                took < Duration::from_secs(9),
                "{args:?} took {took:?}: {}",
                ran.err
            );
            let text = format!("{}{}", ran.out, ran.err);
            assert!(text.contains(cause) && text.contains(&host), "{text}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_named_as_the_cause() {
    let fixture = Fixture::new().await;
    let free = affix_testbed::port::free().unwrap();
    for (proxy, cause) in [
        (
            format!("http://127.0.0.1:{free}"),
            "the proxy refused the connection",
        ),
        (
            "http://proxy.invalid:3128".to_owned(),
            "the host name of the proxy cannot be resolved",
        ),
    ] {
        let tree = ["tree", "registry.invalid/team/app:v1"];
        let ran = fixture
            .run(&tree)
            .env("HTTPS_PROXY", &proxy)
            .output()
            .await
            .unwrap();
        assert_eq!(code(&ran), 1, "{}", ran.err);
        assert!(ran.err.contains(cause), "{}", ran.err);
    }
}
