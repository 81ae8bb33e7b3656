#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use serde_json::{Value, json};

use super::*;
use crate::cli::local;
use crate::engine::Mode;

/// The specs that the API server is tested with.
#[path = "../../../tests/schema/corpus.rs"]
#[allow(
    dead_code,
    reason = "only the API server words structural errors like this"
)]
mod corpus;

/// Prepares the jobs of documents. Without credential helpers, nothing waits.
fn prepare(documents: &Documents, mode: Mode) -> Result<Vec<local::Job<'_>>, Error> {
    futures::executor::block_on(local::prepare(documents, mode))
}

fn input(name: &str, text: &str) -> Input {
    Input {
        name: name.to_owned(),
        text: text.to_owned(),
        from_folder: false,
        path: None,
        skipped: None,
    }
}

fn parsed(text: &str) -> Result<Documents, Error> {
    Documents::from_inputs(&[input("x.yaml", text)], Pinned::Final, "default")
}

fn refusal(text: &str) -> String {
    parsed(text).expect_err(text).to_string()
}

fn resource(spec: &Value) -> String {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "x"}, "spec": spec}).to_string()
}

const PINNED: &str =
    "r.example.com/app@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// A resource that takes everything from other objects.
fn all_by_name(namespace: &str) -> String {
    format!(
        "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {{name: app, namespace: {namespace}}}\nspec:\n  image: {PINNED}\n  \
         serviceAccountName: builder\n  certSecretRef: {{name: ca}}\n  artifact:\n    artifactType: application/vnd.x\n    files:\n    - \
         {{name: a, valueFrom: {{configMapKeyRef: {{name: sigs, key: a}}}}}}\n"
    )
}

const OTHERS: &str = r#"---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: sigs, namespace: team-a}, data: {a: text}, binaryData: {b: "AAEC\n/w=="}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: builder, namespace: team-a}, imagePullSecrets: [{name: login}]}
---
apiVersion: v1
kind: Secret
metadata: {name: ca, namespace: team-a, annotations: {affix.dev/repositories: "*"}}
type: Opaque
data: {ca.crt: b2xk}
stringData: {ca.crt: new}
---
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: team-a}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths":{}}'}
"#;

