//! Specs that the schema accepts, and specs that it refuses, each with the field and the message of the refusal.

use serde_json::{Value, json};

pub(crate) const TAGGED: &str = "registry.example.com/team/app:v1";
pub(crate) const PINNED: &str = "registry.example.com/team/app:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const DIGEST: &str =
    "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

const CREATED: &str = "org.opencontainers.image.created";

/// A spec that the schema must refuse.
pub(crate) struct Bad {
    pub(crate) sentence: &'static str,
    pub(crate) spec: Value,
    /// The field that the refusal must name.
    pub(crate) field: &'static str,
    /// A part of the message.
    pub(crate) says: &'static str,
}

/// An end-of-life mark with a date.
pub(crate) fn mark() -> Value {
    json!({"image": PINNED, "endOfLife": {"date": "2025-03-20T01:20:30Z"}})
}

/// An end-of-life mark that follows a tag.
pub(crate) fn watch() -> Value {
    json!({"image": TAGGED, "endOfLife": {"whenSuperseded": {"gracePeriod": "720h"}}})
}

/// An artifact of one file.
pub(crate) fn artifact() -> Value {
    json!({"image": PINNED, "artifact": {
        "artifactType": "application/vnd.demo.test.signature",
        "files": [{"name": "a1a1.sig", "value": "signature"}]
    }})
}

