//! Listing referrers on registries with different behaviour.

use affix_registry::oci::{ArtifactType, Digest};
use affix_registry::{ErrorKind, ListingSource, ReferrersMode, Registries};
use affix_testbed::hostile::{
    EntryType, Fault, Filtering, HostileRegistry, LinkForm, Matcher, Op, Paging, Quirks, Referrers,
    Reply, Unsupported,
};
use serde_json::json;

use crate::support::{
    EMPTY, INDEX, MANIFEST, NAME, access, attachment, digest, image, open, open_in, open_mode,
    options, refused,
};

/// Creates an image with three attachments, one of another type. Returns their digests.
fn attached(registry: &HostileRegistry) -> (Digest, Vec<Digest>) {
    let image = image(registry);
    let mut all: Vec<Digest> = ["a", "b"]
        .iter()
        .map(|note| {
            let (at, bytes) = attachment(&image.descriptor(), note);
            registry.store().put_manifest(NAME, None, MANIFEST, bytes);
            at
        })
        .collect();
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2});
    let other = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.demo.other", "config": empty, "layers": [empty], "subject": image.descriptor()});
    all.push(digest(&registry.store().put_manifest(
        NAME,
        None,
        MANIFEST,
        other.to_string(),
    )));
    (digest(&image.digest), all)
}

fn thing() -> ArtifactType {
    "application/vnd.demo.thing".parse().unwrap()
}

fn digests(listing: &affix_registry::Listing) -> Vec<Digest> {
    let mut digests: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| entry.digest.clone())
        .collect();
    digests.sort();
    digests
}

fn sorted(digests: &[Digest]) -> Vec<Digest> {
    let mut digests = digests.to_vec();
    digests.sort();
    digests
}

#[tokio::test]
async fn the_client_filters_by_type_unless_the_registry_reports_that_it_did() {
    for (filtering, filtered) in [
        (Filtering::Applied, true),
        (Filtering::Ignored, false),
        (Filtering::Silent, false),
        (Filtering::Claimed, true),
    ] {
        let registry = HostileRegistry::start().await.unwrap();
        let (subject, all) = attached(&registry);
        registry.quirks(|quirks| quirks.filtering = filtering.clone());
        let session = open(&registry);
        let listing = session.referrers(&subject, Some(&thing())).await.unwrap();
        assert_eq!(
            (digests(&listing), listing.filtered, listing.source),
            (sorted(&all[..2]), filtered, ListingSource::Api),
            "{filtering:?}"
        );
        assert_eq!(session.requests(), 1);
        let whole = session.referrers(&subject, None).await.unwrap();
        assert_eq!((digests(&whole), whole.filtered), (sorted(&all), false));
        assert_eq!(session.referrers_mode(), Some(ListingSource::Api));
    }
}

#[tokio::test]
async fn entries_without_a_type_pass_the_filter_because_the_manifest_decides() {
    for entry_type in [EntryType::Empty, EntryType::Absent] {
        let registry = HostileRegistry::start().await.unwrap();
        let (subject, all) = attached(&registry);
        registry.quirks(|quirks| {
            (quirks.entry_type, quirks.filtering) = (entry_type, Filtering::Ignored);
        });
        let listing = open(&registry)
            .referrers(&subject, Some(&thing()))
            .await
            .unwrap();
        assert_eq!(digests(&listing), sorted(&all));
    }
}

#[tokio::test]
async fn one_entry_a_page_is_one_listing_however_the_link_is_written() {
    for link in [
        LinkForm::Relative,
        LinkForm::QueryOnly,
        LinkForm::Absolute,
        LinkForm::Verbose,
    ] {
        let registry = HostileRegistry::start().await.unwrap();
        let (subject, all) = attached(&registry);
        registry.quirks(|quirks| (quirks.paging, quirks.link) = (Paging::Of(1), link.clone()));
        let listing = open(&registry).referrers(&subject, None).await.unwrap();
        assert_eq!(
            digests(&listing),
            sorted(&all),
            "{link:?}\n{}",
            registry.transcript()
        );
    }
}

#[tokio::test]
async fn no_referrers_are_none_also_as_null() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    for null_for_none in [false, true] {
        registry.quirks(|quirks| quirks.null_for_none = null_for_none);
        assert!(
            open(&registry)
                .referrers(&digest(&image.digest), None)
                .await
                .unwrap()
                .entries
                .is_empty()
        );
    }
}

#[tokio::test]
async fn each_way_to_lack_the_api_leads_to_the_fallback_tag_and_is_learned_once() {
    let elsewhere = HostileRegistry::start().await.unwrap();
    for unsupported in [
        Unsupported::NotFoundText,
        Unsupported::MethodUnknown,
        Unsupported::Status(400),
        Unsupported::Status(405),
        Unsupported::Status(406),
        Unsupported::Status(501),
        Unsupported::SeeOther(elsewhere.url()),
        Unsupported::OtherMediaType("text/html".to_owned()),
        Unsupported::OtherMediaType("application/json".to_owned()),
    ] {
        let quirks = Quirks {
            referrers: Referrers::Unsupported(unsupported.clone()),
            ..Quirks::default()
        };
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let subject = image(&registry).digest;
        let (at, bytes) = attachment(&json!({"digest": subject}), "a");
        registry.store().append_fallback(
            NAME,
            &subject,
            json!({"mediaType": MANIFEST, "digest": at.to_string(), "size": bytes.len()}),
        );
        let registries = Registries::new(options());
        for requests in [2, 1] {
            let session = open_in(&registries, &registry, access(&registry));
            let listing = session
                .referrers(&digest(&subject), Some(&thing()))
                .await
                .unwrap();
            assert_eq!(
                (digests(&listing), listing.source),
                (vec![at.clone()], ListingSource::FallbackTag),
                "{unsupported:?}"
            );
            assert_eq!(
                session.requests(),
                requests,
                "{unsupported:?}\n{}",
                registry.transcript()
            );
            assert_eq!(session.referrers_mode(), Some(ListingSource::FallbackTag));
        }
    }
    assert!(
        elsewhere.requests().is_empty(),
        "the 303 is the answer: {}",
        elsewhere.transcript()
    );
}

