//! `affix tree`.

use affix_testbed::hostile::HostileRegistry;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use super::fixture::{BOTH, DATE_KEY, Fixture, LIFECYCLE, code, mark, short};

#[tokio::test]
async fn the_tree_shows_index_platforms_marks_and_their_referrers() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let attach = fixture
            .affix(
                &["attach", "-f", "-"],
                &mark(&fixture.image.pinned()).to_string(),
            )
            .await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        let amd64 = fixture.image.digest_of("linux/amd64").unwrap();

        let json: Value = fixture
            .affix(
                &[
                    "tree",
                    "--plain-http",
                    "-o",
                    "json",
                    &fixture.image.tagged(),
                ],
                "",
            )
            .await
            .json()
            .unwrap();
        let of = |node: &Value| {
            let mark = node["referrers"][0].clone();
            assert_eq!(
                (&mark["artifactType"], &mark["annotations"][DATE_KEY]),
                (&json!(LIFECYCLE), &json!("2025-03-20T01:20:30Z"))
            );
            (
                mark["digest"].as_str().unwrap().to_owned(),
                mark["annotations"]["org.opencontainers.image.created"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            )
        };
        assert_eq!(json["kind"], "Index");
        let (root, root_created) = of(&json);
        let platform = json["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["digest"] == *amd64)
            .unwrap();
        assert_eq!(platform["platforms"], json!(["linux/amd64"]));
        let (mark, created) = of(platform);

        // A signature of the mark, created by another tool.
        let peer = Peer::of(&fixture.tools, &fixture.registry).unwrap();
        let subject = fixture.image.at(&mark);
        let signed = [
            "attach",
            "--artifact-type",
            "application/vnd.x.signature",
            "--annotation",
            "by=oras\u{1b}[2J",
            &subject,
        ];
        peer.oras(signed).await.unwrap().stdout().unwrap();

        let tree = fixture
            .affix(&["tree", "--plain-http", &fixture.image.tagged()], "")
            .await;
        assert_eq!(code(&tree), 0, "{}{}", tree.out, tree.err);
        let attestation = fixture.image.entries.iter().find(|entry| {
            entry
                .platform
                .as_deref()
                .is_none_or(|name| name.starts_with("unknown"))
        });
        let expected = [
            fixture.image.tagged(),
            format!("{}  index", short(fixture.image.digest())),
            format!("├─ {LIFECYCLE}  {}  {root_created}", short(&root)),
            format!("│     {DATE_KEY}: 2025-03-20T01:20:30Z"),
            format!("├─ linux/amd64  {}", short(amd64)),
            format!("│  └─ {LIFECYCLE}  {}  {created}", short(&mark)),
            format!("│     │  {DATE_KEY}: 2025-03-20T01:20:30Z"),
            "│     └─ application/vnd.x.signature  ".to_owned(),
            "│           by: oras\\u{1b}[2J".to_owned(),
            format!(
                "├─ linux/arm64  {}",
                short(fixture.image.digest_of("linux/arm64").unwrap())
            ),
            format!(
                "└─ build attestation of {}  {}",
                short(amd64),
                short(&attestation.unwrap().descriptor.digest)
            ),
        ];
        let lines: Vec<&str> = tree.out.lines().collect();
        assert!(
            lines.len() == expected.len()
                && lines
                    .iter()
                    .zip(&expected)
                    .all(|(line, start)| line.starts_with(start)),
            "{}\n{expected:#?}",
            tree.out
        );
        let full = fixture
            .affix(
                &[
                    "tree",
                    "--plain-http",
                    "--full-digests",
                    &fixture.image.tagged(),
                ],
                "",
            )
            .await;
        assert!(
            full.out.contains(&format!("linux/amd64  {amd64}")) && full.out.contains(&mark),
            "{}",
            full.out
        );
    }
}

#[tokio::test]
async fn a_mirror_that_cosign_copied_is_shown_and_gets_its_attachments() {
    let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
    for source in BOTH {
        let fixture = Fixture::with(source).await;
        let mirror = Registry::distribution(&tools).start().await.unwrap();
        let mut peer = Peer::of(&tools, &fixture.registry).unwrap();
        peer.know(&mirror, None).unwrap();
        let copied = format!("{}/team/app:v1", mirror.host());
        let copy = [
            "copy",
            "--allow-insecure-registry",
            &fixture.image.tagged(),
            &copied,
        ];
        let copy = peer.run(Tool::Cosign).unwrap().args(copy).output().await;
        copy.unwrap().stdout().unwrap();
        // The form that older versions of cosign leave: a tag that names the manifest itself.
        let entries = fixture.image.entries.iter();
        let children = entries.map(|entry| entry.descriptor.digest.clone());
        for digest in children.chain([fixture.image.digest().to_owned()]) {
            let name = format!("{}/team/app@{digest}", mirror.host());
            let tagged = peer.crane(["tag", &name, &digest.replace(':', "-")]).await;
            tagged.unwrap().stdout().unwrap();
        }

        let tree = fixture.affix(&["tree", "--plain-http", &copied], "").await;
        assert_eq!(code(&tree), 0, "{}{}", tree.out, tree.err);
        assert!(
            tree.out.contains("linux/arm64") && !tree.out.contains('!'),
            "{}",
            tree.out
        );
        let copied_pinned = format!("{copied}@{}", fixture.image.digest());
        let resource = mark(&copied_pinned).to_string();
        let plan = fixture.affix(&["plan", "-f", "-"], &resource).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        let attach = fixture.affix(&["attach", "-f", "-"], &resource).await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        let tree = fixture.affix(&["tree", "--plain-http", &copied], "").await;
        assert_eq!(code(&tree), 0, "{}{}", tree.out, tree.err);
        assert_eq!(tree.out.matches(LIFECYCLE).count(), 2, "{}", tree.out);
    }
}