/// A cosign signature.
pub(crate) fn cosign() -> Value {
    json!({"image": TAGGED, "signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}}})
}

/// A cosign signature without a key.
pub(crate) fn keyless() -> Value {
    json!({"image": TAGGED, "signature": {"cosign": {"keyless": {"serviceAccountName": "signer", "trustRef": {"name": "sigstore"}}}}})
}

/// A timestamp authority.
fn timestamp(url: &str) -> Value {
    json!({"url": url, "certSecretRef": {"name": "tsa-root"}})
}

/// A transparency log.
fn logged() -> Value {
    json!({"trustRef": {"name": "sigstore"}})
}

/// A cosign signature by a key of OpenBao.
pub(crate) fn kms() -> Value {
    json!({"image": TAGGED, "signature": {"cosign": {"kms": {
        "keyRef": "hashivault://images", "serviceAccountName": "signer",
        "vault": {"address": "https://bao.example.com:8200", "role": "affix"}
    }}}})
}

/// Returns `spec` with a key of OpenBao at `signer`, and with the ServiceAccount of the whole spec.
fn by_account_of_spec(spec: Value, signer: &str) -> Value {
    let spec = set(spec, "/serviceAccountName", json!("builder"));
    let spec = set(spec, signer, kms()["signature"]["cosign"].clone());
    unset(spec, &format!("{signer}/kms/serviceAccountName"))
}

/// A cosign signature with the login of a cloud.
fn cloud(provider: &str) -> Value {
    let spec = set(cosign(), "/serviceAccountName", json!("builder"));
    set(spec, "/provider", json!(provider))
}

/// A notation signature.
pub(crate) fn notation() -> Value {
    json!({"image": TAGGED, "signature": {"notation": {"keySecretRef": {"name": "signing-tls"}}}})
}

/// A signed statement.
pub(crate) fn attestation() -> Value {
    json!({"image": PINNED, "attestation": {
        "predicateType": "https://cyclonedx.org/bom",
        "predicates": [{"value": "{}"}],
        "cosign": {"keySecretRef": {"name": "cosign-key"}}
    }})
}

/// The signed statements of the build.
pub(crate) fn from_build() -> Value {
    json!({"image": TAGGED, "attestation": {
        "fromBuild": {"predicateTypes": ["https://spdx.dev/Document", "https://slsa.dev/provenance/*"]},
        "cosign": {"keySecretRef": {"name": "cosign-key"}}
    }})
}

/// Returns a spec with one field set. `path` is a JSON pointer; missing objects are created.
fn set(mut spec: Value, path: &str, value: Value) -> Value {
    let mut at = &mut spec;
    for name in path.split('/').skip(1) {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    *at = value;
    spec
}

/// Returns a spec without one field.
fn unset(mut spec: Value, path: &str) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    spec.pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    spec
}

fn repeated(item: impl Fn(usize) -> Value, count: usize) -> Value {
    (0..count).map(item).collect()
}

/// Specs that the schema accepts.
pub(crate) fn good() -> Vec<(&'static str, Value)> {
    let file = |target: &str| json!([{"name": "b1b1.sig", "target": target, "value": "signature"}]);
    vec![
        ("a date and time", mark()),
        (
            "a file in a folder, as oras names it",
            set(artifact(), "/artifact/files/0/name", json!("sbom/app.json")),
        ),
        (
            "a date with a signed statement",
            set(
                mark(),
                "/endOfLife/statement",
                json!({"cosign": {"keySecretRef": {"name": "cosign-key"}}}),
            ),
        ),
        (
            "signed statements with annotations on what a tag leaves",
            set(
                watch(),
                "/endOfLife/statement",
                json!({"cosign": {"keySecretRef": {"name": "cosign-key"}, "annotations": {"env": "prod"}}}),
            ),
        ),
        (
            "a date alone",
            set(mark(), "/endOfLife/date", json!("2025-03-20")),
        ),
        (
            "a date with a long fraction",
            set(
                mark(),
                "/endOfLife/date",
                json!("2023-05-12T21:15:10.8343521000000001Z"),
            ),
        ),
        (
            "a date with a fraction and an offset",
            set(
                mark(),
                "/endOfLife/date",
                json!("2023-05-12T21:15:10.8343521+05:30"),
            ),
        ),
        (
            "29 February of a leap year",
            set(mark(), "/endOfLife/date", json!("2028-02-29")),
        ),
        (
            "29 February of the year 2000",
            set(
                mark(),
                "/endOfLife/date",
                json!("2000-02-29T23:59:59-23:59"),
            ),
        ),
        (
            "the year 9999",
            set(mark(), "/endOfLife/date", json!("9999-12-31T23:59:59Z")),
        ),
        (
            "scenario 1, by hand",
            json!({
                "image": PINNED,
                "targets": {"scope": "All", "platforms": ["linux/amd64"], "missing": "Fail"},
                "endOfLife": {
                    "date": "2025-03-20T01:20:30Z",
                    "artifactType": "application/vnd.demo.artifact.lifecycle",
                    "annotation": "vnd.demo.artifact.lifecycle.end-of-life.date",
                    "annotations": {"org.example.reason": "CVE-2025-0001"},
                    "onConflict": "Supersede"
                }
            }),
        ),
        ("what the tag leaves behind", watch()),
        (
            "whenSuperseded with all of its fields",
            json!({
                "image": TAGGED,
                "endOfLife": {"whenSuperseded": {
                    "gracePeriod": "720h", "settle": "0s", "unlessTagged": ["*", "!nightly-*", "v1.?"], "previous": [DIGEST]
                }}
            }),
        ),
        (
            "no other tag counts",
            set(watch(), "/endOfLife/whenSuperseded/unlessTagged", json!([])),
        ),
        (
            "previous with a digest of sha512",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                json!([format!("sha512:{}", "c".repeat(128))]),
            ),
        ),
        (
            "an overlap of signatures",
            set(cosign(), "/signature/overlap", json!("72h")),
        ),
        (
            "no overlap",
            set(notation(), "/signature/overlap", json!("0s")),
        ),
        ("an artifact of one file", artifact()),
        (
            "a time of creation",
            set(
                artifact(),
                "/artifact/annotations",
                json!({CREATED: "2025-03-20T01:20:30+01:00"}),
            ),
        ),
        (
            "an artifact of annotations only",
            json!({"image": TAGGED, "artifact": {
                "artifactType": "application/vnd.demo.note", "annotations": {"vnd.demo.note": "text", "empty": ""}
            }}),
        ),
        (
            "scenario 2, by hand",
            json!({
                "image": PINNED,
                "artifact": {"artifactType": "application/vnd.demo.test.signature", "files": [
                    {"name": "a1a1.sig", "target": "index", "value": "signature"},
                    {"name": "b1b1.sig", "target": "linux/amd64", "mediaType": "text/plain", "value": ""},
                    {"name": "c1c1.sig", "target": DIGEST, "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "c1c1.sig"}}}
                ]}
            }),
        ),
        (
            "the same name for two targets",
            set(
                artifact(),
                "/artifact/files",
                json!([
                    {"name": "image.sig", "target": "linux/amd64", "value": "1"}, {"name": "image.sig", "target": "linux/arm64", "value": "2"}
                ]),
            ),
        ),
        (
            "a file with dots and blanks in its name",
            set(artifact(), "/artifact/files/0/name", json!("..a b1 b1.sig")),
        ),
        (
            "a file for a Windows version",
            set(
                artifact(),
                "/artifact/files",
                file("windows/amd64:10.0.20348.1234"),
            ),
        ),
        (
            "as many files as fit",
            set(
                artifact(),
                "/artifact/files",
                repeated(|n| json!({"name": n.to_string(), "value": ""}), 128),
            ),
        ),
        (
            "files of a ConfigMap",
            json!({"image": TAGGED, "artifact": {
                "artifactType": "application/vnd.demo.test.signature",
                "filesFrom": [{"configMapRef": {"name": "sigs"}, "mediaType": "application/octet-stream"}, {"configMapRef": {"name": "more"}}]
            }}),
        ),
        ("a cosign signature", cosign()),
        (
            "a cosign signature with annotations",
            set(
                cosign(),
                "/signature/cosign/annotations",
                json!({"team": "a"}),
            ),
        ),
        (
            "a cosign signature in both formats",
            set(
                set(
                    cosign(),
                    "/signature/cosign/formats",
                    json!(["Bundle", "Tag"]),
                ),
                "/signature/cosign/identity",
                json!("Tag"),
            ),
        ),
        (
            "an identity by a tag beside a digest",
            set(
                set(cosign(), "/signature/cosign/identity", json!("Tag")),
                "/image",
                json!(PINNED),
            ),
        ),
        (
            "formats and identity that are null",
            set(
                set(cosign(), "/signature/cosign/formats", json!(null)),
                "/signature/cosign/identity",
                json!(null),
            ),
        ),
        ("a signature by a key of OpenBao", kms()),
        ("a signature without a key", keyless()),
        (
            "a signature without a key for another audience",
            set(
                keyless(),
                "/signature/cosign/keyless/audience",
                json!("fulcio.example.com"),
            ),
        ),
        (
            "a statement without a key",
            set(
                attestation(),
                "/attestation/cosign",
                keyless()["signature"]["cosign"].clone(),
            ),
        ),
        (
            "a date with a statement without a key",
            set(
                mark(),
                "/endOfLife/statement",
                json!({"cosign": keyless()["signature"]["cosign"]}),
            ),
        ),
        (
            "a signature in a transparency log",
            set(cosign(), "/signature/cosign/transparency", logged()),
        ),
        (
            "a signature by a key of OpenBao in a transparency log",
            set(
                set(kms(), "/signature/cosign/transparency", logged()),
                "/signature/cosign/formats",
                json!(["Bundle"]),
            ),
        ),
        (
            "a statement in a transparency log",
            set(attestation(), "/attestation/cosign/transparency", logged()),
        ),
        (
            "a key of OpenBao with every field, and the account of the spec",
            set(
                by_account_of_spec(kms(), "/signature/cosign"),
                "/signature/cosign/kms/vault",
                json!({
                    "address": "http://[::1]:8200/", "namespace": "team-a/prod", "mount": "team_a/transit.v1", "role": "affix",
                    "authMount": "kubernetes", "audience": "vault", "certSecretRef": {"name": "bao-ca"}
                }),
            ),
        ),
        (
            "a statement by a key of OpenBao",
            set(
                attestation(),
                "/attestation/cosign",
                kms()["signature"]["cosign"].clone(),
            ),
        ),
        (
            "a statement by a key of OpenBao and the account of the spec",
            by_account_of_spec(attestation(), "/attestation/cosign"),
        ),
        (
            "a date with a statement by a key of OpenBao",
            set(
                mark(),
                "/endOfLife/statement",
                json!({"cosign": kms()["signature"]["cosign"]}),
            ),
        ),
        (
            "a date with a statement by a key of OpenBao and the account of the spec",
            by_account_of_spec(
                set(mark(), "/endOfLife/statement", json!({"cosign": {}})),
                "/endOfLife/statement/cosign",
            ),
        ),
        ("a notation signature", notation()),
        (
            "a notation signature that ends",
            set(notation(), "/signature/notation/expiry", json!("8760h")),
        ),
        (
            "a notation signature with a timestamp",
            set(
                notation(),
                "/signature/notation/timestamp",
                timestamp("http://timestamp.example.com"),
            ),
        ),
        (
            "a notation signature with a timestamp of an authority on a port and a path",
            set(
                notation(),
                "/signature/notation/timestamp",
                timestamp("https://[2001:db8::1]:3000/api/v1/timestamp"),
            ),
        ),
        (
            "every platform pattern",
            set(
                cosign(),
                "/targets",
                json!({
                    "scope": "Platforms",
                    "platforms": ["linux", "linux/arm", "linux/arm/v7", "*/arm64", "*", "windows/amd64:10.0.20348", "linux/*/v8:*", "Linux/X86_64"],
                    "excludePlatforms": ["linux/386"],
                    "missing": "Ignore"
                }),
            ),
        ),
        (
            "as many platforms as fit",
            set(
                cosign(),
                "/targets/platforms",
                repeated(|n| json!(format!("linux/a{n}")), 64),
            ),
        ),
        (
            "manifests by digest, and the tagged indexes above",
            set(
                cosign(),
                "/targets",
                json!({"scope": "All", "digests": [DIGEST], "excludePlatforms": ["linux/386"], "parents": "Tagged"}),
            ),
        ),
        (
            "as many digests as fit",
            set(
                cosign(),
                "/targets/digests",
                repeated(|n| json!(format!("sha256:{n:064x}")), 100),
            ),
        ),
        (
            "nothing excluded",
            set(cosign(), "/targets", json!({"excludePlatforms": []})),
        ),
        (
            "the index only",
            set(cosign(), "/targets", json!({"scope": "Index"})),
        ),
        (
            "how the registry is reached",
            json!({
                "image": "localhost:5000/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "endOfLife": {"date": "2025-03-20"},
                "dryRun": true, "interval": "1h30m", "timeout": "1m30s", "suspend": true, "deletionPolicy": "Delete",
                "referrersMode": "TagSchema", "secretRef": {"name": "registry-login"}, "serviceAccountName": "builder",
                "certSecretRef": {"name": "registry.ca"}, "proxySecretRef": {"name": "proxy"}, "insecure": true
            }),
        ),
        ("the login of a cloud", {
            let mut spec = cloud("aws");
            spec["insecure"] = json!(false);
            spec["certSecretRef"] = json!({"name": "ca"});
            spec["proxySecretRef"] = json!({"name": "proxy"});
            spec
        }),
        ("generic logins under their name", {
            let mut spec = set(cosign(), "/provider", json!("generic"));
            spec["secretRef"] = json!({"name": "login"});
            spec["insecure"] = json!(true);
            spec
        }),
        ("the other values of each choice", {
            let mut spec = set(cosign(), "/deletionPolicy", json!("Retain"));
            spec["referrersMode"] = json!("API");
            spec["insecure"] = json!(false);
            spec["interval"] = json!("1s");
            spec["timeout"] = json!("1500ms");
            spec
        }),
        ("a statement about every target", attestation()),
        (
            "a statement that follows a tag, by a short name, with annotations",
            set(
                set(
                    set(attestation(), "/image", json!(TAGGED)),
                    "/attestation/predicateType",
                    json!("openvex"),
                ),
                "/attestation/cosign/annotations",
                json!({"team": "a"}),
            ),
        ),
        (
            "a predicate for each target, from ConfigMaps",
            set(
                attestation(),
                "/attestation/predicates",
                json!([
                    {"target": "index", "value": "{}"},
                    {"target": "linux/amd64", "valueFrom": {"configMapKeyRef": {"name": "sboms", "key": "amd64.cdx.json"}}},
                    {"target": DIGEST, "value": "{}"}
                ]),
            ),
        ),
        (
            "the keys of a ConfigMap as predicates",
            set(
                unset(attestation(), "/attestation/predicates"),
                "/attestation/predicatesFrom",
                json!([{"configMapRef": {"name": "sboms"}}]),
            ),
        ),
        ("the statements of the build", from_build()),
        (
            "every statement of the build",
            set(from_build(), "/attestation/fromBuild", json!({})),
        ),
        (
            "a registry without a dot, with a port",
            set(cosign(), "/image", json!("registry:5000/app:v1")),
        ),
        (
            "localhost",
            set(cosign(), "/image", json!("localhost/app:v1")),
        ),
        (
            "an address of IPv4",
            set(cosign(), "/image", json!("127.0.0.1:5000/team/app:v1")),
        ),
        (
            "an address of IPv6",
            set(cosign(), "/image", json!("[::1]:5000/team/app:v1")),
        ),
        (
            "Docker Hub, named",
            set(cosign(), "/image", json!("docker.io/library/nginx:1.29")),
        ),
    ]
}

const ONE_KIND: &str = "set exactly one of endOfLife, artifact, signature, attestation; for a second attachment to the same image create another";
const REGISTRY: &str = "image must begin with the name of its registry, without a scheme";
const TAG_OR_DIGEST: &str = "image needs a tag or a digest: write …/app:v1 to follow a tag, or …/app@sha256:… for one digest";
const DATE: &str =
    "not a date of the calendar in RFC 3339: write a date and time such as 2025-03-20T01:20:30Z";
const DURATION: &str =
    "not a duration: write numbers with a unit of ms, s, m or h, for example 90s, 10m or 1h30m";
const PLATFORM: &str =
    "not a platform: write os[/arch[/variant]][:os.version], for example linux/amd64";
const NAME: &str = "not a name of an object: write lower-case letters, digits, - and .";
const MEDIA_TYPE: &str = "not a media type: write type/subtype, for example";
const FILE_NAME: &str = "not a file name: tools that pull the artifact write the layer under this name, so it must be a relative path";
const TARGET: &str = "target must be index, a platform such as linux/amd64, or a whole digest";
const DIGEST_RULE: &str = "not a digest: write sha256: and 64 lower-case hexadecimal digits";

/// Specs that the schema refuses.
pub(crate) fn bad() -> Vec<Bad> {
    let rows: Vec<(&'static str, Value, &'static str, &'static str)> = vec![
        // Kinds.
        ("no kind", json!({"image": PINNED}), "spec", ONE_KIND),
        (
            "two kinds",
            set(mark(), "/artifact", artifact()["artifact"].clone()),
            "spec",
            ONE_KIND,
        ),
        (
            "three kinds",
            set(
                set(mark(), "/artifact", artifact()["artifact"].clone()),
                "/signature",
                cosign()["signature"].clone(),
            ),
            "spec",
            ONE_KIND,
        ),
        (
            "a kind that is null",
            json!({"image": PINNED, "endOfLife": null}),
            "spec",
            ONE_KIND,
        ),
        // Signatures without a key.
        (
            "a key and none",
            set(
                keyless(),
                "/signature/cosign/keySecretRef",
                json!({"name": "cosign-key"}),
            ),
            "spec.signature.cosign",
            "set exactly one of keySecretRef, kms, keyless",
        ),
        (
            "a timestamp authority without a scheme",
            set(
                notation(),
                "/signature/notation/timestamp",
                timestamp("timestamp.example.com"),
            ),
            "spec.signature.notation.timestamp.url",
            "not a URL of a timestamp authority",
        ),
        (
            "a timestamp authority without certificates",
            set(
                notation(),
                "/signature/notation/timestamp",
                json!({"url": "http://timestamp.example.com"}),
            ),
            "spec.signature.notation.timestamp.certSecretRef",
            "Required value",
        ),
        (
            "a signature without a key and without an instance",
            unset(keyless(), "/signature/cosign/keyless/trustRef"),
            "spec.signature.cosign.keyless.trustRef",
            "Required value",
        ),
        (
            "a signature without a key and without a ServiceAccount",
            unset(keyless(), "/signature/cosign/keyless/serviceAccountName"),
            "spec.signature.cosign.keyless.serviceAccountName",
            "Required value",
        ),
        (
            "a signature without a key with a log of its own",
            set(keyless(), "/signature/cosign/transparency", logged()),
            "spec.signature.cosign",
            "keyless is logged without transparency",
        ),
        (
            "a signature tag without a key",
            set(keyless(), "/signature/cosign/formats", json!(["Tag"])),
            "spec.signature.cosign.formats",
            "remove Tag from formats",
        ),
        (
            "an empty audience",
            set(keyless(), "/signature/cosign/keyless/audience", json!("")),
            "spec.signature.cosign.keyless.audience",
            "should be at least 1 chars long",
        ),
        // Transparency logs.
        (
            "a signature in a transparency log without a trusted root",
            set(cosign(), "/signature/cosign/transparency", json!({})),
            "spec.signature.cosign.transparency.trustRef",
            "Required value",
        ),
        (
            "a ConfigMap of another namespace",
            set(
                cosign(),
                "/signature/cosign/transparency",
                json!({"trustRef": {"name": "team-b/sigstore"}}),
            ),
            "spec.signature.cosign",
            "trustRef.name and certSecretRef.name must be names",
        ),
        (
            "a signature tag in a transparency log",
            set(
                set(cosign(), "/signature/cosign/transparency", logged()),
                "/signature/cosign/formats",
                json!(["Bundle", "Tag"]),
            ),
            "spec.signature.cosign.formats",
            "remove Tag from formats",
        ),
        // Keys of a service.
        (
            "a key of a Secret and one of a service",
            set(
                kms(),
                "/signature/cosign/keySecretRef",
                json!({"name": "cosign-key"}),
            ),
            "spec.signature.cosign",
            "set exactly one of keySecretRef, kms, keyless",
        ),
        (
            "a key of another service",
            set(
                kms(),
                "/signature/cosign/kms/keyRef",
                json!("azurekms://team/images"),
            ),
            "spec.signature.cosign.kms.keyRef",
            "write hashivault://KEY",
        ),
        (
            "a key that is a path",
            set(
                kms(),
                "/signature/cosign/kms/keyRef",
                json!("hashivault://images/../../sys/seal"),
            ),
            "spec.signature.cosign.kms.keyRef",
            "write hashivault://KEY",
        ),
        (
            "a key of OpenBao without a server",
            unset(kms(), "/signature/cosign/kms/vault"),
            "spec.signature.cosign.kms",
            "needs vault, with address and role",
        ),
        (
            "a server with a path",
            set(
                kms(),
                "/signature/cosign/kms/vault/address",
                json!("https://bao.example.com/v1"),
            ),
            "spec.signature.cosign.kms.vault.address",
            "write a URL without a path",
        ),
        (
            "a mount that leads out of its path",
            set(
                kms(),
                "/signature/cosign/kms/vault/mount",
                json!("transit/../sys"),
            ),
            "spec.signature.cosign.kms.vault",
            "mount and authMount must be paths",
        ),
        (
            "a login without a role",
            unset(kms(), "/signature/cosign/kms/vault/role"),
            "spec.signature.cosign.kms.vault.role",
            "Required value",
        ),
        (
            "a key of a service without a ServiceAccount",
            unset(kms(), "/signature/cosign/kms/serviceAccountName"),
            "spec.serviceAccountName",
            "set kms.serviceAccountName",
        ),
        (
            "a ServiceAccount of another namespace",
            set(
                kms(),
                "/signature/cosign/kms/serviceAccountName",
                json!("team-b/signer"),
            ),
            "spec.signature.cosign",
            "must be names of objects",
        ),
        // Image.
        (
            "no image",
            unset(mark(), "/image"),
            "spec.image",
            "Required value",
        ),
        (
            "an image that is null",
            set(mark(), "/image", Value::Null),
            "spec.image",
            "Required value",
        ),
        (
            "an empty image",
            set(cosign(), "/image", json!("")),
            "spec.image",
            REGISTRY,
        ),
        (
            "an image that is too long",
            set(
                cosign(),
                "/image",
                json!(format!("r.example/{}:v1", "a".repeat(1024))),
            ),
            "spec.image",
            "may not be more than 1024",
        ),
        (
            "no registry",
            set(cosign(), "/image", json!("nginx:1.29")),
            "spec.image",
            REGISTRY,
        ),
        (
            "a repository of Docker Hub without its registry",
            set(cosign(), "/image", json!("library/nginx:1.29")),
            "spec.image",
            REGISTRY,
        ),
        (
            "a scheme",
            set(
                cosign(),
                "/image",
                json!("https://registry.example.com/app:v1"),
            ),
            "spec.image",
            REGISTRY,
        ),
        (
            "a registry without a repository",
            set(cosign(), "/image", json!("registry.example.com:5000")),
            "spec.image",
            REGISTRY,
        ),
        (
            "neither tag nor digest",
            set(cosign(), "/image", json!("registry.example.com/team/app")),
            "spec.image",
            TAG_OR_DIGEST,
        ),
        (
            "neither tag nor digest, but a port",
            set(
                cosign(),
                "/image",
                json!("registry.example.com:5000/team/app"),
            ),
            "spec.image",
            TAG_OR_DIGEST,
        ),
        (
            "an empty tag",
            set(cosign(), "/image", json!("registry.example.com/team/app:")),
            "spec.image",
            TAG_OR_DIGEST,
        ),
        (
            "an empty digest",
            set(
                cosign(),
                "/image",
                json!("registry.example.com/team/app:v1@"),
            ),
            "spec.image",
            TAG_OR_DIGEST,
        ),
        // Which kind needs which image.
        (
            "a date for a bare tag",
            set(mark(), "/image", json!(TAGGED)),
            "spec.endOfLife.date",
            "endOfLife.date needs a digest in image",
        ),
        (
            "whenSuperseded for a digest",
            set(watch(), "/image", json!(PINNED)),
            "spec.endOfLife.whenSuperseded",
            "image needs a tag and no digest",
        ),
        (
            "a file's target for a bare tag",
            set(
                set(artifact(), "/artifact/files/0/target", json!("index")),
                "/image",
                json!(TAGGED),
            ),
            "spec.artifact.files",
            "a file with a target needs a digest in image",
        ),
        // Targets.
        (
            "an empty list of platforms",
            set(cosign(), "/targets", json!({"platforms": []})),
            "spec.targets.platforms",
            "platforms must not be an empty list; remove the field",
        ),
        (
            "platforms with scope Index",
            set(
                cosign(),
                "/targets",
                json!({"scope": "Index", "platforms": ["linux"]}),
            ),
            "spec.targets",
            "do not go with scope Index",
        ),
        (
            "excludePlatforms with scope Index",
            set(
                cosign(),
                "/targets",
                json!({"scope": "Index", "excludePlatforms": ["linux"]}),
            ),
            "spec.targets",
            "do not go with scope Index",
        ),
        (
            "digests with platforms",
            set(
                cosign(),
                "/targets",
                json!({"digests": [DIGEST], "platforms": ["linux"]}),
            ),
            "spec.targets",
            "digests and platforms do not go together",
        ),
        (
            "no digests",
            set(cosign(), "/targets", json!({"digests": []})),
            "spec.targets.digests",
            "digests must not be an empty list",
        ),
        (
            "a digest twice",
            set(cosign(), "/targets", json!({"digests": [DIGEST, DIGEST]})),
            "spec.targets.digests",
            "an item is listed twice",
        ),
        (
            "a digest that is none",
            set(cosign(), "/targets", json!({"digests": ["sha256:abc"]})),
            "spec.targets.digests[0]",
            DIGEST_RULE,
        ),
        (
            "parents with whenSuperseded",
            set(watch(), "/targets", json!({"parents": "Tagged"})),
            "spec",
            "targets.parents does not go with whenSuperseded",
        ),
        (
            "an unknown way of parents",
            set(cosign(), "/targets", json!({"parents": "All"})),
            "spec.targets.parents",
            r#"supported values: "Tagged""#,
        ),
        (
            "an unknown scope",
            set(cosign(), "/targets", json!({"scope": "Everything"})),
            "spec.targets.scope",
            r#"supported values: "All", "Index", "Platforms""#,
        ),
        (
            "a scope in lower case",
            set(cosign(), "/targets", json!({"scope": "index"})),
            "spec.targets.scope",
            r#"supported values: "All", "Index", "Platforms""#,
        ),
        (
            "an unknown way of missing",
            set(cosign(), "/targets", json!({"missing": "Skip"})),
            "spec.targets.missing",
            r#"supported values: "Fail", "Ignore""#,
        ),
        (
            "a platform of four parts",
            set(
                cosign(),
                "/targets",
                json!({"platforms": ["linux", "linux/arm/v7/hard"]}),
            ),
            "spec.targets.platforms[1]",
            PLATFORM,
        ),
        (
            "a platform with a part that is too long",
            set(
                cosign(),
                "/targets",
                json!({"platforms": [format!("linux/{}", "a".repeat(65))]}),
            ),
            "spec.targets.platforms[0]",
            PLATFORM,
        ),
        (
            "a platform with a version that ends in a dot",
            set(
                cosign(),
                "/targets",
                json!({"platforms": ["windows/amd64:10."]}),
            ),
            "spec.targets.platforms[0]",
            PLATFORM,
        ),
        (
            "a platform with a space",
            set(
                cosign(),
                "/targets",
                json!({"platforms": ["linux/amd64, linux/arm64"]}),
            ),
            "spec.targets.platforms[0]",
            PLATFORM,
        ),
        (
            "a platform with an empty part",
            set(
                cosign(),
                "/targets",
                json!({"excludePlatforms": ["linux//v7"]}),
            ),
            "spec.targets.excludePlatforms[0]",
            PLATFORM,
        ),
        (
            "a platform of the wrong form",
            set(cosign(), "/targets", json!({"platforms": ["lin*"]})),
            "spec.targets.platforms[0]",
            PLATFORM,
        ),
        (
            "an empty platform",
            set(cosign(), "/targets", json!({"platforms": [""]})),
            "spec.targets.platforms[0]",
            PLATFORM,
        ),
        (
            "a platform that is null",
            set(cosign(), "/targets", json!({"platforms": [null]})),
            "spec.targets.platforms[0]",
            "must be of type string",
        ),
        (
            "a platform that is too long",
            set(
                cosign(),
                "/targets",
                json!({"platforms": ["a".repeat(129)]}),
            ),
            "spec.targets.platforms[0]",
            "may not be more than 128",
        ),
        (
            "a platform listed twice",
            set(
                cosign(),
                "/targets",
                json!({"platforms": ["linux", "linux"]}),
            ),
            "spec.targets.platforms",
            "an item is listed twice",
        ),
        (
            "an excluded platform listed twice",
            set(
                cosign(),
                "/targets",
                json!({"excludePlatforms": ["linux", "linux"]}),
            ),
            "spec.targets.excludePlatforms",
            "an item is listed twice",
        ),
        (
            "too many platforms",
            set(
                cosign(),
                "/targets/platforms",
                repeated(|n| json!(format!("linux/a{n}")), 65),
            ),
            "spec.targets.platforms",
            "must have at most 64 items",
        ),
        // End of life.
        (
            "a statement without a signer",
            set(mark(), "/endOfLife/statement", json!({})),
            "spec.endOfLife.statement.cosign",
            "Required value",
        ),
        (
            "a statement whose signer has no key",
            set(mark(), "/endOfLife/statement", json!({"cosign": {}})),
            "spec.endOfLife.statement.cosign",
            "set exactly one of keySecretRef, kms",
        ),
        (
            "a statement without date and whenSuperseded",
            json!({"image": PINNED, "endOfLife": {"statement": {"cosign": {"keySecretRef": {"name": "k"}}}}}),
            "spec.endOfLife",
            "set exactly one of date, whenSuperseded",
        ),
        (
            "neither date nor whenSuperseded",
            json!({"image": PINNED, "endOfLife": {}}),
            "spec.endOfLife",
            "set exactly one of date, whenSuperseded",
        ),
        (
            "a date that is null",
            json!({"image": PINNED, "endOfLife": {"date": null}}),
            "spec.endOfLife",
            "set exactly one of date, whenSuperseded",
        ),
        (
            "both date and whenSuperseded",
            set(
                mark(),
                "/endOfLife/whenSuperseded",
                json!({"gracePeriod": "1h"}),
            ),
            "spec.endOfLife",
            "set exactly one of date, whenSuperseded",
        ),
        (
            "an empty date",
            set(mark(), "/endOfLife/date", json!("")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a date of another order",
            set(mark(), "/endOfLife/date", json!("20.03.2025")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "month 13",
            set(mark(), "/endOfLife/date", json!("2025-13-01")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "31 April",
            set(mark(), "/endOfLife/date", json!("2025-04-31")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "29 February of a common year",
            set(mark(), "/endOfLife/date", json!("2025-02-29")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "29 February of the year 2100",
            set(mark(), "/endOfLife/date", json!("2100-02-29T00:00:00Z")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "hour 24",
            set(mark(), "/endOfLife/date", json!("2025-03-20T24:00:00Z")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a leap second",
            set(mark(), "/endOfLife/date", json!("2016-12-31T23:59:60Z")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a time without a zone",
            set(mark(), "/endOfLife/date", json!("2025-03-20T01:20:30")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a t and a z in lower case",
            set(mark(), "/endOfLife/date", json!("2025-03-20t01:20:30z")),
            "spec.endOfLife.date",
            "T and Z in upper case",
        ),
        (
            "a space for the T",
            set(mark(), "/endOfLife/date", json!("2025-03-20 01:20:30Z")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a date with text around it",
            set(mark(), "/endOfLife/date", json!("on 2025-03-20")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "a date with a line break",
            set(mark(), "/endOfLife/date", json!("2025-03-20\n")),
            "spec.endOfLife.date",
            DATE,
        ),
        (
            "an artifact type without a slash",
            set(mark(), "/endOfLife/artifactType", json!("lifecycle")),
            "spec.endOfLife.artifactType",
            MEDIA_TYPE,
        ),
        (
            "an annotation's key with a space",
            set(mark(), "/endOfLife/annotation", json!("end of life")),
            "spec.endOfLife.annotation",
            "not an annotation key: it must not hold white space",
        ),
        (
            "the time of the mark as its date",
            set(mark(), "/endOfLife/annotation", json!(CREATED)),
            "spec.endOfLife.annotation",
            "is the time of the mark itself",
        ),
        (
            "a time of creation that is none",
            set(
                artifact(),
                "/artifact/annotations",
                json!({CREATED: "yesterday"}),
            ),
            "spec.artifact.annotations",
            "must be a date and time in RFC 3339",
        ),
        (
            "the default annotation given twice",
            set(
                mark(),
                "/endOfLife/annotations",
                json!({"vnd.microsoft.artifact.lifecycle.end-of-life.date": "2030-01-01"}),
            ),
            "spec.endOfLife.annotations",
            "annotations must not hold the end-of-life annotation itself",
        ),
        (
            "the annotation given twice",
            set(
                set(
                    mark(),
                    "/endOfLife/annotations",
                    json!({"eol": "2030-01-01"}),
                ),
                "/endOfLife/annotation",
                json!("eol"),
            ),
            "spec.endOfLife.annotations",
            "annotations must not hold the end-of-life annotation itself",
        ),
        (
            "an empty annotation key",
            set(mark(), "/endOfLife/annotations", json!({"": "text"})),
            "spec.endOfLife.annotations",
            "an annotation's key must have 1 to 256 characters",
        ),
        (
            "an unknown way of conflict",
            set(mark(), "/endOfLife/onConflict", json!("Overwrite")),
            "spec.endOfLife.onConflict",
            r#"supported values: "Report", "Supersede""#,
        ),
        // When superseded.
        (
            "no grace period",
            json!({"image": TAGGED, "endOfLife": {"whenSuperseded": {}}}),
            "spec.endOfLife.whenSuperseded.gracePeriod",
            "Required value",
        ),
        (
            "a grace period in days",
            set(
                watch(),
                "/endOfLife/whenSuperseded/gracePeriod",
                json!("30d"),
            ),
            "spec.endOfLife.whenSuperseded.gracePeriod",
            DURATION,
        ),
        (
            "a negative grace period",
            set(
                watch(),
                "/endOfLife/whenSuperseded/gracePeriod",
                json!("-1h"),
            ),
            "spec.endOfLife.whenSuperseded.gracePeriod",
            DURATION,
        ),
        (
            "a grace period that no clock holds",
            set(
                watch(),
                "/endOfLife/whenSuperseded/gracePeriod",
                json!("9999999h"),
            ),
            "spec.endOfLife.whenSuperseded.gracePeriod",
            "must be at most 876000h",
        ),
        (
            "a settle time without a unit",
            set(watch(), "/endOfLife/whenSuperseded/settle", json!("10")),
            "spec.endOfLife.whenSuperseded.settle",
            DURATION,
        ),
        (
            "a pattern of tags with a slash",
            set(
                watch(),
                "/endOfLife/whenSuperseded/unlessTagged",
                json!(["*", "app:v1"]),
            ),
            "spec.endOfLife.whenSuperseded.unlessTagged[1]",
            "not a pattern of tags: write a tag where * stands for any text",
        ),
        (
            "a pattern of tags that only negates",
            set(
                watch(),
                "/endOfLife/whenSuperseded/unlessTagged",
                json!(["!"]),
            ),
            "spec.endOfLife.whenSuperseded.unlessTagged[0]",
            "not a pattern of tags",
        ),
        (
            "too many patterns of tags",
            set(
                watch(),
                "/endOfLife/whenSuperseded/unlessTagged",
                repeated(|n| json!(format!("v{n}")), 65),
            ),
            "spec.endOfLife.whenSuperseded.unlessTagged",
            "must have at most 64 items",
        ),
        (
            "a short digest in previous",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                json!([DIGEST, "sha256:a1a1"]),
            ),
            "spec.endOfLife.whenSuperseded.previous[1]",
            DIGEST_RULE,
        ),
        (
            "a digest in upper case in previous",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                json!([format!("sha256:{}", "A".repeat(64))]),
            ),
            "spec.endOfLife.whenSuperseded.previous[0]",
            DIGEST_RULE,
        ),
        (
            "an unknown algorithm in previous",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                json!([format!("md5:{}", "a".repeat(32))]),
            ),
            "spec.endOfLife.whenSuperseded.previous[0]",
            DIGEST_RULE,
        ),
        (
            "the same digest twice in previous",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                json!([DIGEST, DIGEST]),
            ),
            "spec.endOfLife.whenSuperseded.previous",
            "an item is listed twice",
        ),
        (
            "too many digests in previous",
            set(
                watch(),
                "/endOfLife/whenSuperseded/previous",
                repeated(|n| json!(format!("sha256:{n:064x}")), 17),
            ),
            "spec.endOfLife.whenSuperseded.previous",
            "must have at most 16 items",
        ),
        // Artifact.
        (
            "no artifact type",
            unset(artifact(), "/artifact/artifactType"),
            "spec.artifact.artifactType",
            "Required value",
        ),
        (
            "an artifact type with a space",
            set(
                artifact(),
                "/artifact/artifactType",
                json!("application/vnd demo"),
            ),
            "spec.artifact.artifactType",
            MEDIA_TYPE,
        ),
        (
            "an artifact type with parameters",
            set(
                artifact(),
                "/artifact/artifactType",
                json!("text/plain; charset=utf-8"),
            ),
            "spec.artifact.artifactType",
            MEDIA_TYPE,
        ),
        (
            "an artifact type with a part that is too long",
            set(
                artifact(),
                "/artifact/artifactType",
                json!(format!("a/{}", "b".repeat(128))),
            ),
            "spec.artifact.artifactType",
            MEDIA_TYPE,
        ),
        (
            "an annotation that is a number",
            set(artifact(), "/artifact/annotations", json!({"k": 1})),
            "spec.artifact.annotations.k",
            "must be of type string",
        ),
        (
            "too many annotations",
            set(
                artifact(),
                "/artifact/annotations",
                (0..65).map(|n| (format!("k{n}"), json!(""))).collect(),
            ),
            "spec.artifact.annotations",
            "must have at most 64",
        ),
        (
            "an annotation that is too long",
            set(
                artifact(),
                "/artifact/annotations",
                json!({"k": "v".repeat(4097)}),
            ),
            "spec.artifact.annotations.k",
            "may not be more than 4096",
        ),
        (
            "a file without a name",
            unset(artifact(), "/artifact/files/0/name"),
            "spec.artifact.files[0].name",
            "Required value",
        ),
        (
            "a file with an absolute name",
            set(artifact(), "/artifact/files/0/name", json!("/etc/passwd")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file in a folder without a name",
            set(
                artifact(),
                "/artifact/files/0/name",
                json!("signatures//b1b1.sig"),
            ),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file named like its folder",
            set(artifact(), "/artifact/files/0/name", json!("..")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file on a drive",
            set(artifact(), "/artifact/files/0/name", json!("c:b1.sig")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file that climbs out",
            set(artifact(), "/artifact/files/0/name", json!("a/../../b")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file with a backslash",
            set(artifact(), "/artifact/files/0/name", json!("a\\b")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file with a line break",
            set(artifact(), "/artifact/files/0/name", json!("a\nb")),
            "spec.artifact.files[0].name",
            FILE_NAME,
        ),
        (
            "a file without content",
            unset(artifact(), "/artifact/files/0/value"),
            "spec.artifact.files[0]",
            "set exactly one of value, valueFrom",
        ),
        (
            "a file with two contents",
            set(
                artifact(),
                "/artifact/files/0/valueFrom",
                json!({"configMapKeyRef": {"name": "sigs", "key": "k"}}),
            ),
            "spec.artifact.files[0]",
            "set exactly one of value, valueFrom",
        ),
        (
            "a file from nowhere",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "valueFrom": {}}]),
            ),
            "spec.artifact.files[0].valueFrom.configMapKeyRef",
            "Required value",
        ),
        (
            "a file from a Secret",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            ),
            "spec.artifact.files[0].valueFrom.configMapKeyRef",
            "Required value",
        ),
        (
            "a key of a ConfigMap with a slash",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "valueFrom": {"configMapKeyRef": {"name": "sigs", "key": "a/b"}}}]),
            ),
            "spec.artifact.files[0].valueFrom.configMapKeyRef.key",
            "not a key of a ConfigMap",
        ),
        (
            "a media type without a slash",
            set(artifact(), "/artifact/files/0/mediaType", json!("json")),
            "spec.artifact.files[0].mediaType",
            MEDIA_TYPE,
        ),
        (
            "a target that is a short digest",
            set(artifact(), "/artifact/files/0/target", json!("sha256:b1b1")),
            "spec.artifact.files[0].target",
            TARGET,
        ),
        (
            "a target that is a digest of an unknown algorithm",
            set(
                artifact(),
                "/artifact/files/0/target",
                json!(format!("md5:{}", "a".repeat(32))),
            ),
            "spec.artifact.files[0].target",
            TARGET,
        ),
        (
            "a name of more bytes than a file system takes",
            set(artifact(), "/artifact/files/0/name", json!("ü".repeat(128))),
            "spec.artifact.files[0].name",
            "at most 255 bytes",
        ),
        (
            "a target that is no platform",
            set(artifact(), "/artifact/files/0/target", json!("linux amd64")),
            "spec.artifact.files[0].target",
            TARGET,
        ),
        (
            "two files of one name",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "value": "1"}, {"name": "f", "value": "2"}]),
            ),
            "spec.artifact.files",
            "two files of the same target have the same name",
        ),
        (
            "a file for one target with the name of a file for all",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "value": "1"}, {"name": "f", "target": "linux/amd64", "value": "2"}]),
            ),
            "spec.artifact.files",
            "a file without a target goes to every target",
        ),
        (
            "two files of one name for one target",
            set(
                artifact(),
                "/artifact/files",
                json!([{"name": "f", "target": "index", "value": "1"}, {"name": "f", "target": "index", "value": "2"}]),
            ),
            "spec.artifact.files",
            "two files of the same target have the same name",
        ),
        (
            "too many files",
            set(
                artifact(),
                "/artifact/files",
                repeated(|n| json!({"name": n.to_string(), "value": ""}), 129),
            ),
            "spec.artifact.files",
            "must have at most 128 items",
        ),
        (
            "filesFrom without a ConfigMap",
            set(artifact(), "/artifact/filesFrom", json!([{}])),
            "spec.artifact.filesFrom[0].configMapRef",
            "Required value",
        ),
        (
            "filesFrom of a wrong name",
            set(
                artifact(),
                "/artifact/filesFrom",
                json!([{"configMapRef": {"name": "Sigs"}}]),
            ),
            "spec.artifact.filesFrom[0].configMapRef.name",
            NAME,
        ),
        // Signature.
        (
            "no signer",
            json!({"image": TAGGED, "signature": {}}),
            "spec.signature",
            "set exactly one of cosign, notation",
        ),
        (
            "two signers",
            set(
                cosign(),
                "/signature/notation",
                json!({"keySecretRef": {"name": "signing-tls"}}),
            ),
            "spec.signature",
            "set exactly one of cosign, notation",
        ),
        (
            "a signer that is null",
            json!({"image": TAGGED, "signature": {"cosign": null}}),
            "spec.signature",
            "set exactly one of cosign, notation",
        ),
        (
            "a cosign signer without a key",
            json!({"image": TAGGED, "signature": {"cosign": {}}}),
            "spec.signature.cosign",
            "set exactly one of keySecretRef, kms",
        ),
        (
            "no format",
            set(cosign(), "/signature/cosign/formats", json!([])),
            "spec.signature.cosign.formats",
            "formats must not be an empty list",
        ),
        (
            "a format twice",
            set(cosign(), "/signature/cosign/formats", json!(["Tag", "Tag"])),
            "spec.signature.cosign.formats",
            "an item is listed twice",
        ),
        (
            "an unknown format",
            set(cosign(), "/signature/cosign/formats", json!(["Sig"])),
            "spec.signature.cosign.formats[0]",
            "Unsupported value",
        ),
        (
            "an identity by a tag without a tag",
            set(
                set(cosign(), "/signature/cosign/identity", json!("Tag")),
                "/image",
                json!(format!("registry.example.com/team/app@{DIGEST}")),
            ),
            "spec.signature.cosign.identity",
            "identity Tag needs a tag in image",
        ),
        (
            "a notation signer without a key",
            json!({"image": TAGGED, "signature": {"notation": {}}}),
            "spec.signature.notation.keySecretRef",
            "Required value",
        ),
        (
            "an overlap without a unit",
            set(cosign(), "/signature/overlap", json!("72")),
            "spec.signature.overlap",
            DURATION,
        ),
        (
            "an overlap of more than a century",
            set(cosign(), "/signature/overlap", json!("876001h")),
            "spec.signature.overlap",
            "must be at most 876000h",
        ),
        (
            "a signature that ends at once",
            set(notation(), "/signature/notation/expiry", json!("0s")),
            "spec.signature.notation.expiry",
            "must be at least 1s",
        ),
        // The rest.
        (
            "an interval of nothing",
            set(cosign(), "/interval", json!("0s")),
            "spec.interval",
            "must be at least 1s",
        ),
        (
            "an interval below a second",
            set(cosign(), "/interval", json!("999ms")),
            "spec.interval",
            "must be at least 1s",
        ),
        (
            "an interval that is a number",
            set(cosign(), "/interval", json!(600)),
            "spec.interval",
            "must be of type string",
        ),
        (
            "an interval in words",
            set(cosign(), "/interval", json!("ten minutes")),
            "spec.interval",
            DURATION,
        ),
        (
            "an interval with microseconds",
            set(cosign(), "/interval", json!("1000000us")),
            "spec.interval",
            DURATION,
        ),
        (
            "a timeout of nothing",
            set(cosign(), "/timeout", json!("0s")),
            "spec.timeout",
            "must be at least 1s",
        ),
        (
            "a timeout that no clock holds",
            set(cosign(), "/timeout", json!("99999999999999999h")),
            "spec.timeout",
            "at most 876000h",
        ),
        (
            "dryRun that is a text",
            set(cosign(), "/dryRun", json!("true")),
            "spec.dryRun",
            "must be of type boolean",
        ),
        (
            "an unknown deletion policy",
            set(cosign(), "/deletionPolicy", json!("Orphan")),
            "spec.deletionPolicy",
            r#"supported values: "Retain", "Delete""#,
        ),
        (
            "an unknown referrers mode",
            set(cosign(), "/referrersMode", json!("Api")),
            "spec.referrersMode",
            r#"supported values: "Auto", "API", "TagSchema""#,
        ),
        (
            "a Secret without a name",
            set(cosign(), "/secretRef", json!({})),
            "spec.secretRef.name",
            "Required value",
        ),
        (
            "a Secret with an empty name",
            set(cosign(), "/secretRef", json!({"name": ""})),
            "spec.secretRef.name",
            NAME,
        ),
        (
            "a Secret of another namespace",
            set(cosign(), "/secretRef", json!({"name": "team-b/login"})),
            "spec.secretRef.name",
            "without a namespace",
        ),
        (
            "a CA Secret in upper case",
            set(cosign(), "/certSecretRef", json!({"name": "CA"})),
            "spec.certSecretRef.name",
            NAME,
        ),
        (
            "a proxy Secret that begins with a dash",
            set(cosign(), "/proxySecretRef", json!({"name": "-proxy"})),
            "spec.proxySecretRef.name",
            NAME,
        ),
        (
            "a name that is too long",
            set(cosign(), "/secretRef", json!({"name": "a".repeat(254)})),
            "spec.secretRef.name",
            "may not be more than 253",
        ),
        (
            "a predicate without its type",
            unset(attestation(), "/attestation/predicateType"),
            "spec.attestation",
            "predicateType is needed with predicates",
        ),
        (
            "a predicate and the build",
            set(attestation(), "/attestation/fromBuild", json!({})),
            "spec.attestation",
            "not both",
        ),
        (
            "neither predicates nor the build",
            unset(attestation(), "/attestation/predicates"),
            "spec.attestation",
            "or fromBuild to sign the statements of the build",
        ),
        (
            "a type beside the build",
            set(
                from_build(),
                "/attestation/predicateType",
                json!("cyclonedx"),
            ),
            "spec.attestation",
            "predicateType does not go with fromBuild",
        ),
        (
            "a short name that cosign does not know",
            set(
                attestation(),
                "/attestation/predicateType",
                json!("cyclonedxjson"),
            ),
            "spec.attestation.predicateType",
            "not a type of predicates: write a URI such as https://cyclonedx.org/bom",
        ),
        (
            "a pattern of types with a space",
            set(
                from_build(),
                "/attestation/fromBuild/predicateTypes",
                json!(["a b"]),
            ),
            "spec.attestation.fromBuild.predicateTypes[0]",
            "not a pattern of predicate types",
        ),
        (
            "no pattern of types",
            set(
                from_build(),
                "/attestation/fromBuild/predicateTypes",
                json!([]),
            ),
            "spec.attestation.fromBuild.predicateTypes",
            "must not be an empty list",
        ),
        (
            "a pattern of types twice",
            set(
                from_build(),
                "/attestation/fromBuild/predicateTypes",
                json!(["a", "a"]),
            ),
            "spec.attestation.fromBuild.predicateTypes",
            "an item is listed twice",
        ),
        (
            "an empty list of predicates",
            set(attestation(), "/attestation/predicates", json!([])),
            "spec.attestation.predicates",
            "must not be an empty list",
        ),
        (
            "two predicates for every target",
            set(
                attestation(),
                "/attestation/predicates",
                json!([{"value": "{}"}, {"value": "{}"}]),
            ),
            "spec.attestation.predicates",
            "two predicates are for the same target",
        ),
        (
            "a predicate with two sources",
            set(
                attestation(),
                "/attestation/predicates/0/valueFrom",
                json!({"configMapKeyRef": {"name": "a", "key": "b"}}),
            ),
            "spec.attestation.predicates[0]",
            "set exactly one of value, valueFrom",
        ),
        (
            "a predicate for a target that is none",
            set(
                attestation(),
                "/attestation/predicates/0/target",
                json!("sha256:abc"),
            ),
            "spec.attestation.predicates[0].target",
            TARGET,
        ),
        (
            "a predicate with a target on a tag",
            set(
                set(attestation(), "/image", json!(TAGGED)),
                "/attestation/predicates/0/target",
                json!("linux/amd64"),
            ),
            "spec.attestation.predicates",
            "a predicate with a target needs a digest in image",
        ),
        (
            "the build and the index alone",
            set(from_build(), "/targets", json!({"scope": "Index"})),
            "spec.targets.scope",
            "fromBuild does not go with scope Index",
        ),
        (
            "a statement without a key",
            unset(attestation(), "/attestation/cosign"),
            "spec.attestation.cosign",
            "Required value",
        ),
        (
            "a statement whose signer has no key either",
            set(attestation(), "/attestation/cosign", json!({})),
            "spec.attestation.cosign",
            "set exactly one of keySecretRef, kms",
        ),
        (
            "a statement with a key of another namespace",
            set(
                attestation(),
                "/attestation/cosign/keySecretRef/name",
                json!("team-b/key"),
            ),
            "spec.attestation.cosign.keySecretRef.name",
            NAME,
        ),
        (
            "a service account with a space",
            set(cosign(), "/serviceAccountName", json!("the builder")),
            "spec.serviceAccountName",
            NAME,
        ),
        (
            "a provider that is not known",
            set(
                set(cosign(), "/serviceAccountName", json!("builder")),
                "/provider",
                json!("oracle"),
            ),
            "spec.provider",
            "generic",
        ),
        (
            "a cloud without a service account",
            set(cosign(), "/provider", json!("aws")),
            "spec.provider",
            "needs serviceAccountName",
        ),
        (
            "a cloud beside a pull secret",
            set(cloud("azure"), "/secretRef", json!({"name": "login"})),
            "spec.secretRef",
            "secretRef does not go with provider",
        ),
        (
            "a cloud over plain HTTP",
            set(cloud("gcp"), "/insecure", json!(true)),
            "spec.insecure",
            "insecure does not go with provider",
        ),
    ];
    rows.into_iter()
        .map(|(sentence, spec, field, says)| Bad {
            sentence,
            spec,
            field,
            says,
        })
        .collect()
}
