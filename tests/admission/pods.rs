//! Pods whose images are out of life: what the user reads, what is refused, and what happens when nobody can be asked.

use std::time::Instant;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Options, Registry, User};
use affix_testbed::tools::Tools;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::place::{Place, said, wait};
use crate::webhook::Affix;

const TYPE: &str = "application/vnd.microsoft.artifact.lifecycle";
const ANNOTATION: &str = "vnd.microsoft.artifact.lifecycle.end-of-life.date";
pub(crate) const ENDED: &str = "reached end of life on 2025-03-20";

/// Both kinds of registry: with the referrers API, and with a fallback tag.
pub(crate) const KINDS: [fn(&Tools) -> Options; 2] =
    [Registry::ociregistry, Registry::distribution];

pub(crate) async fn push(registry: &Registry, tag: &str) -> Pushed {
    let index = Index::new()
        .image(Image::new("linux/amd64", &format!("b1 {tag}")))
        .image(Image::new("linux/arm64", &format!("c1 {tag}")));
    index
        .push(&registry.raw().unwrap(), "team/app", tag)
        .await
        .unwrap()
}

/// Marks by hand, as the documentation of Microsoft's type says.
pub(crate) async fn mark(peer: &Peer, image: &str, date: &str) {
    let annotation = format!("{ANNOTATION}={date}");
    peer.oras([
        "attach",
        "--artifact-type",
        TYPE,
        "--annotation",
        &annotation,
        image,
    ])
    .await
    .unwrap()
    .stdout()
    .unwrap();
}

/// A webhook that knows that the registry speaks plain HTTP.
pub(crate) async fn webhook(place: &Place, registry: &Registry, more: &[&str]) -> Affix {
    Affix::webhook(
        place,
        &[&["--insecure-registries", registry.host()][..], more].concat(),
    )
    .await
    .0
}

/// A pod is refused for its image; looked at again where the machine was too busy for the look-up.
pub(crate) async fn refused(place: &Place, image: &str, spec: Value) -> String {
    let mut text = String::new();
    wait("a refusal", async || {
        match place.try_pod(image, spec.clone()).await {
            Err(said) => {
                text = said;
                true
            }
            Ok(said) => {
                assert!(
                    said.contains("was not checked"),
                    "{image} {spec}: admitted: {said}"
                );
                false
            }
        }
    })
    .await;
    text
}

/// A pod is admitted, and this was said; looked at again where the machine was too busy.
async fn admitted(place: &Place, image: &str, spec: Value) -> String {
    let mut text = String::new();
    wait("an answer", async || {
        text = place
            .try_pod(image, spec.clone())
            .await
            .unwrap_or_else(|said| panic!("{image} {spec}: refused: {said}"));
        !text.contains("was not checked")
    })
    .await;
    text
}

