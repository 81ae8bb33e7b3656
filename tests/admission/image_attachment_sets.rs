//! ImageAttachmentSets: a set that can never work is refused with its field, with the same cause as without the webhook; and warnings.

use affix::api::{ConditionType, ImageAttachmentSet, find_condition};
use kube::Api;
use serde_json::{Value, json};

use crate::support::namespace::{TestNamespace, output, wait_for};
use crate::support::process::Affix;

const ALLOWED: &[&str] = &[
    "--insecure-allow-http=false",
    "--allowed-registries",
    "registry.example.com,*.example.com,docker.io,169.254.169.254",
];

/// A set that marks what is out of life, with other fields at these paths.
fn set(fields: &[(&str, Value)]) -> Value {
    let mut spec = json!({
        "repositories": ["registry.example.com/team/app"],
        "tags": {"semver": ">=1.0.0"},
        "lifecycle": {"keep": {"minors": 3}, "gracePeriod": "720h"},
        "template": {"spec": {"endOfLife": {}}},
    });
    for (path, value) in fields {
        *spec.pointer_mut(path).unwrap() = value.clone();
    }
    spec
}

/// A set that attaches something else to each release.
fn artifacts(template: Value) -> Value {
    json!({"repositories": ["registry.example.com/team/app", "registry.example.com/team/worker"], "template": {"spec": template}})
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": name}, "spec": spec})
}

