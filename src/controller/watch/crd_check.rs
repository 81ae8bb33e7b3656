//! The CRD compatibility check: whether the API server serves a kind as this version of affix writes it.
//!
//! The check reads the OpenAPI document, which every account may read, and not the CRD itself: CRDs are cluster-scoped, and no
//! role of affix includes them. The API server prunes fields that its CRD lacks. Without a complete status affix would lose the
//! record of its attachments, and without a complete spec a dry run or a suspended resource would be pushed. So until the CRD of
//! `ImageAttachment` is compatible, the controller attaches nothing, reports why, and takes no part in leader election, so that a
//! replica of an older version can work. Resources that are being deleted are still finalized. Without a compatible CRD of
//! `ImageAttachmentSet` only the sets are not reconciled.
//!
//! A CRD can also be replaced by an older one while the controller works. The check is repeated at each list of the resources,
//! after each rejected write, and every minute.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::reconcile::events::Events;
use crate::engine::{PassEvent, Severity};
use crate::service::Readiness;

/// The delay before the second check; it doubles with each check.
const MIN_DELAY: Duration = Duration::from_millis(500);
/// The longest delay between two checks.
const MAX_DELAY: Duration = Duration::from_secs(15);
/// The most resources per watched namespace (or in all of them) that get an event.
const MAX_EVENTS: u32 = 100;
/// The delay between two checks of a compatible CRD.
const RECHECK_DELAY: Duration = Duration::from_mins(1);
/// The most missing fields that a message names.
const MAX_NAMED_FIELDS: usize = 16;

/// A kind whose CRD is checked.
#[derive(Debug, Clone)]
pub(crate) struct CheckedKind {
    resource: ApiResource,
    crd: CustomResourceDefinition,
    /// The process is ready without it.
    is_optional: bool,
}

impl CheckedKind {
    /// `crd` is the expected CRD.
    pub(crate) fn new<K: Resource<DynamicType = ()>>(
        crd: CustomResourceDefinition,
        is_optional: bool,
    ) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            crd,
            is_optional,
        }
    }

    fn not_served(&self) -> Incompatibility {
        Incompatibility::NotServed(self.resource.plural.clone())
    }

    /// Returns the name of the readiness check.
    fn readiness_check(&self) -> String {
        format!("the CRD {}.{}", self.resource.plural, self.resource.group)
    }
}

/// An incompatibility of the CRD in the cluster.
#[derive(Debug, PartialEq, Eq)]
enum Incompatibility {
    /// With the plural of the kind.
    NotServed(String),
    NoStatusSubresource,
    /// The missing fields and enum values.
    MissingFields(Vec<String>),
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServed(plural) => {
                write!(
                    f,
                    "the API server does not serve {plural} of affix.dev/v1alpha1: install the CRD"
                )?;
            }
            Self::NoStatusSubresource => {
                f.write_str("the CRD has no status subresource: replace it")?;
            }
            Self::MissingFields(fields) => {
                let named: Vec<&str> = fields
                    .iter()
                    .take(MAX_NAMED_FIELDS)
                    .map(String::as_str)
                    .collect();
                write!(
                    f,
                    "the CRD is older than this affix and lacks {}",
                    named.join(", ")
                )?;
                match fields.len().saturating_sub(MAX_NAMED_FIELDS) {
                    0 => {}
                    more => write!(f, " and {more} more")?,
                }
                f.write_str(": upgrade it")?;
            }
        }
        f.write_str(" (affix crd | kubectl apply --server-side --force-conflicts -f -, or the chart with crds.enabled)")
    }
}

/// The result of the last check, which a rejected write can invalidate.
pub(crate) struct CrdCheck {
    kind: CheckedKind,
    client: Client,
    readiness: Arc<Readiness>,
    is_compatible: watch::Sender<bool>,
    invalidated: Notify,
    shutdown: CancellationToken,
}

impl CrdCheck {
    /// `client` must be able to create events while this process is not the leader.
    pub(crate) fn new(
        kind: CheckedKind,
        client: Client,
        readiness: Arc<Readiness>,
        shutdown: CancellationToken,
    ) -> Self {
        readiness.wait_for(kind.readiness_check());
        Self {
            kind,
            client,
            readiness,
            is_compatible: watch::Sender::new(false),
            invalidated: Notify::new(),
            shutdown,
        }
    }

