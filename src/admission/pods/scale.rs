//! Scale-ups through the subresource `scale`, as `kubectl scale` sends them. Their object has no images, so
//! the workload is read.

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use tokio::time::{Instant, timeout_at};

use crate::admission::pods::PodReviewer;
use crate::admission::pods::rollout::creates_pods;
use crate::admission::pods::workload::{ChangedWorkload, Workload};
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, truncate};
use crate::service::ApiServerError;

/// The workload that a Scale belongs to.
pub(crate) struct ScaleTarget<'a> {
    resource: ApiResource,
    namespace: &'a str,
    name: &'a str,
}

/// Returns the workload whose number of replicas a request raises.
pub(crate) fn target<'a>(request: &'a Request<'_>) -> Option<ScaleTarget<'a>> {
    if request.sub_resource.as_deref() != Some("scale") {
        return None;
    }
    let (old, new) = (request.old_object?, request.object?);
    let (group, kind) = match request.resource.as_ref()?.resource.as_str() {
        "deployments" => ("apps", "Deployment"),
        "statefulsets" => ("apps", "StatefulSet"),
        "replicasets" => ("apps", "ReplicaSet"),
        "replicationcontrollers" => ("", "ReplicationController"),
        _ => return None,
    };
    let target = ScaleTarget {
        resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind)),
        namespace: request.namespace.as_deref().filter(|name| is_name(name))?,
        name: request.name.as_deref().filter(|name| is_name(name))?,
    };
    creates_pods(old, new).then_some(target)
}

/// Returns whether a text can be the name of an object. Names become part of URLs, and a direct caller can
/// send any text.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Returns the verdict on a workload that could not be read.
pub(crate) fn unread(cause: &str) -> Verdict {
    let warning = format!("images were not checked for end of life: {cause}");
    Verdict {
        warnings: vec![truncate(&warning, MAX_WARNING_CHARS)],
        ..Verdict::default()
    }
}

impl PodReviewer {
    /// Reads the workload of a Scale. Returns `None` for one that another object controls.
    pub(crate) async fn scaled_workload(
        &self,
        target: ScaleTarget<'_>,
        deadline: Instant,
    ) -> Result<Option<ChangedWorkload>, String> {
        let ScaleTarget {
            resource,
            namespace,
            name,
        } = target;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let found = timeout_at(deadline, api.get(name)).await;
        let found = found
            .map_err(|_| format!("the {} {name} was not read in time", resource.kind))?
            .map_err(|error| ApiServerError::from(error).to_string())?;
        let object = serde_json::value::to_raw_value(&found).map_err(|error| error.to_string())?;
        let metadata = Metadata::of(&object).map_err(|error| error.to_string())?;
        let workload = Workload::read(&resource.kind, &object)
            .filter(|workload| !workload.images.is_empty() && !metadata.is_controlled());
        Ok(workload.map(|workload| ChangedWorkload {
            workload,
            old: None,
            metadata,
        }))
    }
}
