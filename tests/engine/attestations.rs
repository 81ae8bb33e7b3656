//! Signed statements: predicates of the spec, and the statements that the build put beside each platform.

use std::io::Write as _;

use affix::api::{ImageAttachmentSpec, Origin};
use affix::engine::{Engine, EngineOptions, NoClaims, SecretData, Sources, request, status};
use affix::signing::{PublicKey, SignedStatement};
use affix_registry::{Options, Registries, Secret};
use affix_testbed::hostile::{Deletion, HostileRegistry, Image, ImageBuilder, Op, Quirks};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::kills::{Forgets, Saved, dropped_after};
use crate::resource::Resource;

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");
const PUBLIC: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pub");
const OTHER: &[u8] = include_bytes!("../vectors/signing/cosign/ed25519.pem");
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const SPDX: &str = "https://spdx.dev/Document";
const SLSA: &str = "https://slsa.dev/provenance/v1";
const VEX: &str = "https://openvex.dev/ns";
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

/// The shape of an attestation manifest and of its entry in the index.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// The entry names the platform by an annotation.
    Old,
    /// The manifest has a type and a subject as well.
    New,
    /// The subject alone names the platform.
    SubjectAlone,
}

/// A layer of an attestation manifest.
struct Layer {
    media_type: &'static str,
    bytes: Vec<u8>,
    stated_type: Option<&'static str>,
}

impl Layer {
    fn new(predicate_type: &'static str, statement: &Value) -> Self {
        Self {
            media_type: IN_TOTO,
            bytes: statement.to_string().into_bytes(),
            stated_type: Some(predicate_type),
        }
    }

    fn compressed(self) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&self.bytes).unwrap();
        Self {
            media_type: "application/vnd.in-toto+json+gzip",
            bytes: gzip.finish().unwrap(),
            ..self
        }
    }
}

/// Returns a statement as BuildKit writes it.
fn stated(predicate_type: &str, subject: &str, predicate: Value) -> Value {
    let (algorithm, hex) = subject.split_once(':').unwrap();
    json!({
        "_type": "https://in-toto.io/Statement/v0.1", "predicateType": predicate_type,
        "subject": [{"name": "pkg:docker/team/app@v1?platform=linux", "digest": {algorithm: hex}}],
        "predicate": predicate,
    })
}

/// Returns the SBOM and the provenance of a platform.
fn usual(platform: &str, digest: &str) -> Vec<Layer> {
    let sbom = json!({"SPDXID": "SPDXRef-DOCUMENT", "name": platform});
    let provenance = json!({"buildDefinition": {"externalParameters": {"platform": platform}}});
    vec![
        Layer::new(SPDX, &stated(SPDX, digest, sbom)),
        Layer::new(SLSA, &stated(SLSA, digest, provenance)),
    ]
}

/// Pushes an image of `platforms` with the statements of its build.
fn built(
    registry: &HostileRegistry,
    platforms: &[&str],
    shape: Shape,
    layers: impl Fn(&str, &str) -> Vec<Layer>,
) -> Image {
    let store = registry.store();
    let parts = registry
        .image("team/app", "parts")
        .platforms(platforms.iter().copied())
        .push();
    let config = store.put_blob("team/app", "{}");
    let attestations = parts.children.iter().map(|child| {
        let layers = layers(child.platform.as_deref().unwrap(), &child.digest);
        let layers: Vec<Value> = layers
            .into_iter()
            .map(|layer| {
                let size = layer.bytes.len();
                let digest = store.put_blob("team/app", layer.bytes);
                let mut descriptor = json!({"mediaType": layer.media_type, "digest": digest, "size": size});
                if let Some(stated) = layer.stated_type {
                    descriptor["annotations"] = json!({"in-toto.io/predicate-type": stated});
                }
                descriptor
            })
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        });
        if shape != Shape::Old {
            manifest["artifactType"] = json!("application/vnd.docker.attestation.manifest.v1+json");
            manifest["subject"] = json!({"mediaType": MANIFEST, "digest": child.digest, "size": child.entry["size"]});
        }
        let bytes = manifest.to_string();
        let digest = store.put_manifest("team/app", None, MANIFEST, bytes.clone());
        let mut entry = json!({
            "mediaType": MANIFEST, "digest": digest, "size": bytes.len(),
            "platform": {"architecture": "unknown", "os": "unknown"},
        });
        if shape != Shape::SubjectAlone {
            entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": child.digest});
        }
        entry
    });
    let entries = parts.children.iter().map(|child| child.entry.clone());
    let entries: Vec<Value> = entries.chain(attestations.collect::<Vec<_>>()).collect();
    let builder = registry.image("team/app", "v1");
    entries.iter().fold(builder, ImageBuilder::entry).push()
}

