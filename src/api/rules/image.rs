//! Rules of `spec.image`, and of the choice between the kinds of attachment.

use super::pattern::Pattern;
use super::{Rule, get, has};

/// An image that begins with a registry.
static REGISTRY: Pattern = Pattern::new(
    r"^([A-Za-z0-9.-]+[.][A-Za-z0-9.-]*(:[0-9]+)?|[A-Za-z0-9.-]+:[0-9]+|localhost|\[[0-9A-Fa-f:.]+\](:[0-9]+)?)/[^/]",
);

/// An image with a digest.
static WITH_DIGEST: Pattern = Pattern::new("@[^@]+$");

/// An image with a tag.
static WITH_TAG: Pattern = Pattern::new("^[^@]*/[^/@]*:[^/@]+$");

/// The kinds of attachment.
const KINDS: [&str; 4] = ["endOfLife", "artifact", "signature", "attestation"];

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::matches(
            &["spec.image"],
            &REGISTRY,
            "image must begin with the name of its registry, without a scheme: no registry is assumed. Write, for example, \
             registry.example.com/team/app:v1, or docker.io/library/nginx:1.29 for an image of Docker Hub",
        )
        .not_in_templates(),
        // Holds where the registry is missing: the rule above reports that, and the position of a tag is unknown.
        Rule::new(
            &["spec.image"],
            format!(
                "!{} || {} || {}",
                REGISTRY.expression(),
                WITH_DIGEST.expression(),
                WITH_TAG.expression()
            ),
            |image| {
                image.as_str().is_none_or(|image| {
                    !REGISTRY.is_match(image)
                        || WITH_DIGEST.is_match(image)
                        || WITH_TAG.is_match(image)
                })
            },
            "image needs a tag or a digest: write …/app:v1 to follow a tag, or …/app@sha256:… for one digest that never moves",
        )
        .not_in_templates(),
        Rule::new(
            &["spec"],
            "[has(self.endOfLife), has(self.artifact), has(self.signature), has(self.attestation)].exists_one(x, x)",
            |spec| KINDS.iter().filter(|kind| has(spec, kind)).count() == 1,
            "set exactly one of endOfLife, artifact, signature, attestation; for a second attachment to the same image create another \
             ImageAttachment",
        ),
        Rule::transition(
            &["spec"],
            "has(self.endOfLife) == has(oldSelf.endOfLife) && has(self.artifact) == has(oldSelf.artifact) \
             && has(self.signature) == has(oldSelf.signature) && has(self.attestation) == has(oldSelf.attestation)",
            "which one of endOfLife, artifact, signature, attestation is set never changes; create a new ImageAttachment for the other kind, \
             and delete this one",
        ),
        Rule::new(
            &["spec"],
            "!has(self.endOfLife) || !has(self.endOfLife.date) || has(self.endOfLife.whenSuperseded) || self.image.contains('@')",
            |spec| {
                get(spec, "endOfLife").is_none_or(|mark| {
                    !has(mark, "date") || has(mark, "whenSuperseded") || has_digest(spec)
                })
            },
            "endOfLife.date needs a digest in image, because a tag may already name the next, good image: write \
             …/app:v1@sha256:… (`affix pin` does it), or use endOfLife.whenSuperseded to follow the tag",
        )
        .at(".endOfLife.date")
        .needs_digest()
        .not_in_templates(),
        Rule::new(
            &["spec"],
            "!has(self.endOfLife) || !has(self.endOfLife.whenSuperseded) || has(self.endOfLife.date) || !self.image.contains('@')",
            |spec| {
                get(spec, "endOfLife").is_none_or(|mark| {
                    !has(mark, "whenSuperseded") || has(mark, "date") || !has_digest(spec)
                })
            },
            "endOfLife.whenSuperseded follows a tag, so image needs a tag and no digest: write …/app:v1; for one digest use \
             endOfLife.date",
        )
        .at(".endOfLife.whenSuperseded")
        .not_in_templates(),
        Rule::new(
            &["spec"],
            "!has(self.artifact) || !has(self.artifact.files) || self.image.contains('@') \
             || !self.artifact.files.exists(f, has(f.target))",
            |spec| {
                let files = get(spec, "artifact").and_then(|artifact| get(artifact, "files"));
                has_digest(spec)
                    || files
                        .and_then(serde_json::Value::as_array)
                        .is_none_or(|files| !files.iter().any(|file| has(file, "target")))
            },
            "a file with a target needs a digest in image, because a tag may move to an image that the file was not made for: \
             write …/app:v1@sha256:… (`affix pin` does it)",
        )
        .at(".artifact.files")
        .needs_digest()
        .not_in_templates(),
        Rule::new(
            &["spec"],
            "!has(self.attestation) || !has(self.attestation.predicates) || self.image.contains('@') \
             || !self.attestation.predicates.exists(p, has(p.target))",
            |spec| {
                let attestation = get(spec, "attestation");
                let predicates = attestation.and_then(|attestation| get(attestation, "predicates"));
                has_digest(spec)
                    || predicates
                        .and_then(serde_json::Value::as_array)
                        .is_none_or(|predicates| !predicates.iter().any(|of| has(of, "target")))
            },
            "a predicate with a target needs a digest in image, because a tag may move to an image that the predicate is not about: \
             write …/app:v1@sha256:… (`affix pin` does it)",
        )
        .at(".attestation.predicates")
        .needs_digest()
        .not_in_templates(),
    ]
}

fn has_digest(spec: &serde_json::Value) -> bool {
    get(spec, "image")
        .and_then(serde_json::Value::as_str)
        .is_some_and(|image| image.contains('@'))
}
