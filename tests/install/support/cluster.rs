//! A control plane of one test's own: the objects that are installed here are the cluster's.

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

/// How long a test waits for one thing to become true.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// How often it looks.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A control plane, a client and helm.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) helm: Helm,
}

impl Cluster {
    /// A new control plane with the namespace to install in, which warns of pods that break the restricted profile.
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

    /// A namespace for resources.
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

    /// An object as the API server has it.
    pub(crate) async fn get(&self, what: &[&str]) -> Value {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what);
        serde_json::from_str(&self.kubectl(&args).await).unwrap()
    }

    /// Installs the chart. The API server has warned of nothing.
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

    /// Waits until the API server serves the resource.
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

    /// The resources of a namespace.
    pub(crate) fn attachments(&self, namespace: &str) -> Api<ImageAttachment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Whether a service account of the installation may do something.
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

    /// Waits until a permission is there, or is gone: the API server learns of a changed role a moment later.
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

/// One verb on one resource, or on one object of it, in a namespace or everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) namespace: Option<String>,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) verb: String,
}