    /// Returns the result of the last check.
    pub(crate) fn is_compatible(&self) -> bool {
        *self.is_compatible.borrow()
    }

    /// Waits for a compatible CRD. Returns `false` if the process stops first.
    pub(crate) async fn wait(&self) -> bool {
        let mut results = self.is_compatible.subscribe();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            result = results.wait_for(|is_compatible| *is_compatible) => result.is_ok(),
        }
    }

    /// Invalidates the result: after a rejected write that a compatible CRD would accept, and when a list of the resources
    /// begins, since a replaced CRD ends the watch. No reconcile starts until the next check.
    pub(crate) fn invalidate(&self) {
        self.is_compatible.send_replace(false);
        self.invalidated.notify_one();
    }

    /// Checks the CRD until the process stops. `namespaces`: the watched namespaces, whose resources get events; `None`: all.
    pub(crate) async fn run(&self, namespaces: &[Option<String>]) {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.check_until_compatible(namespaces) => {}
            }
            self.readiness.done(&self.kind.readiness_check());
            self.is_compatible.send_replace(true);
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.invalidated.notified() => {}
                () = self.check_until_incompatible() => {
                    self.is_compatible.send_replace(false);
                }
            }
        }
    }

    /// Repeats the check while the CRD is compatible. An API server that does not answer is no reason to stop.
    async fn check_until_incompatible(&self) {
        loop {
            sleep(RECHECK_DELAY).await;
            if let Ok(Some(_)) = self.check().await {
                return;
            }
        }
    }

    async fn check_until_compatible(&self, namespaces: &[Option<String>]) {
        let mut reported = String::new();
        let mut delay = MIN_DELAY;
        loop {
            let (error, incompatibility) = match self.check().await {
                Ok(None) => break,
                Ok(Some(incompatibility)) => (incompatibility.to_string(), Some(incompatibility)),
                Err(error) => (error.to_string(), None),
            };
            let check = self.kind.readiness_check();
            self.readiness.wait_for(&check);
            self.readiness.because(&check, &error);
            if self.kind.is_optional && incompatibility.is_some() {
                self.readiness.wait_no_longer(&check);
            }
            if error != reported {
                tracing::error!(
                    error,
                    resource = self.kind.resource.plural,
                    "CRD not known to be compatible; no {} are reconciled until it is",
                    self.kind.resource.plural
                );
                let is_served = |found| !matches!(found, Incompatibility::NotServed(_));
                if incompatibility.is_some_and(is_served) {
                    self.publish(namespaces, &error).await;
                }
                reported = error;
            }
            sleep(delay).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
        if !reported.is_empty() {
            tracing::info!(resource = self.kind.resource.plural, "CRD is compatible");
        }
    }

    /// Checks the CRD once. If the API server refuses its OpenAPI document, the CRD counts as compatible.
    async fn check(&self) -> Result<Option<Incompatibility>, ApiServerError> {
        let path = format!("/openapi/v3/apis/{}", self.kind.resource.api_version);
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        match with_timeout(self.client.request::<Value>(request)).await {
            Ok(openapi) => Ok(find_incompatibility(&self.kind, &openapi)),
            Err(error) => match error.code() {
                Some(404) => Ok(Some(self.kind.not_served())),
                Some(401 | 403) => {
                    tracing::warn!(%error, "cannot check the CRD; assuming it is compatible");
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Publishes the cause as an event of the watched resources.
    async fn publish(&self, namespaces: &[Option<String>], cause: &str) {
        let events = Events::new(self.client.clone());
        let event = PassEvent {
            severity: Severity::Warning,
            reason: Reason::Progressing,
            message: format!("nothing is attached: {cause}"),
        };
        for namespace in namespaces {
            let (client, resource) = (self.client.clone(), &self.kind.resource);
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, resource),
                None => Api::all_with(client, resource),
            };
            let published = async {
                let params = ListParams::default().limit(MAX_EVENTS);
                for object in with_timeout(api.list_metadata(&params)).await? {
                    let regarding = PartialObjectMeta::object_ref(&object, resource);
                    events.publish(&regarding, &event, Timestamp::now()).await?;
                }
                Ok::<_, ApiServerError>(())
            };
            if let Err(error) = published.await {
                tracing::warn!(
                    namespace = namespace.as_deref(),
                    %error,
                    "events about the CRD not published"
                );
            }
        }
    }
}

/// Compares the schemas of spec and status in the OpenAPI document of the API server with the expected CRD.
fn find_incompatibility(kind: &CheckedKind, openapi: &Value) -> Option<Incompatibility> {
    let is_resource = |schema: &&Value| {
        schema
            .pointer("/x-kubernetes-group-version-kind/0/kind")
            .and_then(Value::as_str)
            == Some(&*kind.resource.kind)
    };
    let schemas = openapi
        .pointer("/components/schemas")
        .and_then(Value::as_object);
    let Some(served) = schemas.and_then(|schemas| schemas.values().find(is_resource)) else {
        return Some(kind.not_served());
    };
    let paths = openapi.get("paths").and_then(Value::as_object);
    let mut paths = paths.into_iter().flat_map(|paths| paths.keys());
    let status = format!("/{}/{{name}}/status", kind.resource.plural);
    if !paths.any(|path| path.ends_with(&status)) {
        return Some(Incompatibility::NoStatusSubresource);
    }
    let expected = serde_json::to_value(&kind.crd).unwrap_or_default();
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{part}");
        let expected = expected.pointer(&path).unwrap_or(&Value::Null);
        match served.pointer(&format!("/properties/{part}")) {
            Some(served) => compare(expected, served, part, &mut missing),
            None => missing.push(part.to_owned()),
        }
    }
    (!missing.is_empty()).then_some(Incompatibility::MissingFields(missing))
}

/// Adds the fields below `path`, and their enum values, that `served` lacks.
fn compare(expected: &Value, served: &Value, path: &str, missing: &mut Vec<String>) {
    if served.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        return;
    }
    let properties = expected.get("properties").and_then(Value::as_object);
    for (name, expected) in properties.into_iter().flatten() {
        let path = format!("{path}.{name}");
        match served
            .get("properties")
            .and_then(|properties| properties.get(name))
        {
            Some(served) => compare(expected, served, &path, missing),
            None => missing.push(path),
        }
    }
    if let (Some(expected), Some(served)) = (expected.get("items"), served.get("items")) {
        compare(expected, served, &format!("{path}[]"), missing);
    }
    if let Some(served) = enum_values(served) {
        let values = enum_values(expected).into_iter().flatten();
        let unknown = values.filter(|value| !served.contains(value));
        missing.extend(unknown.map(|value| format!("{path}: {value}")));
    }
}

