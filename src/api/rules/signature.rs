//! Rules of `spec.signature`.

use super::{Rule, has};

pub(super) fn rules() -> Vec<Rule> {
    vec![Rule::new(
        &["spec.signature"],
        "has(self.cosign) != has(self.notation)",
        |signature| has(signature, "cosign") != has(signature, "notation"),
        "set exactly one of cosign, notation; to sign with both create two ImageAttachments",
    )]
}
