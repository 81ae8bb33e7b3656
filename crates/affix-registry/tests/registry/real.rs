//! The client against real registries, verified with other clients.

use std::sync::Arc;

use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{
    Access, Deletion, ErrorKind, Keychain, ListingSource, Registries, Session, TagChange,
    TlsOptions,
};
use affix_testbed::certificates::Authority;
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Options, Registry, User};
use affix_testbed::tools::{Tool, Tools};
use serde_json::json;

use crate::support::{MANIFEST, NAME, attachment, by, digest, entry, options, refused, tag};

async fn start(options: Options) -> (Registry, Pushed) {
    let registry = options.start().await.unwrap();
    let index = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let pushed = index
        .push(&registry.raw().unwrap(), NAME, "v1")
        .await
        .unwrap();
    (registry, pushed)
}

fn open_as(registry: &Registry, login: Option<(&str, &str)>) -> Session {
    let credentials = login.map_or_else(Keychain::anonymous, |(user, password)| {
        Keychain::login(registry.host(), user, password.into()).unwrap()
    });
    let tls = TlsOptions {
        ca_pem: registry.ca_pem().map(|pem| pem.as_bytes().to_vec()),
        client: None,
    };
    let access = Access {
        credentials,
        tls,
        insecure: !registry.is_tls(),
        ..Access::default()
    };
    Registries::new(options())
        .open(
            &registry.host().parse().unwrap(),
            &NAME.parse().unwrap(),
            access,
        )
        .unwrap()
}

fn subject(pushed: &Pushed) -> Descriptor {
    let of = &pushed.descriptor;
    Descriptor::plain(of.media_type.clone(), digest(&of.digest), of.size as u64)
}

/// Attaches as the engine does. Returns the digest of the attachment.
async fn attach(session: &Session, subject: &Descriptor, note: &str) -> Digest {
    session.put_blob("{}".into()).await.unwrap();
    let named = json!({"mediaType": subject.media_type, "digest": subject.digest.to_string(), "size": subject.size});
    let (at, bytes) = attachment(&named, note);
    let put = session
        .put_manifest(&by(&at), MANIFEST, bytes.clone())
        .await
        .unwrap();
    let listing = session.referrers(&subject.digest, None).await.unwrap();
    match listing.source {
        ListingSource::Api => {
            assert_eq!(put.subject_acknowledged.as_ref(), Some(&subject.digest));
            assert!(listing.entries.iter().any(|entry| entry.digest == at));
        }
        ListingSource::FallbackTag => {
            let change = TagChange {
                add: vec![entry(&at, &bytes)],
                remove: Vec::new(),
            };
            session
                .rewrite_fallback(subject, change, false)
                .await
                .unwrap();
        }
    }
    at
}

async fn attach_and_discover(
    tools: &Tools,
    registry: &Registry,
    pushed: &Pushed,
    login: Option<(&str, &str)>,
) {
    let session = open_as(registry, login);
    let fetched = session.manifest(&tag("v1")).await.unwrap();
    assert_eq!(fetched.descriptor(), subject(pushed));
    assert_eq!(
        session.head(&tag("v1")).await.unwrap().digest,
        fetched.digest
    );
    assert_eq!(
        session
            .list_tags(10, |_| true)
            .await
            .unwrap()
            .first()
            .map(affix_registry::oci::Tag::as_str),
        Some("v1")
    );
    let at = attach(&session, &subject(pushed), "a").await;
    assert_eq!(session.blob(&Descriptor::empty(), 10).await.unwrap(), "{}");
    let found = Peer::of(tools, registry)
        .unwrap()
        .oras(["discover", "--format", "json", &pushed.pinned()])
        .await
        .unwrap()
        .json()
        .unwrap();
    let list = found["referrers"].as_array().unwrap();
    assert_eq!(
        (list.len(), list[0]["digest"].as_str()),
        (1, Some(at.to_string().as_str())),
        "{found}"
    );
    assert_eq!(
        list[0]["artifactType"], "application/vnd.demo.thing",
        "{found}"
    );
    refused(
        session.manifest(&tag("v2")).await,
        ErrorKind::NotFound,
        &["HTTP 404 MANIFEST_UNKNOWN"],
    );
}

#[tokio::test]
async fn an_attachment_is_found_by_oras_on_each_registry_with_each_kind_of_login() {
    let tools = Tools::core().await.unwrap();
    let authority = Arc::new(Authority::new().unwrap());
    for kind in [Registry::distribution, Registry::ociregistry] {
        let (registry, pushed) = start(kind(&tools)).await;
        attach_and_discover(&tools, &registry, &pushed, None).await;
        let (registry, pushed) = start(kind(&tools).basic("alice", "secret")).await;
        attach_and_discover(&tools, &registry, &pushed, Some(("alice", "secret"))).await;
        refused(
            open_as(&registry, Some(("alice", "wrong")))
                .manifest(&tag("v1"))
                .await,
            ErrorKind::AuthenticationFailed,
            &["HTTP 401"],
        );
        let users = [
            User::new("writer", "w").may("team/*", &["pull", "push"]),
            User::new("reader", "r").may("team/*", &["pull"]),
        ];
        let (registry, pushed) = start(kind(&tools).tokens(users).tls(&authority)).await;
        attach_and_discover(&tools, &registry, &pushed, Some(("writer", "w"))).await;
        let reader = open_as(&registry, Some(("reader", "r")));
        reader.manifest(&tag("v1")).await.unwrap();
        refused(
            reader.put_blob("{}".into()).await,
            ErrorKind::AccessDenied,
            &["POST blob sha256:", "HTTP 40"],
        );
    }
}

