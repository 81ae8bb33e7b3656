//! Rules of `spec.attestation`.

use serde_json::Value;

use super::pattern::Pattern;
use super::{Rule, get, has};

/// A URI, or a short name of cosign.
static PREDICATE_TYPE: Pattern = Pattern::new(
    "^(custom|cyclonedx|link|openvex|slsaprovenance|slsaprovenance02|slsaprovenance1|spdx|spdxjson|vuln|[A-Za-z][A-Za-z0-9+.-]*:[!-~]+)$",
);

/// A glob of predicate types, with `!` in front to exclude them.
static PREDICATE_TYPE_PATTERN: Pattern = Pattern::new("^[!-~]+$");

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.attestation"],
            "(has(self.predicates) || has(self.predicatesFrom)) != has(self.fromBuild)",
            |attestation| has_predicates(attestation) != has(attestation, "fromBuild"),
            "set predicates or predicatesFrom to state what the spec says, or fromBuild to sign the statements of the build, not both",
        ),
        Rule::new(
            &["spec.attestation"],
            "has(self.fromBuild) || has(self.predicateType)",
            |attestation| has(attestation, "fromBuild") || has(attestation, "predicateType"),
            "predicateType is needed with predicates: write a URI such as https://cyclonedx.org/bom, or a short name of cosign such as \
             openvex",
        ),
        Rule::new(
            &["spec.attestation"],
            "!has(self.fromBuild) || !has(self.predicateType)",
            |attestation| !has(attestation, "fromBuild") || !has(attestation, "predicateType"),
            "predicateType does not go with fromBuild, because the statements of the build have their own types; choose among them by \
             fromBuild.predicateTypes",
        ),
        Rule::matches(
            &["spec.attestation.predicateType"],
            &PREDICATE_TYPE,
            "not a type of predicates: write a URI such as https://cyclonedx.org/bom, or a short name of cosign: custom, cyclonedx, link, \
             openvex, slsaprovenance, slsaprovenance02, slsaprovenance1, spdx, spdxjson, vuln",
        ),
        Rule::matches(
            &["spec.attestation.fromBuild.predicateTypes[]"],
            &PREDICATE_TYPE_PATTERN,
            "not a pattern of predicate types: write a URI where * stands for any text and ? for one character, such as \
             https://slsa.dev/provenance/*, with ! in front to leave types out",
        ),
        Rule::new(
            &[
                "spec.attestation.predicates",
                "spec.attestation.predicatesFrom",
                "spec.attestation.fromBuild.predicateTypes",
            ],
            "size(self) != 0",
            |list| list.as_array().is_none_or(|list| !list.is_empty()),
            "must not be an empty list; remove the field",
        ),
        // A rule cannot tell whether two platform patterns overlap. The controller and the webhook report that as `InvalidSpec`.
        Rule::new(
            &["spec.attestation.predicates"],
            "self.all(p, self.exists_one(q, !has(q.target) || !has(p.target) || q.target == p.target))",
            |predicates| {
                let predicates = predicates.as_array().map_or(&[][..], Vec::as_slice);
                predicates
                    .iter()
                    .all(|one| predicates.iter().filter(|other| clash(one, other)).count() == 1)
            },
            "two predicates are for the same target, and a predicate without a target is for every target; give each its own target, or \
             create another ImageAttachment",
        ),
        Rule::new(
            &["spec"],
            "!has(self.attestation) || !has(self.attestation.fromBuild) || !has(self.targets) || !has(self.targets.scope) \
             || self.targets.scope != 'Index'",
            |spec| {
                let attestation = get(spec, "attestation");
                let scope = get(spec, "targets").and_then(|targets| get(targets, "scope"));
                attestation.is_none_or(|attestation| !has(attestation, "fromBuild"))
                    || scope.is_none_or(|scope| scope != "Index")
            },
            "fromBuild does not go with scope Index, because the build states nothing about the index; remove the scope, or set it to \
             Platforms",
        )
        .at(".targets.scope"),
    ]
}

fn has_predicates(attestation: &Value) -> bool {
    has(attestation, "predicates") || has(attestation, "predicatesFrom")
}

/// Returns whether two predicates can be for the same target.
fn clash(one: &Value, other: &Value) -> bool {
    let targets = get(one, "target").zip(get(other, "target"));
    targets.is_none_or(|(one, other)| one == other)
}
