//! The registries as tests use them, checked with other people's tools.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's failure is its message"
)]

use std::sync::Arc;
use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Options, Quirk, RawClient, Registry, User};
use affix_testbed::tools::Tools;

const KIND: &str = "application/vnd.demo.artifact.lifecycle";

fn image() -> Index {
    Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"))
        .image(Image::new("windows/amd64", "w1w1").os_version("10.0.20348.1234"))
        .attestation("linux/amd64")
}

/// Attaches with oras, finds it with oras and with regctl, and has crane read the image.
async fn attach_and_discover(tools: &Tools, registry: &Registry, pushed: &Pushed) {
    let peer = Peer::of(tools, registry).unwrap();
    let target = pushed.at(pushed.digest_of("linux/amd64").unwrap());
    let attach = [
        "attach",
        "--artifact-type",
        KIND,
        "--annotation",
        "date=2025",
        &target,
    ];
    peer.oras(attach).await.unwrap().stdout().unwrap();

    let found = peer
        .oras(["discover", "--format", "json", &target])
        .await
        .unwrap()
        .json()
        .unwrap();
    let list = found["referrers"].as_array().unwrap();
    assert_eq!(list.len(), 1, "{found}");
    assert_eq!(list[0]["artifactType"], KIND, "{found}");
    assert_eq!(list[0]["annotations"]["date"], "2025", "{found}");

    let args = [
        "artifact",
        "list",
        "--filter-artifact-type",
        KIND,
        "--format",
        "{{json .}}",
        &target,
    ];
    let listed = peer.regctl(args).await.unwrap().stdout().unwrap();
    assert!(
        listed.contains(list[0]["digest"].as_str().unwrap()),
        "{listed}"
    );

    let manifest = peer
        .crane(["manifest", &pushed.tagged()])
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(
        manifest["manifests"].as_array().unwrap().len(),
        4,
        "{manifest}"
    );
    assert_eq!(
        peer.crane(["digest", &pushed.tagged()])
            .await
            .unwrap()
            .stdout()
            .unwrap()
            .trim(),
        pushed.digest()
    );
}

async fn round(options: impl Fn(&Tools) -> Options) -> (Tools, Registry, Pushed) {
    let tools = Tools::core().await.unwrap();
    let registry = options(&tools).start().await.unwrap();
    let pushed = image()
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    attach_and_discover(&tools, &registry, &pushed).await;
    (tools, registry, pushed)
}

#[tokio::test]
async fn the_registry_with_the_api_lists_attachments_of_oras_and_logs_requests() {
    let (_, registry, pushed) = round(Registry::ociregistry).await;
    let raw = registry.raw().unwrap();
    let mark = registry.mark().unwrap();
    let answer = raw
        .referrers("team/app", pushed.digest_of("linux/amd64").unwrap())
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.oci.image.index.v1+json")
    );
    let requests = registry.requests_since(mark).unwrap();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(
        requests[0].to_string(),
        format!(
            "GET /v2/team/app/referrers/{} 200",
            pushed.digest_of("linux/amd64").unwrap()
        )
    );
}

#[tokio::test]
async fn distribution_has_no_referrers_api_so_that_oras_keeps_the_fallback_tag() {
    let (_, registry, pushed) = round(Registry::distribution).await;
    let raw = registry.raw().unwrap();
    let digest = pushed.digest_of("linux/amd64").unwrap();
    assert_eq!(raw.referrers("team/app", digest).await.unwrap().status, 404);
    let tag = digest.replace(':', "-");
    let fallback = raw
        .manifest("team/app", &tag)
        .await
        .unwrap()
        .ok()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(
        fallback["manifests"].as_array().unwrap().len(),
        1,
        "{fallback}"
    );

    let mark = registry.mark().unwrap();
    raw.manifest("team/app", "v1").await.unwrap().ok().unwrap();
    raw.manifest("team/app", "v2").await.unwrap();
    let requests: Vec<String> = registry
        .requests_since(mark)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        requests,
        [
            "GET /v2/team/app/manifests/v1 200",
            "GET /v2/team/app/manifests/v2 404"
        ]
    );
    assert_eq!(
        raw.delete_manifest("team/app", digest)
            .await
            .unwrap()
            .status,
        405
    );
}