/// Returns the digest of a platform of an image of [`built`], in the order of its platforms.
fn platform(image: &Image, nth: usize) -> &str {
    &image.children[nth].digest
}

fn from_build(image: &str) -> Value {
    json!({"image": image, "attestation": {"fromBuild": {}, "cosign": {"keySecretRef": {"name": "key"}}}})
}

fn vex(image: &str, version: u32) -> Value {
    let document = json!({"@context": "https://openvex.dev/ns/v0.2.0", "version": version});
    json!({"image": image, "attestation": {
        "predicateType": "openvex", "predicates": [{"value": document.to_string()}],
        "cosign": {"keySecretRef": {"name": "key"}},
    }})
}

fn resource(spec: Value) -> Resource {
    let mut resource = Resource::new(spec);
    resource.secret("key", &[("cosign.key", KEY)]);
    resource
}

/// Returns the bundles on a subject, each with the type and the predicate of its statement, which verifies and is about the subject.
fn statements(registry: &HostileRegistry, subject: &str) -> Vec<(String, Value)> {
    let key = PublicKey::from_pem("cosign.pub", PUBLIC).unwrap().remove(0);
    let store = registry.store();
    let mut found: Vec<(String, Value)> = Vec::new();
    for manifest in store.referrers("team/app", subject) {
        let manifest = manifest.json();
        let annotations = &manifest["annotations"];
        if manifest["artifactType"] != "application/vnd.dev.sigstore.bundle.v0.3+json" {
            continue;
        }
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let statement = SignedStatement::parse(&store.blob("team/app", layer).unwrap()).unwrap();
        assert!(statement.verifies(&key) && statement.is_about(&subject.parse().unwrap()));
        assert_eq!(
            annotations["dev.sigstore.bundle.predicateType"],
            statement.predicate_type()
        );
        found.push((
            statement.predicate_type().to_owned(),
            serde_json::from_str(statement.predicate()).unwrap(),
        ));
    }
    found
        .sort_by_key(|(predicate_type, predicate)| (predicate_type.clone(), predicate.to_string()));
    found
}

async fn registry(quirks: Quirks) -> HostileRegistry {
    HostileRegistry::builder()
        .quirks(quirks)
        .start()
        .await
        .unwrap()
}

/// Both kinds of registry. The second one deletes manifests.
fn both() -> [Quirks; 2] {
    let without_api = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [Quirks::default(), without_api]
}

#[tokio::test]
async fn the_statements_of_the_build_are_signed_on_their_platforms_in_every_shape() {
    for quirks in both() {
        for shape in [Shape::Old, Shape::New, Shape::SubjectAlone] {
            for compressed in [false, true] {
                let registry = registry(quirks.clone()).await;
                let image = built(&registry, &PLATFORMS, shape, |platform, digest| {
                    let layers = usual(platform, digest).into_iter();
                    let compress = |layer: Layer| match compressed {
                        true => layer.compressed(),
                        false => layer,
                    };
                    layers.map(compress).collect()
                });
                let mut resource = resource(from_build(&registry.reference(&image.name())));
                resource.ready().await;
                assert_eq!(resource.status.attached.as_deref(), Some("3/3"));
                for (nth, name) in PLATFORMS.iter().enumerate() {
                    let expected = [
                        (
                            SLSA,
                            json!({"buildDefinition": {"externalParameters": {"platform": name}}}),
                        ),
                        (SPDX, json!({"SPDXID": "SPDXRef-DOCUMENT", "name": name})),
                    ];
                    let expected = expected.map(|(of, predicate)| (of.to_owned(), predicate));
                    assert_eq!(
                        statements(&registry, platform(&image, nth)),
                        expected,
                        "{shape:?}"
                    );
                }
                assert!(
                    statements(&registry, &image.digest).is_empty(),
                    "the index gets none"
                );
            }
        }
    }
}

