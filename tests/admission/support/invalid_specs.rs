//! Specs that the schema accepts and the code refuses.

use serde_json::{Value, json};

use crate::corpus;

/// Title, spec, reason of the controller, and the expected text.
type InvalidSpec = (&'static str, Value, &'static str, &'static str);

/// Returns specs that the schema accepts and the code refuses.
pub(crate) fn beyond_the_schema() -> Vec<InvalidSpec> {
    [
        references(),
        disallowed(),
        overlapping_files(),
        predicates(),
    ]
    .concat()
}

fn image(image: &str) -> Value {
    json!({"image": image, "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}})
}

fn files(files: Value) -> Value {
    json!({"image": corpus::PINNED, "artifact": {"artifactType": "application/vnd.demo", "files": files}})
}

fn predicates() -> Vec<InvalidSpec> {
    let with = |predicates: Value| {
        json!({"image": corpus::PINNED, "attestation": {
            "predicateType": "openvex", "predicates": predicates, "cosign": {"keySecretRef": {"name": "key"}}}})
    };
    vec![
        (
            "a predicate that is a list",
            with(json!([{"value": "[]"}])),
            "StatementInvalid",
            "spec.attestation.predicates[0]: the predicate is not a JSON object",
        ),
        (
            "a predicate that is no JSON",
            with(json!([{"value": "SPDXVersion: SPDX-2.3"}])),
            "StatementInvalid",
            "the predicate is not valid JSON",
        ),
        (
            "predicates for platforms that overlap",
            with(
                json!([{"target": "linux/amd64", "value": "{}"}, {"target": "linux", "value": "{}"}]),
            ),
            "InvalidSpec",
            "spec.attestation.predicates[1]: the predicate is for linux, and so is spec.attestation.predicates[0]",
        ),
    ]
}

fn references() -> Vec<InvalidSpec> {
    vec![
        (
            "an upper-case repository",
            image("registry.example.com/Team/app:v1"),
            "InvalidReference",
            "repository \"Team/app\" is malformed",
        ),
        (
            "a repository with two dots",
            image("registry.example.com/a..b:v1"),
            "InvalidReference",
            "repository \"a..b\" is malformed",
        ),
        (
            "a tag that begins with a dash",
            image("registry.example.com/app:-v1"),
            "InvalidReference",
            "tag \"-v1\" is malformed",
        ),
        (
            "a tag with a plus",
            image("registry.example.com/app:v1+2"),
            "InvalidReference",
            "tag \"v1+2\" is malformed",
        ),
        (
            "an unknown algorithm",
            image("registry.example.com/app@md5:abc"),
            "InvalidReference",
            "digest algorithm \"md5\" is not supported",
        ),
        (
            "a short digest",
            image("registry.example.com/app@sha256:abc"),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a tag that holds referrers",
            image(&format!(
                "registry.example.com/app:sha256-{}",
                "a".repeat(64)
            )),
            "InvalidReference",
            "holds referrers or signatures of an image",
        ),
        (
            "a host that ends in a dash",
            image("registry-.example.com/app:v1"),
            "InvalidReference",
            "registry \"registry-.example.com\" is malformed",
        ),
        (
            "the port 0",
            image("registry.example.com:0/app:v1"),
            "InvalidReference",
            "registry \"registry.example.com:0\" is malformed",
        ),
        (
            "a repository with an empty part",
            image("registry.example.com/team//app:v1"),
            "InvalidReference",
            "repository \"team//app\" is malformed",
        ),
        (
            "a repository that begins with a dash",
            image("registry.example.com/-app:v1"),
            "InvalidReference",
            "repository \"-app\" is malformed",
        ),
        (
            "a repository with three underscores",
            image("registry.example.com/a___b:v1"),
            "InvalidReference",
            "repository \"a___b\" is malformed",
        ),
        (
            "an empty digest",
            image("registry.example.com/app@sha256:"),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a repository that ends in a dash",
            image("registry.example.com/app-:v1"),
            "InvalidReference",
            "repository \"app-\" is malformed",
        ),
        (
            "a port that is none",
            image("registry.example.com:70000/app:v1"),
            "InvalidReference",
            "registry \"registry.example.com:70000\" is malformed",
        ),
        (
            "two tags",
            image("registry.example.com/app:v1:v2"),
            "InvalidReference",
            "tag \"v1:v2\" is malformed",
        ),
        (
            "a tag that is too long",
            image(&format!("registry.example.com/app:{}", "a".repeat(129))),
            "InvalidReference",
            "is malformed: 1 to 128 letters",
        ),
        (
            "a digest in upper case",
            image(&format!(
                "registry.example.com/app@sha256:{}",
                "A".repeat(64)
            )),
            "InvalidReference",
            "takes 64 lower-case hexadecimal digits",
        ),
        (
            "a digest of sha512 with the length of sha256",
            image(&format!(
                "registry.example.com/app@sha512:{}",
                "a".repeat(64)
            )),
            "InvalidReference",
            "takes 128 lower-case hexadecimal digits",
        ),
        (
            "a tag that holds a signature",
            image(&format!(
                "registry.example.com/app:sha256-{}.sig",
                "a".repeat(64)
            )),
            "InvalidReference",
            "holds referrers or signatures of an image",
        ),
    ]
}

fn disallowed() -> Vec<InvalidSpec> {
    let mut plain = image("registry.example.com/team/app:v1");
    plain["insecure"] = json!(true);
    vec![
        (
            "a metadata address",
            image("169.254.169.254/app:v1"),
            "HostNotAllowed",
            "169.254.169.254",
        ),
        (
            "a metadata host",
            image("metadata.google.internal/app:v1"),
            "HostNotAllowed",
            "metadata.google.internal",
        ),
        (
            "a registry that the operator does not allow",
            image("registry.example.net/app:v1"),
            "HostNotAllowed",
            "--allowed-registries has only",
        ),
        (
            "plain HTTP where the operator forbids it",
            plain,
            "InsecureNotAllowed",
            "--insecure-allow-http=false",
        ),
        (
            "a metadata address as one number",
            image("2852039166:443/app:v1"),
            "HostNotAllowed",
            "another spelling of the address 169.254.169.254",
        ),
        (
            "a metadata address in octal",
            image("0251.0376.0251.0376/app:v1"),
            "HostNotAllowed",
            "another spelling of the address 169.254.169.254",
        ),
        (
            "a registry on a port that the operator does not allow",
            image("registry.example.com:5000/app:v1"),
            "HostNotAllowed",
            "--allowed-registries has only",
        ),
    ]
}

fn overlapping_files() -> Vec<InvalidSpec> {
    vec![
        (
            "two files that overlap",
            files(
                json!([{"name": "f", "target": "linux", "value": "1"}, {"name": "f", "target": "*/amd64", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "a file for a platform beside one for its system",
            files(
                json!([{"name": "f", "target": "linux", "value": "1"}, {"name": "f", "target": "linux/amd64", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "a file for every system beside one for a variant",
            files(
                json!([{"name": "f", "target": "*/arm64", "value": "1"}, {"name": "f", "target": "linux/arm64/v8", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
        (
            "two files for one platform, spelled in two ways",
            files(
                json!([{"name": "f", "target": "linux/arm64", "value": "1"}, {"name": "f", "target": "linux/aarch64/v8", "value": "2"}]),
            ),
            "InvalidSpec",
            "spec.artifact.files[1]: \"f\" would be there twice",
        ),
    ]
}
