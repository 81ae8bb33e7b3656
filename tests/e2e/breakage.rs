//! Many resources at once, each broken in one way: each says so, and none holds up another.

use std::sync::Arc;

use affix::api::Reason;
use affix_testbed::certificates::Authority;
use affix_testbed::registry::{Registry, User};
use futures::future::join_all;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{SIGNATURE, note, push, with};
use crate::support::namespace::Namespace;

#[tokio::test]
async fn ten_broken_resources_each_report_their_cause_and_good_ones_become_ready() {
    let namespace = Namespace::new("ten").await;
    let tools = &namespace.tools;
    let authority = Arc::new(Authority::new().unwrap());
    let open = Registry::ociregistry(tools).start().await.unwrap();
    let secret = Registry::distribution(tools)
        .basic("alice", "right")
        .start()
        .await
        .unwrap();
    let guarded = Registry::distribution(tools)
        .tokens([User::new("bob", "pass").may("other/*", &["pull", "push"])])
        .start()
        .await
        .unwrap();
    let strange = Registry::ociregistry(tools)
        .tls(&authority)
        .start()
        .await
        .unwrap();

    let image = |nth: usize| format!("team/app{nth}");
    let mut pushed = Vec::new();
    for (nth, registry) in [
        &open, &open, &secret, &guarded, &open, &open, &open, &strange, &open, &open,
    ]
    .into_iter()
    .enumerate()
    {
        pushed.push(push(registry, &image(nth), "v1").await);
    }
    namespace
        .login("wrong", secret.host(), "alice", "wrong")
        .await;
    namespace.login("bob", guarded.host(), "bob", "pass").await;

    let artifact = |image: &str| note(image);
    let signature_tag = format!(
        "{}/{}:{}.sig",
        open.host(),
        image(0),
        pushed[0].digest().replace(':', "-")
    );
    let specs = [
        ("reference", artifact(&signature_tag)),
        (
            "absent",
            artifact(&format!("{}/{}:v2", open.host(), image(1))),
        ),
        (
            "password",
            with(
                artifact(&pushed[2].tagged()),
                json!({"secretRef": {"name": "wrong"}}),
            ),
        ),
        (
            "scope",
            with(
                artifact(&pushed[3].tagged()),
                json!({"secretRef": {"name": "bob"}}),
            ),
        ),
        (
            "secret",
            with(
                artifact(&pushed[4].tagged()),
                json!({"secretRef": {"name": "nowhere"}}),
            ),
        ),
        (
            "platform",
            with(
                artifact(&pushed[5].tagged()),
                json!({"targets": {"platforms": ["linux/s390x"]}}),
            ),
        ),
        (
            "file",
            json!({"image": pushed[6].pinned(), "insecure": true, "artifact": {"artifactType": SIGNATURE, "files": [
                {"name": "a.sig", "target": "linux/amd64", "value": "only for one of the targets"}
            ]}}),
        ),
        (
            "certificate",
            with(artifact(&pushed[7].tagged()), json!({"insecure": false})),
        ),
        ("good-tag", artifact(&pushed[8].tagged())),
        ("good-digest", artifact(&pushed[9].pinned())),
    ];
    let _controller = Controller::start(&namespace).await;
    join_all(
        specs
            .iter()
            .map(|(name, spec)| namespace.apply(name, spec.clone())),
    )
    .await;

    let expected: [(&str, Reason, bool, &[&str]); 8] = [
        (
            "reference",
            Reason::InvalidReference,
            true,
            &["spec.image", ".sig", "name the image itself"],
        ),
        ("absent", Reason::NotFound, false, &["v2", "404"]),
        ("password", Reason::AuthenticationFailed, false, &["401"]),
        (
            "scope",
            Reason::AccessDenied,
            false,
            &["a login that may pull from and push to the repository"],
        ),
        (
            "secret",
            Reason::SecretNotFound,
            false,
            &["spec.secretRef", "\"nowhere\"", "create it"],
        ),
        (
            "platform",
            Reason::NoMatchingPlatform,
            true,
            &["targets.platforms", "linux/s390x", "linux/amd64"],
        ),
        ("file", Reason::FileMissing, false, &["index"]),
        (
            "certificate",
            Reason::CertificateInvalid,
            false,
            &["certSecretRef"],
        ),
    ];
    for (name, reason, stalled, words) in expected {
        let message = namespace.refused(name, reason).await;
        for word in words {
            assert!(
                message.contains(word),
                "{name}: {message:?} does not say {word:?}"
            );
        }
        let status = namespace.status(name).await;
        let has = |kind: &str| {
            status
                .conditions
                .iter()
                .any(|condition| condition.type_ == kind)
        };
        assert_eq!(
            (has("Stalled"), has("Reconciling")),
            (stalled, !stalled),
            "{name}: {:#?}",
            status.conditions
        );
        let (kind, note) = namespace.event(name, reason).await;
        assert_eq!(
            (kind.as_str(), note.as_str()),
            ("Warning", message.as_str()),
            "{name}"
        );
    }
    for name in ["good-tag", "good-digest"] {
        assert_eq!(namespace.ready(name).await.attached.as_deref(), Some("3/3"));
    }
    // Nothing was pushed for a resource that is not known to be right as a whole.
    for (nth, registry) in [(5, &open), (6, &open)] {
        let listing = registry
            .raw()
            .unwrap()
            .referrers(&image(nth), pushed[nth].digest())
            .await
            .unwrap()
            .json()
            .unwrap();
        assert!(
            listing["manifests"].as_array().is_none_or(Vec::is_empty),
            "{listing}"
        );
    }
    namespace.check_rules().await;
}
