//! Each quirk.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::client::{Client, EMPTY, INDEX, MANIFEST, NAME};
use crate::hostile::{
    Deletion, EntryType, Filtering, HostileRegistry, Image, ImmutableTags, Lag, LinkForm, Location,
    Manifest, OciSubject, Paging, Quirks, Referrers, Refusal, Unsupported, digest, fallback_tag,
};

const TYPE: &str = "application/vnd.a";

async fn with(change: impl FnOnce(&mut Quirks)) -> (HostileRegistry, Client, Image) {
    let registry = HostileRegistry::start().await.unwrap();
    registry.quirks(change);
    let image = registry
        .image(NAME, "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let client = Client::new(&registry);
    (registry, client, image)
}

#[tokio::test]
async fn there_is_no_referrers_api_in_every_way_of_saying_so() {
    let (registry, client, image) = with(|_| {}).await;
    let elsewhere = HostileRegistry::start().await.unwrap();
    let ways = [
        (Unsupported::NotFoundText, 404, "404 page not found\n"),
        (Unsupported::MethodUnknown, 404, "METHOD_UNKNOWN"),
        (Unsupported::NameUnknown, 404, "NAME_UNKNOWN"),
        (Unsupported::Status(400), 400, "UNSUPPORTED"),
        (Unsupported::Status(405), 405, "UNSUPPORTED"),
        (Unsupported::Status(406), 406, "UNSUPPORTED"),
        (Unsupported::Status(501), 501, "UNSUPPORTED"),
        (Unsupported::SeeOther(elsewhere.url()), 303, ""),
        (
            Unsupported::OtherMediaType("text/html".to_owned()),
            200,
            "<!DOCTYPE html>",
        ),
    ];
    for (way, status, text) in ways {
        registry.quirks(|quirks| quirks.referrers = Referrers::Unsupported(way.clone()));
        let seen = client.referrers(&image.digest).await;
        assert_eq!(seen.status, status, "{way:?}");
        assert!(seen.text().contains(text), "{way:?}: {}", seen.text());
        assert_ne!(seen.header("content-type"), Some(INDEX));
        if let Some(location) = seen.header("location") {
            let page = client.get(location).await;
            assert_eq!(
                (page.status.as_u16(), page.header("content-type")),
                (404, Some("text/html; charset=utf-8"))
            );
        }
    }
    let (_, put) = client.attach(&image.digest, TYPE, 1).await;
    assert_eq!(put.header("oci-subject"), None);
}

#[tokio::test]
async fn the_header_and_the_listing_contradict_each_other() {
    let (registry, client, image) =
        with(|quirks| *quirks = Quirks::subject_without_listing()).await;
    let (_, put) = client.attach(&image.digest, TYPE, 1).await;
    assert_eq!(put.header("oci-subject"), Some(&*image.digest));
    assert_eq!(client.referrers(&image.digest).await.status, 404);
    registry.quirks(|quirks| *quirks = Quirks::go_containerregistry());
    let (_, put) = client.attach(&image.digest, TYPE, 2).await;
    assert_eq!(put.header("oci-subject"), None);
    let listed = client
        .get(&format!(
            "/v2/{NAME}/referrers/{}?artifactType=x%2Fy",
            image.digest
        ))
        .await;
    assert_eq!(
        (listed.digests().len(), listed.header("oci-filters-applied")),
        (2, None)
    );
    assert_eq!(
        listed.json()["manifests"][0]["artifactType"],
        "application/vnd.oci.empty.v1+json"
    );
    registry.quirks(|quirks| quirks.oci_subject = OciSubject::Lie(digest(b"other")));
    let (_, put) = client.attach(&image.digest, TYPE, 3).await;
    assert_eq!(put.header("oci-subject"), Some(&*digest(b"other")));
}

#[tokio::test]
async fn a_listing_lags_behind_by_reads_or_by_time() {
    let (registry, client, image) = with(|quirks| quirks.listing_lag = Lag::reads(2)).await;
    let (first, _) = client.attach(&image.digest, TYPE, 1).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(client.referrers(&image.digest).await.digests().len());
    }
    assert_eq!(seen, [0, 0, 1]);
    registry.quirks(|quirks| quirks.listing_lag = Lag::time(Duration::from_secs(3)));
    client.attach(&image.digest, TYPE, 2).await;
    assert_eq!(client.referrers(&image.digest).await.digests(), [first]);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(client.referrers(&image.digest).await.digests().len(), 2);
}

