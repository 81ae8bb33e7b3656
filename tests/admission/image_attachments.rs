//! ImageAttachments: the same verdict with the webhook and without it, only sooner.

use affix::api::{ConditionType, ImageAttachment, find_condition};
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use kube::Api;
use serde_json::{Value, json};

use crate::corpus;
use crate::place::{Place, wait};
use crate::webhook::Affix;

const ALLOWED: &[&str] = &[
    "--insecure-allow-http=false",
    "--allowed-registries",
    "registry.example.com,*.example.com,169.254.169.254,metadata.google.internal,127.0.0.1:*,2852039166:443,0251.0376.0251.0376",
];

/// What a schema cannot say: a sentence, the spec, the reason of the controller, and the words of both.
fn beyond_the_schema() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let image = |image: &str| json!({"image": image, "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}});
    let files = |files: Value| json!({"image": corpus::PINNED, "artifact": {"artifactType": "application/vnd.demo", "files": files}});
    let mut plain = image("registry.example.com/team/app:v1");
    plain["insecure"] = json!(true);
    vec![
        (
            "an upper-case repository",
            image("registry.example.com/Team/app:v1"),
            "InvalidReference",
            "repository \"Team/app\" is malformed",
        ),
        (
            "a repository with two dots",
            image("registry.example.com/a..b:v1"),
            "InvalidReference",
            "repository \"a..b\" is malformed",
        ),
        (
            "a tag that begins with a dash",
            image("registry.example.com/app:-v1"),
            "InvalidReference",
            "tag \"-v1\" is malformed",
        ),
        (
            "a tag with a plus",
            image("registry.example.com/app:v1+2"),
            "InvalidReference",
            "tag \"v1+2\" is malformed",
        ),
        (
            "an unknown algorithm",
            image("registry.example.com/app@md5:abc"),
            "InvalidReference",
            "digest algorithm \"md5\" is not supported",
        ),
        (
            "a short digest",
            image("registry.example.com/app@sha256:abc"),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a tag that holds referrers",
            image(&format!(
                "registry.example.com/app:sha256-{}",
                "a".repeat(64)
            )),
            "InvalidReference",
            "holds referrers or signatures of an image",
        ),
        (
            "a host that ends in a dash",
            image("registry-.example.com/app:v1"),
            "InvalidReference",
            "registry \"registry-.example.com\" is malformed",
        ),
        (
            "the port 0",
            image("registry.example.com:0/app:v1"),
            "InvalidReference",
            "registry \"registry.example.com:0\" is malformed",
        ),
        (
            "a metadata address",
            image("169.254.169.254/app:v1"),
            "HostNotAllowed",
            "169.254.169.254",
        ),
        (
            "a metadata host",
            image("metadata.google.internal/app:v1"),
            "HostNotAllowed",
            "metadata.google.internal",
        ),
        (
            "a registry that the operator does not allow",
            image("registry.example.net/app:v1"),
            "HostNotAllowed",
            "--allowed-registries has only",
        ),
        (
            "plain HTTP where the operator forbids it",
            plain,
            "InsecureNotAllowed",
            "--insecure-allow-http=false",
        ),
        (
            "two files that overlap",
            files(
                json!([{"name": "f", "target": "linux", "value": "1"}, {"name": "f", "target": "*/amd64", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "a repository with an empty part",
            image("registry.example.com/team//app:v1"),
            "InvalidReference",
            "repository \"team//app\" is malformed",
        ),
        (
            "a repository that begins with a dash",
            image("registry.example.com/-app:v1"),
            "InvalidReference",
            "repository \"-app\" is malformed",
        ),
        (
            "a repository with three underscores",
            image("registry.example.com/a___b:v1"),
            "InvalidReference",
            "repository \"a___b\" is malformed",
        ),
        (
            "an empty digest",
            image("registry.example.com/app@sha256:"),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a file for a platform beside one for its system",
            files(
                json!([{"name": "f", "target": "linux", "value": "1"}, {"name": "f", "target": "linux/amd64", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "a file for every system beside one for a variant",
            files(
                json!([{"name": "f", "target": "*/arm64", "value": "1"}, {"name": "f", "target": "linux/arm64/v8", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "a repository that ends in a dash",
            image("registry.example.com/app-:v1"),
            "InvalidReference",
            "repository \"app-\" is malformed",
        ),
        (
            "a port that is none",
            image("registry.example.com:70000/app:v1"),
            "InvalidReference",
            "registry \"registry.example.com:70000\" is malformed",
        ),
        (
            "two tags",
            image("registry.example.com/app:v1:v2"),
            "InvalidReference",
            "tag \"v1:v2\" is malformed",
        ),
        (
            "a tag that is too long",
            image(&format!("registry.example.com/app:{}", "a".repeat(129))),
            "InvalidReference",
            "is malformed: 1 to 128 letters",
        ),
        (
            "a digest in upper case",
            image(&format!(
                "registry.example.com/app@sha256:{}",
                "A".repeat(64)
            )),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a digest of sha512 with the length of sha256",
            image(&format!(
                "registry.example.com/app@sha512:{}",
                "a".repeat(64)
            )),
            "InvalidReference",
            "takes 128 lower-case hexadecimal digits",
        ),
        (
            "a tag that holds a signature",
            image(&format!(
                "registry.example.com/app:sha256-{}.sig",
                "a".repeat(64)
            )),
            "InvalidReference",
            "holds referrers or signatures of an image",
        ),
        (
            "a metadata address as one number",
            image("2852039166:443/app:v1"),
            "HostNotAllowed",
            "another spelling of the address 169.254.169.254",
        ),
        (
            "a metadata address in octal",
            image("0251.0376.0251.0376/app:v1"),
            "HostNotAllowed",
            "another spelling of the address 169.254.169.254",
        ),
        (
            "a registry on a port that the operator does not allow",
            image("registry.example.com:5000/app:v1"),
            "HostNotAllowed",
            "--allowed-registries has only",
        ),
        (
            "two files for one platform, spelled in two ways",
            files(
                json!([{"name": "f", "target": "linux/arm64", "value": "1"}, {"name": "f", "target": "linux/aarch64/v8", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
    ]
}

#[tokio::test]
async fn a_bad_resource_is_refused_at_once_with_the_webhook_and_stalled_without_it() {
    let (on, off) = (
        Place::new("on", json!({})).await,
        Place::new("off", json!({})).await,
    );
    let (_webhook, _) = Affix::webhook(&on, ALLOWED).await;
    let _controller = Affix::controller(&off, ALLOWED);
    let mut wrong = Vec::new();
    // What the schema refuses, it refuses in the same words either way.
    for bad in corpus::bad() {
        for place in [&on, &off] {
            match place.try_create(&bad.spec).await {
                Err(said) if said.contains(bad.says) => {}
                other => wrong.push(format!(
                    "{} in {}: expected {:?}, found {other:?}",
                    bad.sentence, place.name, bad.says
                )),
            }
        }
    }
    let rows = beyond_the_schema();
    println!(
        "{} that the schema refuses, {} that code refuses",
        corpus::bad().len(),
        rows.len()
    );
    assert!(corpus::bad().len() + rows.len() >= 60 && rows.len() >= 30);
    // Every reason that needs neither the cluster nor a registry to be known.
    for reason in [
        "InvalidReference",
        "InvalidSpec",
        "InsecureNotAllowed",
        "HostNotAllowed",
    ] {
        assert!(
            rows.iter().any(|(_, _, of, _)| *of == reason),
            "{reason} has no row"
        );
    }
    for (nth, (sentence, spec, _, says)) in rows.iter().enumerate() {
        let object = Place::attachment(&format!("bad-{nth}"), spec);
        for more in [&[] as &[&str], &["--dry-run=server"]] {
            match on.apply_with(&object, more).await {
                Err(said)
                    if said.contains(says)
                        && said.contains("spec.")
                        && said.contains("imageattachments.affix.dev") => {}
                other => wrong.push(format!("{sentence}: expected {says:?}, found {other:?}")),
            }
        }
        off.apply(&object).await.unwrap();
    }
    let api: Api<ImageAttachment> = Api::namespaced(off.client.clone(), &off.name);
    for (nth, (sentence, _, reason, says)) in rows.iter().enumerate() {
        let mut found = String::new();
        wait(sentence, async || {
            let status = api
                .get(&format!("bad-{nth}"))
                .await
                .unwrap()
                .status
                .unwrap_or_default();
            found = find_condition(&status.conditions, ConditionType::Stalled)
                .map(|c| format!("{}: {}", c.reason, c.message))
                .unwrap_or_default();
            !found.is_empty()
        })
        .await;
        if !found.starts_with(reason) || !found.contains(says) {
            wrong.push(format!(
                "{sentence}, without the webhook: expected {reason}: {says:?}, found {found:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        said(&on).await,
        "",
        "what was refused, or was a dry run, is not there"
    );
}

#[tokio::test]
async fn good_resources_pass_and_a_dry_run_writes_nothing() {
    let place = Place::new("good", json!({})).await;
    let (_webhook, _) = Affix::webhook(&place, &[]).await;
    let mut refused = Vec::new();
    for (sentence, spec) in corpus::good() {
        // The schema lets folders through; the code that attaches does not.
        if sentence != "a file in a folder"
            && let Err(said) = place
                .apply_with(&Place::attachment("good", &spec), &["--dry-run=server"])
                .await
        {
            refused.push(format!("{sentence}: {said}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(!said(&place).await.contains("good"));
}

#[tokio::test]
async fn what_is_allowed_and_unwise_is_warned_of() {
    let place = Place::new("unwise", json!({})).await;
    let registry = Registry::ociregistry(&place.tools).start().await.unwrap();
    let push = async |seed: &str| {
        let index = Index::new()
            .image(Image::new("linux/amd64", seed))
            .image(Image::new("linux/arm64", seed));
        index
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap()
    };
    let (old, new) = (push("old").await, push("new").await);
    let (_webhook, _) = Affix::webhook(&place, &[]).await;
    let secret = |annotations: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cosign-key", "annotations": annotations}});
    place.apply(&secret(json!({}))).await.unwrap();
    let signed = json!({"image": new.tagged(), "insecure": true, "signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}}});
    let pinned = format!("{}@{}", old.tagged(), old.digest());
    let moved = json!({"image": pinned, "insecure": true, "endOfLife": {"date": "2025-03-20"}});
    let mut excluded = moved.clone();
    excluded["image"] = json!(new.pinned());
    excluded["targets"] = json!({"excludePlatforms": ["linux/386"]});
    for (spec, says) in [
        (
            &signed,
            "Warning: a tag is signed with the key cosign-key which lacks affix.dev/repositories",
        ),
        (&moved, "Warning: the tag v1 names sha256:"),
        (
            &excluded,
            "Warning: the excluded platform \"linux/386\" matches no entry",
        ),
    ] {
        // A busy machine may take longer than the look-up's time: then nothing is said.
        let mut nth = 0;
        wait(says, async || {
            nth += 1;
            let mut spec = spec.clone();
            spec["interval"] = json!(format!("{nth}h"));
            place
                .apply(&Place::attachment("unwise", &spec))
                .await
                .unwrap()
                .contains(says)
        })
        .await;
        place
            .kubectl(&["delete", "ia", "unwise"])
            .await
            .stdout()
            .unwrap();
    }
    place
        .apply(&secret(json!({"affix.dev/repositories": "*/*"})))
        .await
        .unwrap();
    let quiet = place
        .apply(&Place::attachment("wise", &signed))
        .await
        .unwrap();
    assert!(!quiet.contains("Warning"), "{quiet}");
}

async fn said(place: &Place) -> String {
    crate::place::said(
        place
            .kubectl(&["get", "imageattachments", "-o", "name"])
            .await,
    )
    .unwrap()
}
