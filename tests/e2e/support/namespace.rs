//! A namespace of the shared control plane: one test's own place, so that tests run side by side.
//!
//! Owns: making objects, waiting for what the controller says about them, and the check of the status rules on all that is left.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use affix::api::{
    ConditionType, ImageAttachment, ImageAttachmentStatus, Reason, check_status_rules, crds_yaml,
    find_condition,
};
use affix_testbed::certificates::Signer;
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::tools::Tools;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// How long a test waits for one thing to become true, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
/// How often it looks.
pub(crate) const POLL: Duration = Duration::from_millis(40);
/// The annotation that asks for a pass now.
pub(crate) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// A namespace, and a client for it.
#[derive(Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) tools: Tools,
    pub(crate) plane: &'static ControlPlane,
    pub(crate) client: Client,
}

impl Namespace {
    /// A new namespace. The first call of the process starts the control plane and installs the resource.
    pub(crate) async fn new(about: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let tools = Tools::core().await.unwrap();
        let plane = ControlPlane::shared(&tools).await.unwrap();
        INSTALLED
            .get_or_init(|| async {
                plane
                    .kubectl_with(["apply", "--server-side", "-f", "-"], crds_yaml())
                    .await
                    .unwrap()
                    .stdout()
                    .unwrap();
                // kubectl fails at once where the conditions are not there yet at all.
                let wait = [
                    "wait",
                    "--for=condition=Established",
                    "--timeout=60s",
                    "crd/imageattachments.affix.dev",
                    "crd/imageattachmentsets.affix.dev",
                ];
                let deadline = Instant::now() + PATIENCE;
                while let Err(error) = plane.kubectl(wait).await.unwrap().stdout() {
                    assert!(Instant::now() < deadline, "{error:#}");
                    sleep(POLL).await;
                }
            })
            .await;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let name = format!("{about}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = Self {
            name,
            tools,
            plane,
            client: Client::try_from(config).unwrap(),
        };
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}});
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(namespace.client.clone());
        api.create(
            &kube::api::PostParams::default(),
            &serde_json::from_value(object).unwrap(),
        )
        .await
        .unwrap();
        namespace
    }

    /// The resources of this namespace.
    pub(crate) fn attachments(&self) -> Api<ImageAttachment> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies any object, as a user does who writes YAML.
    pub(crate) async fn apply_object(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.name);
        let kind = object["kind"].as_str().unwrap().to_owned();
        let (group, version) = object["apiVersion"]
            .as_str()
            .unwrap()
            .split_once('/')
            .unwrap_or(("", object["apiVersion"].as_str().unwrap()));
        let plural = format!("{}s", kind.to_lowercase());
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: object["apiVersion"].as_str().unwrap().to_owned(),
            kind,
            plural,
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &resource);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let applied = api
            .patch(
                &name,
                &PatchParams::apply("e2e").force(),
                &Patch::Apply(&object),
            )
            .await;
        applied.unwrap_or_else(|error| panic!("{object} was not taken: {error}"));
    }

    /// Applies an ImageAttachment.
    pub(crate) async fn apply(&self, name: &str, spec: Value) {
        self.apply_object(json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec
        }))
        .await;
    }

    /// Applies a ConfigMap.
    pub(crate) async fn config_map(&self, name: &str, data: Value) {
        self.apply_object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})).await;
    }

    /// Applies a Secret.
    pub(crate) async fn secret(&self, name: &str, data: Value) {
        self.apply_object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})).await;
    }

    /// Applies a Secret with a signing key and its certificates.
    pub(crate) async fn tls(&self, name: &str, signer: &Signer) {
        self.apply_object(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.key": signer.key, "tls.crt": signer.chain}
        }))
        .await;
    }

    /// Applies a Secret with one login, as `kubectl create secret docker-registry` makes it.
    pub(crate) async fn login(&self, name: &str, host: &str, user: &str, password: &str) {
        let config = json!({"auths": {host: {"username": user, "password": password}}}).to_string();
        self.apply_object(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config}
        }))
        .await;
    }

    /// Gives the service account `affix` of this namespace these rights in it.
    pub(crate) async fn apply_rbac(&self, rules: Value) {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "affix"}, "rules": rules});
        self.apply_object(role).await;
        self.apply_object(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "affix"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "affix"},
            "subjects": [{"kind": "ServiceAccount", "name": "affix", "namespace": self.name}],
        }))
        .await;
    }

    /// A resource as it is now.
    pub(crate) async fn get(&self, name: &str) -> ImageAttachment {
        self.attachments().get(name).await.unwrap()
    }

    /// A resource's status as it is now; the default where it has none.
    pub(crate) async fn status(&self, name: &str) -> ImageAttachmentStatus {
        self.get(name).await.status.unwrap_or_default()
    }

    /// Deletes a resource and waits until it is gone. The garbage collector of another test may have deleted it with its owner.
    pub(crate) async fn delete(&self, name: &str) {
        let deleted = self
            .attachments()
            .delete(name, &DeleteParams::default())
            .await;
        match deleted {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.unwrap()),
        }
        self.gone(name).await;
    }

    /// Waits until a resource that was deleted is gone.
    pub(crate) async fn gone(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.attachments().get_opt(name).await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "{name} is not gone");
            sleep(POLL).await;
        }
    }

    /// Waits until `holds` holds of a resource.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ImageAttachment) -> bool,
    ) -> ImageAttachment {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = self.get(name).await;
            if holds(&object) {
                return object;
            }
            if Instant::now() > deadline {
                let status = serde_json::to_string_pretty(&object.status).unwrap();
                panic!(
                    "{}/{name} is not {what} after {PATIENCE:?} but\n{status}",
                    self.name
                );
            }
            sleep(POLL).await;
        }
    }

    /// Waits until a resource is Ready in its present generation.
    pub(crate) async fn ready(&self, name: &str) -> ImageAttachmentStatus {
        self.wait(name, "Ready", is_ready).await.status.unwrap()
    }

    /// Waits until Ready is False for this reason in the present generation; answers with its message.
    pub(crate) async fn refused(&self, name: &str, reason: Reason) -> String {
        let object = self
            .wait(name, &format!("{reason}"), |object| {
                ready(object).is_some_and(|ready| ready == ("False", reason.as_str()))
            })
            .await;
        message(&object)
    }

    /// Waits until the operator has seen that the present generation is suspended; answers with the status.
    pub(crate) async fn suspended(&self, name: &str) -> ImageAttachmentStatus {
        let is_seen = |object: &ImageAttachment| {
            let status = object.status.as_ref();
            object.spec.suspend()
                && status.map(|status| status.observed_generation) == object.metadata.generation
        };
        let object = self.wait(name, "suspended", is_seen).await;
        object.status.unwrap_or_default()
    }

    /// Asks for a pass now and waits until it is done.
    pub(crate) async fn request(&self, name: &str, token: &str) {
        self.ask(name, token).await;
        self.done(name, token).await;
    }

    /// Asks for a pass now.
    pub(crate) async fn ask(&self, name: &str, token: &str) {
        let patch = json!({"metadata": {"annotations": {REQUESTED_AT: token}}});
        self.attachments()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Waits until the pass that was asked for is done.
    pub(crate) async fn done(&self, name: &str, token: &str) {
        self.wait(name, "done with the request", |object| {
            object
                .status
                .as_ref()
                .and_then(|status| status.last_handled_reconcile_at.as_deref())
                == Some(token)
        })
        .await;
    }

    /// The events about a resource so far: type, reason, note.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        let events = api
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter();
        let about = events.filter(|event| {
            event
                .regarding
                .as_ref()
                .and_then(|about| about.name.as_deref())
                == Some(name)
        });
        about
            .map(|event| {
                (
                    event.type_.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    event.note.unwrap_or_default(),
                )
            })
            .collect()
    }

    /// Waits for an event of this reason; answers with its type and note.
    pub(crate) async fn event(&self, name: &str, reason: Reason) -> (String, String) {
        self.told(name, reason, |_, _| true).await
    }

    /// Waits for an event of this reason whose type and note are `right`.
    pub(crate) async fn told(
        &self,
        name: &str,
        reason: Reason,
        right: impl Fn(&str, &str) -> bool,
    ) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events(name).await;
            if let Some((kind, _, note)) = events
                .iter()
                .find(|(kind, found, note)| found == reason.as_str() && right(kind, note))
            {
                return (kind.clone(), note.clone());
            }
            assert!(
                Instant::now() < deadline,
                "no such event {reason} about {name}, only {events:?}"
            );
            sleep(POLL).await;
        }
    }

    /// Checks the rules of status on every resource that is left in this namespace. A pass may be under way, so a breach counts
    /// only if it stays.
    pub(crate) async fn check_rules(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let objects = self
                .attachments()
                .list(&ListParams::default())
                .await
                .unwrap()
                .items;
            let broken: Vec<(String, Vec<String>)> = objects
                .iter()
                .map(|object| (object.name_any(), check_status_rules(object)))
                .filter(|(_, broken)| !broken.is_empty())
                .collect();
            if broken.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "status breaks its rules: {broken:#?}\n{objects:#?}"
            );
            sleep(POLL).await;
        }
    }
}

/// Status and reason of Ready, where it speaks of the present generation.
pub(crate) fn ready(object: &ImageAttachment) -> Option<(&str, &str)> {
    let status = object.status.as_ref()?;
    if Some(status.observed_generation) != object.metadata.generation {
        return None;
    }
    find_condition(&status.conditions, ConditionType::Ready)
        .map(|ready| (ready.status.as_str(), ready.reason.as_str()))
}

/// Whether Ready is True in the present generation.
pub(crate) fn is_ready(object: &ImageAttachment) -> bool {
    ready(object).is_some_and(|(status, _)| status == "True")
}

/// What Ready says.
pub(crate) fn message(object: &ImageAttachment) -> String {
    says(object.status.as_ref().unwrap(), ConditionType::Ready)
}

/// What a condition says; empty where it is absent.
pub(crate) fn says(status: &ImageAttachmentStatus, kind: ConditionType) -> String {
    find_condition(&status.conditions, kind)
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}
