//! Whether the API server serves the resource as this operator writes it.
//!
//! The API server's own description (OpenAPI, which every account may read) is asked, and not the definition: that is the cluster's,
//! and no role of affix reaches it. Where status cannot be kept, neither is it known what was made and when, so nothing is attached
//! until the definition fits: affix says why, does not stand for election, and lets a replica that fits the definition go on.
//! What is being deleted is let go all the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::{Client, Resource as _};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{self, ImageAttachment, Reason};
use crate::engine::{Note, Severity};
use crate::service::Readiness;

use crate::controller::context::{API_TIMEOUT, MANAGER};
use crate::controller::reconcile::events::Events;

/// What `/readyz` waits for.
const AWAITED: &str = "the definition of imageattachments";
/// How long until the second look, and the longest between two.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// At most as many resources of a namespace (or of all) are told why nothing happens to them.
const MOST_TOLD: u32 = 100;

/// What is wrong with the definition.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    NotServed,
    NoStatus,
    /// The fields, or values of fields, that it does not know.
    Older(Vec<String>),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServed => {
                f.write_str("the API server does not serve imageattachments of affix.dev/v1alpha1: install the definition")?;
            }
            Self::NoStatus => {
                f.write_str("the definition has no status subresource: replace it")?
            }
            Self::Older(lacking) => {
                let (first, more) = (
                    lacking
                        .iter()
                        .take(5)
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(", "),
                    lacking.len().saturating_sub(5),
                );
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                write!(
                    f,
                    "the definition is older than this affix and does not know {first}{more}: upgrade it"
                )?;
            }
        }
        f.write_str(" (affix crd | kubectl apply --server-side --force-conflicts -f -, or the chart with crds.enabled)")
    }
}

/// The definition as the API server has it, looked at once, and again whenever it is doubted.
pub(crate) struct Definition {
    client: Client,
    readiness: Arc<Readiness>,
    fits: watch::Sender<bool>,
    doubted: Notify,
    stop: CancellationToken,
}

impl Definition {
    /// `client`: one whose events leave also while this process does not lead.
    pub(crate) fn new(client: Client, readiness: Arc<Readiness>, stop: CancellationToken) -> Self {
        readiness.wait_for(AWAITED);
        Self {
            client,
            readiness,
            fits: watch::Sender::new(false),
            doubted: Notify::new(),
            stop,
        }
    }

    /// Whether it fits, as far as is known.
    pub(crate) fn fits(&self) -> bool {
        *self.fits.borrow()
    }

    /// Waits until it fits; says whether it does, and not the process's end.
    pub(crate) async fn awaited(&self) -> bool {
        let mut fits = self.fits.subscribe();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            fits = fits.wait_for(|fits| *fits) => fits.is_ok(),
        }
    }

    /// The API server refused what it would not if the definition fitted: until it was looked at, nothing more is begun.
    pub(crate) fn doubt(&self) {
        self.fits.send_replace(false);
        self.doubted.notify_one();
    }

    /// Looks until the process ends. `scopes`: the namespaces whose resources are told why nothing happens; `None`: of all.
    pub(crate) async fn watch(&self, scopes: &[Option<String>]) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.look_until_it_fits(scopes) => {}
            }
            self.readiness.done(AWAITED);
            self.fits.send_replace(true);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.doubted.notified() => self.readiness.wait_for(AWAITED),
            }
        }
    }

    async fn look_until_it_fits(&self, scopes: &[Option<String>]) {
        let mut said = String::new();
        let mut pause = PAUSES.0;
        loop {
            let (why, misfit) = match timeout(API_TIMEOUT, self.look()).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(misfit))) => (misfit.to_string(), Some(misfit)),
                Ok(Err(error)) => (format!("the API server cannot be asked: {error}"), None),
                Err(_) => ("the API server did not answer".to_owned(), None),
            };
            self.readiness.because(AWAITED, &why);
            if why != said {
                tracing::error!(
                    why,
                    "nothing is attached: {AWAITED} is not known to fit; looking again"
                );
                if misfit.is_some_and(|misfit| misfit != Misfit::NotServed) {
                    self.tell(scopes, &why).await;
                }
                said = why;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        if !said.is_empty() {
            tracing::info!("{AWAITED} fits");
        }
    }

    /// One look. An API server that keeps its description to itself is believed to have the right definition.
    async fn look(&self) -> Result<Option<Misfit>, kube::Error> {
        let path = format!("/openapi/v3/apis/{}", ImageAttachment::api_version(&()));
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<Value>(request).await {
            Ok(described) => Ok(misfit(&api::crd(), &described)),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Some(Misfit::NotServed)),
            Err(kube::Error::Api(answer)) if answer.code == 401 || answer.code == 403 => {
                tracing::warn!(
                    error = answer.message,
                    "{AWAITED} cannot be looked at; taken for right"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells resources, by events, why nothing happens to them.
    async fn tell(&self, scopes: &[Option<String>], why: &str) {
        let events = Events::new(self.client.clone(), MANAGER, std::env::var("HOSTNAME").ok());
        let message = format!("nothing is attached: {why}");
        let note = Note {
            severity: Severity::Warning,
            reason: Reason::Progressing,
            message,
        };
        for scope in scopes {
            let api: Api<ImageAttachment> = match scope {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let told = timeout(API_TIMEOUT, async {
                for object in api
                    .list_metadata(&ListParams::default().limit(MOST_TOLD))
                    .await?
                {
                    events
                        .tell(&object.object_ref(&()), &note, Timestamp::now())
                        .await?;
                }
                Ok::<_, kube::Error>(())
            });
            match told.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "resources were not told of it by events"),
                Err(_) => tracing::warn!("not all resources were told of it by events in time"),
            }
        }
    }
}

/// What `described` (of OpenAPI) lacks of `wanted`.
fn misfit(wanted: &CustomResourceDefinition, described: &Value) -> Option<Misfit> {
    let is_ours = |schema: &&Value| {
        schema
            .pointer("/x-kubernetes-group-version-kind/0/kind")
            .and_then(Value::as_str)
            == Some(&*ImageAttachment::kind(&()))
    };
    let schemas = described
        .pointer("/components/schemas")
        .and_then(Value::as_object);
    let Some(served) = schemas.and_then(|schemas| schemas.values().find(is_ours)) else {
        return Some(Misfit::NotServed);
    };
    let paths = described.get("paths").and_then(Value::as_object);
    if !paths.is_some_and(|paths| {
        paths
            .keys()
            .any(|path| path.ends_with("/imageattachments/{name}/status"))
    }) {
        return Some(Misfit::NoStatus);
    }
    let wanted = serde_json::to_value(wanted).unwrap_or_default();
    let wanted = wanted
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status")
        .unwrap_or(&Value::Null);
    let mut lacking = Vec::new();
    match served.pointer("/properties/status") {
        Some(served) => compare(wanted, served, "status", &mut lacking),
        None => lacking.push("status".to_owned()),
    }
    (!lacking.is_empty()).then_some(Misfit::Older(lacking))
}

/// Adds the fields below `path`, and the values of them, that `served` does not know.
fn compare(wanted: &Value, served: &Value, path: &str, lacking: &mut Vec<String>) {
    if served.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        return;
    }
    for (name, wanted) in wanted
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.{name}");
        match served
            .get("properties")
            .and_then(|properties| properties.get(name))
        {
            Some(served) => compare(wanted, served, &path, lacking),
            None => lacking.push(path),
        }
    }
    if let (Some(wanted), Some(served)) = (wanted.get("items"), served.get("items")) {
        compare(wanted, served, &format!("{path}[]"), lacking);
    }
    if let Some(served) = choices(served) {
        let unknown = choices(wanted)
            .into_iter()
            .flatten()
            .filter(|choice| !served.contains(choice));
        lacking.extend(unknown.map(|choice| format!("{path}: {choice}")));
    }
}

