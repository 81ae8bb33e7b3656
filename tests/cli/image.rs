//! `affix attach IMAGE`: the flags in place of a file.

use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;

use super::fixture::{BOTH, Fixture, code, short};

const LIFECYCLE: &str = "application/vnd.microsoft.artifact.lifecycle";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");

#[tokio::test]
async fn an_end_of_life_date_is_attached_by_flags_and_as_the_printed_resource() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let (tagged, digest) = (fixture.image.tagged(), fixture.image.digest());
        let amd64 = fixture.image.digest_of("linux/amd64").unwrap();
        let flags = [
            "attach",
            &tagged,
            "--end-of-life",
            "2027-03-20",
            "--plain-http",
            "--platform",
            "linux/amd64",
        ];
        let with = |more: &[&'static str]| [&flags[..], more].concat();
        let printed = fixture.affix(&with(&["--dry-run", "-o", "yaml"]), "").await;
        assert_eq!(code(&printed), 0, "{}{}", printed.out, printed.err);
        assert!(
            printed.out.contains(&format!("image: {tagged}@{digest}")),
            "{}",
            printed.out
        );
        let plan = fixture.affix(&with(&["--dry-run"]), "").await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        assert!(
            plan.out.contains("2 of 2 targets would be attached"),
            "{}",
            plan.out
        );
        assert!(fixture.attached(digest).await.is_empty());

        let attach = fixture.affix(&flags, "").await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        assert_eq!(fixture.attached(digest).await, [LIFECYCLE]);
        assert_eq!(fixture.attached(amd64).await, [LIFECYCLE]);
        // The printed resource wants the same attachments.
        let again = fixture.affix(&["attach", "-f", "-"], &printed.out).await;
        assert_eq!(code(&again), 0, "{}{}", again.out, again.err);
        assert_eq!(
            again.out.matches("an equal attachment existed").count(),
            2,
            "{}",
            again.out
        );
    }
}

#[tokio::test]
async fn files_are_attached_with_their_names_and_media_types() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let text = fixture.file("sub/sbom.json", "{}");
    let binary = fixture.file("big.bin", &"\u{1}x".repeat(20_000));
    let folder = text.strip_suffix("/sub/sbom.json").unwrap();
    let layer = "sub/sbom.json:application/spdx+json";
    let image = fixture.image.tagged();
    let flags = [
        "attach",
        &image,
        layer,
        &binary,
        "--artifact-type",
        "application/vnd.test",
        "--annotation",
        "by=x=y",
        "--plain-http",
    ];
    let attach = fixture.run(&flags).dir(folder).output().await.unwrap();
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    assert_eq!(
        fixture.attached(fixture.image.digest()).await,
        ["application/vnd.test"]
    );
    let peer = Peer::of(&fixture.tools, &fixture.registry).unwrap();
    let found = peer
        .oras(["discover", "--format", "json", &image])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let referrer = found["referrers"][0]["reference"].as_str().unwrap();
    let manifest = peer
        .oras(["manifest", "fetch", referrer])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["annotations"]["by"], "x=y", "{manifest:#}");
    let layers = manifest["layers"].as_array().unwrap();
    let shown: Vec<_> = layers
        .iter()
        .map(|layer| {
            (
                layer["mediaType"].as_str().unwrap(),
                layer["annotations"]["org.opencontainers.image.title"]
                    .as_str()
                    .unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("application/spdx+json", "sub/sbom.json"),
            ("application/octet-stream", "big.bin")
        ]
    );
    let printed = fixture
        .run(&[&flags[..], &["--dry-run", "-o", "yaml"]].concat())
        .dir(folder)
        .output()
        .await
        .unwrap();
    assert_eq!(code(&printed), 0, "{}{}", printed.out, printed.err);
    let again = fixture.affix(&["attach", "-f", "-"], &printed.out).await;
    assert_eq!(
        again.out.matches("an equal attachment existed").count(),
        3,
        "{}{}",
        again.out,
        again.err
    );
}