/// Returns the values of an enum, or `None` if the schema is not an enum.
fn enum_values(schema: &Value) -> Option<&Vec<Value>> {
    schema
        .get("enum")
        .or_else(|| schema.pointer("/allOf/0/enum"))
        .and_then(Value::as_array)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::api::{self, ImageAttachment};
    use serde_json::json;

    fn kind() -> CheckedKind {
        CheckedKind::new::<ImageAttachment>(api::crd(), false)
    }

    /// Returns the OpenAPI document of an API server with these schemas of spec and status.
    fn openapi(properties: &Value, path: &str) -> Value {
        let kinds =
            json!([{"group": "affix.dev", "kind": "ImageAttachment", "version": "v1alpha1"}]);
        json!({
            "paths": {format!("/apis/affix.dev/v1alpha1/namespaces/{{namespace}}/imageattachments/{{name}}{path}"): {}},
            "components": {"schemas": {
                "dev.affix.v1alpha1.ImageAttachment": {"properties": properties, "x-kubernetes-group-version-kind": kinds},
                "dev.affix.v1alpha1.ImageAttachmentList": {"x-kubernetes-group-version-kind": [{"kind": "ImageAttachmentList"}]},
            }},
        })
    }

    /// Returns the schemas of this version, by "spec" and "status".
    fn own() -> Value {
        let crd = serde_json::to_value(api::crd()).unwrap();
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties")
            .unwrap()
            .clone()
    }

    /// Checks a CRD whose schema of status was changed.
    fn check(change: impl FnOnce(&mut Value)) -> Option<Incompatibility> {
        let mut properties = own();
        change(&mut properties["status"]);
        find_incompatibility(&kind(), &openapi(&properties, "/status"))
    }

    #[test]
    fn fields_of_spec_that_the_api_server_would_prune_are_named_first() {
        let mut properties = own();
        let spec = properties["spec"]["properties"].as_object_mut().unwrap();
        for field in ["dryRun", "suspend", "targets"] {
            spec.remove(field).unwrap();
        }
        let choices = spec["referrersMode"].pointer_mut("/allOf/0/enum").unwrap();
        choices.as_array_mut().unwrap().pop();
        let status = properties["status"]["properties"].as_object_mut().unwrap();
        status.remove("leftovers").unwrap();
        let found = find_incompatibility(&kind(), &openapi(&properties, "/status"));
        let message = found.unwrap().to_string();
        let mut at = 0;
        for field in [
            "spec.dryRun",
            "spec.suspend",
            "spec.targets",
            "status.leftovers",
        ] {
            let found = message.find(field);
            assert!(found.is_some_and(|found| found > at), "{field}: {message}");
            at = found.unwrap();
        }
        assert!(
            message.contains("spec.referrersMode: \"TagSchema\""),
            "{message}"
        );
        let mut without = own();
        without.as_object_mut().unwrap().remove("spec").unwrap();
        let found = find_incompatibility(&kind(), &openapi(&without, "/status"));
        assert_eq!(
            found,
            Some(Incompatibility::MissingFields(vec!["spec".to_owned()]))
        );
    }

    #[test]
    fn a_crd_with_the_same_or_more_fields_is_compatible() {
        assert_eq!(check(|_| {}), None);
        let newer = |status: &mut Value| {
            status
                .pointer_mut("/properties")
                .unwrap()
                .as_object_mut()
                .unwrap()
                .insert("later".to_owned(), json!({"type": "string"}));
        };
        assert_eq!(check(newer), None);
        let open = |status: &mut Value| {
            *status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        };
        assert_eq!(check(open), None);
    }

    #[test]
    fn missing_fields_nested_fields_and_enum_values_are_named() {
        let without = |status: &mut Value| {
            let properties = status
                .pointer_mut("/properties")
                .unwrap()
                .as_object_mut()
                .unwrap();
            properties.remove("leftovers").unwrap();
            let target = properties
                .get_mut("targets")
                .unwrap()
                .pointer_mut("/items/properties")
                .unwrap();
            target.as_object_mut().unwrap().remove("content").unwrap();
            let state = target.pointer_mut("/state").unwrap();
            let choices = if state.get("enum").is_some() {
                state.pointer_mut("/enum")
            } else {
                state.pointer_mut("/allOf/0/enum")
            };
            choices
                .unwrap()
                .as_array_mut()
                .unwrap()
                .retain(|choice| choice != "Planned");
        };
        let mut missing = match check(without).unwrap() {
            Incompatibility::MissingFields(missing) => missing,
            other => unreachable!("{other:?}"),
        };
        missing.sort();
        assert_eq!(
            missing,
            [
                "status.leftovers",
                "status.targets[].content",
                "status.targets[].state: \"Planned\""
            ]
        );
        let message = Incompatibility::MissingFields(
            (0..MAX_NAMED_FIELDS + 2)
                .map(|nth| format!("status.f{nth}"))
                .collect(),
        )
        .to_string();
        assert!(
            message.contains("status.f15 and 2 more: upgrade it (affix crd | kubectl apply"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_status_subresource_and_a_missing_crd_are_distinguished() {
        assert_eq!(
            find_incompatibility(&kind(), &openapi(&own(), "")),
            Some(Incompatibility::NoStatusSubresource)
        );
        assert_eq!(
            find_incompatibility(
                &kind(),
                &json!({"paths": {}, "components": {"schemas": {}}})
            ),
            Some(kind().not_served())
        );
        assert_eq!(
            find_incompatibility(&kind(), &json!({})),
            Some(kind().not_served())
        );
    }
}
