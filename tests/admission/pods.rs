//! Pods with images past their end of life: warnings, refusals, and unavailable registries.

use std::time::Instant;

use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Registry, User};
use affix_testbed::tools::Tools;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::marked_images::{ENDED, KINDS, admitted, login, mark, push, refused, webhook};
use crate::support::namespace::{TestNamespace, output, wait_for};
use crate::support::process::Affix;

/// Sets the mode of the end-of-life check.
async fn set_mode(namespace: &TestNamespace, mode: &str) {
    let label = format!("affix.dev/end-of-life={mode}");
    namespace
        .kubectl(&["label", "--overwrite", "namespace", &namespace.name, &label])
        .await
        .stdout()
        .unwrap();
}

/// Asserts that every use of `image` in a pod is refused, also in a dry run.
async fn refuses_old_images(namespace: &TestNamespace, image: &str, good: &str, kind: &str) {
    let text = refused(namespace, image, json!({})).await;
    assert!(
        text.contains("pods.affix.dev")
            && text.contains(&format!("image {image} {ENDED}: run a newer image")),
        "{kind}: {text}"
    );
    let init = json!([{"name": "init", "image": image}]);
    refused(namespace, good, json!({"initContainers": init})).await;
    refused(
        namespace,
        good,
        json!({"volumes": [{"name": "v", "image": {"reference": image}}]}),
    )
    .await;
    let dry = namespace
        .apply_with(
            &TestNamespace::pod("dry", image, json!({})),
            &["--dry-run=server"],
        )
        .await
        .unwrap_err();
    assert!(dry.contains(ENDED), "{kind}: {dry}");
    namespace
        .apply(&TestNamespace::pod("good", good, json!({})))
        .await
        .unwrap();
    let debug = output(
        namespace
            .kubectl(&[
                "debug",
                "good",
                "--image",
                image,
                "--attach=false",
                "-c",
                "debugger",
            ])
            .await,
    )
    .unwrap_err();
    assert!(debug.contains(ENDED), "{kind}: {debug}");
    // An update without a changed image is not reviewed.
    let label = namespace.kubectl(&["label", "pod", "by-hand", "a=b"]).await;
    assert!(!output(label).unwrap().contains("Warning"));
}

