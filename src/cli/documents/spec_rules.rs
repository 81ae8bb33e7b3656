//! The rules of the CRD that need more than a field's shape: in a cluster the API server evaluates them as CEL
//! (`api/rules.rs`), here they are the same rules in code. Rules that [`crate::attachment::Intent::parse`] holds itself are not
//! repeated.

use std::time::Duration;

use serde_json::Value;

use crate::api::{Artifact, GoDuration, ImageAttachmentSpec};
use crate::cli::text::line;
use affix_registry::oci::ArtifactType;

/// The longest duration that the schema takes.
const LONGEST: Duration = Duration::from_hours(876_000);

/// What is wrong with a spec whose shape is right, one sentence each, each beginning with the field.
pub(super) fn check(spec: &ImageAttachmentSpec) -> Vec<String> {
    let mut wrong = Vec::new();
    durations(spec, &mut wrong);
    if let Some(targets) = &spec.targets {
        once(
            "spec.targets.platforms",
            targets.platforms.as_deref().unwrap_or_default(),
            &mut wrong,
        );
        once(
            "spec.targets.excludePlatforms",
            targets.exclude_platforms(),
            &mut wrong,
        );
    }
    if let Some(mark) = &spec.end_of_life {
        if mark.annotation().is_empty() || mark.annotation().contains(char::is_whitespace) {
            wrong.push(format!("spec.endOfLife.annotation: {:?} is empty or holds white space, which a key must not", mark.annotation()));
        }
        annotation_keys(
            "spec.endOfLife.annotations",
            mark.annotations.keys(),
            &mut wrong,
        );
        if let Some(when) = &mark.when_superseded {
            once(
                "spec.endOfLife.whenSuperseded.previous",
                &when.previous,
                &mut wrong,
            );
            tag_patterns(
                when.unless_tagged.as_deref().unwrap_or_default(),
                &mut wrong,
            );
        }
    }
    if let Some(artifact) = &spec.artifact {
        files(artifact, &mut wrong);
        annotation_keys(
            "spec.artifact.annotations",
            artifact.annotations.keys(),
            &mut wrong,
        );
    }
    if spec
        .signature
        .as_ref()
        .is_some_and(|signature| signature.cosign.is_some() == signature.notation.is_some())
    {
        wrong.push("spec.signature: set exactly one of cosign and notation".to_owned());
    }
    if let Some(cosign) = spec
        .signature
        .as_ref()
        .and_then(|signature| signature.cosign.as_ref())
    {
        annotation_keys(
            "spec.signature.cosign.annotations",
            cosign.annotations.keys(),
            &mut wrong,
        );
    }
    names(spec, &mut wrong);
    wrong
}

/// Where a spec has durations.
const DURATIONS: [&str; 5] = [
    "/interval",
    "/timeout",
    "/signature/notation/expiry",
    "/endOfLife/whenSuperseded/gracePeriod",
    "/endOfLife/whenSuperseded/settle",
];

/// Which durations of a spec are none, by field, before the spec is read as a whole.
pub(super) fn check_durations(spec: &Value) -> Vec<String> {
    let texts = DURATIONS
        .iter()
        .filter_map(|path| Some((path, spec.pointer(path)?.as_str()?)));
    let wrong = texts.filter_map(|(path, text)| Some((path, text.parse::<GoDuration>().err()?)));
    wrong
        .map(|(path, error)| format!("spec{}: {error}", path.replace('/', ".")))
        .collect()
}

fn durations(spec: &ImageAttachmentSpec, wrong: &mut Vec<String>) {
    let when = spec
        .end_of_life
        .as_ref()
        .and_then(|mark| mark.when_superseded.as_ref());
    let expiry = spec
        .signature
        .as_ref()
        .and_then(|signature| signature.notation.as_ref()?.expiry.as_ref());
    let all = [
        (
            "spec.interval",
            spec.interval.as_ref(),
            Duration::from_secs(1),
        ),
        (
            "spec.timeout",
            spec.timeout.as_ref(),
            Duration::from_secs(1),
        ),
        (
            "spec.signature.notation.expiry",
            expiry,
            Duration::from_secs(1),
        ),
        (
            "spec.endOfLife.whenSuperseded.gracePeriod",
            when.map(|when| &when.grace_period),
            Duration::ZERO,
        ),
        (
            "spec.endOfLife.whenSuperseded.settle",
            when.and_then(|when| when.settle.as_ref()),
            Duration::ZERO,
        ),
    ];
    for (at, duration, least) in all {
        let Some(duration) = duration else { continue };
        if duration.get() < least {
            wrong.push(format!("{at}: {} is less than 1s", duration.as_str()));
        }
        if duration.get() > LONGEST {
            wrong.push(format!(
                "{at}: {} is more than 876000h (100 years)",
                duration.as_str()
            ));
        }
    }
}

