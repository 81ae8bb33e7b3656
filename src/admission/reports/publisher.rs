//! The writes of reports: only what changed is written, and objects of namespaces without running images are deleted.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use crate::inventory::{MANAGED_BY, ReportFormat, Scopes, is_own_name};
use crate::service::{ApiServerError, FIELD_MANAGER, with_timeout};

/// The number of objects in a page of a list of metadata.
const PAGE: u32 = 500;

/// Namespace and name of an object.
type ObjectKey = (String, String);

/// Writes the objects.
pub(super) struct Publisher {
    client: Client,
    resource: ApiResource,
    /// Hash and resource version of each object as this replica wrote it last.
    written: HashMap<ObjectKey, (u64, Option<String>)>,
}

impl Publisher {
    pub(super) fn new(client: Client, format: ReportFormat) -> Self {
        let (group, version) = (format.group().to_owned(), format.version().to_owned());
        Self {
            client,
            resource: ApiResource {
                api_version: format!("{group}/{version}"),
                group,
                version,
                kind: format.kind().to_owned(),
                plural: format.plural().to_owned(),
            },
            written: HashMap::new(),
        }
    }

    /// Writes the objects that differ from those in the cluster, and deletes the others of affix. One that fails does not stop the
    /// others.
    ///
    /// # Errors
    /// The list, or the first failed write.
    pub(super) async fn publish(
        &mut self,
        scopes: &Scopes,
        documents: Vec<Value>,
    ) -> Result<(), ApiServerError> {
        let mut present = self.present(scopes).await?;
        let mut first_error = None;
        for document in documents {
            let text = |pointer: &str| {
                let value = document.pointer(pointer).and_then(Value::as_str);
                value.unwrap_or_default().to_owned()
            };
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            let version = present.remove(&key);
            let hash = hash(&document);
            let is_current = version.is_some()
                && self
                    .written
                    .get(&key)
                    .map(|(hash, version)| (*hash, version.clone()))
                    == Some((hash, version.flatten()));
            if is_current {
                continue;
            }
            match self.apply(&key, &document).await {
                Ok(version) => {
                    self.written.insert(key, (hash, version));
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        for key in present.into_keys() {
            if let Err(error) = self.delete(&key).await {
                first_error.get_or_insert(error);
            }
            self.written.remove(&key);
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Returns the resource versions of the objects of affix in the cluster.
    async fn present(
        &self,
        scopes: &Scopes,
    ) -> Result<BTreeMap<ObjectKey, Option<String>>, ApiServerError> {
        let mut present = BTreeMap::new();
        for scope in scopes {
            let mut params = ListParams::default().labels(MANAGED_BY).limit(PAGE);
            loop {
                let api = self.api(scope.as_deref());
                let page = with_timeout(api.list_metadata(&params)).await?;
                let objects = page.items.into_iter();
                let objects = objects.filter(|object| is_own_name(&object.name_any()));
                present.extend(objects.map(|object: PartialObjectMeta<DynamicObject>| {
                    let key = (object.namespace().unwrap_or_default(), object.name_any());
                    (key, object.metadata.resource_version)
                }));
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(present)
    }

    async fn apply(
        &self,
        (namespace, name): &ObjectKey,
        document: &Value,
    ) -> Result<Option<String>, ApiServerError> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(Some(namespace));
        let patch = Patch::Apply(document);
        let applied = with_timeout(api.patch_metadata(name, &params, &patch)).await?;
        Ok(applied.metadata.resource_version)
    }

    async fn delete(&self, (namespace, name): &ObjectKey) -> Result<(), ApiServerError> {
        let api = self.api(Some(namespace));
        let deleted = with_timeout(api.delete(name, &DeleteParams::default())).await;
        match deleted {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    fn api(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let client = self.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

/// Returns a hash that tells contents apart.
fn hash(document: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    document.to_string().hash(&mut hasher);
    hasher.finish()
}
