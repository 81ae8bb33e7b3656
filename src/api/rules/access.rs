//! Rules of the access to the registry.

use serde_json::Value;

use super::{Rule, get, has};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        // Another identity than that of a ServiceAccount of the namespace is never used.
        Rule::new(
            &["spec"],
            "!has(self.provider) || self.provider == 'generic' || has(self.serviceAccountName)",
            |spec| !has_cloud_provider(spec) || has(spec, "serviceAccountName"),
            "provider aws, azure or gcp needs serviceAccountName: a token of that ServiceAccount is exchanged for the login",
        )
        .at(".provider"),
        Rule::new(
            &["spec"],
            "!has(self.provider) || self.provider == 'generic' || !has(self.secretRef)",
            |spec| !has_cloud_provider(spec) || !has(spec, "secretRef"),
            "secretRef does not go with provider aws, azure or gcp, which issues the login; remove one of the two",
        )
        .at(".secretRef"),
        Rule::new(
            &["spec"],
            "!has(self.provider) || self.provider == 'generic' || !has(self.insecure) || !self.insecure",
            |spec| !has_cloud_provider(spec) || get(spec, "insecure") != Some(&Value::Bool(true)),
            "insecure does not go with provider aws, azure or gcp, whose login is never sent over plain HTTP; remove one of the two",
        )
        .at(".insecure"),
    ]
}

/// Returns whether the login comes from a cloud.
fn has_cloud_provider(spec: &Value) -> bool {
    get(spec, "provider").is_some_and(|provider| provider != "generic")
}