fn files(artifact: &Artifact, wrong: &mut Vec<String>) {
    for (nth, file) in artifact.files.iter().enumerate() {
        let at = format!("spec.artifact.files[{nth}]");
        media_type(&format!("{at}.mediaType"), file.media_type(), wrong);
        let same = artifact
            .files
            .iter()
            .take(nth)
            .position(|other| other.name == file.name && other.target == file.target);
        if let Some(same) = same {
            wrong.push(format!(
                "{at}.name: {:?} is also the name of files[{same}] with the same target",
                line(&file.name, 80)
            ));
        }
        if let Some(source) = &file.value_from {
            let key = &source.config_map_key_ref;
            object_name(
                &format!("{at}.valueFrom.configMapKeyRef.name"),
                &key.name,
                wrong,
            );
            if key.key.is_empty()
                || !key
                    .key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            {
                wrong.push(format!(
                    "{at}.valueFrom.configMapKeyRef.key: {:?} is no key of a ConfigMap: letters, digits, -, _ and . only",
                    line(&key.key, 80)
                ));
            }
        }
    }
    for (nth, from) in artifact.files_from.iter().enumerate() {
        let at = format!("spec.artifact.filesFrom[{nth}]");
        media_type(&format!("{at}.mediaType"), from.media_type(), wrong);
        object_name(
            &format!("{at}.configMapRef.name"),
            &from.config_map_ref.name,
            wrong,
        );
    }
}

fn names(spec: &ImageAttachmentSpec, wrong: &mut Vec<String>) {
    let signature = spec.signature.as_ref();
    let references = [
        ("spec.secretRef.name", spec.secret_ref.as_ref()),
        ("spec.certSecretRef.name", spec.cert_secret_ref.as_ref()),
        ("spec.proxySecretRef.name", spec.proxy_secret_ref.as_ref()),
        (
            "spec.signature.cosign.keySecretRef.name",
            signature.and_then(|signature| Some(&signature.cosign.as_ref()?.key_secret_ref)),
        ),
        (
            "spec.signature.notation.keySecretRef.name",
            signature.and_then(|signature| Some(&signature.notation.as_ref()?.key_secret_ref)),
        ),
    ];
    for (at, reference) in references {
        if let Some(reference) = reference {
            object_name(at, &reference.name, wrong);
        }
    }
    if let Some(account) = &spec.service_account_name {
        object_name("spec.serviceAccountName", account, wrong);
    }
}

fn once(at: &str, items: &[String], wrong: &mut Vec<String>) {
    for (nth, item) in items.iter().enumerate() {
        if items.iter().take(nth).any(|other| other == item) {
            wrong.push(format!("{at}[{nth}]: {:?} is listed twice", line(item, 80)));
        }
    }
}

fn tag_patterns(patterns: &[String], wrong: &mut Vec<String>) {
    for (nth, pattern) in patterns.iter().enumerate() {
        let glob = pattern.strip_prefix('!').unwrap_or(pattern);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.*?-".contains(&b);
        if glob.is_empty() || glob.len() > 128 || !glob.bytes().all(allowed) {
            wrong.push(format!(
                "spec.endOfLife.whenSuperseded.unlessTagged[{nth}]: {:?} is no pattern of tags: write a tag where * stands for any text and ? \
                 for one character, with ! in front to leave tags out",
                line(pattern, 80)
            ));
        }
    }
}

fn media_type(at: &str, text: &str, wrong: &mut Vec<String>) {
    if text.parse::<ArtifactType>().is_err() {
        wrong.push(format!(
            "{at}: {:?} is not a media type: write type/subtype, such as application/octet-stream",
            line(text, 80)
        ));
    }
}

fn annotation_keys<'a>(at: &str, keys: impl Iterator<Item = &'a String>, wrong: &mut Vec<String>) {
    for key in keys.filter(|key| key.is_empty() || key.chars().count() > 256) {
        wrong.push(format!(
            "{at}: the key {:?} must have 1 to 256 characters",
            line(key, 80)
        ));
    }
}

fn object_name(at: &str, name: &str, wrong: &mut Vec<String>) {
    if !is_object_name(name) {
        wrong.push(format!(
            "{at}: {:?} is no name of an object: write lower-case letters, digits, - and ., beginning and ending with a letter or digit",
            line(name, 80)
        ));
    }
}

/// A DNS subdomain (RFC 1123), as names of most objects are.
pub(super) fn is_object_name(name: &str) -> bool {
    let alphanumeric =
        |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|b| alphanumeric(Some(b)) || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
