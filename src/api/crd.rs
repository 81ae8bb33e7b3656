//! The CustomResourceDefinition, as `affix crd` prints it and `crds/` keeps it.
//!
//! Owns: what the derive cannot say, and the bytes of the file, which are the same on every machine.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

use super::spec::ImageAttachment;
use super::status::ImageAttachmentStatus;

/// The CustomResourceDefinition of [`ImageAttachment`].
///
/// Status defaults to an `observedGeneration` of -1, so that kstatus never takes an object that no pass has seen for done. The
/// API server applies a default only where the schema does not allow null.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ImageAttachment::crd();
    for version in &mut crd.spec.versions {
        let root = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = root.and_then(|root| root.properties.as_mut()).and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.nullable = None;
            status.default = serde_json::to_value(ImageAttachmentStatus::default()).ok().map(JSON);
        }
    }
    crd
}

/// The CustomResourceDefinition as a YAML document.
///
/// # Errors
///
/// None in practice: every value of the definition can be written as YAML.
pub fn crd_yaml() -> String {
    serde_saphyr::to_string(&crd()).unwrap_or_default()
}
