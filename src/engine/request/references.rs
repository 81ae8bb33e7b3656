//! The names of the objects that a spec references.

use std::collections::BTreeSet;

use crate::api::ImageAttachmentSpec;

/// The names that a spec references, all in the namespace of the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets, without the pull secrets of the service account.
    pub secrets: BTreeSet<String>,
    /// The service account.
    pub service_account: Option<String>,
    /// The service account that logs in to a key management service.
    pub signing_account: Option<String>,
}

impl Names {
    /// Collects all names in `spec`.
    #[must_use]
    pub fn of(spec: &ImageAttachmentSpec) -> Self {
        let files = spec.artifact.iter().flat_map(|artifact| &artifact.files);
        let keys = files
            .filter_map(|file| Some(file.value_from.as_ref()?.config_map_key_ref.name.clone()));
        let whole = spec
            .artifact
            .iter()
            .flat_map(|artifact| &artifact.files_from)
            .map(|from| from.config_map_ref.name.clone());
        let predicates = spec.attestation.iter().flat_map(|of| &of.predicates);
        let predicates = predicates
            .filter_map(|of| Some(of.value_from.as_ref()?.config_map_key_ref.name.clone()));
        let predicates_from = spec.attestation.iter().flat_map(|of| &of.predicates_from);
        let predicates_from = predicates_from.map(|from| from.config_map_ref.name.clone());
        let access = [
            &spec.secret_ref,
            &spec.cert_secret_ref,
            &spec.proxy_secret_ref,
        ]
        .map(Option::as_ref);
        Self {
            config_maps: keys
                .chain(whole)
                .chain(predicates)
                .chain(predicates_from)
                .chain(spec.trust().map(|(_, config_map)| config_map.name.clone()))
                .collect(),
            secrets: access
                .into_iter()
                .chain([
                    spec.key_secret().map(|(_, secret)| secret),
                    spec.kms()
                        .and_then(|(_, kms)| kms.vault.as_ref()?.cert_secret_ref.as_ref()),
                    spec.timestamp().map(|of| &of.cert_secret_ref),
                ])
                .flatten()
                .map(|secret| secret.name.clone())
                .collect(),
            service_account: spec.service_account_name.clone(),
            signing_account: spec.signing_account().map(str::to_owned),
        }
    }
}
