//! Rules of single texts that several parts of the spec share: object names and media types.

use super::pattern::Pattern;
use super::{Rule, get};

/// A DNS subdomain (RFC 1123), as names of Secrets, ConfigMaps and ServiceAccounts are.
static OBJECT_NAME: Pattern = Pattern::new("^[a-z0-9]+((-+|[.])[a-z0-9]+)*$");

/// A media type (RFC 6838), as OCI 1.1 requires for artifactType.
static MEDIA_TYPE: Pattern = Pattern::new(
    r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$",
);

/// The longest name of an object, in characters.
const OBJECT_NAME_MAX: usize = 253;

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::matches(
            &[
                "spec.secretRef.name",
                "spec.serviceAccountName",
                "spec.certSecretRef.name",
                "spec.proxySecretRef.name",
                "spec.artifact.files[].valueFrom.configMapKeyRef.name",
                "spec.artifact.filesFrom[].configMapRef.name",
                "spec.endOfLife.statement.cosign.keySecretRef.name",
                "spec.attestation.predicates[].valueFrom.configMapKeyRef.name",
                "spec.attestation.predicatesFrom[].configMapRef.name",
                "spec.attestation.cosign.keySecretRef.name",
                "spec.signature.cosign.keySecretRef.name",
                "spec.signature.notation.keySecretRef.name",
                "spec.signature.notation.timestamp.certSecretRef.name",
            ],
            &OBJECT_NAME,
            "not a name of an object: write lower-case letters, digits, - and ., without a namespace",
        ),
        // One rule for the names of services, since the definition has each field once for each signer.
        Rule::new(
            &[
                "spec.signature.cosign",
                "spec.attestation.cosign",
                "spec.endOfLife.statement.cosign",
            ],
            format!(
                "[has(self.kms) && has(self.kms.serviceAccountName) ? self.kms.serviceAccountName : 'x', \
                 has(self.kms) && has(self.kms.vault) && has(self.kms.vault.certSecretRef) ? self.kms.vault.certSecretRef.name : 'x', \
                 has(self.keyless) ? self.keyless.serviceAccountName : 'x', has(self.keyless) ? self.keyless.trustRef.name : 'x', \
                 has(self.transparency) ? self.transparency.trustRef.name : 'x'].all(name, {})",
                OBJECT_NAME.expression_on("name")
            ),
            |cosign| {
                let names: [&[&str]; 5] = [
                    &["kms", "serviceAccountName"],
                    &["kms", "vault", "certSecretRef", "name"],
                    &["keyless", "serviceAccountName"],
                    &["keyless", "trustRef", "name"],
                    &["transparency", "trustRef", "name"],
                ];
                let name = |path: &&[&str]| {
                    path.iter()
                        .try_fold(cosign, |value, name| get(value, name))?
                        .as_str()
                };
                names
                    .iter()
                    .filter_map(name)
                    .all(|name| OBJECT_NAME.is_match(name))
            },
            "serviceAccountName, trustRef.name and certSecretRef.name must be names of objects: write lower-case letters, digits, - and .",
        ),
        Rule::matches(
            &[
                "spec.endOfLife.artifactType",
                "spec.artifact.artifactType",
                "spec.artifact.files[].mediaType",
                "spec.artifact.filesFrom[].mediaType",
            ],
            &MEDIA_TYPE,
            "not a media type: write type/subtype, for example application/vnd.demo.test.signature",
        ),
    ]
}

/// Returns whether a text is a name that Kubernetes objects may have.
pub(crate) fn is_object_name(name: &str) -> bool {
    name.len() <= OBJECT_NAME_MAX && OBJECT_NAME.is_match(name)
}