/// Returns a certificate as `openssl req -x509` makes it, CA:TRUE, and its key.
fn self_signed() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_self_signed_registry_is_read_with_its_certificate_in_ssl_cert_file() {
    let fixture = Fixture::new().await;
    let (certificate, key) = self_signed();
    let registry = HostileRegistry::builder().tls_files(&certificate, &key);
    let registry = registry.start().await.unwrap();
    let image = registry.image("team/app", "v1").platform("linux/amd64");
    let image = registry.reference(&image.push().name());
    let (roots, other) = (
        fixture.file("roots.pem", &format!("{}{certificate}", self_signed().0)),
        fixture.file("other.pem", &self_signed().0),
    );
    let trusting = |file: &str| {
        let tree = fixture.run(&["tree", &image]).env("SSL_CERT_FILE", file);
        tree.output()
    };
    let tree = trusting(&roots).await.unwrap();
    assert_eq!(code(&tree), 0, "{}{}", tree.out, tree.err);
    let refused = trusting(&other).await.unwrap();
    assert_eq!(code(&refused), 1, "{}{}", refused.out, refused.err);
    assert!(
        refused.err.contains("SSL_CERT_FILE") && !refused.err.contains("certSecretRef"),
        "{}",
        refused.err
    );
    // crane reads it with the same file.
    let crane = fixture
        .tool(Tool::Crane, &["digest", &image])
        .env("SSL_CERT_FILE", &roots);
    crane.output().await.unwrap().stdout().unwrap();
}

#[tokio::test]
async fn a_tree_needs_one_manifest_and_a_listing_and_two_tags_per_manifest() {
    let fixture = Fixture::new().await;
    let before = fixture.registry.mark().unwrap();
    let tree = fixture
        .affix(&["tree", "--plain-http", &fixture.image.tagged()], "")
        .await;
    assert_eq!(code(&tree), 0, "{}{}", tree.out, tree.err);
    // The index, its listing, and those of two platforms and one attestation. Each of the four may have a .sig and a .att tag.
    let requests = fixture.registry.requests_since(before).unwrap();
    assert_eq!(requests.len(), 5 + 8, "{requests:#?}");
}

#[tokio::test]
async fn an_image_that_is_missing_or_denied_is_an_error() {
    let fixture =
        Fixture::with(|tools| Registry::distribution(tools).basic("alice", "secret")).await;
    let denied = fixture
        .affix(&["tree", "--plain-http", &fixture.image.tagged()], "")
        .await;
    assert_eq!(code(&denied), 1, "{}{}", denied.out, denied.err);
    assert!(denied.err.contains("401"), "{}", denied.err);
    fixture.log_in("alice", "secret");
    assert_eq!(
        code(
            &fixture
                .affix(&["tree", "--plain-http", &fixture.image.tagged()], "")
                .await
        ),
        0
    );
    let absent = fixture
        .affix(
            &[
                "tree",
                "--plain-http",
                &fixture.image.tagged().replace(":v1", ":v2"),
            ],
            "",
        )
        .await;
    assert_eq!(code(&absent), 1, "{}{}", absent.out, absent.err);
    assert!(
        absent.out.is_empty() && absent.err.contains("404"),
        "{}{}",
        absent.out,
        absent.err
    );
}

#[tokio::test]
async fn messages_name_the_repository_and_the_flags_of_the_command() {
    let fixture = Fixture::new().await;
    let tagged = fixture.image.tagged();
    let absent = tagged.replace(":v1", ":v2");
    let missing = fixture.affix(&["tree", "--plain-http", &absent], "").await;
    assert!(
        missing.err.contains(&format!("{absent}: ")),
        "{}",
        missing.err
    );
    let https = fixture
        .affix(&["tree", &format!("https://{tagged}")], "")
        .await;
    assert_eq!(code(&https), 2, "{}", https.err);
    assert!(
        https.err.contains("remove it") && !https.err.contains("plain-http"),
        "{}",
        https.err
    );
    let scheme = fixture
        .affix(&["tree", &format!("http://{tagged}")], "")
        .await;
    assert_eq!(code(&scheme), 2, "{}", scheme.err);
    let tls = fixture.affix(&["tree", &tagged], "").await;
    assert_eq!(code(&tls), 1, "{}", tls.err);
    for ran in [scheme, tls] {
        assert!(
            ran.err.contains("--plain-http") && !ran.err.contains("insecure: true"),
            "{}",
            ran.err
        );
    }
}

#[tokio::test]
async fn a_malformed_label_selector_is_a_usage_error_at_start() {
    let fixture = Fixture::new().await;
    let args = ["controller", "--watch-label-selector", "a in (1,2"];
    let ran = fixture.affix(&args, "").await;
    assert_eq!(code(&ran), 2, "{}", ran.err);
    assert!(ran.err.contains("is not a requirement"), "{}", ran.err);
}
