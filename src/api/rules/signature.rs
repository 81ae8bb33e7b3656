//! Rules of `spec.signature`.

use super::pattern::Pattern;
use super::{Rule, get, has};

/// An image with a tag, with or without a digest.
static WITH_TAG: Pattern = Pattern::new("^[^@]*/[^/@]*:[^/@]+(@[^@]*)?$");

/// A URL without a query.
static URL: Pattern = Pattern::new(
    r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$",
);

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::matches(
            &["spec.signature.notation.timestamp.url"],
            &URL,
            "not a URL of a timestamp authority: write one such as http://timestamp.digicert.com",
        ),
        Rule::new(
            &["spec.signature"],
            "has(self.cosign) != has(self.notation)",
            |signature| has(signature, "cosign") != has(signature, "notation"),
            "set exactly one of cosign, notation; to sign with both create two ImageAttachments",
        ),
        Rule::new(
            &["spec.signature.cosign.formats"],
            "self.size() >= 1",
            |formats| formats.as_array().is_none_or(|formats| !formats.is_empty()),
            "formats must not be an empty list; remove the field for [Bundle]",
        ),
        // No verifier of the signature tag reads entries of Rekor v2.
        Rule::new(
            &["spec.signature.cosign"],
            "!(has(self.transparency) || has(self.keyless)) || !has(self.formats) || !('Tag' in self.formats)",
            |cosign| {
                let formats = get(cosign, "formats").and_then(|formats| formats.as_array());
                let is_tag = |format: &serde_json::Value| format == "Tag";
                !(has(cosign, "transparency") || has(cosign, "keyless"))
                    || formats.is_none_or(|formats| !formats.iter().any(is_tag))
            },
            "remove Tag from formats: transparency and keyless are for bundles",
        )
        .at(".formats"),
        // Podman compares the tag that it pulls with the one that was signed.
        Rule::new(
            &["spec"],
            format!(
                "!has(self.signature) || !has(self.signature.cosign) || !has(self.signature.cosign.identity) || \
                 self.signature.cosign.identity != 'Tag' || {}",
                WITH_TAG.expression_on("self.image")
            ),
            |spec| {
                let cosign = get(spec, "signature").and_then(|signature| get(signature, "cosign"));
                let identity = cosign.and_then(|cosign| get(cosign, "identity"));
                let image = get(spec, "image").and_then(|image| image.as_str());
                identity.is_none_or(|identity| identity != "Tag")
                    || image.is_none_or(|image| WITH_TAG.is_match(image))
            },
            "identity Tag needs a tag in image: write …/app:v1 or …/app:v1@sha256:…, or set identity to Repository",
        )
        .at(".signature.cosign.identity")
        .not_in_templates(),
    ]
}