#[tokio::test]
async fn a_password_is_asked_for_and_only_the_right_one_taken() {
    for options in [Registry::distribution, Registry::ociregistry] {
        let (tools, registry, pushed) =
            round(|tools| options(tools).basic("alice", "secret")).await;
        let mut stranger = Peer::new(&tools).unwrap();
        stranger.know(&registry, Some(("alice", "wrong"))).unwrap();
        let refused = stranger
            .oras(["discover", &pushed.tagged()])
            .await
            .unwrap()
            .failure()
            .unwrap();
        assert!(
            refused.contains("401") || refused.contains("nauthorized"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_token_carries_only_the_actions_that_its_user_has() {
    for options in [Registry::distribution, Registry::ociregistry] {
        let users = || {
            [
                User::new("writer", "w").may("team/*", &["pull", "push"]),
                User::new("cleaner", "c")
                    .identity_token("idt")
                    .may("team/*", &["pull", "delete"]),
                User::anybody().may("team/app", &["pull"]),
            ]
        };
        let (tools, registry, pushed) =
            round(|tools| options(tools).delete_enabled(true).tokens(users())).await;
        assert!(
            registry
                .token_requests()
                .unwrap()
                .iter()
                .any(|request| request.status == 200)
        );

        let as_user = |user| RawClient::new(&registry.url(), registry.ca_pem(), user).unwrap();
        let digest = pushed.digest_of("linux/arm64").unwrap();
        let writer = as_user(Some(("writer", "w")));
        assert_eq!(
            writer
                .delete_manifest("team/app", digest)
                .await
                .unwrap()
                .status,
            401
        );
        let anybody = as_user(None);
        assert_eq!(
            anybody.manifest("team/app", "v1").await.unwrap().status,
            200
        );
        assert_eq!(
            anybody
                .put_manifest("team/app", "x", "text/plain", "x")
                .await
                .unwrap()
                .status,
            401
        );
        assert_eq!(
            anybody.manifest("other/app", "v1").await.unwrap().status,
            401
        );
        let cleaner = as_user(Some(("cleaner", "c")));
        assert_eq!(
            cleaner
                .delete_manifest("team/app", digest)
                .await
                .unwrap()
                .status,
            202
        );
        assert!(
            as_user(Some(("writer", "wrong")))
                .manifest("team/app", "v1")
                .await
                .is_err()
        );

        let mut peer = Peer::new(&tools).unwrap();
        peer.know(&registry, Some(("writer", "w"))).unwrap();
        let target = pushed.pinned();
        peer.oras([
            "attach",
            "--artifact-type",
            KIND,
            "--annotation",
            "a=b",
            &target,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_a_token_as_oauth2_says() {
    let tools = Tools::core().await.unwrap();
    let users = [User::new("alice", "secret")
        .identity_token("idt")
        .may("team/app", &["pull"])];
    let registry = Registry::distribution(&tools)
        .tokens(users)
        .start()
        .await
        .unwrap();
    let pushed = image()
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    let peer = Peer::new(&tools).unwrap();
    let config =
        serde_json::json!({"auths": {registry.host(): {"auth": "", "identitytoken": "idt"}}});
    std::fs::write(peer.file("config.json"), config.to_string()).unwrap();
    peer.oras(["manifest", "fetch", "--plain-http", &pushed.tagged()])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    assert!(
        registry
            .token_requests()
            .unwrap()
            .iter()
            .any(|request| request.method == "POST" && request.status == 200)
    );
}

#[tokio::test]
async fn tls_with_a_private_authority_is_trusted_only_by_clients_that_know_it() {
    let authority = Arc::new(Authority::new().unwrap());
    for options in [
        Registry::distribution,
        Registry::ociregistry,
        Registry::liar,
    ] {
        let tools = Tools::core().await.unwrap();
        let registry = options(&tools).tls(&authority).start().await.unwrap();
        assert!(registry.url().starts_with("https://"));
        let pushed = image()
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        peer.oras(["discover", &pushed.tagged()])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let refused = Peer::new(&tools)
            .unwrap()
            .oras(["discover", &pushed.tagged()])
            .await
            .unwrap()
            .failure()
            .unwrap();
        assert!(refused.contains("certificate"), "{refused}");
    }
}

#[tokio::test]
async fn tokens_over_tls_work_with_oras() {
    let authority = Arc::new(Authority::new().unwrap());
    round(|tools| Registry::distribution(tools).tls(&authority).tokens([])).await;
}

#[tokio::test]
async fn a_token_of_a_second_is_no_longer_taken_after_it() {
    let tools = Tools::core().await.unwrap();
    let registry = Registry::ociregistry(&tools)
        .tokens([])
        .token_lifetime(Duration::from_secs(1))
        .start()
        .await
        .unwrap();
    let raw = registry.raw().unwrap();
    image().push(&raw, "team/app", "v1").await.unwrap();
    let before = registry.token_requests().unwrap().len();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    raw.manifest("team/app", "v1").await.unwrap().ok().unwrap();
    assert_eq!(registry.token_requests().unwrap().len(), before + 1);
}

#[tokio::test]
async fn quirks_are_those_of_the_registries_that_have_them() {
    let tools = Tools::core().await.unwrap();
    let other = Index::new().image(Image::new("linux/amd64", "other"));

    let immutable = Registry::ociregistry(&tools)
        .quirk(Quirk::ImmutableTags)
        .start()
        .await
        .unwrap();
    let raw = immutable.raw().unwrap();
    image().push(&raw, "team/app", "v1").await.unwrap();
    let refused = other.push(&raw, "team/app", "v1").await.unwrap_err();
    assert!(format!("{refused:#}").contains("40"), "{refused:#}");

    let once_ecr = Registry::ociregistry(&tools)
        .quirk(Quirk::NoReferrersApi)
        .start()
        .await
        .unwrap();
    let raw = once_ecr.raw().unwrap();
    let pushed = image().push(&raw, "team/app", "v1").await.unwrap();
    assert_eq!(
        raw.referrers("team/app", pushed.digest())
            .await
            .unwrap()
            .status,
        404
    );
    let attachment = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": KIND,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "size": 2},
        "layers": [], "subject": {"mediaType": pushed.descriptor.media_type, "digest": pushed.digest(), "size": pushed.descriptor.size},
    });
    let answer = raw
        .put_manifest(
            "team/app",
            "a",
            "application/vnd.oci.image.manifest.v1+json",
            attachment.to_string(),
        )
        .await
        .unwrap();
    assert_eq!(
        answer.ok().unwrap().header("oci-subject"),
        Some(pushed.digest())
    );

    let no_delete = Registry::ociregistry(&tools)
        .delete_enabled(false)
        .start()
        .await
        .unwrap();
    let raw = no_delete.raw().unwrap();
    let pushed = image().push(&raw, "team/app", "v1").await.unwrap();
    assert_eq!(
        raw.delete_manifest("team/app", pushed.digest())
            .await
            .unwrap()
            .status,
        405
    );

    let mirror = Index::new()
        .image(Image::new("linux/amd64", "here"))
        .missing(Image::new("linux/arm64", "gone"));
    let strict = Registry::distribution(&tools).start().await.unwrap();
    mirror
        .push(&strict.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap_err();
    let lax = Registry::distribution(&tools)
        .quirk(Quirk::MissingChildren)
        .start()
        .await
        .unwrap();
    mirror
        .push(&lax.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();

    let refused = Registry::liar(&tools)
        .quirk(Quirk::ImmutableTags)
        .start()
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("ImmutableTags"), "{refused}");
}

#[tokio::test]
async fn every_shape_of_image_is_taken_by_both_registries() {
    let tools = Tools::core().await.unwrap();
    let shared = Image::new("linux/arm64", "c1c1");
    let shapes = [
        Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(shared.clone()),
        Index::new()
            .image(Image::new("linux/amd64", "r1r1"))
            .image(shared.clone()),
        Index::new()
            .image(shared.clone())
            .image(shared.clone())
            .bare(Image::new("linux/s390x", "s")),
        Index::new()
            .image(Image::new("linux/amd64", "d"))
            .image(Image::new("windows/amd64", "d").os_version("10.0.1"))
            .docker(),
        Index::new()
            .index(Index::new().image(Image::new("linux/arm/v7", "n")))
            .annotation("a", "b"),
        Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .attestation_with_subject("linux/amd64"),
    ];
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools).start().await.unwrap();
        let raw = registry.raw().unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        for (number, shape) in shapes.iter().enumerate() {
            let pushed = shape
                .push(&raw, "team/app", &format!("v{number}"))
                .await
                .unwrap();
            let digest = peer
                .crane(["digest", &pushed.tagged()])
                .await
                .unwrap()
                .stdout()
                .unwrap();
            assert_eq!(digest.trim(), shape.digest());
        }
        let alone = Image::new("linux/amd64", "alone")
            .push(&raw, "team/app", "alone")
            .await
            .unwrap();
        let config = peer
            .crane(["config", &alone.tagged()])
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(config["architecture"], "amd64");
    }
}

#[tokio::test]
async fn only_the_liar_takes_a_manifest_by_its_sha512_digest() {
    let tools = Tools::core().await.unwrap();
    let image = Image::new("linux/amd64", "b1b1").sha512();
    let index = Index::new().image(image.clone());
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools).start().await.unwrap();
        let refused = index
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap_err();
        assert!(
            format!("{refused:#}").contains("DIGEST_INVALID"),
            "{refused:#}"
        );
    }
    let liar = Registry::liar(&tools).start().await.unwrap();
    let raw = liar.raw().unwrap();
    index.push(&raw, "team/app", "v1").await.unwrap();
    let answer = raw
        .manifest("team/app", &image.digest())
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        answer
            .header("docker-content-digest")
            .unwrap()
            .starts_with("sha256:")
    );
}

#[tokio::test]
async fn a_registry_that_stops_refuses_connections_and_comes_back_on_its_port() {
    let tools = Tools::core().await.unwrap();
    let mut registry = Registry::distribution(&tools).start().await.unwrap();
    let raw = registry.raw().unwrap();
    image().push(&raw, "team/app", "v1").await.unwrap();
    registry.stop().await.unwrap();
    raw.manifest("team/app", "v1").await.unwrap_err();
    registry.start_again().await.unwrap();
    raw.manifest("team/app", "v1").await.unwrap().ok().unwrap();
    registry.pause();
    let silence =
        tokio::time::timeout(Duration::from_millis(300), raw.manifest("team/app", "v1")).await;
    assert!(silence.is_err(), "a frozen registry answered");
    registry.resume();
    raw.manifest("team/app", "v1").await.unwrap().ok().unwrap();
}