#[test]
fn every_spec_that_the_api_server_refuses_is_refused_for_the_same_field() {
    let mut differences = Vec::new();
    for bad in corpus::bad() {
        match parsed(&resource(&bad.spec)) {
            Ok(_) => differences.push(format!("{}: accepted", bad.sentence)),
            Err(error) if error.to_string().contains(bad.field) => {}
            Err(error) => differences.push(format!("{}: {}: {error}", bad.sentence, bad.field)),
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_rule_has_the_same_message_as_in_the_api_server() {
    let bad: Vec<corpus::Bad> = corpus::bad();
    let same = |bad: &&corpus::Bad| {
        parsed(&resource(&bad.spec))
            .err()
            .is_some_and(|error| error.to_string().contains(bad.says))
    };
    let count = bad.iter().filter(same).count();
    assert!(count * 2 > bad.len(), "{count} of {}", bad.len());
}

#[test]
fn an_object_that_was_probably_meant_for_affix_is_refused() {
    for (api_version, kind, message) in [
        (
            "affix.dev/v1alpha1",
            "ImageAttachments",
            "kind: ImageAttachments is not a kind of affix.dev",
        ),
        (
            "affix.dev/v1",
            "ImageAttachment",
            "apiVersion: affix.dev/v1 is not supported by this version of affix",
        ),
        (
            "afix.dev/v1alpha1",
            "ImageAttachment",
            "apiVersion: afix.dev/v1alpha1 is not the group of affix",
        ),
        (
            "affix.de/v1alpha1",
            "Image",
            "apiVersion: affix.de/v1alpha1 is not the group of affix",
        ),
        (
            "Affix.dev/v1alpha1",
            "Other",
            "apiVersion: Affix.dev/v1alpha1 is not the group of affix",
        ),
        (
            "v1",
            "ImageAttachment",
            "apiVersion: v1 is not the group of affix",
        ),
    ] {
        let error = refusal(&format!(
            "apiVersion: {api_version}
kind: {kind}
metadata: {{name: x}}
"
        ));
        assert!(
            error.contains(message),
            "{message}
{error}"
        );
    }
    for api_version in [
        "apps/v1",
        "v1",
        "kustomize.config.k8s.io/v1beta1",
        "apix.io/v1",
    ] {
        let text = format!(
            "apiVersion: {api_version}
kind: Other
metadata: {{name: x}}
"
        );
        assert!(parsed(&text).is_ok(), "{api_version}");
    }
}

#[test]
fn every_spec_that_the_api_server_accepts_is_accepted() {
    let refused: Vec<String> = corpus::good()
        .into_iter()
        .filter_map(|(sentence, spec)| {
            Some(format!("{sentence}: {}", parsed(&resource(&spec)).err()?))
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn the_error_for_a_misspelt_field_lists_the_fields() {
    let text = "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\nmetadata: {name: x, namspace: y}\nspecs: {}\nspec:\n  \
                image: r.example.com/app:v1\n  targets: {platfroms: [linux]}\n  artifact: {artifactType: a/b, file: []}\n  timeout: 60\n";
    let error = refusal(&format!(
        "# head\n---\na: {{}}\nkind: X\napiVersion: v1\n---\n{text}"
    ));
    for said in [
        "x.yaml, document 2 (line 7): metadata.namspace: there is no such field",
        "x.yaml, document 2 (line 7): specs: there is no such field",
        "spec.targets.platfroms: there is no such field; spec.targets has digests, excludePlatforms, missing, parents, platforms, scope",
        "spec.artifact.file: there is no such field; spec.artifact has annotations, artifactType, files, filesFrom",
        "spec.timeout: it is 60, and must be a string: put it in quotes",
    ] {
        assert!(error.contains(said), "{said}\n{error}");
    }
}

#[test]
fn a_resource_uses_objects_of_its_own_namespace_only() {
    let documents = parsed(&(all_by_name("team-a") + OTHERS)).unwrap();
    let sources = documents.sources(&documents.attachments[0], Keychain::anonymous());
    assert_eq!(sources.config_maps["sigs"]["a"], "text");
    assert_eq!(sources.config_maps["sigs"]["b"].as_ref(), [0, 1, 2, 255]);
    assert_eq!(
        sources.image_pull_secrets.as_deref(),
        Some(["login".to_owned()].as_slice())
    );
    assert_eq!(sources.secrets["ca"].data["ca.crt"].expose(), b"new");
    assert_eq!(
        sources.secrets["login"].kind.as_deref(),
        Some("kubernetes.io/dockerconfigjson")
    );
    assert_eq!(
        sources.secrets["ca"].annotations["affix.dev/repositories"],
        "*"
    );

    let documents = parsed(&(all_by_name("team-b") + OTHERS)).unwrap();
    let sources = documents.sources(&documents.attachments[0], Keychain::anonymous());
    assert!(
        sources.config_maps.is_empty()
            && sources.secrets.is_empty()
            && sources.image_pull_secrets.is_none(),
        "{sources:?}"
    );
    let error = prepare(&documents, Mode::Plan).err().unwrap().to_string();
    assert!(
        error.contains("configMapKeyRef.name: the ConfigMap \"sigs\" is not there")
            && error.contains("given with -f"),
        "{error}"
    );
}

#[test]
fn two_objects_of_one_name_are_refused_with_both_locations() {
    let one = resource(&corpus::mark());
    let inputs = [input("a.json", &one), input("b.json", &one)];
    let error = Documents::from_inputs(&inputs, Pinned::Final, "default")
        .expect_err("a duplicate")
        .to_string();
    assert_eq!(
        error,
        "b.json, document 1: metadata.name: the ImageAttachment default/x is already in a.json, document 1"
    );
}

#[test]
fn documents_of_other_kinds_are_skipped_with_a_notice() {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\n---\n{}\n---\nresources: [a.yaml]\n",
        resource(&corpus::mark())
    );
    let folder = Documents::from_inputs(
        &[Input {
            from_folder: true,
            ..input("k/x.yaml", &text)
        }],
        Pinned::Final,
        "default",
    )
    .unwrap();
    assert_eq!(folder.attachments.len(), 1);
    assert_eq!(
        folder.notices,
        [
            "k/x.yaml, document 1 (line 1): skipped, because affix does not use apps/v1 Deployment",
            "k/x.yaml, document 3 (line 7): skipped, because apiVersion and kind are missing"
        ]
    );
    assert!(refusal(&text).contains("document 3 (line 7): apiVersion, kind: they are missing"));
}

/// Collects the objects of a folder with files of these texts.
fn folder(texts: &[&str]) -> Result<Documents, Error> {
    let files: Vec<Input> = texts
        .iter()
        .enumerate()
        .map(|(nth, text)| Input {
            from_folder: true,
            ..input(&format!("k/{nth}.yaml"), text)
        })
        .collect();
    Documents::from_inputs(&files, Pinned::Final, "default")
}

#[test]
fn two_variants_of_an_object_in_a_folder_are_both_unused_with_a_notice() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    let documents = folder(&[secret, &resource(&corpus::mark()), secret]).unwrap();
    assert_eq!(documents.attachments.len(), 1);
    assert_eq!(
        documents.notices,
        [
            "k/2.yaml, document 1 (line 1): skipped, because the Secret default/s is also in k/0.yaml, document 1 (line 1): \
             neither of them is used"
        ]
    );
    assert!(!documents.contains("Secret", "default", "s"));
    let twice = resource(&corpus::mark());
    assert!(folder(&[&twice, &twice]).is_err());
}

proptest::proptest! {
    #[test]
    fn an_odd_file_of_a_folder_never_spoils_its_neighbours(
        odd in "\\PC{0,120}|([a-zA-Z&*!%@{}\\[\\]:,'\"|>#-]|\n| ){0,80}",
        kind in "Secret|ConfigMap|ServiceAccount|List|Kustomization|[A-Z][a-z]{0,9}",
        field in "data|items|metadata|imagePullSecrets|stringData",
        value in "1|null|\\[1\\]|\\[null\\]|\\{a: 1\\}|\\{name: x, a: \\[\\]\\}|x",
    ) {
        proptest::prop_assume!(!odd.contains("affix"));
        let object = format!("apiVersion: v1\nkind: {kind}\n{field}: {value}\n");
        let good = resource(&corpus::mark());
        let documents = folder(&[&odd, &object, &good]);
        proptest::prop_assert_eq!(documents.map(|documents| documents.attachments.len()).ok(), Some(1));
        // The same text is read or refused, and never a panic, where the user names the file.
        let _ = parsed(&odd);
    }
}

#[test]
fn a_byte_order_mark_is_ignored() {
    for text in [resource(&corpus::mark()), all_by_name("default")] {
        assert_eq!(
            parsed(&format!("\u{feff}{text}"))
                .unwrap()
                .attachments
                .len(),
            1
        );
    }
}

#[test]
fn errors_never_repeat_secrets() {
    for data in [
        "data: {a: hunter2!}",
        "stringData: {a: 31337}",
        "data: hunter2!",
        "stringData: {a: [hunter2!]}",
        "data: {a: *hunter2!}",
    ] {
        let error = refusal(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}\n"
        ));
        assert!(error.starts_with("x.yaml"), "{error}");
        assert!(
            !error.contains("31337") && (!error.contains("hunter2") || data.contains('*')),
            "{error}"
        );
    }
}

#[test]
fn malformed_yaml_is_refused_with_its_location() {
    for (text, said) in [
        ("a: [1\nb: 2\n", "x.yaml: "),
        ("a: 1\na: 2\n", "line 2"),
        ("- 1\n", "document 1 (line 1): the document is not a map"),
        ("{\"apiVersion\": \"v1\"", "x.yaml: "),
    ] {
        let error = refusal(text);
        assert!(error.contains(said), "{text}: {error}");
    }
    let bomb: String = (0..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        format!(
            "{text}a{}: &a{} [{}]\n",
            n + 1,
            n + 1,
            vec![format!("*a{n}"); 9].join(",")
        )
    });
    assert!(refusal(&bomb).starts_with("x.yaml: "));
}

#[test]
fn control_characters_of_a_file_are_escaped() {
    let spec = json!({"image": "r.example.com/a\u{1b}[2J:v1", "artifact": {"artifactType": "a/b"}, "x\u{9b}": 1, "interval": "\u{202e}"});
    let text = resource(&spec);
    let shown = match parsed(&text) {
        Ok(documents) => prepare(&documents, Mode::Plan).err().unwrap().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(
        !shown
            .chars()
            .any(|c| crate::cli::output::text::is_unsafe(c) && c != '\n'),
        "{shown:?}"
    );
}

#[test]
fn marks_whose_dates_need_a_status_are_not_attached_locally() {
    let watch = json!({"image": corpus::TAGGED, "endOfLife": {"whenSuperseded": {"gracePeriod": "1h", "previous": [corpus::DIGEST]}}});
    let documents = parsed(&resource(&watch)).unwrap();
    let error = prepare(&documents, Mode::Attach).err().unwrap().to_string();
    assert!(
        error.contains("spec.endOfLife.whenSuperseded.previous: ")
            && error.contains("spec.endOfLife.date"),
        "{error}"
    );
    assert!(prepare(&documents, Mode::Plan).is_ok());
}

#[test]
fn each_error_names_its_field_and_is_reported_once() {
    let spec = format!("{{image: \"{PINNED}\", artifact: {{artifactType: a/b}}");
    let resource = |metadata: &str, more: &str| {
        format!(
            "apiVersion: affix.dev/v1alpha1\nkind: ImageAttachment\n{metadata}\nspec: {spec}{more}}}\n"
        )
    };
    for (text, said) in [
        (
            resource("metadata: {name: a}", ", interval: 5d"),
            "spec.interval: \"5d\": not a duration: write numbers with a unit",
        ),
        (
            resource("metadata: {name: a, labels: {a: 1}}", ""),
            "metadata.labels.a: it must be text: put it in quotes",
        ),
        (
            resource("metadata: {name: a, annotations: [b]}", ""),
            "metadata.annotations: it must be a map",
        ),
        (
            resource("", ""),
            "metadata.name: it is missing, and is required",
        ),
        (
            "kind: A\nkind: B\n".to_owned(),
            "duplicate mapping key: kind at line 2",
        ),
    ] {
        let refusal = refusal(&text);
        assert!(
            refusal.contains(said) && refusal.lines().count() == 1 && !refusal.contains("Options"),
            "{said}\n{refusal}"
        );
    }
}
