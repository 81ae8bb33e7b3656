//! The Deployment of this process, as the owner of the objects that the process creates. They are deleted
//! with it (docs/decisions/0107-let-the-deployment-own-run-time-objects.md).

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Api, Client, Resource as _};

use super::api_error::{ApiServerError, with_timeout};

/// A Deployment that owns objects.
#[derive(Clone)]
pub(crate) struct OwningDeployment {
    deployments: Api<Deployment>,
    name: String,
}

impl OwningDeployment {
    pub(crate) fn new(client: Client, namespace: &str, name: String) -> Self {
        Self {
            deployments: Api::namespaced(client, namespace),
            name,
        }
    }

    /// Returns the reference for the metadata of an object. It is read for each object, because a
    /// Deployment that was created again has another UID.
    ///
    /// # Errors
    /// The API server refuses, or there is no such Deployment.
    pub(crate) async fn reference(&self) -> Result<OwnerReference, ApiServerError> {
        let found = with_timeout(self.deployments.get_metadata(&self.name)).await?;
        Ok(OwnerReference {
            api_version: Deployment::api_version(&()).into_owned(),
            kind: Deployment::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: found.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        })
    }
}

/// Makes a Deployment an owner of an object. Returns whether the metadata changed.
pub(crate) fn set_owner(metadata: &mut ObjectMeta, owner: OwnerReference) -> bool {
    let owners = metadata.owner_references.get_or_insert_default();
    if owners.contains(&owner) {
        return false;
    }
    owners.retain(|other| (&other.kind, &other.name) != (&owner.kind, &owner.name));
    owners.push(owner);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recreated_deployment_replaces_its_predecessor_as_owner() {
        let owner = |name: &str, uid: &str| OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let mut metadata = ObjectMeta::default();
        assert!(set_owner(&mut metadata, owner("other", "0")));
        assert!(set_owner(&mut metadata, owner("affix", "1")));
        assert!(!set_owner(&mut metadata, owner("affix", "1")));
        assert!(set_owner(&mut metadata, owner("affix", "2")));
        assert_eq!(
            metadata.owner_references,
            Some(vec![owner("other", "0"), owner("affix", "2")])
        );
    }
}