#[tokio::test]
async fn a_key_file_signs_and_is_never_printed() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let key = fixture.file("cosign.key", KEY);
    let image = fixture.image.tagged();
    let flags = ["attach", &image, "--sign-with", &key, "--plain-http"];
    let printed = fixture
        .affix(&[&flags[..], &["--dry-run", "-o", "json"]].concat(), "")
        .await;
    assert_eq!(code(&printed), 0, "{}{}", printed.out, printed.err);
    let secret = KEY.lines().nth(1).unwrap();
    assert!(
        !printed.out.contains(secret) && printed.err.contains("the private key is not printed"),
        "{}",
        printed.err
    );
    let attach = fixture.affix(&flags, "").await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    assert_eq!(fixture.attached(fixture.image.digest()).await, [BUNDLE]);
    let again = fixture.affix(&flags, "").await;
    let arm64 = short(fixture.image.digest_of("linux/arm64").unwrap());
    assert!(
        again
            .out
            .contains(&format!("linux/arm64  {arm64}  Attached")),
        "{}",
        again.out
    );
    assert_eq!(
        again.out.matches("an equal attachment existed").count(),
        3,
        "{}",
        again.out
    );
}

#[tokio::test]
async fn the_terminal_asks_for_the_password_of_a_key() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let key = fixture.file(
        "cosign.key",
        include_str!("../vectors/signing/cosign/p256.key"),
    );
    let image = fixture.image.tagged();
    let flags = ["attach", &image, "--sign-with", &key, "--plain-http"];
    let command = [&[env!("CARGO_BIN_EXE_affix")], &flags[..]]
        .concat()
        .join(" ");
    // `script` runs a command on a terminal of its own.
    let on_terminal = |input: &'static str| {
        fixture
            .program("script", &["-qec", &command, "/dev/null"])
            .input(input)
    };
    let attach = on_terminal("affix\n").output().await.unwrap();
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    let asked = format!("Password for the private key {key}: ");
    assert!(attach.out.contains(&asked), "{}", attach.out);
    assert_eq!(fixture.attached(fixture.image.digest()).await, [BUNDLE]);
    let wrong = on_terminal("hunter2\n").output().await.unwrap();
    assert_eq!(code(&wrong), 1, "{}{}", wrong.out, wrong.err);
    assert!(wrong.out.contains("does not open"), "{}", wrong.out);
    // The variable comes first, and nothing asks without a terminal.
    let given = on_terminal("").env("COSIGN_PASSWORD", "affix");
    let given = given.output().await.unwrap();
    assert_eq!(code(&given), 0, "{}{}", given.out, given.err);
    assert!(!given.out.contains("Password for"), "{}", given.out);
    let piped = fixture.affix(&flags, "affix\n").await;
    assert_eq!(code(&piped), 2, "{}{}", piped.out, piped.err);
    assert!(piped.err.contains("COSIGN_PASSWORD"), "{}", piped.err);
}

#[tokio::test]
async fn combinations_without_a_meaning_are_refused_before_the_first_request() {
    let fixture = Fixture::with(Registry::ociregistry).await;
    let image = fixture.image.tagged();
    let before = fixture.registry.mark().unwrap();
    for (args, said) in [
        (vec!["attach", &image], "says nothing to attach"),
        (
            vec!["attach", &image, "--end-of-life", "tomorrow"],
            "spec.endOfLife.date",
        ),
        (vec!["attach", &image, "sbom.json"], "--artifact-type"),
        (
            vec![
                "attach",
                &image,
                "--end-of-life",
                "2027-03-20",
                "--sign-with",
                "k",
            ],
            "cannot be used with",
        ),
        (
            vec!["attach", "-f", "x.yaml", "--end-of-life", "2027-03-20"],
            "cannot be used with",
        ),
        (
            vec!["attach", &image, "-f", "x.yaml"],
            "cannot be used with",
        ),
        (
            vec!["attach", &image, "--sign-with", "/nowhere.key"],
            "/nowhere.key: No such file",
        ),
        (
            vec![
                "attach",
                &image,
                "--artifact-type",
                "a/b",
                "--annotation",
                "x",
            ],
            "KEY=VALUE",
        ),
        (
            vec!["attach", "nginx:1", "--end-of-life", "2027-03-20"],
            "registry",
        ),
    ] {
        let ran = fixture.affix(&args, "").await;
        assert_eq!(code(&ran), 2, "{args:?} {}{}", ran.out, ran.err);
        assert!(ran.err.contains(said), "{args:?} {}", ran.err);
    }
    assert!(fixture.registry.requests_since(before).unwrap().is_empty());
}