#[tokio::test]
async fn marks_by_oras_cause_warnings_audits_or_refusals_by_the_namespace_label() {
    for (index, start) in KINDS.into_iter().enumerate() {
        let kind = ["api", "fallback tag"][index];
        let namespace =
            TestNamespace::new("marked", json!({"affix.dev/end-of-life": "enabled"})).await;
        let registry = start(&namespace.tools).start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
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
        let _webhook = webhook(&namespace, &registry, &[]).await;

        // In warn mode, `kubectl run` prints the warning.
        let image = old.tagged();
        let run = output(
            namespace
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
                !admitted(&namespace, &image, json!({}))
                    .await
                    .contains("Warning"),
                "{kind}: {image}"
            );
        }
        let mentioned = admitted(&namespace, &half.tagged(), json!({})).await;
        assert!(
            mentioned.contains(&format!("(linux/amd64) {ENDED}")),
            "{kind}: {mentioned}"
        );

        // In audit mode there is no warning.
        set_mode(&namespace, "audit").await;
        wait_for("the label", async || {
            !namespace
                .try_pod(&image, json!({}))
                .await
                .unwrap()
                .contains("Warning")
        })
        .await;

        // In enforce mode all containers are checked, also in a dry run. Workloads get warnings.
        set_mode(&namespace, "enforce").await;
        wait_for("the label", async || {
            namespace.try_pod(&image, json!({})).await.is_err()
        })
        .await;
        refuses_old_images(&namespace, &image, &good.tagged(), kind).await;

        // The mark of the selected platform applies.
        let on = |architecture: &str| json!({"nodeSelector": {"kubernetes.io/arch": architecture}});
        refused(&namespace, &half.tagged(), on("amd64")).await;
        admitted(&namespace, &half.tagged(), on("arm64")).await;
        admitted(&namespace, &old.tagged(), on("arm64")).await;

        for command in [
            &["create", "deployment", "d", "--image", &image] as &[&str],
            &["create", "job", "j", "--image", &image],
        ] {
            let text = output(namespace.kubectl(command).await).unwrap();
            assert!(
                text.contains(&format!("Warning: image {image} {ENDED}")),
                "{kind}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn t33_an_old_image_that_a_pod_already_runs_warns_and_a_new_one_is_refused() {
    let namespace = TestNamespace::new("running", json!({})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let (old, older, good) = (
        push(&registry, "old").await,
        push(&registry, "older").await,
        push(&registry, "good").await,
    );
    mark(&peer, &old.pinned(), "2025-03-20").await;
    mark(&peer, &older.pinned(), "2025-03-20").await;
    let _webhook = webhook(&namespace, &registry, &[]).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "running"},
        "spec": {"containers": [
            {"name": "a", "image": old.tagged()}, {"name": "b", "image": older.tagged()}
        ]}
    });
    namespace.apply(&pod).await.unwrap();
    set_mode(&namespace, "enforce").await;
    refused(&namespace, &old.tagged(), json!({})).await;
    refused(&namespace, &older.tagged(), json!({})).await;

    let warning = format!("Warning: image {} {ENDED}", old.tagged());
    let set = |image: String| {
        let namespace = &namespace;
        async move {
            let image = format!("b={image}");
            output(
                namespace
                    .kubectl(&["set", "image", "pod/running", &image])
                    .await,
            )
        }
    };
    let debug = |image: String, name: &'static str| {
        let namespace = &namespace;
        async move {
            let args = ["debug", "running", "--attach=false", "-c", name, "--image"];
            output(namespace.kubectl(&[&args[..], &[&image]].concat()).await)
        }
    };
    let text = set(good.tagged()).await.unwrap();
    assert!(text.contains(&warning), "{text}");
    let text = debug(good.tagged(), "good").await.unwrap();
    assert!(text.contains(&warning), "{text}");
    for refused in [
        set(older.tagged()).await,
        set(old.tagged()).await,
        debug(old.tagged(), "old").await,
    ] {
        let text = refused.unwrap_err();
        assert!(
            text.contains(&format!("{ENDED}: run a newer image")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_near_date_warns_within_the_configured_period_and_affinity_selects_platforms() {
    for start in KINDS {
        let namespace =
            TestNamespace::new("soon", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start(&namespace.tools).start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
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
            let _webhook = webhook(&namespace, &registry, &[]).await;
            let output = admitted(&namespace, &soon.tagged(), json!({})).await;
            assert!(
                output.contains(&format!("Warning: image {} {reaches}", soon.tagged())),
                "{output}"
            );
            let affinity = |operator: &str, architecture: &str| {
                let expressions = json!([{"key": "kubernetes.io/arch", "operator": operator, "values": [architecture]}]);
                let terms = json!([{"matchExpressions": expressions}]);
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
            };
            let text = refused(&namespace, &half.tagged(), affinity("In", "amd64")).await;
            assert!(text.contains(&format!("(linux/amd64) {ENDED}")), "{text}");
            refused(&namespace, &half.tagged(), affinity("NotIn", "arm64")).await;
            admitted(&namespace, &half.tagged(), affinity("In", "arm64")).await;
        }
        let _webhook = webhook(&namespace, &registry, &["--warn-before", "240h"]).await;
        assert!(
            !admitted(&namespace, &soon.tagged(), json!({}))
                .await
                .contains("Warning")
        );
    }
}

#[tokio::test]
async fn a_moved_tag_takes_effect_immediately_and_a_removed_mark_after_the_cache_ttl() {
    for start in [
        Registry::ociregistry(&Tools::core().await.unwrap()),
        Registry::distribution(&Tools::core().await.unwrap()).delete_enabled(true),
    ] {
        let namespace =
            TestNamespace::new("moved", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
        let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let _webhook = webhook(&namespace, &registry, &["--cache-ttl", "2s"]).await;
        let repository = good.tagged().replace(":good", "");
        peer.crane(["tag", &good.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let live = format!("{repository}:live");
        admitted(&namespace, &live, json!({})).await;
        refused(&namespace, &old.tagged(), json!({})).await;
        // Both digests are cached now, the tag is not.
        peer.crane(["tag", &old.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        refused(&namespace, &live, json!({})).await;
        peer.crane(["tag", &good.pinned(), "live"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        admitted(&namespace, &live, json!({})).await;

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
        // oras also removes the entry from the fallback tag.
        peer.oras(["manifest", "delete", "--force", &of_old])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        wait_for("the mark's end", async || {
            namespace.try_pod(&old.tagged(), json!({})).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_private_image_is_checked_with_the_pull_secrets_of_the_pod() {
    let tools = Tools::core().await.unwrap();
    let alice = User::new("alice", "hunter2").may("team/*", &["pull"]);
    for start in [
        Registry::distribution(&tools).basic("alice", "hunter2"),
        Registry::ociregistry(&tools).tokens([alice]),
    ] {
        let namespace =
            TestNamespace::new("private", json!({"affix.dev/end-of-life": "enforce"})).await;
        let registry = start.start().await.unwrap();
        let peer = Peer::of(&namespace.tools, &registry).unwrap();
        let old = push(&registry, "old").await;
        mark(&peer, &old.pinned(), "2025-03-20").await;
        let webhook = webhook(&namespace, &registry, &[]).await;
        namespace.apply(&login(&registry)).await.unwrap();
        let with_login = json!({"imagePullSecrets": [{"name": "absent"}, {"name": "login"}]});
        refused(&namespace, &old.tagged(), with_login.clone()).await;
        // An answer for authenticated pods does not apply to a pod without a pull secret.
        for image in [old.tagged(), old.pinned()] {
            let text = namespace.try_pod(&image, json!({})).await.unwrap();
            assert!(text.contains("was not checked for end of life"), "{text}");
        }
        // A dry run reads no Secret.
        let dry = namespace
            .apply_with(
                &TestNamespace::pod("dry", &old.tagged(), with_login),
                &["--dry-run=server"],
            )
            .await
            .unwrap();
        assert!(dry.contains("was not checked for end of life"), "{dry}");
        assert!(!webhook.process.log().unwrap().contains("hunter2"));
    }
}

#[tokio::test]
async fn an_unavailable_registry_causes_a_warning_and_no_refusal() {
    for start in KINDS {
        let namespace =
            TestNamespace::new("dead", json!({"affix.dev/end-of-life": "enforce"})).await;
        let mut registry = start(&namespace.tools).start().await.unwrap();
        let old = push(&registry, "old").await;
        let _webhook = webhook(&namespace, &registry, &[]).await;
        registry.pause();
        for more in [&[] as &[&str], &["--dry-run=server"]] {
            let began = Instant::now();
            let text = namespace
                .apply_with(
                    &TestNamespace::pod("silent", &old.tagged(), json!({})),
                    more,
                )
                .await
                .unwrap();
            assert!(
                text.contains("was not checked for end of life: no answer within 1s"),
                "{text}"
            );
            println!("a silent registry held the pod for {:?}", began.elapsed());
            namespace
                .kubectl(&["delete", "pod", "silent", "--ignore-not-found", "--force"])
                .await
                .stdout()
                .unwrap();
        }
        registry.resume();
        registry.stop().await.unwrap();
        let text = namespace.try_pod(&old.pinned(), json!({})).await.unwrap();
        assert!(text.contains("was not checked for end of life"), "{text}");
    }
}

#[tokio::test]
async fn status_counts_from_trusted_namespaces_and_the_own_one_but_no_other() {
    let namespace =
        TestNamespace::new("trusting", json!({"affix.dev/end-of-life": "enforce"})).await;
    let (trusted, stranger) = (
        TestNamespace::new("trusted", json!({})).await,
        TestNamespace::new("stranger", json!({})).await,
    );
    let mut registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (ours, theirs, own) = (
        push(&registry, "ours").await,
        push(&registry, "theirs").await,
        push(&registry, "own").await,
    );
    let _webhook = webhook(
        &namespace,
        &registry,
        &["--trusted-namespaces", &trusted.name],
    )
    .await;
    for (at, image) in [(&trusted, &ours), (&stranger, &theirs), (&namespace, &own)] {
        let spec =
            json!({"image": image.pinned(), "insecure": true, "endOfLife": {"date": "2025-03-20"}});
        at.apply(&TestNamespace::attachment("mark", &spec))
            .await
            .unwrap();
        let _controller = Affix::controller(at, &[]);
        wait_for("Ready", async || {
            let object = at
                .kubectl(&["get", "ia", "mark", "-o", "jsonpath={.status.attached}"])
                .await
                .stdout()
                .unwrap();
            object == "3/3"
        })
        .await;
    }
    // Without the registry, only the status has the date.
    registry.stop().await.unwrap();
    for image in [&ours, &own] {
        let text = refused(&namespace, &image.pinned(), json!({})).await;
        assert!(text.contains(ENDED), "{text}");
        let dry = namespace
            .apply_with(
                &TestNamespace::pod("dry", &image.pinned(), json!({})),
                &["--dry-run=server"],
            )
            .await
            .unwrap_err();
        assert!(dry.contains(ENDED), "{dry}");
    }
    let text = namespace
        .try_pod(&theirs.pinned(), json!({}))
        .await
        .unwrap();
    assert!(text.contains("was not checked"), "{text}");
}

#[tokio::test]
async fn tags_are_replaced_by_digests_once_and_in_order_in_labelled_namespaces() {
    let namespace =
        TestNamespace::new("pinned", json!({"affix.dev/resolve-digests": "enabled"})).await;
    let mut registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let (good, old) = (push(&registry, "good").await, push(&registry, "old").await);
    mark(&peer, &old.pinned(), "2025-03-20T01:20:30Z").await;
    let _webhook = webhook(&namespace, &registry, &[]).await;
    let spec = json!({
        "containers": [
            {"name": "a", "image": good.tagged()}, {"name": "b", "image": old.pinned()}, {"name": "c", "image": old.tagged()}
        ],
        "initContainers": [{"name": "i", "image": old.tagged()}],
    });
    let mut found = Value::Null;
    let mut tries = 0;
    wait_for("digests", async || {
        tries += 1;
        let name = format!("pod-{tries}");
        namespace.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})).await.unwrap();
        found = namespace.kubectl(&["get", "pod", &name, "-o", "json"]).await.json().unwrap();
        found["spec"]["containers"][0]["image"] != json!(good.tagged())
    })
    .await;
    let image = |list: &str, index: usize| {
        found["spec"][list][index]["image"]
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

    // A template is not modified, and an unavailable registry leaves the tag in place.
    namespace
        .kubectl(&["create", "deployment", "d", "--image", &good.tagged()])
        .await
        .stdout()
        .unwrap();
    let template = namespace
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
    let text = namespace
        .apply(&TestNamespace::pod("late", &good.tagged(), json!({})))
        .await
        .unwrap();
    let warning = format!("Warning: image {} keeps its tag: ", good.tagged());
    assert!(text.contains(&warning), "{text}");
    let late = namespace
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

#[tokio::test]
async fn a_pod_that_is_applied_twice_keeps_its_digest() {
    let labels = json!({"affix.dev/resolve-digests": "enabled"});
    let namespace = TestNamespace::new("twice", labels).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let first = push(&registry, "v1").await;
    let _webhook = webhook(&namespace, &registry, &[]).await;
    let pinned = format!("{}@{}", first.tagged(), first.digest());
    let image = async |name: &str| {
        let path = "jsonpath={.spec.containers[0].image}";
        let found = namespace.kubectl(&["get", "pod", name, "-o", path]).await;
        found.stdout().unwrap()
    };
    let apply = async |pod: &Value, how: &[&str]| {
        let args = ["--namespace", &namespace.name, "apply", "-f", "-"];
        let args: Vec<&str> = args.iter().chain(how).copied().collect();
        let applied = namespace.plane.kubectl_with(args, pod.to_string());
        applied.await.unwrap().stdout().unwrap()
    };
    // As kubectl applies, and as GitOps tools do.
    for (nth, how) in [&[][..], &["--server-side"][..]].into_iter().enumerate() {
        let (mut name, mut count) = (String::new(), 0);
        wait_for("a digest", async || {
            count += 1;
            name = format!("pod-{nth}-{count}");
            let pod = TestNamespace::pod(&name, &first.tagged(), json!({}));
            apply(&pod, how).await;
            image(&name).await == pinned
        })
        .await;
        // The tag names another image by now.
        let next = Index::new().image(Image::new("linux/amd64", &format!("next {nth}")));
        let raw = registry.raw().unwrap();
        next.push(&raw, "team/app", "v1").await.unwrap();
        let mut pod = TestNamespace::pod(&name, &first.tagged(), json!({}));
        for _ in 0..2 {
            apply(&pod, how).await;
            assert_eq!(image(&name).await, pinned);
        }
        // Another tag is a change.
        push(&registry, "v2").await;
        let other = first.tagged().replace(":v1", ":v2");
        pod["spec"]["containers"][0]["image"] = json!(other);
        apply(&pod, how).await;
        assert_eq!(image(&name).await, other);
        let raw = registry.raw().unwrap();
        let again = Index::new()
            .image(Image::new("linux/amd64", "b1 v1"))
            .image(Image::new("linux/arm64", "c1 v1"));
        again.push(&raw, "team/app", "v1").await.unwrap();
    }
}