#[tokio::test]
async fn at_rest_the_statements_of_the_build_cost_one_look_and_a_verification_the_listings() {
    for quirks in both() {
        let has_api = quirks == Quirks::default();
        let registry = registry(quirks).await;
        let image = built(&registry, &PLATFORMS, Shape::Old, usual);
        let mut resource = resource(from_build(&registry.reference(&image.name())));
        resource.ready().await;
        let before = resource.status.clone();
        registry.clear();
        assert_eq!(
            resource.look().await.requests,
            1,
            "{}",
            registry.transcript()
        );
        assert_eq!(
            registry.count(Op::ManifestHead),
            1,
            "{}",
            registry.transcript()
        );
        registry.clear();
        resource.ready().await;
        assert_eq!(resource.status, before);
        assert_eq!(registry.count(Op::BlobGet), 0, "{}", registry.transcript());
        if has_api {
            assert_eq!(
                registry.count(Op::ReferrersList),
                3,
                "{}",
                registry.transcript()
            );
            assert_eq!(
                registry.count(Op::ManifestGet),
                1,
                "{}",
                registry.transcript()
            );
        }
    }
}

#[tokio::test]
async fn a_lost_statement_is_signed_again_and_no_other_one() {
    for quirks in both() {
        let registry = registry(quirks).await;
        let image = built(&registry, &PLATFORMS, Shape::New, usual);
        let mut resource = resource(from_build(&registry.reference(&image.name())));
        resource.ready().await;
        let amd64 = platform(&image, 0);
        let lost = resource.attachment(amd64).to_owned();
        registry.store().delete_manifest("team/app", &lost);
        registry.store().put_fallback("team/app", amd64, &[]);
        resource.later(60);
        let outcome = resource.ready().await;
        assert!(
            outcome
                .notes
                .iter()
                .any(|note| note.reason.as_str() == "Restored")
        );
        for nth in 0..3 {
            assert_eq!(statements(&registry, platform(&image, nth)).len(), 2);
        }
    }
}