#[tokio::test]
async fn a_listing_that_fails_is_an_error_and_never_empty() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    for (reply, kind, expected) in [
        (
            Reply::status(404),
            ErrorKind::NotFound,
            "HTTP 404 NAME_UNKNOWN",
        ),
        (
            Reply::status(403),
            ErrorKind::AccessDenied,
            "HTTP 403 DENIED",
        ),
        (
            Reply::status(401),
            ErrorKind::AuthenticationFailed,
            "HTTP 401",
        ),
        (
            Reply::status(500),
            ErrorKind::RegistryUnavailable,
            "HTTP 500",
        ),
        (
            Reply::status(503),
            ErrorKind::RegistryUnavailable,
            "HTTP 503",
        ),
        (Reply::status(418), ErrorKind::ManifestRejected, "HTTP 418"),
        (
            Reply::body(200, INDEX, "{\"manifests\":"),
            ErrorKind::RegistryUnavailable,
            "the listing is malformed",
        ),
        (
            Reply::body(200, INDEX, "[]"),
            ErrorKind::RegistryUnavailable,
            "the listing is malformed",
        ),
        (
            Reply::body(200, INDEX, "{\"manifests\":[],\"manifests\":[]}"),
            ErrorKind::RegistryUnavailable,
            "duplicate field `manifests`",
        ),
    ] {
        registry.calm();
        registry.fault(Matcher::on(Op::ReferrersList), reply.clone());
        refused(
            open(&registry).referrers(&subject, None).await,
            kind,
            &["GET referrers of sha256:", expected],
        );
        registry.fault(Matcher::on(Op::ManifestGet).fallback_tag(), reply);
        if expected != "HTTP 404 NAME_UNKNOWN" {
            assert!(
                open_mode(&registry, ReferrersMode::TagSchema)
                    .referrers(&subject, None)
                    .await
                    .is_err(),
                "{expected}"
            );
        }
    }
}

#[tokio::test]
async fn a_later_page_that_fails_fails_the_listing() {
    let registry = HostileRegistry::start().await.unwrap();
    let (subject, _) = attached(&registry);
    registry.quirks(|quirks| quirks.paging = Paging::Of(1));
    for fault in [
        Fault::status(404),
        Fault::status(405),
        Fault::from(Reply::body(200, "text/html", "<html>")),
    ] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::ReferrersList).when(|request| !request.query.is_empty()),
            fault,
        );
        assert!(open(&registry).referrers(&subject, None).await.is_err());
    }
}

#[tokio::test]
async fn the_fallback_tag_is_never_read_after_the_api_has_answered() {
    let registry = HostileRegistry::start().await.unwrap();
    let (subject, _) = attached(&registry);
    let session = open(&registry);
    session.referrers(&subject, None).await.unwrap();
    registry.quirks(|quirks| quirks.referrers = Referrers::Unsupported(Unsupported::NotFoundText));
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::RegistryUnavailable,
        &["HTTP 404, although the registry answered such listings before"],
    );
    assert_eq!(registry.count(Op::ManifestGet), 0);
}

#[tokio::test]
async fn the_mode_decides_where_it_is_set() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::subject_without_listing())
        .start()
        .await
        .unwrap();
    let subject = digest(&image(&registry).digest);
    let session = open_mode(&registry, ReferrersMode::Api);
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::ReferrersUnsupported,
        &["HTTP 404", "set referrersMode to Auto or TagSchema"],
    );
    assert_eq!(registry.count(Op::ManifestGet), 0);
    registry.clear();
    assert!(
        open_mode(&registry, ReferrersMode::TagSchema)
            .referrers(&subject, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert_eq!(
        (
            registry.count(Op::ReferrersList),
            registry.count(Op::ManifestGet)
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn gitlab_reads_the_fallback_tag_as_the_image_and_that_is_no_listing() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::gitlab())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    for subject in [&image.digest, &image.platform("linux/amd64").to_owned()] {
        let result = open(&registry).referrers(&digest(subject), None).await;
        refused(
            result,
            ErrorKind::FallbackTagConflict,
            &["GET fallback tag sha256-", "as GitLab does"],
        );
    }
}

#[tokio::test]
async fn a_fallback_tag_that_holds_an_image_is_no_listing() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    let tag = affix_testbed::hostile::fallback_tag(&image.digest);
    registry
        .store()
        .put_tag(NAME, &tag, image.platform("linux/amd64"));
    refused(
        open(&registry)
            .referrers(&digest(&image.digest), None)
            .await,
        ErrorKind::FallbackTagConflict,
        &["the tag does not hold a list of referrers but", MANIFEST],
    );
}