#[tokio::test]
async fn distribution_refuses_deletions_by_default_and_performs_them_if_enabled() {
    let tools = Tools::core().await.unwrap();
    for (enabled, done) in [(false, false), (true, true)] {
        let users = [User::new("writer", "w").may("team/*", &["pull", "push", "delete"])];
        let (registry, pushed) = start(
            Registry::distribution(&tools)
                .tokens(users)
                .delete_enabled(enabled),
        )
        .await;
        let session = open_as(&registry, Some(("writer", "w")));
        let at = attach(&session, &subject(&pushed), "a").await;
        let change = TagChange {
            add: Vec::new(),
            remove: vec![at.clone()],
        };
        assert!(
            session
                .rewrite_fallback(&subject(&pushed), change, true)
                .await
                .unwrap()
                .entries
                .is_empty()
        );
        let deletion = session.delete_manifest(&at).await.unwrap();
        assert_eq!(deletion == Deletion::Done, done, "{deletion:?}");
    }
}

#[tokio::test]
async fn a_dangling_entry_in_distribution_is_repaired() {
    let tools = Tools::core().await.unwrap();
    let (registry, pushed) = start(Registry::distribution(&tools).delete_enabled(true)).await;
    let session = open_as(&registry, None);
    let gone = attach(&session, &subject(&pushed), "gone").await;
    session.delete_manifest(&gone).await.unwrap();
    let at = attach(&session, &subject(&pushed), "a").await;
    let listing = session
        .referrers(&subject(&pushed).digest, None)
        .await
        .unwrap();
    assert_eq!(
        listing
            .entries
            .iter()
            .map(|entry| &entry.digest)
            .collect::<Vec<_>>(),
        [&at]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_twenty_writers_and_five_oras_on_distribution_lose_no_entry_of_ours() {
    let tools = Tools::core().await.unwrap();
    let (registry, pushed) = start(Registry::distribution(&tools)).await;
    let registry = Arc::new(registry);
    let peer = Arc::new(Peer::of(&tools, &registry).unwrap());
    let oras: Vec<_> = (0..5)
        .map(|n| {
            let (peer, target) = (Arc::clone(&peer), pushed.pinned());
            tokio::spawn(async move {
                let note = format!("n={n}");
                peer.oras([
                    "attach",
                    "--artifact-type",
                    "application/vnd.demo.oras",
                    "--annotation",
                    &note,
                    &target,
                ])
                .await
                .map(drop)
            })
        })
        .collect();
    let ours: Vec<_> = (0..20)
        .map(|n| {
            let (session, subject) = (open_as(&registry, None), subject(&pushed));
            tokio::spawn(async move { attach(&session, &subject, &format!("writer {n}")).await })
        })
        .collect();
    let mut all = Vec::new();
    for writer in ours {
        all.push(writer.await.unwrap());
    }
    for other in oras {
        other.await.unwrap().unwrap();
    }
    // oras writes without reading again, so a late write may drop our entries. The next pass must
    // restore them.
    let session = open_as(&registry, None);
    for (n, at) in all.iter().enumerate() {
        assert_eq!(
            *at,
            attach(&session, &subject(&pushed), &format!("writer {n}")).await
        );
    }
    let listing = session
        .referrers(&subject(&pushed).digest, None)
        .await
        .unwrap();
    let listed: Vec<_> = listing.entries.iter().map(|entry| &entry.digest).collect();
    assert!(
        all.iter().all(|at| listed.contains(&at)) && listed.len() >= 20,
        "{} are listed",
        listed.len()
    );
}

#[tokio::test]
async fn an_image_that_cosign_copied_gets_its_attachments_by_the_fallback_tag() {
    let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
    let (source, pushed) = start(Registry::distribution(&tools)).await;
    let mirror = Registry::distribution(&tools).start().await.unwrap();
    let mut peer = Peer::of(&tools, &source).unwrap();
    peer.know(&mirror, None).unwrap();
    let subject = subject(&pushed);
    let at = |registry: &Registry| format!("{}/{NAME}:v1", registry.host());
    let copy = [
        "copy",
        "--allow-insecure-registry",
        &at(&source),
        &at(&mirror),
    ];
    let run = peer.run(Tool::Cosign).unwrap().args(copy);
    run.output().await.unwrap().stdout().unwrap();
    let session = open_as(&mirror, None);
    // The form that older versions of cosign leave, for the index and each of its manifests.
    let fetched = session.manifest(&by(&subject.digest)).await.unwrap();
    let affix_registry::oci::Manifest::Index(index) = fetched.manifest else {
        panic!("it is no index");
    };
    for entry in index.manifests.iter().chain([&subject]) {
        let name = format!("{}/{NAME}@{}", mirror.host(), entry.digest);
        let tagged = peer
            .crane(["tag", &name, &entry.digest.fallback_tag()])
            .await;
        tagged.unwrap().stdout().unwrap();
    }
    for entry in index.manifests.iter().chain([&subject]) {
        let entry = entry.stripped();
        let at = attach(&session, &entry, "a").await;
        let name = format!("{}/{NAME}@{}", mirror.host(), entry.digest);
        let discovered = peer.oras(["discover", "--format", "json", &name]).await;
        let found = discovered.unwrap().json().unwrap();
        assert_eq!(found["referrers"][0]["digest"], at.to_string(), "{found}");
        session.manifest(&by(&entry.digest)).await.unwrap();
    }
}