/// Returns sets that the schema accepts and that can never work: title, spec, and the expected text. With `true` the set itself says so
/// without the webhook, otherwise one of its children.
fn hopeless() -> Vec<(&'static str, Value, &'static str, bool)> {
    let repositories = |names: Value| set(&[("/repositories", names)]);
    let predicates = json!([{"value": "[]"}]);
    vec![
        (
            "a registry that is not allowed",
            repositories(json!(["other.example.org/app"])),
            "spec.repositories: other.example.org/app: ",
            true,
        ),
        (
            "a metadata address",
            repositories(json!(["169.254.169.254/app"])),
            "spec.repositories: 169.254.169.254/app: ",
            true,
        ),
        (
            "a port that is none",
            repositories(json!(["registry.example.com:70000/app"])),
            "spec.repositories: \"registry.example.com:70000/app\" is not a repository",
            true,
        ),
        (
            "one repository in two spellings",
            repositories(json!([
                "Registry.example.com/app",
                "registry.example.com/app"
            ])),
            "spec.repositories: name at least one repository, and each only once",
            true,
        ),
        (
            "a version that no tag can have",
            set(&[("/tags/semver", json!(">=99999999999999999999.0.0"))]),
            "spec.tags.semver: ",
            true,
        ),
        (
            "a cycle of such versions",
            set(&[(
                "/lifecycle",
                json!({"cycles": [{"versions": "1.x", "date": "2026-01-01"}, {"versions": "99999999999999999999.x", "date": "2026-01-01"}]}),
            )]),
            "spec.lifecycle.cycles[1].versions: ",
            true,
        ),
        (
            "HTTP where that is not allowed",
            artifacts(
                json!({"insecure": true, "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}),
            ),
            "spec.template.spec.insecure: ",
            true,
        ),
        (
            "a predicate that is a list",
            artifacts(json!({"attestation": {
                "predicateType": "openvex", "predicates": predicates, "cosign": {"keySecretRef": {"name": "key"}}}})),
            "spec.template.spec.attestation.predicates[0]: the predicate is not a JSON object",
            false,
        ),
    ]
}

#[tokio::test]
async fn a_set_that_can_never_work_is_refused_with_the_field_and_stalled_without() {
    let (on, off) = (
        TestNamespace::new("sets-on", json!({})).await,
        TestNamespace::new("sets-off", json!({})).await,
    );
    let (_webhook, _) = Affix::webhook(&on, ALLOWED).await;
    let _controller = Affix::controller(&off, ALLOWED);
    let mut wrong = Vec::new();
    for (nth, (title, spec, says, _)) in hopeless().iter().enumerate() {
        let object = object(&format!("bad-{nth}"), spec);
        for more in [&[] as &[&str], &["--dry-run=server"]] {
            match on.apply_with(&object, more).await {
                Err(output)
                    if output.contains(&format!("denied the request: {says}"))
                        && output.contains("imageattachments.affix.dev") => {}
                other => wrong.push(format!("{title}: expected {says:?}, found {other:?}")),
            }
        }
        off.apply(&object).await.unwrap();
    }
    let api: Api<ImageAttachmentSet> = Api::namespaced(off.client.clone(), &off.name);
    for (nth, (title, _, says, _)) in hopeless().iter().enumerate().filter(|(_, row)| row.3) {
        let mut found = String::new();
        wait_for(title, async || {
            let status = api.get(&format!("bad-{nth}")).await.unwrap().status;
            let conditions = status.map(|status| status.conditions).unwrap_or_default();
            let stalled = find_condition(&conditions, ConditionType::Stalled);
            found = stalled
                .map(|stalled| stalled.message.clone())
                .unwrap_or_default();
            !found.is_empty()
        })
        .await;
        // Without the webhook the registry names itself, and no field.
        let cause = says.trim_start_matches("spec.repositories: ");
        if !found.contains(cause) && !found.contains("--insecure-allow-http") {
            wrong.push(format!(
                "{title}, without the webhook: expected {says:?}, found {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let stored = on
        .kubectl(&["get", "imageattachmentsets", "-o", "name"])
        .await;
    assert_eq!(output(stored).unwrap(), "", "a refused set was stored");
}

#[tokio::test]
async fn a_valid_set_is_admitted_and_one_that_was_can_still_be_suspended() {
    let namespace = TestNamespace::new("sets-good", json!({})).await;
    {
        let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
        for (name, spec) in [
            ("train", set(&[])),
            (
                "old",
                set(&[("/repositories", json!(["old.example.org/team/app"]))]),
            ),
            (
                "docker",
                set(&[(
                    "/repositories",
                    json!([
                        "docker.io/library/nginx",
                        "localhost:5000/a",
                        "[2001:db8::1]:5000/a"
                    ]),
                )]),
            ),
            (
                "notes",
                artifacts(
                    json!({"artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}),
                ),
            ),
        ] {
            let applied = namespace.apply(&object(name, &spec)).await;
            let applied = applied.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            assert!(!applied.contains("Warning"), "{name}: {applied}");
        }
    }
    let (_webhook, _) = Affix::webhook(&namespace, ALLOWED).await;
    let patch = async |patch: Value| {
        let patch = patch.to_string();
        output(
            namespace
                .kubectl(&["patch", "ias", "old", "--type=merge", "-p", &patch])
                .await,
        )
    };
    let suspended = patch(json!({"spec": {"suspend": true}})).await.unwrap();
    assert!(
        suspended.contains(
            "Warning: admitted, but still invalid: spec.repositories: old.example.org/team/app: "
        ),
        "{suspended}"
    );
    let more = json!({"spec": {"repositories": ["old.example.org/team/app", "old.example.org/team/worker"]}});
    let refused = patch(more).await.unwrap_err();
    assert!(
        refused.contains("denied the request: spec.repositories: old.example.org/team/app: "),
        "{refused}"
    );
}

#[tokio::test]
async fn a_change_that_leaves_more_new_marks_than_the_limit_causes_a_warning() {
    let namespace = TestNamespace::new("sets-fuse", json!({})).await;
    let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
    namespace.apply(&object("train", &set(&[]))).await.unwrap();
    let status = json!({"status": {"observedGeneration": 1, "newMarks": 90}}).to_string();
    let args = [
        "patch",
        "ias",
        "train",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    output(namespace.kubectl(&args).await).unwrap();
    let patch = async |lifecycle: Value, confirm: Value| {
        let patch = json!({"metadata": {"annotations": {"affix.dev/confirm": confirm}}, "spec": {"lifecycle": lifecycle}}).to_string();
        output(
            namespace
                .kubectl(&["patch", "ias", "train", "--type=merge", "-p", &patch])
                .await,
        )
        .unwrap()
    };
    let warning = "Warning: the last pass found 90 new marks, more than maxNewMarks (10): none is made until affix.dev/confirm=90";
    for (lifecycle, confirm, is_warned) in [
        (json!({"maxNewMarks": 10}), Value::Null, true),
        (json!({"settle": "48h"}), json!("89"), true),
        (json!({"settle": "47h"}), json!("90"), false),
        (json!({"settle": "48h"}), json!("no number"), true),
        (json!({"maxNewMarks": 90}), Value::Null, false),
    ] {
        let patched = patch(lifecycle.clone(), confirm).await;
        assert_eq!(
            patched.contains(warning),
            is_warned,
            "{lifecycle}: {patched}"
        );
    }
}

#[tokio::test]
async fn t16_t39_a_template_that_exposes_a_login_or_a_key_causes_a_warning() {
    let namespace = TestNamespace::new("sets-exposed", json!({})).await;
    let (_webhook, _) = Affix::webhook(&namespace, &[]).await;
    let secret = |annotations: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "annotations": annotations}});
    namespace.apply(&secret(json!({}))).await.unwrap();
    let proxy = "Warning: spec.template.spec.proxySecretRef: with insecure: true, the proxy can read the login for the registry";
    let authority = "Warning: spec.template.spec.certSecretRef: a server with a certificate of its ca.crt can read the login of";
    let key = "Warning: the key Secret key signs a tag in any repository: add the annotation affix.dev/repositories";
    let signature = json!({"cosign": {"keySecretRef": {"name": "key"}}});
    for (template, expected) in [
        (
            json!({"proxySecretRef": {"name": "p"}, "insecure": true, "endOfLife": {"date": "2026-01-01"}}),
            vec![proxy],
        ),
        (
            json!({"certSecretRef": {"name": "c"}, "secretRef": {"name": "s"}, "endOfLife": {"date": "2026-01-01"}}),
            vec![authority],
        ),
        (
            json!({"certSecretRef": {"name": "c"}, "endOfLife": {"date": "2026-01-01"}}),
            vec![],
        ),
        (json!({"signature": signature}), vec![key]),
    ] {
        let name = "exposed";
        let applied = namespace
            .apply(&object(name, &artifacts(template.clone())))
            .await
            .unwrap();
        let warnings: Vec<&str> = [proxy, authority, key]
            .into_iter()
            .filter(|text| applied.contains(text))
            .collect();
        assert_eq!(warnings, expected, "{template}: {applied}");
        assert_eq!(
            applied.matches("Warning").count(),
            expected.len(),
            "{applied}"
        );
        let deleted = namespace.kubectl(&["delete", "ias", name]).await;
        output(deleted).unwrap();
    }
    let bound = secret(json!({"affix.dev/repositories": "registry.example.com/*"}));
    namespace.apply(&bound).await.unwrap();
    let applied = namespace
        .apply(&object(
            "bound",
            &artifacts(json!({"signature": signature})),
        ))
        .await
        .unwrap();
    assert!(!applied.contains("Warning"), "{applied}");
}