#[tokio::test]
async fn a_tag_is_read_as_before_for_a_while() {
    let (_registry, client, _) = with(|quirks| quirks.tag_lag = Lag::reads(1)).await;
    let index = |number: u32| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"n": number.to_string()}});
    let path = format!("/v2/{NAME}/manifests/t");
    client.put_manifest("t", INDEX, &index(1)).await;
    assert_eq!(client.get(&path).await.status, 404);
    assert_eq!(client.get(&path).await.json(), index(1));
    client.put_manifest("t", INDEX, &index(2)).await;
    assert_eq!(client.get(&path).await.json(), index(1));
    assert_eq!(client.get(&path).await.json(), index(2));
}

#[tokio::test]
async fn the_filter_is_ignored_silent_claimed_or_wrong() {
    let (registry, client, image) = with(|_| {}).await;
    client.attach(&image.digest, TYPE, 1).await;
    client.attach(&image.digest, "application/vnd.b", 2).await;
    let path = format!("/v2/{NAME}/referrers/{}?artifactType={TYPE}", image.digest);
    let ways = [
        (Filtering::Applied, 1, true),
        (Filtering::Ignored, 2, false),
        (Filtering::Silent, 1, false),
        (Filtering::Claimed, 2, true),
        (Filtering::Wrong("application/vnd.c".to_owned()), 0, true),
    ];
    for (way, count, says) in ways {
        registry.quirks(|quirks| quirks.filtering = way.clone());
        let seen = client.get(&path).await;
        assert_eq!(
            (
                seen.digests().len(),
                seen.header("oci-filters-applied").is_some()
            ),
            (count, says),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn a_listing_comes_in_pages_with_every_form_of_link() {
    let (registry, client, image) = with(|quirks| quirks.paging = Paging::Of(1)).await;
    for number in 0..3 {
        client.attach(&image.digest, TYPE, number).await;
    }
    let path = format!("/v2/{NAME}/referrers/{}", image.digest);
    let mut next = Some(path.clone());
    let mut seen = Vec::new();
    while let Some(at) = next {
        let page = client.get(&at).await;
        seen.extend(page.digests());
        next = page.header("link").map(|link| {
            link.trim_start_matches('<')
                .split_once('>')
                .unwrap()
                .0
                .to_owned()
        });
        assert!(seen.len() <= 3, "{seen:?}");
    }
    assert_eq!(seen.len(), 3);
    let url = registry.url();
    let forms = [
        (
            LinkForm::Relative,
            format!("<{path}?artifactType=application%2Fvnd.a&last=1>; rel=\"next\""),
        ),
        (
            LinkForm::QueryOnly,
            "<?artifactType=application%2Fvnd.a&last=1>; rel=\"next\"".to_owned(),
        ),
        (
            LinkForm::Absolute,
            format!("<{url}{path}?artifactType=application%2Fvnd.a&last=1>; rel=\"next\""),
        ),
        (
            LinkForm::Under("http://x".to_owned()),
            format!("<http://x{path}?artifactType=application%2Fvnd.a&last=1>; rel=\"next\""),
        ),
        (
            LinkForm::SchemeRelative("x".to_owned()),
            format!("<//x{path}?artifactType=application%2Fvnd.a&last=1>; rel=\"next\""),
        ),
        (LinkForm::Malformed, "next page, please".to_owned()),
    ];
    for (form, expected) in forms {
        registry.quirks(|quirks| quirks.link = form);
        let page = client.get(&format!("{path}?artifactType={TYPE}")).await;
        assert_eq!(page.header("link"), Some(&*expected));
    }
    registry.quirks(|quirks| quirks.link = LinkForm::Verbose);
    let page = client.get(&path).await;
    let verbose = page.header("link").unwrap();
    assert!(
        verbose.contains(&format!("<{path}?last=1>;x=y;REL=\"last next\"")),
        "{verbose}"
    );
}

#[tokio::test]
async fn pages_have_no_end_or_go_in_a_circle() {
    let (registry, client, image) = with(|_| {}).await;
    client.attach(&image.digest, TYPE, 1).await;
    client.attach(&image.digest, TYPE, 2).await;
    let path = format!("/v2/{NAME}/referrers/{}", image.digest);
    let at = async |last: &str| {
        let page = client.get(&format!("{path}{last}")).await;
        let link = page.header("link").map(|link| {
            link.split("last=")
                .nth(1)
                .unwrap()
                .split('>')
                .next()
                .unwrap()
                .to_owned()
        });
        (page.digests().len(), link)
    };
    registry.quirks(|quirks| quirks.paging = Paging::EndlessEmpty);
    assert_eq!(at("").await, (2, Some("1".to_owned())));
    assert_eq!(at("?last=70").await, (0, Some("71".to_owned())));
    registry.quirks(|quirks| quirks.paging = Paging::EndlessFull(100));
    assert_eq!(at("").await, (100, Some("100".to_owned())));
    assert_eq!(at("?last=99000").await, (100, Some("99100".to_owned())));
    registry.quirks(|quirks| quirks.paging = Paging::Circle(2));
    assert_eq!(at("").await, (1, Some("1".to_owned())));
    assert_eq!(at("?last=1").await, (1, Some("0".to_owned())));
    registry.quirks(|quirks| (quirks.paging, quirks.made_up_entries) = (Paging::None, 1500));
    assert_eq!(at("").await, (1502, None));
}

#[tokio::test]
async fn entries_of_a_listing_are_meagre() {
    let (registry, client, image) = with(|quirks| quirks.entry_type = EntryType::Empty).await;
    client.attach(&image.digest, TYPE, 1).await;
    assert_eq!(
        client.referrers(&image.digest).await.json()["manifests"][0]["artifactType"],
        ""
    );
    registry.quirks(|quirks| {
        quirks.entry_type = EntryType::Absent;
        quirks.entry_annotations = false;
        quirks.null_for_none = true;
    });
    let entry = client.referrers(&image.digest).await.json()["manifests"][0].clone();
    assert_eq!(
        (entry.get("artifactType"), entry.get("annotations")),
        (None, None)
    );
    assert!(client.referrers(EMPTY).await.json()["manifests"].is_null());
}

#[tokio::test]
async fn gitlab_reads_a_fallback_tag_as_the_subject() {
    let (registry, client, image) = with(|quirks| *quirks = Quirks::gitlab()).await;
    let path = format!("/v2/{NAME}/manifests/{}", fallback_tag(&image.digest));
    let accept = [("accept", INDEX)];
    let seen = client.send(Method::GET, &path, &accept, "").await;
    assert_eq!(
        (seen.status.as_u16(), seen.header("docker-content-digest")),
        (200, Some(&*image.digest))
    );
    registry
        .store()
        .append_fallback(NAME, &image.digest, json!({"digest": EMPTY}));
    let seen = client.send(Method::GET, &path, &accept, "").await;
    assert_eq!(seen.header("docker-content-digest"), Some(&*image.digest));
    registry.quirks(|quirks| quirks.reads_fallback_tag_as_digest = false);
    assert_eq!(
        client.send(Method::GET, &path, &accept, "").await.digests(),
        [EMPTY]
    );
}

#[tokio::test]
async fn a_tag_cannot_be_moved() {
    let (registry, client, image) = with(|_| {}).await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let ways = [
        (Refusal::TagInvalid, 400, "TAG_INVALID"),
        (Refusal::Precondition, 412, "PRECONDITION"),
        (Refusal::Conflict, 409, "CONFLICT"),
        (Refusal::Forbidden, 403, "DENIED"),
    ];
    for (refusal, status, code) in ways {
        registry.quirks(|quirks| {
            quirks.immutable_tags = Some(ImmutableTags {
                pattern: "v*".to_owned(),
                refusal,
            });
        });
        let seen = client.put_manifest("v1", INDEX, &index).await;
        assert_eq!(
            (seen.status.as_u16(), seen.code()),
            (status, code.to_owned())
        );
        assert_eq!(
            client.put_manifest("other", INDEX, &index).await.status,
            201
        );
    }
    assert_eq!(registry.store().tag(NAME, "v1"), Some(image.digest));
}

#[tokio::test]
async fn distribution_refuses_an_index_that_names_what_is_gone() {
    let (registry, client, image) = with(|quirks| *quirks = Quirks::distribution()).await;
    registry.quirks(|quirks| quirks.ignores_monolithic_post = false);
    let (attachment, _) = client.attach(&image.digest, TYPE, 1).await;
    let entry = registry
        .store()
        .manifest(NAME, &attachment)
        .map(|manifest| Manifest::descriptor(&manifest))
        .unwrap();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let tag = fallback_tag(&image.digest);
    assert_eq!(client.put_manifest(&tag, INDEX, &index).await.status, 201);
    assert!(registry.store().delete_manifest(NAME, &attachment));
    assert_eq!(
        registry.store().fallback_entries(NAME, &image.digest),
        [entry]
    );
    let refused = client.put_manifest(&tag, INDEX, &index).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    assert_eq!(refused.json()["errors"][0]["detail"], attachment);
    // A subject that is not there is taken all the same: attach() asserts the 201.
    client.attach(&digest(b"nowhere"), TYPE, 2).await;
    assert_eq!(
        client.get(&format!("/v2/{NAME}/manifests/v1")).await.code(),
        "MANIFEST_UNKNOWN"
    );
}

#[tokio::test]
async fn a_delete_is_refused() {
    let (registry, client, image) = with(|quirks| quirks.deletion = Deletion::Disabled).await;
    let path = format!("/v2/{NAME}/manifests/{}", image.platform("linux/amd64"));
    let seen = client.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(
        (seen.status.as_u16(), seen.code()),
        (405, "UNSUPPORTED".to_owned())
    );
    registry.quirks(|quirks| *quirks = Quirks::ecr());
    let seen = client.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(
        (seen.status.as_u16(), seen.code()),
        (403, "DENIED".to_owned())
    );
    let (attachment, put) = client.attach(&image.digest, TYPE, 1).await;
    assert_eq!(put.header("location"), None);
    let free = client
        .send(
            Method::DELETE,
            &format!("/v2/{NAME}/manifests/{attachment}"),
            &[],
            "",
        )
        .await;
    assert_eq!(free.status, 202);
}

#[tokio::test]
async fn a_repository_must_have_been_made() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::ecr())
        .start()
        .await
        .unwrap();
    let client = Client::new(&registry);
    let manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let refused = client.put_manifest("v1", INDEX, &manifest).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (404, "NAME_UNKNOWN".to_owned())
    );
    let refused = client
        .send(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), &[], "")
        .await;
    assert_eq!(refused.status, 404);
    registry.store().create(NAME);
    assert_eq!(
        client.put_manifest("v1", INDEX, &manifest).await.status,
        201
    );
}

