//! The registry without quirks and faults.

use reqwest::Method;
use serde_json::json;

use super::client::{Client, EMPTY, INDEX, MANIFEST, NAME, attachment};
use crate::hostile::{Algorithm, HostileRegistry, digest, fallback_tag};

#[tokio::test]
async fn a_manifest_that_was_pushed_is_read_by_tag_and_by_digest() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let expected = digest(index.to_string().as_bytes());
    let put = client.put_manifest("v1", INDEX, &index).await;
    assert_eq!(put.status, 201);
    assert_eq!(put.header("docker-content-digest"), Some(&*expected));
    assert_eq!(
        put.header("location"),
        Some(&*format!("/v2/{NAME}/manifests/{expected}"))
    );
    assert_eq!(put.header("oci-subject"), None);
    for reference in ["v1", &expected, &expected.replace(':', "%3A")] {
        let path = format!("/v2/{NAME}/manifests/{reference}");
        let got = client.get(&path).await;
        assert_eq!((got.status.as_u16(), got.text()), (200, index.to_string()));
        assert_eq!(got.header("content-type"), Some(INDEX));
        let head = client.send(Method::HEAD, &path, &[], "").await;
        assert_eq!(head.header("docker-content-digest"), Some(&*expected));
        assert_eq!(
            head.header("content-length"),
            Some(&*index.to_string().len().to_string())
        );
        assert!(head.body.is_empty());
    }
    assert_eq!(
        client.get(&format!("/v2/{NAME}/tags/list")).await.json(),
        json!({"name": NAME, "tags": ["v1"]})
    );
}

#[tokio::test]
async fn blobs_are_uploaded_in_one_two_and_three_steps() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let uploads = format!("/v2/{NAME}/blobs/uploads/");
    let (one, two, three) = (
        digest(b"one"),
        Algorithm::Sha512.digest(b"two"),
        digest(b"three"),
    );
    let put = client
        .send(Method::POST, &format!("{uploads}?digest={one}"), &[], "one")
        .await;
    assert_eq!(
        (put.status.as_u16(), put.header("location")),
        (201, Some(&*format!("/v2/{NAME}/blobs/{one}")))
    );
    let opened = client.send(Method::POST, &uploads, &[], "").await;
    assert_eq!(opened.status, 202);
    let location = opened.header("location").unwrap();
    assert!(
        location.contains('?'),
        "the location has a query to be kept: {location}"
    );
    assert_eq!(
        client
            .send(Method::PUT, &format!("{location}&digest={two}"), &[], "two")
            .await
            .status,
        201
    );
    let opened = client.send(Method::POST, &uploads, &[], "").await;
    let patched = client
        .send(
            Method::PATCH,
            opened.header("location").unwrap(),
            &[("content-range", "0-2")],
            "thr",
        )
        .await;
    assert_eq!(
        (patched.status.as_u16(), patched.header("range")),
        (202, Some("0-2"))
    );
    let location = patched.header("location").unwrap();
    assert_eq!(
        client
            .send(Method::PATCH, location, &[("content-range", "9-9")], "x")
            .await
            .status,
        416
    );
    assert_eq!(client.get(location).await.status, 204);
    assert_eq!(
        client
            .send(
                Method::PUT,
                &format!("{location}&digest={three}"),
                &[],
                "ee"
            )
            .await
            .status,
        201
    );
    for (digest, bytes) in [(one, "one"), (two, "two"), (three, "three")] {
        assert_eq!(
            client
                .get(&format!("/v2/{NAME}/blobs/{digest}"))
                .await
                .text(),
            bytes
        );
        assert_eq!(
            client
                .send(Method::HEAD, &format!("/v2/{NAME}/blobs/{digest}"), &[], "")
                .await
                .status,
            200
        );
    }
    let wrong = client
        .send(
            Method::POST,
            &format!("{uploads}?digest={EMPTY}"),
            &[],
            "other",
        )
        .await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.code()),
        (400, "DIGEST_INVALID".to_owned())
    );
    let mount = client
        .send(
            Method::POST,
            &format!(
                "/v2/other/blobs/uploads/?mount={}&from={NAME}",
                digest(b"one")
            ),
            &[],
            "",
        )
        .await;
    assert_eq!(mount.status, 201);
}

