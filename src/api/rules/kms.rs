//! Rules of keys that a key management service holds.

use serde_json::Value;

use super::pattern::Pattern;
use super::{Rule, get, has};

/// A key as cosign writes it.
static KEY_REF: Pattern = Pattern::new("^hashivault://[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$");

/// The URL of a server, without a path.
static ADDRESS: Pattern =
    Pattern::new(r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?$");

/// A path in the API of Vault. No segment begins with a dot, so that none leads out of the path.
static PATH: Pattern =
    Pattern::new("^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$");

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::new(
            &[
                "spec.signature.cosign",
                "spec.attestation.cosign",
                "spec.endOfLife.statement.cosign",
            ],
            "[has(self.keySecretRef), has(self.kms), has(self.keyless)].filter(is_set, is_set).size() == 1 && \
             !(has(self.keyless) && has(self.transparency))",
            |cosign| {
                let keys = ["keySecretRef", "kms", "keyless"];
                keys.iter().filter(|key| has(cosign, key)).count() == 1
                    && !(has(cosign, "keyless") && has(cosign, "transparency"))
            },
            "set exactly one of keySecretRef, kms, keyless; keyless is logged without transparency",
        ),
        Rule::matches(
            &[
                "spec.signature.cosign.kms.keyRef",
                "spec.attestation.cosign.kms.keyRef",
                "spec.endOfLife.statement.cosign.kms.keyRef",
            ],
            &KEY_REF,
            "not a key of a supported service: write hashivault://KEY for a key of OpenBao or Vault",
        ),
        Rule::new(
            &[
                "spec.signature.cosign.kms",
                "spec.attestation.cosign.kms",
                "spec.endOfLife.statement.cosign.kms",
            ],
            "!self.keyRef.startsWith('hashivault://') || has(self.vault)",
            |kms| {
                let key = get(kms, "keyRef").and_then(Value::as_str);
                key.is_none_or(|key| !key.starts_with("hashivault://")) || has(kms, "vault")
            },
            "a key hashivault:// needs vault, with address and role",
        ),
        Rule::matches(
            &[
                "spec.signature.cosign.kms.vault.address",
                "spec.attestation.cosign.kms.vault.address",
                "spec.endOfLife.statement.cosign.kms.vault.address",
            ],
            &ADDRESS,
            "not an address of a server: write a URL without a path, such as https://bao.example.com:8200",
        ),
        // One rule for the paths: the definition has it once for each signer.
        Rule::new(
            &[
                "spec.signature.cosign.kms.vault",
                "spec.attestation.cosign.kms.vault",
                "spec.endOfLife.statement.cosign.kms.vault",
            ],
            format!(
                "[has(self.namespace) ? self.namespace : 'x', has(self.mount) ? self.mount : 'x', has(self.authMount) ? self.authMount : \
                 'x'].all(path, {})",
                PATH.expression_on("path")
            ),
            |vault| {
                let names = ["namespace", "mount", "authMount"].into_iter();
                let mut paths = names.filter_map(|name| get(vault, name)?.as_str());
                paths.all(|path| PATH.is_match(path))
            },
            "namespace, mount and authMount must be paths such as team-a/transit, without auth/ in front",
        ),
        // One rule for all signers, since the definition has it once for each.
        Rule::new(
            &["spec"],
            "has(self.serviceAccountName) || \
             ((!has(self.signature) || !has(self.signature.cosign) || !has(self.signature.cosign.kms) || \
             has(self.signature.cosign.kms.serviceAccountName)) && \
             (!has(self.attestation) || !has(self.attestation.cosign.kms) || has(self.attestation.cosign.kms.serviceAccountName)) && \
             (!has(self.endOfLife) || !has(self.endOfLife.statement) || !has(self.endOfLife.statement.cosign.kms) || \
             has(self.endOfLife.statement.cosign.kms.serviceAccountName)))",
            |spec| {
                has_account(spec, &["signature", "cosign", "kms"])
                    && has_account(spec, &["attestation", "cosign", "kms"])
                    && has_account(spec, &["endOfLife", "statement", "cosign", "kms"])
            },
            "kms needs the ServiceAccount whose token logs in: set kms.serviceAccountName, or serviceAccountName of the spec",
        )
        .at(".serviceAccountName"),
    ]
}

/// Returns whether a spec has the ServiceAccount of a key at `path`, if it has the key.
fn has_account(spec: &Value, path: &[&str]) -> bool {
    let kms = path.iter().try_fold(spec, |value, name| get(value, name));
    has(spec, "serviceAccountName") || kms.is_none_or(|kms| has(kms, "serviceAccountName"))
}
