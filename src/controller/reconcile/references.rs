//! The reference resolver: it reads the ConfigMaps, Secrets and service account that a spec references.
//!
//! Every read uses the namespace of the resource, so no resource reaches into another namespace (threat T5).

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use crate::api::{ImageAttachmentSpec, Provider};
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::context::Context;
use crate::engine::{Names, SecretData, Sources, TenantRules};
use crate::identity::Identities;
use crate::service::identity;

/// Reads objects by name in one namespace. It lists and watches nothing.
pub(crate) struct ReferenceResolver {
    client: Client,
    namespace: String,
    tenants: TenantRules,
    identities: Option<Identities>,
}

impl ReferenceResolver {
    /// Returns a resolver for the namespace of an object with this metadata.
    pub(crate) fn new(context: &Context, meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.clone();
        Self {
            client: context.client.clone(),
            tenants: context.options.tenants,
            identities: context.identities.clone(),
            namespace: namespace.unwrap_or_default(),
        }
    }

    /// Returns all objects that `spec` references. Missing ones are left out.
    ///
    /// # Errors
    /// When the API server does not answer, or forbids a read.
    pub(crate) async fn resolve(
        &self,
        spec: &ImageAttachmentSpec,
    ) -> Result<Sources, ApiServerError> {
        let is_cloud = spec.provider() != Provider::Generic;
        with_timeout(self.read(Names::of(spec), is_cloud)).await
    }

    async fn read(&self, names: Names, is_cloud: bool) -> Result<Sources, kube::Error> {
        let mut sources = Sources {
            namespace: self.namespace.clone(),
            tenants: self.tenants,
            identities: self.identities.clone(),
            ..Sources::default()
        };
        for name in names.config_maps {
            if let Some(config_map) = self.get(&name).await? {
                sources
                    .config_maps
                    .insert(name, config_map_data(config_map));
            }
        }
        let mut secrets = names.secrets;
        if let Some(name) = names.service_account {
            let account: Option<ServiceAccount> = self.get(&name).await?;
            if is_cloud {
                sources.service_account = account.map(|account| identity(&self.namespace, account));
            } else {
                let pull_secrets = account.map(|account| account.image_pull_secrets);
                sources.image_pull_secrets = pull_secrets.map(|secrets| {
                    let secrets = secrets.into_iter().flatten();
                    secrets.map(|secret| secret.name).collect()
                });
                secrets.extend(sources.image_pull_secrets.iter().flatten().cloned());
            }
        }
        if let Some(name) = names.signing_account {
            let account: Option<ServiceAccount> = self.get(&name).await?;
            sources.signing_account = account.map(|account| identity(&self.namespace, account));
        }
        for name in secrets {
            if let Some(secret) = self.get(&name).await? {
                sources.secrets.insert(name, secret_data(secret));
            }
        }
        Ok(sources)
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, kube::Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        Api::<K>::namespaced(self.client.clone(), &self.namespace)
            .get_opt(name)
            .await
    }
}

fn config_map_data(config_map: ConfigMap) -> BTreeMap<String, Bytes> {
    let text = config_map.data.unwrap_or_default();
    let binary = config_map.binary_data.unwrap_or_default();
    let text = text
        .into_iter()
        .map(|(key, value)| (key, Bytes::from(value)));
    text.chain(
        binary
            .into_iter()
            .map(|(key, value)| (key, Bytes::from(value.0))),
    )
    .collect()
}

fn secret_data(secret: Secret) -> SecretData {
    let data = secret.data.unwrap_or_default().into_iter();
    SecretData {
        kind: secret.type_,
        data: data
            .map(|(key, value)| (key, affix_registry::Secret::new(value.0)))
            .collect(),
        annotations: secret.metadata.annotations.unwrap_or_default(),
    }
}