/// The values that a schema allows; `None`: it does not say.
fn choices(schema: &Value) -> Option<&Vec<Value>> {
    schema
        .get("enum")
        .or_else(|| schema.pointer("/allOf/0/enum"))
        .and_then(Value::as_array)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As an API server describes this schema of status.
    fn described(status: &Value, path: &str) -> Value {
        let kinds =
            json!([{"group": "affix.dev", "kind": "ImageAttachment", "version": "v1alpha1"}]);
        json!({
            "paths": {format!("/apis/affix.dev/v1alpha1/namespaces/{{namespace}}/imageattachments/{{name}}{path}"): {}},
            "components": {"schemas": {
                "dev.affix.v1alpha1.ImageAttachment": {"properties": {"status": status}, "x-kubernetes-group-version-kind": kinds},
                "dev.affix.v1alpha1.ImageAttachmentList": {"x-kubernetes-group-version-kind": [{"kind": "ImageAttachmentList"}]},
            }},
        })
    }

    fn ours() -> Value {
        let crd = serde_json::to_value(api::crd()).unwrap();
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status")
            .unwrap()
            .clone()
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Option<Misfit> {
        let mut status = ours();
        change(&mut status);
        misfit(&api::crd(), &described(&status, "/status"))
    }

    #[test]
    fn a_definition_that_knows_as_much_or_more_fits() {
        assert_eq!(judged(|_| {}), None);
        let newer = |status: &mut Value| {
            status
                .pointer_mut("/properties")
                .unwrap()
                .as_object_mut()
                .unwrap()
                .insert("later".to_owned(), json!({"type": "string"}));
        };
        assert_eq!(judged(newer), None);
        let open = |status: &mut Value| {
            *status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
        };
        assert_eq!(judged(open), None);
    }

    #[test]
    fn a_field_a_field_of_a_row_and_a_value_that_are_not_known_are_named() {
        let without = |status: &mut Value| {
            let properties = status
                .pointer_mut("/properties")
                .unwrap()
                .as_object_mut()
                .unwrap();
            properties.remove("leftovers").unwrap();
            let rows = properties
                .get_mut("targets")
                .unwrap()
                .pointer_mut("/items/properties")
                .unwrap();
            rows.as_object_mut().unwrap().remove("content").unwrap();
            let state = rows.pointer_mut("/state").unwrap();
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
        let mut lacking = match judged(without).unwrap() {
            Misfit::Older(lacking) => lacking,
            other => unreachable!("{other:?}"),
        };
        lacking.sort();
        assert_eq!(
            lacking,
            [
                "status.leftovers",
                "status.targets[].content",
                "status.targets[].state: \"Planned\""
            ]
        );
        let said = Misfit::Older((0..7).map(|nth| format!("status.f{nth}")).collect()).to_string();
        assert!(
            said.contains("status.f4 and 2 more: upgrade it (affix crd | kubectl apply"),
            "{said}"
        );
    }

    #[test]
    fn a_resource_without_a_status_of_its_own_and_one_that_is_not_there_are_told_apart() {
        assert_eq!(
            misfit(&api::crd(), &described(&ours(), "")),
            Some(Misfit::NoStatus)
        );
        assert_eq!(
            misfit(
                &api::crd(),
                &json!({"paths": {}, "components": {"schemas": {}}})
            ),
            Some(Misfit::NotServed)
        );
        assert_eq!(misfit(&api::crd(), &json!({})), Some(Misfit::NotServed));
    }
}
