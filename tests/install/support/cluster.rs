//! A control plane for one test, because the tests install cluster-wide objects.

use std::time::{Duration, Instant};

use affix::api::ImageAttachment;
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::tools::Tools;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::helm::{Helm, NAMESPACE};

/// Maximum time that a test waits for one condition.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Interval between two checks of a condition.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A control plane with a client and helm.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) helm: Helm,
}

impl Cluster {
    /// Starts a control plane. The namespace of affix warns about pods that violate the Pod Security profile `restricted`.
    pub(crate) async fn new() -> Self {
        let plane = ControlPlane::start(&Tools::core().await.unwrap())
            .await
            .unwrap();
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let helm = Helm::of(plane.kubeconfig()).await;
        let cluster = Self {
            plane,
            client: Client::try_from(config).unwrap(),
            helm,
        };
        let labels = json!({"pod-security.kubernetes.io/warn": "restricted"});
        let metadata = json!({"name": NAMESPACE, "labels": labels});
        cluster
            .apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})])
            .await;
        cluster
    }

    /// Creates a namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        self.kubectl(&["create", "namespace", name]).await;
    }

    /// Applies objects as the administrator.
    pub(crate) async fn apply(&self, objects: &[Value]) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        self.plane
            .kubectl_with(["apply", "--server-side", "-f", "-"], list)
            .await
            .unwrap()
            .stdout()
            .unwrap()
    }

    /// Runs kubectl as the administrator.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.plane
            .kubectl(args.iter().copied())
            .await
            .unwrap()
            .stdout()
            .unwrap()
    }

    /// Returns an object from the API server.
    pub(crate) async fn get(&self, what: &[&str]) -> Value {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what);
        serde_json::from_str(&self.kubectl(&args).await).unwrap()
    }

    /// Installs the chart, and fails on a warning of the API server.
    pub(crate) async fn install(&self, values: &[&str]) {
        let ran = self.helm.release("install", values).await;
        let warnings = ran.err.clone();
        ran.stdout().unwrap();
        assert!(
            !warnings.to_lowercase().contains("warning") && !warnings.contains("PodSecurity"),
            "{warnings}"
        );
        self.established().await;
    }

    /// Waits until the API server serves ImageAttachments.
    pub(crate) async fn established(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self
            .attachments("default")
            .list(&ListParams::default())
            .await
            .is_err()
        {
            assert!(Instant::now() < deadline, "the resource is not served");
            sleep(POLL).await;
        }
    }

    /// Returns the API of the ImageAttachments of a namespace.
    pub(crate) fn attachments(&self, namespace: &str) -> Api<ImageAttachment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Returns true if a ServiceAccount of the installation has a permission.
    pub(crate) async fn allows(&self, account: &str, permission: &Permission) -> bool {
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let (resource, subresource) = permission
            .resource
            .split_once('/')
            .unwrap_or((&permission.resource, ""));
        let attributes = ResourceAttributes {
            namespace: permission.namespace.clone(),
            group: Some(permission.group.clone()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            name: permission.name.clone(),
            verb: Some(permission.verb.clone()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{NAMESPACE}:{account}")),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        api.create(&PostParams::default(), &review)
            .await
            .unwrap()
            .status
            .unwrap()
            .allowed
    }

    /// Waits until a permission is granted or revoked. The API server applies a changed role with a delay.
    pub(crate) async fn until_allowed(&self, account: &str, permission: &Permission, wanted: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.allows(account, permission).await != wanted {
            assert!(
                Instant::now() < deadline,
                "{permission:?} is not {wanted} for {account}"
            );
            sleep(POLL).await;
        }
    }
}

/// One verb on one resource or object, in a namespace or in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) namespace: Option<String>,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) verb: String,
}