#[tokio::test]
async fn other_types_of_the_build_are_added_and_removed_with_the_spec() {
    for quirks in both() {
        let registry = registry(quirks).await;
        let image = built(&registry, &PLATFORMS, Shape::Old, usual);
        let choose = |types: Value| {
            let mut spec = from_build(&registry.reference(&image.name()));
            spec["attestation"]["fromBuild"] = json!({"predicateTypes": types});
            spec
        };
        let kinds = |nth: usize| {
            let found = statements(&registry, platform(&image, nth)).into_iter();
            found.map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        let mut resource = resource(choose(json!([SPDX])));
        for (types, expected) in [
            (json!([SPDX]), vec![SPDX]),
            (json!(["https://slsa.dev/provenance/*"]), vec![SLSA]),
            (json!(["*"]), vec![SLSA, SPDX]),
            (json!(["!*slsa*"]), vec![SPDX]),
        ] {
            resource.change(choose(types.clone()));
            resource.later(60);
            resource.ready().await;
            for nth in 0..3 {
                assert_eq!(kinds(nth), expected, "{types}");
            }
            assert!(
                resource.status.leftovers.is_empty(),
                "{:#?}",
                resource.status.leftovers
            );
        }
        assert!(resource.delete().await.failed.is_none());
        for nth in 0..3 {
            assert!(kinds(nth).is_empty());
        }
    }
}

#[tokio::test]
async fn two_statements_of_one_type_are_both_signed_and_equal_ones_once() {
    let registry = registry(Quirks::default()).await;
    let image = built(&registry, &PLATFORMS[..1], Shape::Old, |_, digest| {
        let sbom = |name: &str| stated(SPDX, digest, json!({"name": name, "n": 1}));
        let mut again = Layer::new(SPDX, &sbom("one"));
        again.bytes = serde_json::to_vec_pretty(&sbom("one")).unwrap();
        vec![
            Layer::new(SPDX, &sbom("one")),
            Layer::new(SPDX, &sbom("two")),
            again,
        ]
    });
    let mut resource = resource(from_build(&registry.reference(&image.name())));
    resource.ready().await;
    let found = statements(&registry, platform(&image, 0));
    let names: Vec<&Value> = found
        .iter()
        .map(|(_, predicate)| &predicate["name"])
        .collect();
    assert_eq!(names, ["one", "two"]);
    // Without its status, the resource finds both again.
    let mut restored = self::resource(from_build(&registry.reference(&image.name())));
    restored.ready().await;
    assert_eq!(statements(&registry, platform(&image, 0)).len(), 2);
    assert!(
        restored.status.targets[1]
            .formats
            .iter()
            .all(|of| of.origin == Some(Origin::Adopted))
    );
}

#[tokio::test]
async fn t32_statements_of_the_build_that_are_not_to_be_signed_push_nothing() {
    const LIMIT: usize = 16 << 20;
    let padded = |digest: &str, size: usize| {
        let empty = stated(SPDX, digest, json!({"pad": ""})).to_string().len();
        Layer::new(
            SPDX,
            &stated(SPDX, digest, json!({"pad": "x".repeat(size - empty)})),
        )
    };
    type Build<'a> = Box<dyn Fn(&str) -> Vec<Layer> + 'a>;
    let one = |layer: Layer| vec![layer];
    let cases: Vec<(&str, &str, Build<'_>)> = vec![
        (
            "a lying subject",
            "SubjectMismatch",
            Box::new(|_| {
                one(Layer::new(
                    SPDX,
                    &stated(SPDX, &format!("sha256:{}", "0".repeat(64)), json!({})),
                ))
            }),
        ),
        (
            "no subject",
            "SubjectMismatch",
            Box::new(|digest| {
                let mut statement = stated(SPDX, digest, json!({}));
                statement["subject"] = Value::Null;
                one(Layer::new(SPDX, &statement))
            }),
        ),
        (
            "a list as predicate",
            "StatementInvalid",
            Box::new(|digest| one(Layer::new(SPDX, &stated(SPDX, digest, json!([]))))),
        ),
        (
            "a text as predicate",
            "StatementInvalid",
            Box::new(|digest| {
                one(Layer::new(
                    SPDX,
                    &stated(SPDX, digest, json!("SPDXVersion: 2.3")),
                ))
            }),
        ),
        (
            "no predicate",
            "StatementInvalid",
            Box::new(|digest| one(Layer::new(SPDX, &stated(SPDX, digest, Value::Null)))),
        ),
        (
            "no JSON",
            "StatementInvalid",
            Box::new(|_| {
                one(Layer {
                    bytes: b"SPDXVersion".to_vec(),
                    ..Layer::new(SPDX, &Value::Null)
                })
            }),
        ),
        (
            "another JSON",
            "StatementInvalid",
            Box::new(|_| one(Layer::new(SPDX, &json!({"SPDXID": "SPDXRef-DOCUMENT"})))),
        ),
        (
            "a type with a line break",
            "StatementInvalid",
            Box::new(|digest| {
                one(Layer {
                    stated_type: None,
                    ..Layer::new(SPDX, &stated("https://a\nb", digest, json!({})))
                })
            }),
        ),
        (
            "a damaged compression",
            "StatementInvalid",
            Box::new(|digest| {
                let mut layer = Layer::new(SPDX, &stated(SPDX, digest, json!({}))).compressed();
                layer.bytes.truncate(layer.bytes.len() - 9);
                one(layer)
            }),
        ),
        (
            "one byte too many",
            "LimitExceeded",
            Box::new(|digest| one(padded(digest, LIMIT + 1))),
        ),
        (
            "one byte too many, compressed",
            "LimitExceeded",
            Box::new(|digest| one(padded(digest, LIMIT + 1).compressed())),
        ),
        (
            "nine statements",
            "LimitExceeded",
            Box::new(|digest| {
                (0..9)
                    .map(|nth| Layer::new(SPDX, &stated(SPDX, digest, json!({"n": nth}))))
                    .collect()
            }),
        ),
        ("none", "FileMissing", Box::new(|_| Vec::new())),
        (
            "layers of other types",
            "FileMissing",
            Box::new(|digest| {
                one(Layer {
                    media_type: "application/vnd.example",
                    ..Layer::new(SPDX, &stated(SPDX, digest, json!({})))
                })
            }),
        ),
    ];
    for (what, reason, layers) in cases {
        let registry = registry(Quirks::default()).await;
        let image = built(
            &registry,
            &PLATFORMS,
            Shape::Old,
            |name, digest| match name {
                "linux/arm64" => layers(digest),
                _ => usual(name, digest),
            },
        );
        let mut resource = resource(from_build(&registry.reference(&image.name())));
        let outcome = resource.pass().await;
        assert_eq!(
            outcome.verdict.reason.as_str(),
            reason,
            "{what}: {}",
            outcome.verdict.message
        );
        assert_eq!(
            registry.count(Op::ManifestPut),
            0,
            "{what}: {}",
            registry.transcript()
        );
        assert_eq!(
            resource.rows()[2],
            format!("linux/arm64 Failed {reason}"),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_statement_of_the_largest_size_is_signed_and_adopted() {
    const LIMIT: usize = 16 << 20;
    let registry = registry(Quirks::default()).await;
    let image = built(&registry, &PLATFORMS[..1], Shape::Old, |_, digest| {
        let empty = stated(SPDX, digest, json!({"pad": ""})).to_string().len();
        let pad = "x".repeat(LIMIT - empty);
        vec![Layer::new(SPDX, &stated(SPDX, digest, json!({"pad": pad})))]
    });
    for _ in 0..2 {
        let mut resource = resource(from_build(&registry.reference(&image.name())));
        resource.ready().await;
        assert_eq!(
            registry
                .store()
                .referrers("team/app", platform(&image, 0))
                .len(),
            1
        );
    }
}

#[tokio::test]
async fn a_weekly_change_of_the_predicate_leaves_exactly_the_newest_statement_of_ours() {
    for quirks in both() {
        let registry = registry(quirks).await;
        let image = registry.image("team/app", "v1").platforms(PLATFORMS).push();
        let reference = registry.reference(&image.name());
        let mut resource = resource(vex(&reference, 1));
        // A statement of another owner stays.
        let foreign = crate::resource::attach(
            &registry,
            &image,
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            json!({"dev.sigstore.bundle.predicateType": VEX, "dev.sigstore.bundle.content": "dsse-envelope"}),
        );
        registry
            .store()
            .append_fallback("team/app", &image.digest, {
                let mut entry = registry
                    .store()
                    .manifest("team/app", &foreign)
                    .unwrap()
                    .descriptor();
                entry["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
                entry
            });
        for version in 1..=4 {
            resource.change(vex(&reference, version));
            resource.later(7 * 24 * 3600);
            resource.ready().await;
            assert!(
                resource.status.leftovers.is_empty(),
                "{:#?}",
                resource.status.leftovers
            );
            for nth in 0..3 {
                let found = statements(&registry, platform(&image, nth));
                let expected =
                    json!({"@context": "https://openvex.dev/ns/v0.2.0", "version": version});
                assert_eq!(found, [(VEX.to_owned(), expected)]);
            }
        }
        assert!(registry.store().manifest("team/app", &foreign).is_some());
        // New first, then the old one: a removal that is refused leaves both.
        registry.clear();
        resource.change(vex(&reference, 5));
        resource.later(7 * 24 * 3600);
        resource.ready().await;
        let requests = registry.requests();
        let last = |op: Op| requests.iter().rposition(|request| request.op == op);
        let first = |op: Op| requests.iter().position(|request| request.op == op);
        assert!(
            last(Op::UploadStart) < first(Op::ManifestDelete),
            "{}",
            registry.transcript()
        );
        let outcome = resource.detach().await;
        assert!(
            !outcome.verdict.message.contains("Failed"),
            "{:?}",
            outcome.verdict
        );
        for nth in 0..3 {
            assert!(statements(&registry, platform(&image, nth)).is_empty());
        }
        assert!(registry.store().manifest("team/app", &foreign).is_some());
    }
}

#[tokio::test]
async fn another_layout_of_the_predicate_signs_nothing_and_another_key_signs_anew() {
    let registry = registry(Quirks::default()).await;
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let reference = registry.reference(&image.name());
    let mut resource = resource(vex(&reference, 1));
    resource.ready().await;
    let before = resource.attachment(&image.digest).to_owned();
    let mut pretty = vex(&reference, 1);
    pretty["attestation"]["predicates"][0]["value"] =
        json!("{ \"version\" : 1,\n \"@context\": \"https://openvex.dev/ns/v0.2.0\" }");
    registry.clear();
    resource.change(pretty);
    resource.ready().await;
    assert_eq!(
        (
            resource.attachment(&image.digest),
            registry.count(Op::ManifestPut)
        ),
        (before.as_str(), 0)
    );
    // Another resource, or this one without its status, adopts it.
    let mut other = self::resource(vex(&reference, 1));
    other.ready().await;
    assert_eq!(other.attachment(&image.digest), before);
    assert_eq!(other.status.targets[0].origin, Some(Origin::Adopted));
    // A rotation replaces it.
    resource.secret("key", &[("cosign.key", OTHER)]);
    resource.later(60);
    resource.ready().await;
    assert_ne!(resource.attachment(&image.digest), before);
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        1
    );
}

#[tokio::test]
async fn each_target_gets_its_own_predicate_and_a_target_without_one_is_missing() {
    let registry = registry(Quirks::default()).await;
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let mut spec = vex(&registry.reference(&image.pinned()), 1);
    spec["attestation"]["predicates"] = json!([
        {"target": "index", "value": "{\"of\":\"index\"}"},
        {"target": "linux/amd64", "valueFrom": {"configMapKeyRef": {"name": "vex", "key": "amd64"}}},
    ]);
    let mut resource = resource(spec.clone());
    let map = |value: &str| {
        [("amd64".to_owned(), bytes::Bytes::from(value.to_owned()))]
            .into_iter()
            .collect()
    };
    resource
        .sources
        .config_maps
        .insert("vex".to_owned(), map("{\"of\":\"amd64\"}"));
    let outcome = resource.pass().await;
    assert_eq!(
        outcome.verdict.reason.as_str(),
        "FileMissing",
        "{:?}",
        outcome.verdict
    );
    assert!(
        outcome
            .verdict
            .message
            .contains("no predicate is for the target linux/arm64"),
        "{:?}",
        outcome.verdict
    );
    assert_eq!(registry.count(Op::ManifestPut), 0);
    spec["targets"] = json!({"excludePlatforms": ["linux/arm64"]});
    resource.change(spec.clone());
    resource.ready().await;
    let of = |digest: &str| statements(&registry, digest)[0].1["of"].clone();
    assert_eq!(
        (of(&image.digest), of(image.platform("linux/amd64"))),
        (json!("index"), json!("amd64"))
    );
    resource
        .sources
        .config_maps
        .insert("vex".to_owned(), map("no JSON"));
    let outcome = resource.pass().await;
    assert_eq!(
        outcome.verdict.reason.as_str(),
        "StatementInvalid",
        "{:?}",
        outcome.verdict
    );
    assert!(
        outcome
            .verdict
            .message
            .starts_with("spec.attestation.predicates[1]: the predicate"),
        "{:?}",
        outcome.verdict
    );
}

#[tokio::test]
async fn nine_targets_cost_twice_their_number_and_the_statements_more_than_a_signature() {
    let platforms = [
        "linux/amd64",
        "linux/arm64",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/386",
        "linux/s390x",
        "linux/ppc64le",
        "linux/riscv64",
    ];
    let registry = registry(Quirks::default()).await;
    let image = registry.image("team/app", "v1").platforms(platforms).push();
    let reference = registry.reference(&image.name());
    let sign =
        json!({"image": reference, "signature": {"cosign": {"keySecretRef": {"name": "key"}}}});
    let signed = resource(sign).ready().await.requests;
    let attested = resource(vex(&reference, 1)).ready().await.requests;
    assert!(
        attested <= signed,
        "{attested} and {signed} requests\n{}",
        registry.transcript()
    );
    let image = built(&registry, &platforms, Shape::Old, usual);
    registry.clear();
    let built = resource(from_build(&registry.reference(&image.name())))
        .ready()
        .await
        .requests;
    // Two statements on eight platforms: their manifests and layers are read, and one more of each is pushed.
    assert!(
        built <= signed + 2 * 9 + 8 + 4 * 8,
        "{built} and {signed} requests\n{}",
        registry.transcript()
    );
    assert_eq!(
        registry.count(Op::ReferrersList),
        8,
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_dry_run_and_detach_know_the_statements_of_the_build() {
    let registry = registry(Quirks::default()).await;
    let image = built(&registry, &PLATFORMS, Shape::Old, usual);
    let mut dry = from_build(&registry.reference(&image.name()));
    dry["dryRun"] = json!(true);
    let mut plan = resource(dry);
    let outcome = plan.pass().await;
    assert_eq!(
        outcome.verdict.reason.as_str(),
        "Planned",
        "{:?}",
        outcome.verdict
    );
    assert_eq!(registry.count(Op::ManifestPut), 0);
    let mut resource = resource(from_build(&registry.reference(&image.name())));
    resource.ready().await;
    let outcome = resource.detach().await;
    assert_eq!(
        outcome.verdict.message, "6 attachments removed",
        "{:?}",
        outcome.verdict
    );
    for nth in 0..3 {
        assert!(statements(&registry, platform(&image, nth)).is_empty());
    }
}

/// Runs a pass in a process that has just started.
async fn pass(
    spec: &ImageAttachmentSpec,
    known: Option<&affix::api::ImageAttachmentStatus>,
    journal: &impl affix::engine::Journal,
) -> affix::engine::Outcome {
    let data = [("cosign.key".to_owned(), Secret::new(KEY))];
    let secret = SecretData {
        data: data.into_iter().collect(),
        ..SecretData::default()
    };
    let sources = Sources {
        secrets: [("key".to_owned(), secret)].into_iter().collect(),
        ..Sources::default()
    };
    let registries = Registries::new(Options {
        allow_loopback: true,
        ..Options::default()
    });
    let request = request(spec, known, 1, &sources, true).unwrap();
    let engine = Engine::new(registries, EngineOptions::default());
    engine
        .run(&request, journal, &NoClaims, Timestamp::now())
        .await
}

/// Kills a pass after `polls` polls and runs another one. Returns whether the first pass was complete before the kill.
async fn killed_after(polls: u32, quirks: Quirks) -> bool {
    let registry = registry(quirks).await;
    let image = built(&registry, &PLATFORMS[..2], Shape::Old, usual);
    let mut spec = from_build(&registry.reference(&image.name()));
    spec["insecure"] = json!(true);
    let spec: ImageAttachmentSpec = serde_json::from_value(spec).unwrap();
    let saved = Saved::default();
    let ended = dropped_after(polls, pass(&spec, Some(&saved.get()), &saved)).await;
    let known = saved.get();
    let outcome = pass(&spec, Some(&known), &saved).await;
    assert!(outcome.verdict.ready, "after {polls} polls: {outcome:#?}");
    let known = status(&saved.get(), &outcome, 1, Timestamp::now());
    let outcome = pass(&spec, Some(&known), &Forgets).await;
    assert!(outcome.verdict.ready, "after {polls} polls: {outcome:#?}");
    for nth in 0..2 {
        let found = statements(&registry, platform(&image, nth));
        let kinds: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(
            kinds,
            [SLSA, SPDX],
            "after {polls} polls\n{}",
            registry.transcript()
        );
    }
    ended.is_some()
}

#[tokio::test]
async fn t18_after_a_kill_each_platform_has_one_statement_of_each_type() {
    for quirks in both() {
        let kills = futures::stream::iter(0..2000).map(|polls| {
            let quirks = quirks.clone();
            async move { (polls, killed_after(polls, quirks).await) }
        });
        let mut kills = std::pin::pin!(kills.buffered(8));
        let mut ended = false;
        while let Some((polls, complete)) = kills.next().await {
            if complete {
                assert!(polls > 6, "a pass of {polls} polls is none");
                ended = true;
                break;
            }
        }
        assert!(ended, "no pass ended");
    }
}