#[tokio::test]
async fn an_attachment_is_listed_with_its_type_and_annotations() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let image = registry.image(NAME, "v1").platform("linux/amd64").push();
    let (first, put) = client.attach(&image.digest, "application/vnd.a", 1).await;
    assert_eq!(put.header("oci-subject"), Some(&*image.digest));
    let (second, _) = client.attach(&image.digest, "application/vnd.b", 2).await;
    let all = client.referrers(&image.digest).await;
    assert_eq!(
        (all.status.as_u16(), all.header("content-type")),
        (200, Some(INDEX))
    );
    assert_eq!(all.digests(), [first.clone(), second]);
    assert_eq!(
        all.json()["manifests"][0]["artifactType"],
        "application/vnd.a"
    );
    assert_eq!(all.json()["manifests"][0]["annotations"]["number"], "1");
    assert_eq!(all.header("oci-filters-applied"), None);
    let some = client
        .get(&format!(
            "/v2/{NAME}/referrers/{}?artifactType=application%2Fvnd.a",
            image.digest
        ))
        .await;
    assert_eq!(
        (some.digests(), some.header("oci-filters-applied")),
        (vec![first.clone()], Some("artifactType"))
    );
    let none = client.referrers(EMPTY).await;
    assert_eq!((none.status.as_u16(), none.digests().len()), (200, 0));
    assert_eq!(registry.store().referrers(NAME, &image.digest).len(), 2);
    let gone = client
        .send(
            Method::DELETE,
            &format!("/v2/{NAME}/manifests/{first}"),
            &[],
            "",
        )
        .await;
    assert_eq!(gone.status, 202);
    assert_eq!(client.referrers(&image.digest).await.digests().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_form_of_the_specification() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let nobody = client.get("/v2/nobody/manifests/v1").await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.code()),
        (404, "NAME_UNKNOWN".to_owned())
    );
    assert_eq!(nobody.header("content-type"), Some("application/json"));
    registry.store().create(NAME);
    let missing = client.get(&format!("/v2/{NAME}/manifests/v1")).await;
    assert_eq!(
        (missing.status.as_u16(), missing.code()),
        (404, "MANIFEST_UNKNOWN".to_owned())
    );
    let manifest = attachment(EMPTY, "application/vnd.a", 1);
    let blobless = client.put_manifest("v1", MANIFEST, &manifest).await;
    assert_eq!(
        (blobless.status.as_u16(), blobless.code()),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    assert_eq!(blobless.json()["errors"][0]["detail"], EMPTY);
    client.put_empty_blob().await;
    for (reference, media_type, code) in [
        (EMPTY, MANIFEST, "DIGEST_INVALID"),
        ("v1", INDEX, "MANIFEST_INVALID"),
        ("-v1", MANIFEST, "TAG_INVALID"),
    ] {
        let refused = client.put_manifest(reference, media_type, &manifest).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, code.to_owned()),
            "{reference}"
        );
    }
    let elsewhere = client.get("/somewhere").await;
    assert_eq!(
        (elsewhere.status.as_u16(), elsewhere.header("content-type")),
        (404, Some("text/html; charset=utf-8"))
    );
}

#[tokio::test]
async fn an_image_has_what_was_asked_for() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let old = registry
        .image(NAME, "v0")
        .platforms(["linux/amd64", "linux/arm64/v8"])
        .push();
    let image = registry
        .image(NAME, "v1")
        .platform("windows/amd64:10.0.20348.1234")
        .entry(&old.child("linux/arm64/v8").unwrap().entry)
        .attestation("windows/amd64:10.0.20348.1234")
        .missing("linux/s390x")
        .unnamed()
        .annotation("a", "b")
        .push();
    let index = client.get(&format!("/v2/{NAME}/manifests/v1")).await;
    assert_eq!(index.header("docker-content-digest"), Some(&*image.digest));
    let entries = index.json()["manifests"].clone();
    assert_eq!(
        entries[0]["platform"],
        json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1234"})
    );
    assert_eq!(entries[1]["digest"], old.platform("linux/arm64/v8"));
    assert_eq!(
        entries[2]["annotations"]["vnd.docker.reference.digest"],
        entries[0]["digest"]
    );
    assert!(
        registry
            .store()
            .manifest(NAME, image.platform("linux/s390x"))
            .is_none()
    );
    assert!(entries[4].get("platform").is_none());
    let config = registry
        .store()
        .manifest(NAME, image.platform("windows/amd64:10.0.20348.1234"))
        .unwrap()
        .json();
    let config = registry
        .store()
        .blob(NAME, config["config"]["digest"].as_str().unwrap())
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["os.version"],
        "10.0.20348.1234"
    );
    let docker = registry
        .image(NAME, "docker")
        .platform("linux/amd64")
        .docker()
        .push();
    assert_eq!(
        docker.media_type,
        "application/vnd.docker.distribution.manifest.list.v2+json"
    );
    let long = registry
        .image(NAME, "long")
        .platform("linux/amd64")
        .sha512()
        .push();
    assert_eq!(
        client
            .get(&format!("/v2/{NAME}/manifests/{}", long.digest))
            .await
            .status,
        200
    );
    assert_eq!(fallback_tag(&long.digest).len(), "sha512-".len() + 64);
    let single = registry
        .image(NAME, "single")
        .platform("linux/riscv64")
        .push_single();
    assert_eq!(single.media_type, MANIFEST);
}

#[tokio::test]
async fn tags_come_in_pages_where_the_client_asks_for_pages() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    for tag in ["a", "b", "c"] {
        registry.image(NAME, tag).platform("linux/amd64").push();
    }
    let first = client.get(&format!("/v2/{NAME}/tags/list?n=2")).await;
    assert_eq!(first.json()["tags"], json!(["a", "b"]));
    let link = first.header("link").unwrap();
    assert_eq!(
        link,
        format!("</v2/{NAME}/tags/list?n=2&last=b>; rel=\"next\"")
    );
    let second = client
        .get(&format!("/v2/{NAME}/tags/list?n=2&last=b"))
        .await;
    assert_eq!(
        (second.json()["tags"].clone(), second.header("link")),
        (json!(["c"]), None)
    );
}
