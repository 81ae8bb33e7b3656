//! Sets of attachments: their children, on a real API server and both kinds of registry.

mod children;
mod lifecycle;
mod rollout;
mod soak;
mod survival;

use affix::api::{
    ConditionType, ImageAttachment, ImageAttachmentSet, ImageAttachmentSetStatus, Reason,
    SET_LABEL, check_set_status_rules, find_condition,
};
use affix_testbed::hostile::{HostileRegistry, Image};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::images::SIGNATURE;
use crate::support::namespace::{Namespace, PATIENCE, POLL, REQUESTED_AT};

/// The sets of a namespace.
pub(crate) struct Sets<'a> {
    namespace: &'a Namespace,
    api: Api<ImageAttachmentSet>,
}

impl<'a> Sets<'a> {
    pub(crate) fn of(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            api: Api::namespaced(namespace.client.clone(), &namespace.name),
        }
    }

    pub(crate) async fn apply(&self, name: &str, spec: Value) {
        self.namespace
            .apply_object(json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": name}, "spec": spec
            }))
            .await;
    }

    pub(crate) async fn get(&self, name: &str) -> ImageAttachmentSet {
        self.api.get(name).await.unwrap()
    }

    pub(crate) async fn find(&self, name: &str) -> Option<ImageAttachmentSet> {
        self.api.get_opt(name).await.unwrap()
    }

    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(&patch);
        self.api
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, name: &str, params: DeleteParams) {
        self.api.delete(name, &params).await.unwrap();
    }

    /// Waits until `holds` holds of a set.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ImageAttachmentSet) -> bool,
    ) -> ImageAttachmentSet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let set = self.get(name).await;
            if holds(&set) {
                return set;
            }
            if Instant::now() > deadline {
                let status = serde_json::to_string_pretty(&set.status).unwrap();
                let children = self.children(name).await;
                panic!("set {name} is not {what}, but\n{status}\n{children:#?}");
            }
            sleep(POLL).await;
        }
    }

    /// Waits until a set is Ready with this count of children.
    pub(crate) async fn ready(&self, name: &str, count: &str) -> ImageAttachmentSetStatus {
        let is_ready = |set: &ImageAttachmentSet| {
            ready_of(set).is_some_and(|(status, _)| status == "True")
                && set.status.as_ref().unwrap().ready.as_deref() == Some(count)
        };
        let set = self
            .wait(name, &format!("Ready with {count}"), is_ready)
            .await;
        set.status.unwrap()
    }

    /// Waits until Ready is False for this reason; answers with its message.
    pub(crate) async fn refused(&self, name: &str, reason: Reason) -> String {
        let is_refused =
            |set: &ImageAttachmentSet| ready_of(set) == Some(("False", reason.as_str()));
        let set = self.wait(name, reason.as_str(), is_refused).await;
        let conditions = set.status.unwrap().conditions;
        let ready = find_condition(&conditions, ConditionType::Ready);
        ready.unwrap().message.clone()
    }

    /// Requests a pass and waits until it is done.
    pub(crate) async fn request(&self, name: &str, token: &str) {
        self.patch(
            name,
            json!({"metadata": {"annotations": {REQUESTED_AT: token}}}),
        )
        .await;
        self.wait(name, "done with the request", |set| {
            let status = set.status.as_ref();
            status.and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(token)
        })
        .await;
    }

    /// The children of a set by its label, sorted by image.
    pub(crate) async fn children(&self, name: &str) -> Vec<ImageAttachment> {
        let params = ListParams::default().labels(&format!("{SET_LABEL}={name}"));
        let mut children = self
            .namespace
            .attachments()
            .list(&params)
            .await
            .unwrap()
            .items;
        children.sort_by_key(|child| child.spec.image.clone());
        children
    }

    /// The child of an image.
    pub(crate) async fn child(&self, name: &str, digest: &str) -> Option<ImageAttachment> {
        let children = self.children(name).await;
        children
            .into_iter()
            .find(|child| child.spec.image.ends_with(digest))
    }

    /// Waits until the children are those of these images.
    pub(crate) async fn children_are(&self, name: &str, digests: &[&str]) {
        let mut wanted = digests.to_vec();
        wanted.sort_unstable();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = self.children(name).await;
            let mut found: Vec<&str> = (children.iter())
                .map(|child| child.spec.image.split_once('@').unwrap().1)
                .collect();
            found.sort_unstable();
            if found == wanted {
                return;
            }
            let set = self.get(name).await;
            assert!(
                Instant::now() < deadline,
                "children of {name}: {found:?}, not {wanted:?}\n{:#?}",
                set.status
            );
            sleep(POLL).await;
        }
    }

    /// Checks the rules of status on every set of the namespace. A pass may be under way, so a breach counts only if it stays.
    pub(crate) async fn check_rules(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sets = self.api.list(&ListParams::default()).await.unwrap().items;
            let broken: Vec<_> = (sets.iter())
                .map(|set| (set.name_any(), check_set_status_rules(set)))
                .filter(|(_, broken)| !broken.is_empty())
                .collect();
            if broken.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{broken:#?}\n{sets:#?}");
            sleep(POLL).await;
        }
    }
}

/// Status and reason of Ready, where it speaks of the present generation.
fn ready_of(set: &ImageAttachmentSet) -> Option<(&str, &str)> {
    let status = set.status.as_ref()?;
    if Some(status.observed_generation) != set.metadata.generation {
        return None;
    }
    let ready = find_condition(&status.conditions, ConditionType::Ready)?;
    Some((ready.status.as_str(), ready.reason.as_str()))
}

/// A release with two platforms of its own.
pub(crate) fn release(registry: &HostileRegistry, tag: &str) -> Image {
    registry
        .image("team/app", tag)
        .platforms(["linux/amd64", "linux/arm64"])
        .seed(tag)
        .push()
}

/// A set that attaches a note to each release of `team/app`.
pub(crate) fn notes(registry: &HostileRegistry, template: Value) -> Value {
    let mut spec = json!({
        "insecure": true,
        "artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": "hello"}},
    });
    let fields = template.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    json!({
        "repositories": [registry.reference("team/app")],
        "tags": {"semver": ">=1.0.0"},
        "interval": "1s",
        "template": {"spec": spec},
    })
}
