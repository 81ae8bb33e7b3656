//! The API server and the command line refuse the same specs: the CEL expression and the Rust check of each rule agree.

use std::collections::BTreeSet;

use affix_testbed::run::Run;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, object};
use crate::corpus;

/// Characters that users or attackers may put into a text.
const ODD: [&str; 31] = [
    "", " ", "\t", "\u{b}", "\n", "\r", "\0", "\u{7f}", "\u{85}", "\u{9b}", "\u{a0}", "\u{2003}",
    "\u{feff}", "ü", "/", "//", "\\", ":", "*", "?", "!", ".", "..", "-", "_", "+", "~", "@", "%",
    "A", "0",
];

/// A field with valid texts.
struct Field {
    spec: Value,
    pointer: &'static str,
    valid: Vec<String>,
}

fn fields() -> Vec<Field> {
    let field = |spec: &Value, pointer, valid: &[&str]| Field {
        spec: spec.clone(),
        pointer,
        valid: valid.iter().map(|text| (*text).to_owned()).collect(),
    };
    let mut mark = corpus::mark();
    mark["endOfLife"]["annotation"] = json!("eol");
    mark["endOfLife"]["artifactType"] = json!("a/b");
    mark["secretRef"] = json!({"name": "login"});
    mark["serviceAccountName"] = json!("builder");
    mark["interval"] = json!("10m");
    let mut watch = corpus::watch();
    watch["endOfLife"]["whenSuperseded"] = json!({"gracePeriod": "720h", "settle": "0s", "unlessTagged": ["*"], "previous": [corpus::DIGEST]});
    let mut artifact = corpus::artifact();
    artifact["artifact"]["annotations"] =
        json!({"org.opencontainers.image.created": "2025-03-20T01:20:30Z"});
    artifact["artifact"]["files"] = json!([
        {"name": "a1a1.sig", "target": "index", "value": "1"},
        {"name": "other.sig", "mediaType": "a/b", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "b1b1.sig"}}},
    ]);
    let mut cosign = corpus::cosign();
    cosign["targets"] = json!({"platforms": ["linux"]});
    let long = |text: &str, count: usize| text.repeat(count);
    vec![
        field(
            &mark,
            "/endOfLife/date",
            &[
                "2025-03-20T01:20:30Z",
                "2025-03-20",
                "2025-03-20T01:20:30.123456789+01:00",
            ],
        ),
        field(
            &mark,
            "/endOfLife/annotation",
            &["vnd.demo.eol", "org.opencontainers.image.created"],
        ),
        field(
            &mark,
            "/endOfLife/artifactType",
            &[
                "application/vnd.demo+json",
                &format!("a/{}", long("b", 127)),
            ],
        ),
        field(&mark, "/secretRef/name", &["login", "a.b"]),
        field(&mark, "/serviceAccountName", &["builder"]),
        field(&mark, "/interval", &["1h30m", "1.5s", "876000h"]),
        field(
            &watch,
            "/endOfLife/whenSuperseded/gracePeriod",
            &["720h", "0ms"],
        ),
        field(
            &watch,
            "/endOfLife/whenSuperseded/unlessTagged/0",
            &["v1.*", "!nightly-?", &long("a", 128)],
        ),
        field(
            &watch,
            "/endOfLife/whenSuperseded/previous/0",
            &[corpus::DIGEST, &format!("sha512:{}", long("c", 128))],
        ),
        field(
            &artifact,
            "/artifact/annotations/org.opencontainers.image.created",
            &[
                "2025-03-20T01:20:30Z",
                "9999-12-31T00:00:00Z",
                "0000-01-01T00:00:00+01:00",
            ],
        ),
        field(
            &artifact,
            "/artifact/files/0/name",
            &["b1b1.sig", ".", &long("a", 255), &long("ü", 127)],
        ),
        field(
            &artifact,
            "/artifact/files/0/target",
            &[
                "index",
                "linux/arm/v7",
                corpus::DIGEST,
                "windows/amd64:10.0.20348",
                "md5:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ],
        ),
        field(&artifact, "/artifact/files/1/mediaType", &["text/plain"]),
        field(
            &artifact,
            "/artifact/files/1/valueFrom/configMapKeyRef/key",
            &["b1b1.sig"],
        ),
        field(
            &corpus::attestation(),
            "/attestation/predicateType",
            &["https://cyclonedx.org/bom", "openvex", "urn:a:b"],
        ),
        field(
            &corpus::from_build(),
            "/attestation/fromBuild/predicateTypes/0",
            &["https://slsa.dev/provenance/*", "!*"],
        ),
        field(
            &cosign,
            "/targets/platforms/0",
            &[
                "linux/arm/v7",
                "*/arm64:*",
                "windows/amd64:10.0.20348",
                &format!("linux/{}", long("a", 64)),
            ],
        ),
    ]
}

