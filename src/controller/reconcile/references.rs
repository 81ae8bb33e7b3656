//! What a resource refers to, read from its own namespace: one function builds every reference, and it takes the namespace
//! from the resource (threat T5).

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use crate::api::ImageAttachmentSpec;
use crate::engine::{Names, SecretData, Sources};

/// Reads by name in one namespace; never lists, never watches.
pub(crate) struct Namespace {
    client: Client,
    name: String,
}

impl Namespace {
    /// The namespace of a resource.
    pub(crate) fn of(client: &Client, name: &str) -> Self {
        Self {
            client: client.clone(),
            name: name.to_owned(),
        }
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, kube::Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        Api::<K>::namespaced(self.client.clone(), &self.name)
            .get_opt(name)
            .await
    }

    /// Everything that `spec` refers to; what is not there is left out.
    ///
    /// # Errors
    /// When the API server does not answer, or does not let affix read an object of that kind.
    pub(crate) async fn sources(&self, spec: &ImageAttachmentSpec) -> Result<Sources, kube::Error> {
        let names = Names::of(spec);
        let mut sources = Sources::default();
        for name in names.config_maps {
            if let Some(map) = self.get::<ConfigMap>(&name).await? {
                sources.config_maps.insert(name, contents(map));
            }
        }
        let mut secrets = names.secrets;
        if let Some(account) = names.service_account {
            let account = self.get::<ServiceAccount>(&account).await?;
            sources.image_pull_secrets = account.map(|account| {
                account
                    .image_pull_secrets
                    .unwrap_or_default()
                    .into_iter()
                    .map(|secret| secret.name)
                    .collect()
            });
            secrets.extend(sources.image_pull_secrets.iter().flatten().cloned());
        }
        for name in secrets {
            if let Some(secret) = self.get::<Secret>(&name).await? {
                sources.secrets.insert(name, data(secret));
            }
        }
        Ok(sources)
    }
}

fn contents(map: ConfigMap) -> BTreeMap<String, Bytes> {
    let text = map
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, Bytes::from(value)));
    let binary = map
        .binary_data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, Bytes::from(value.0)));
    text.chain(binary).collect()
}

fn data(secret: Secret) -> SecretData {
    let data = secret.data.unwrap_or_default();
    SecretData {
        kind: secret.type_,
        data: data
            .into_iter()
            .map(|(key, value)| (key, affix_registry::Secret::new(value.0)))
            .collect(),
        annotations: secret.metadata.annotations.unwrap_or_default(),
    }
}