#[tokio::test]
async fn an_upload_goes_to_another_host() {
    let registry = HostileRegistry::start().await.unwrap();
    let elsewhere = HostileRegistry::builder()
        .store(&registry.store())
        .start()
        .await
        .unwrap();
    registry.quirks(|quirks| {
        quirks.upload_location = Location::Under(elsewhere.url());
        quirks.ignores_monolithic_post = true;
    });
    let client = Client::new(&registry);
    let posted = client
        .send(
            Method::POST,
            &format!("/v2/{NAME}/blobs/uploads/?digest={EMPTY}"),
            &[],
            "{}",
        )
        .await;
    assert_eq!(posted.status, 202);
    assert!(registry.store().blob(NAME, EMPTY).is_none());
    let location = posted.header("location").unwrap();
    assert!(location.starts_with(&elsewhere.url()), "{location}");
    assert_eq!(
        client
            .send(
                Method::PUT,
                &format!("{location}&digest={EMPTY}"),
                &[],
                "{}"
            )
            .await
            .status,
        201
    );
    assert!(registry.store().blob(NAME, EMPTY).is_some());
    assert_eq!(
        (
            elsewhere.requests().len(),
            elsewhere.with_credentials().len()
        ),
        (1, 0)
    );
    for (form, expected) in [
        (Location::None, None),
        (Location::Raw("::".to_owned()), Some("::")),
    ] {
        registry.quirks(|quirks| quirks.upload_location = form);
        let posted = client
            .send(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"), &[], "")
            .await;
        assert_eq!(posted.header("location"), expected);
    }
}

#[tokio::test]
async fn answers_lack_the_digest_or_what_was_not_accepted() {
    let (registry, client, image) = with(|quirks| quirks.digest_header = false).await;
    let path = format!("/v2/{NAME}/manifests/v1");
    assert_eq!(
        client.get(&path).await.header("docker-content-digest"),
        None
    );
    registry.quirks(|quirks| quirks.needs_accept = true);
    let refused = client
        .send(Method::GET, &path, &[("accept", MANIFEST)], "")
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (404, "MANIFEST_UNKNOWN".to_owned())
    );
    let both = format!("{MANIFEST};q=0.5, {INDEX}");
    assert_eq!(
        client
            .send(Method::GET, &path, &[("accept", &both)], "")
            .await
            .status,
        200
    );
    let last = registry.image(NAME, "v2").platform("linux/amd64").push();
    assert_ne!(last.digest, image.digest);
    registry.quirks(|quirks| quirks.tags_per_page = Some(1));
    let page = client.get(&format!("/v2/{NAME}/tags/list?n=1000")).await;
    assert_eq!(page.json()["tags"], json!(["v1"]));
    assert_eq!(
        page.header("link"),
        Some(&*format!(
            "</v2/{NAME}/tags/list?n=1000&last=v1>; rel=\"next\""
        ))
    );
}