/// Returns the text with `odd` at its beginning, in its middle, at its end, and instead of its first character, and `odd` alone.
fn variants(text: &str, odd: &str) -> [String; 5] {
    let middle = text.ceil_char_boundary(text.len() / 2);
    let rest: String = text.chars().skip(1).collect();
    [
        format!("{odd}{text}"),
        format!("{}{odd}{}", &text[..middle], &text[middle..]),
        format!("{text}{odd}"),
        format!("{odd}{rest}"),
        odd.to_owned(),
    ]
}

/// Specs at the edge of validity, each with a description.
fn edges() -> Vec<(String, Value)> {
    let mut edges = Vec::new();
    for Field {
        spec,
        pointer,
        valid,
    } in fields()
    {
        let texts: BTreeSet<String> = valid
            .iter()
            .flat_map(|text| ODD.iter().flat_map(move |odd| variants(text, odd)))
            .chain(valid.iter().cloned())
            .collect();
        for text in texts {
            let mut spec = spec.clone();
            *spec.pointer_mut(pointer).unwrap() = json!(text);
            edges.push((format!("{pointer}: {text:?}"), spec));
        }
    }
    let files = |files: Value| json!({"image": corpus::PINNED, "artifact": {"artifactType": "a/b", "files": files}});
    for (first, second) in [
        (None, None),
        (None, Some("index")),
        (Some("linux/amd64"), None),
        (Some("index"), Some("linux")),
        (Some("linux"), Some("linux")),
    ] {
        let file = |target: Option<&str>| json!({"name": "f", "value": "1", "target": target});
        edges.push((
            format!("one name for {first:?} and {second:?}"),
            files(json!([file(first), file(second)])),
        ));
    }
    let scope_index = json!({"image": corpus::TAGGED, "signature": corpus::cosign()["signature"], "targets": {"scope": "Index", "excludePlatforms": []}});
    edges.push(("nothing excluded with scope Index".to_owned(), scope_index));
    edges
}

/// Returns the specs that the command line refuses before its first request.
async fn refused_locally(specs: &[&Value]) -> BTreeSet<usize> {
    let mut refused = BTreeSet::new();
    // Errors of documents come before errors of requests, so it repeats until nothing more is refused.
    loop {
        let (mut given, mut documents) = (Vec::new(), Vec::new());
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sigs"}, "data": {"b1b1.sig": "b", "c1c1.sig": "c"}});
        for (nth, spec) in specs
            .iter()
            .enumerate()
            .filter(|(nth, _)| !refused.contains(nth))
        {
            let mut spec = (*spec).clone();
            spec["suspend"] = json!(true);
            given.push(nth);
            documents.push(serde_json::to_string(&object(&format!("edge-{nth}"), &spec)).unwrap());
        }
        documents.push(map.to_string());
        let ran = Run::new(env!("CARGO_BIN_EXE_affix"))
            .args(["plan", "-f", "-"])
            .input(documents.join("\n"))
            .output()
            .await
            .unwrap();
        // A missing ConfigMap or Secret is not an error of the spec.
        let errors = ran
            .err
            .lines()
            .filter(|line| !line.ends_with("(here: in a file given with -f)"));
        let found: BTreeSet<usize> = errors
            .filter_map(|line| {
                line.strip_prefix("error: stdin, document ")?
                    .split([' ', ':'])
                    .next()?
                    .parse::<usize>()
                    .ok()
            })
            .map(|document| given[document - 1])
            .collect();
        if found.is_empty() {
            return refused;
        }
        refused.extend(found);
    }
}

#[tokio::test]
async fn the_command_line_refuses_the_specs_that_the_api_server_refuses() {
    let cluster = Cluster::start().await;
    let bad = corpus::bad()
        .into_iter()
        .map(|bad| (bad.sentence.to_owned(), bad.spec));
    let good = corpus::good()
        .into_iter()
        .map(|(sentence, spec)| (sentence.to_owned(), spec));
    let all: Vec<(String, Value)> = bad.chain(good).chain(edges()).collect();
    let local = refused_locally(&all.iter().map(|(_, spec)| spec).collect::<Vec<_>>()).await;
    let schema: Vec<Result<(), String>> = futures::stream::iter(&all)
        .map(|(_, spec)| async {
            cluster
                .try_create(spec)
                .await
                .map(|_| ())
                .map_err(|causes| format!("{causes:?}"))
        })
        .buffered(16)
        .collect()
        .await;
    let refused = schema.iter().filter(|verdict| verdict.is_err()).count();
    assert!(
        refused > 100 && schema.len() - refused > 100,
        "{refused} of {} are refused",
        schema.len()
    );
    let differ = all
        .iter()
        .zip(&schema)
        .enumerate()
        .filter(|(nth, (_, schema))| schema.is_err() != local.contains(nth));
    let lines: Vec<String> = differ
        .map(|(_, ((description, _), schema))| {
            format!("{description}: the API server answers {schema:?}")
        })
        .collect();
    let some: Vec<&str> = lines.iter().take(40).map(String::as_str).collect();
    assert!(
        lines.is_empty(),
        "{} of {}:\n{}",
        lines.len(),
        all.len(),
        some.join("\n")
    );
}
