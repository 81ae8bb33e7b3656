//! Rules of `spec.artifact`.

use serde_json::Value;

use super::pattern::{DIGEST, PLATFORM, Pattern};
use super::{Rule, get, has};

/// A path without drive letters, backslashes and control characters.
static FILE_NAME: Pattern = Pattern::new(r"^[^\\:\x00-\x1f\x7f-\x{9f}]+$");

/// A path that is absolute or has a part that is empty, `.` or `..`, so that a tool could write it outside of its folder.
static DOTS: Pattern = Pattern::new("(^|/)[.]?[.]?(/|$)");

/// A digest of any algorithm, which is also written like a platform with an OS version.
static LIKE_DIGEST: Pattern = Pattern::new("^sha(256|512):|^[^:]*:[0-9A-Fa-f]{32,}$");

/// A key of a ConfigMap.
static CONFIG_MAP_KEY: Pattern = Pattern::new("^[-._A-Za-z0-9]+$");

/// The longest file name that common file systems take, in bytes.
const FILE_NAME_MAX: usize = 255;

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.artifact.files[]", "spec.attestation.predicates[]"],
            "has(self.value) != has(self.valueFrom)",
            |file| has(file, "value") != has(file, "valueFrom"),
            "set exactly one of value, valueFrom",
        ),
        Rule::new(
            &["spec.artifact.files[].name"],
            format!("{} && !{}", FILE_NAME.expression(), DOTS.expression()),
            |name| {
                name.as_str()
                    .is_none_or(|name| FILE_NAME.is_match(name) && !DOTS.is_match(name))
            },
            "not a file name: tools that pull the artifact write the layer under this name, so it must be a relative path: without .., ., \
             empty parts, backslashes, colons and control characters, for example b1b1.sig or sbom/app.json",
        ),
        Rule::new(
            &["spec.artifact.files[].name"],
            "size(bytes(self)) <= 255",
            |name| name.as_str().is_none_or(|name| name.len() <= FILE_NAME_MAX),
            "too long for a file name: at most 255 bytes in UTF-8",
        ),
        Rule::new(
            &[
                "spec.artifact.files[].target",
                "spec.attestation.predicates[].target",
            ],
            format!(
                "self == 'index' || {} || (!{} && {})",
                DIGEST.expression(),
                LIKE_DIGEST.expression(),
                PLATFORM.expression()
            ),
            |target| {
                target.as_str().is_none_or(|target| {
                    target == "index"
                        || DIGEST.is_match(target)
                        || (!LIKE_DIGEST.is_match(target) && PLATFORM.is_match(target))
                })
            },
            "target must be index, a platform such as linux/amd64, or a whole digest (sha256: and 64 lower-case hexadecimal \
             digits); remove it for every target",
        ),
        // A rule cannot tell whether two platform patterns overlap. The controller and the webhook report that as `InvalidSpec`.
        Rule::new(
            &["spec.artifact.files"],
            "self.all(f, self.exists_one(g, g.name == f.name && (!has(g.target) || !has(f.target) || g.target == f.target)))",
            |files| {
                let files = files.as_array().map_or(&[][..], Vec::as_slice);
                files
                    .iter()
                    .all(|file| files.iter().filter(|other| clash(file, other)).count() == 1)
            },
            "two files of the same target have the same name, and a file without a target goes to every target; give each its own name, \
             or targets that differ",
        ),
        Rule::matches(
            &[
                "spec.artifact.files[].valueFrom.configMapKeyRef.key",
                "spec.attestation.predicates[].valueFrom.configMapKeyRef.key",
            ],
            &CONFIG_MAP_KEY,
            "not a key of a ConfigMap: write letters, digits, -, _ and . only",
        ),
    ]
}

/// Returns whether two files have the same name for the same target.
fn clash(one: &Value, other: &Value) -> bool {
    let targets = get(one, "target").zip(get(other, "target"));
    one.get("name") == other.get("name") && targets.is_none_or(|(one, other)| one == other)
}