#[tokio::test]
async fn marks_written_by_oras_are_warned_of_audited_or_enforced_as_the_label_says() {
    for (nth, start) in KINDS.into_iter().enumerate() {
        let kind = ["api", "fallback tag"][nth];
        let place = Place::new("marked", json!({"affix.dev/end-of-life": "enabled"})).await;
        let registry = start(&place.tools).start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let (old, good, later, half) = (
            push(&registry, "old").await,
            push(&registry, "good").await,
            push(&registry, "later").await,
            push(&registry, "half").await,
        );
        mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
        mark(&peer, &later.pinned(), "9998-12-31").await;
        mark(
            &peer,
            &half.at(half.digest_of("linux/amd64").unwrap()),
            "2025-03-20",
        )
        .await;
        let _webhook = webhook(&place, &registry, &[]).await;

        // Warned of, by kubectl run itself.
        let image = old.tagged();
        let run = said(
            place
                .kubectl(&["run", "by-hand", "--image", &image, "--restart=Never"])
                .await,
        )
        .unwrap();
        assert!(
            run.contains(&format!("Warning: image {image} {ENDED}")),
            "{kind}: {run}"
        );
        assert!(
            run.lines()
                .filter(|line| line.starts_with("Warning"))
                .all(|line| line.chars().count() <= 130),
            "{run}"
        );
        for image in [good.tagged(), good.pinned(), later.tagged()] {
            assert!(
                !admitted(&place, &image, json!({}))
                    .await
                    .contains("Warning"),
                "{kind}: {image}"
            );
        }
        let mentioned = admitted(&place, &half.tagged(), json!({})).await;
        assert!(
            mentioned.contains(&format!("(linux/amd64) {ENDED}")),
            "{kind}: {mentioned}"
        );

        // Audited: nothing is said.
        place
            .kubectl(&[
                "label",
                "--overwrite",
                "namespace",
                &place.name,
                "affix.dev/end-of-life=audit",
            ])
            .await
            .stdout()
            .unwrap();
        wait("the label", async || {
            !place
                .try_pod(&image, json!({}))
                .await
                .unwrap()
                .contains("Warning")
        })
        .await;

        // Enforced: every kind of container, dry runs too; workloads are warned of.
        place
            .kubectl(&[
                "label",
                "--overwrite",
                "namespace",
                &place.name,
                "affix.dev/end-of-life=enforce",
            ])
            .await
            .stdout()
            .unwrap();
        wait("the label", async || {
            place.try_pod(&image, json!({})).await.is_err()
        })
        .await;
        let text = refused(&place, &image, json!({})).await;
        assert!(
            text.contains("pods.affix.dev")
                && text.contains(&format!("image {image} {ENDED}: run a newer image")),
            "{kind}: {text}"
        );
        let aside = json!([{"name": "aside", "image": image}]);
        refused(&place, &good.tagged(), json!({"initContainers": aside})).await;
        refused(
            &place,
            &good.tagged(),
            json!({"volumes": [{"name": "v", "image": {"reference": image}}]}),
        )
        .await;
        let dry = place
            .apply_with(&Place::pod("dry", &image, json!({})), &["--dry-run=server"])
            .await
            .unwrap_err();
        assert!(dry.contains(ENDED), "{kind}: {dry}");
        place
            .apply(&Place::pod("good", &good.tagged(), json!({})))
            .await
            .unwrap();
        let debug = said(
            place
                .kubectl(&[
                    "debug",
                    "good",
                    "--image",
                    &image,
                    "--attach=false",
                    "-c",
                    "debugger",
                ])
                .await,
        )
        .unwrap_err();
        assert!(debug.contains(ENDED), "{kind}: {debug}");
        // What changes no image is none of its business.
        let label = place.kubectl(&["label", "pod", "by-hand", "a=b"]).await;
        assert!(!said(label).unwrap().contains("Warning"));

        // The platform counts where one is chosen.
        let on = |architecture: &str| json!({"nodeSelector": {"kubernetes.io/arch": architecture}});
        refused(&place, &half.tagged(), on("amd64")).await;
        admitted(&place, &half.tagged(), on("arm64")).await;
        admitted(&place, &old.tagged(), on("arm64")).await;

        for command in [
            &["create", "deployment", "d", "--image", &image] as &[&str],
            &["create", "job", "j", "--image", &image],
        ] {
            let text = said(place.kubectl(command).await).unwrap();
            assert!(
                text.contains(&format!("Warning: image {image} {ENDED}")),
                "{kind}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_date_soon_is_warned_of_as_early_as_the_flag_says_and_an_affinity_chooses_the_platform() {
    for start in KINDS {
        let place = Place::new("soon", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start(&place.tools).start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let (soon, half) = (push(&registry, "soon").await, push(&registry, "half").await);
        let day = |days: i64| {
            let then = Timestamp::from_second(Timestamp::now().as_second() + days * 86400).unwrap();
            then.to_string().split('T').next().unwrap().to_owned()
        };
        mark(&peer, &soon.pinned(), &day(20)).await;
        mark(
            &peer,
            &half.at(half.digest_of("linux/amd64").unwrap()),
            "2025-03-20",
        )
        .await;
        let reaches = format!("reaches end of life on {}", day(20));
        {
            let _webhook = webhook(&place, &registry, &[]).await;
            let said = admitted(&place, &soon.tagged(), json!({})).await;
            assert!(
                said.contains(&format!("Warning: image {} {reaches}", soon.tagged())),
                "{said}"
            );
            let affinity = |operator: &str, architecture: &str| {
                let expressions = json!([{"key": "kubernetes.io/arch", "operator": operator, "values": [architecture]}]);
                let terms = json!([{"matchExpressions": expressions}]);
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
            };
            let text = refused(&place, &half.tagged(), affinity("In", "amd64")).await;
            assert!(text.contains(&format!("(linux/amd64) {ENDED}")), "{text}");
            refused(&place, &half.tagged(), affinity("NotIn", "arm64")).await;
            admitted(&place, &half.tagged(), affinity("In", "arm64")).await;
        }
        let _webhook = webhook(&place, &registry, &["--warn-before", "240h"]).await;
        assert!(
            !admitted(&place, &soon.tagged(), json!({}))
                .await
                .contains("Warning")
        );
    }
}

#[tokio::test]
async fn a_moved_tag_is_seen_at_once_and_a_mark_that_is_taken_away_after_the_caches_time() {
    for start in [
        Registry::ociregistry(&Tools::core().await.unwrap()),
        Registry::distribution(&Tools::core().await.unwrap()).delete_enabled(true),
    ] {
        let place = Place::new("moved", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let _webhook = webhook(&place, &registry, &["--cache-ttl", "2s"]).await;
        let repository = good.tagged().replace(":good", "");
        peer.crane(["tag", &good.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let live = format!("{repository}:live");
        admitted(&place, &live, json!({})).await;
        refused(&place, &old.tagged(), json!({})).await;
        // Both digests are remembered now; the tag is not.
        peer.crane(["tag", &old.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        refused(&place, &live, json!({})).await;
        peer.crane(["tag", &good.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        admitted(&place, &live, json!({})).await;

        let found = peer
            .oras(["discover", "--format", "json", &old.pinned()])
            .await
            .unwrap()
            .json()
            .unwrap();
        let marks = found["referrers"]
            .as_array()
            .or_else(|| found["manifests"].as_array())
            .unwrap_or_else(|| panic!("{found}"));
        let of_old = format!("{repository}@{}", marks[0]["digest"].as_str().unwrap());
        // oras takes the entry off the fallback tag too.
        peer.oras(["manifest", "delete", "--force", &of_old])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        wait("the mark's end", async || {
            place.try_pod(&old.tagged(), json!({})).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_private_image_is_checked_with_the_pods_own_pull_secrets() {
    let tools = Tools::core().await.unwrap();
    let alice = User::new("alice", "hunter2").may("team/*", &["pull"]);
    for start in [
        Registry::distribution(&tools).basic("alice", "hunter2"),
        Registry::ociregistry(&tools).tokens([alice]),
    ] {
        let place = Place::new("private", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&place.tools, &registry).unwrap();
        let old = push(&registry, "old").await;
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let webhook = webhook(&place, &registry, &[]).await;
        place.apply(&login(&registry)).await.unwrap();
        let with_login = json!({"imagePullSecrets": [{"name": "absent"}, {"name": "login"}]});
        refused(&place, &old.tagged(), with_login.clone()).await;
        // What was learned with a login is no answer to a pod without one.
        for image in [old.tagged(), old.pinned()] {
            let text = place.try_pod(&image, json!({})).await.unwrap();
            assert!(text.contains("was not checked for end of life"), "{text}");
        }
        // A dry run reads no Secret.
        let dry = place
            .apply_with(
                &Place::pod("dry", &old.tagged(), with_login),
                &["--dry-run=server"],
            )
            .await
            .unwrap();
        assert!(dry.contains("was not checked for end of life"), "{dry}");
        assert!(!webhook.process.log().unwrap().contains("hunter2"));
    }
}

/// A Secret with alice's login.
pub(crate) fn login(registry: &Registry) -> Value {
    let config = json!({"auths": {registry.host(): {"username": "alice", "password": "hunter2"}}})
        .to_string();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config}
    })
}

#[tokio::test]
async fn a_dead_or_silent_registry_admits_with_a_warning() {
    for start in KINDS {
        let place = Place::new("dead", json!({"affix.dev/end-of-life": "enforce"})).await;
        let mut registry = start(&place.tools).start().await.unwrap();
        let old = push(&registry, "old").await;
        let _webhook = webhook(&place, &registry, &[]).await;
        registry.pause();
        for more in [&[] as &[&str], &["--dry-run=server"]] {
            let began = Instant::now();
            let text = place
                .apply_with(&Place::pod("silent", &old.tagged(), json!({})), more)
                .await
                .unwrap();
            assert!(
                text.contains("was not checked for end of life: no answer within 1s"),
                "{text}"
            );
            println!("a silent registry held the pod for {:?}", began.elapsed());
            place
                .kubectl(&["delete", "pod", "silent", "--ignore-not-found", "--force"])
                .await
                .stdout()
                .unwrap();
        }
        registry.resume();
        registry.stop().await.unwrap();
        let text = place.try_pod(&old.pinned(), json!({})).await.unwrap();
        assert!(text.contains("was not checked for end of life"), "{text}");
    }
}

#[tokio::test]
async fn the_word_of_trusted_namespaces_and_of_the_pods_own_counts_and_the_word_of_others_does_not()
{
    let place = Place::new("trusting", json!({"affix.dev/end-of-life": "enforce"})).await;
    let (trusted, stranger) = (
        Place::new("trusted", json!({})).await,
        Place::new("stranger", json!({})).await,
    );
    let mut registry = Registry::ociregistry(&place.tools).start().await.unwrap();
    let (ours, theirs, own) = (
        push(&registry, "ours").await,
        push(&registry, "theirs").await,
        push(&registry, "own").await,
    );
    let _webhook = webhook(&place, &registry, &["--trusted-namespaces", &trusted.name]).await;
    for (at, image) in [(&trusted, &ours), (&stranger, &theirs), (&place, &own)] {
        let spec =
            json!({"image": image.pinned(), "insecure": true, "endOfLife": {"date": "2025-03-20"}});
        at.apply(&Place::attachment("mark", &spec)).await.unwrap();
        let _controller = Affix::controller(at, &[]);
        wait("Ready", async || {
            let object = at
                .kubectl(&["get", "ia", "mark", "-o", "jsonpath={.status.attached}"])
                .await
                .stdout()
                .unwrap();
            object == "3/3"
        })
        .await;
    }
    // With the registry gone, only status can say it.
    registry.stop().await.unwrap();
    for image in [&ours, &own] {
        let text = refused(&place, &image.pinned(), json!({})).await;
        assert!(text.contains(ENDED), "{text}");
        let dry = place
            .apply_with(
                &Place::pod("dry", &image.pinned(), json!({})),
                &["--dry-run=server"],
            )
            .await
            .unwrap_err();
        assert!(dry.contains(ENDED), "{dry}");
    }
    let text = place.try_pod(&theirs.pinned(), json!({})).await.unwrap();
    assert!(text.contains("was not checked"), "{text}");
}

#[tokio::test]
async fn tags_become_digests_once_and_in_their_order_where_the_namespace_asks() {
    let place = Place::new("pinned", json!({"affix.dev/resolve-digests": "enabled"})).await;
    let mut registry = Registry::ociregistry(&place.tools).start().await.unwrap();
    let peer = Peer::of(&place.tools, &registry).unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
    let _webhook = webhook(&place, &registry, &[]).await;
    let spec = json!({
        "containers": [
            {"name": "a", "image": good.tagged()}, {"name": "b", "image": old.pinned()}, {"name": "c", "image": old.tagged()}
        ],
        "initContainers": [{"name": "i", "image": old.tagged()}],
    });
    let mut found = Value::Null;
    let mut tries = 0;
    wait("digests", async || {
        tries += 1;
        let name = format!("pod-{tries}");
        place.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})).await.unwrap();
        found = place.kubectl(&["get", "pod", &name, "-o", "json"]).await.json().unwrap();
        found["spec"]["containers"][0]["image"] != json!(good.tagged())
    })
    .await;
    let image = |list: &str, nth: usize| {
        found["spec"][list][nth]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        image("containers", 0),
        format!("{}@{}", good.tagged(), good.digest())
    );
    assert_eq!(image("containers", 1), old.pinned());
    assert_eq!(
        image("containers", 2),
        format!("{}@{}", old.tagged(), old.digest())
    );
    assert_eq!(
        image("initContainers", 0),
        format!("{}@{}", old.tagged(), old.digest())
    );
    let dates: Value = serde_json::from_str(
        found["metadata"]["annotations"]["affix.dev/end-of-life"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        dates,
        json!({old.tagged(): "2025-03-20T01:20:30Z", old.pinned(): "2025-03-20T01:20:30Z"})
    );

    // A template stays as it was written, and a registry that is gone changes nothing.
    place
        .kubectl(&["create", "deployment", "d", "--image", &good.tagged()])
        .await
        .stdout()
        .unwrap();
    let template = place
        .kubectl(&[
            "get",
            "deployment",
            "d",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])
        .await;
    assert_eq!(template.stdout().unwrap(), good.tagged());
    registry.stop().await.unwrap();
    place
        .apply(&Place::pod("late", &good.tagged(), json!({})))
        .await
        .unwrap();
    let late = place
        .kubectl(&[
            "get",
            "pod",
            "late",
            "-o",
            "jsonpath={.spec.containers[0].image}",
        ])
        .await
        .stdout()
        .unwrap();
    assert_eq!(late, good.tagged());
}
