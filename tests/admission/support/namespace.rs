//! A namespace of the shared control plane, and webhook configurations for its objects.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use affix::api::{ImageAttachment, crds_yaml};
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::run::Ran;
use affix_testbed::tools::Tools;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// Time limit for a condition.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(50);
const CONFIGURATIONS: &str = include_str!("../../../config/webhook/configurations.yaml");

/// The namespace of one test.
#[derive(Clone)]
pub(crate) struct TestNamespace {
    pub(crate) name: String,
    pub(crate) tools: Tools,
    pub(crate) plane: &'static ControlPlane,
    pub(crate) client: Client,
}

impl TestNamespace {
    /// Creates a namespace with these labels.
    pub(crate) async fn new(about: &str, labels: Value) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let tools = Tools::core().await.unwrap();
        let plane = ControlPlane::shared(&tools).await.unwrap();
        Self::on(plane, &INSTALLED, tools, about, labels).await
    }

    /// Creates a namespace on a control plane, which gets the CRDs once, guarded by `installed`.
    pub(crate) async fn on(
        plane: &'static ControlPlane,
        installed: &OnceCell<()>,
        tools: Tools,
        about: &str,
        labels: Value,
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        installed
            .get_or_init(|| async {
                plane
                    .kubectl_with(["apply", "--server-side", "-f", "-"], crds_yaml())
                    .await
                    .unwrap()
                    .stdout()
                    .unwrap();
                wait_for("the resources", async || {
                    let wait_for = [
                        "wait",
                        "--for=condition=Established",
                        "--timeout=60s",
                        "crd/imageattachments.affix.dev",
                        "crd/imageattachmentsets.affix.dev",
                    ];
                    plane.kubectl(wait_for).await.unwrap().stdout().is_ok()
                })
                .await;
            })
            .await;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let namespace = Self {
            name: format!("{about}-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            tools,
            plane,
            client,
        };
        namespace.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": labels}})).await.unwrap();
        namespace
    }

    /// Runs kubectl in the namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Ran {
        self.plane
            .kubectl(["--namespace", &self.name].iter().chain(args).copied())
            .await
            .unwrap()
    }

    /// Applies an object. Returns the output of kubectl, warnings first, or the refusal.
    pub(crate) async fn apply(&self, object: &Value) -> Result<String, String> {
        self.apply_with(object, &[]).await
    }

    /// Applies an object with additional arguments.
    pub(crate) async fn apply_with(&self, object: &Value, more: &[&str]) -> Result<String, String> {
        let args = [
            "--namespace",
            &self.name,
            "apply",
            "--server-side",
            "-f",
            "-",
        ];
        output(
            self.plane
                .kubectl_with(args.iter().chain(more).copied(), object.to_string())
                .await
                .unwrap(),
        )
    }

    /// Creates an ImageAttachment as a dry run.
    pub(crate) async fn try_create(&self, spec: &Value) -> Result<(), String> {
        let resource = ApiResource::erase::<ImageAttachment>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &resource);
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let object = serde_json::from_value(Self::attachment("tried", spec)).unwrap();
        api.create(&params, &object)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Returns an ImageAttachment.
    pub(crate) fn attachment(name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
    }

    /// Returns a pod with one container and additional fields of its spec.
    pub(crate) fn pod(name: &str, image: &str, spec: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": image}]}});
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        pod
    }

    /// Applies a pod under a new name. Returns the output or the refusal.
    pub(crate) async fn try_pod(&self, image: &str, spec: Value) -> Result<String, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tried-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.apply(&Self::pod(&name, image, spec)).await
    }

    /// Installs the shipped configurations for the namespace, kube-system and `address`, and waits for their
    /// caBundle.
    pub(crate) async fn configure(&self, address: &str) {
        self.configure_as(&self.name, address).await;
    }

    /// Installs the shipped configurations under another name.
    pub(crate) async fn configure_as(&self, name: &str, address: &str) {
        for document in CONFIGURATIONS.split("\n---\n") {
            let mut configuration: Value = serde_saphyr::from_str(document).unwrap();
            configuration["metadata"]["name"] = json!(name);
            for hook in configuration["webhooks"].as_array_mut().unwrap() {
                let path = hook["clientConfig"]["service"]["path"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                hook["clientConfig"] = json!({"url": format!("https://{address}{path}")});
                // The shipped exemptions stay.
                let own = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.name, "kube-system"]});
                let selector = &mut hook["namespaceSelector"]["matchExpressions"];
                selector.as_array_mut().unwrap().push(own);
            }
            self.apply(&configuration).await.unwrap();
        }
        for kind in [
            "validatingwebhookconfiguration",
            "mutatingwebhookconfiguration",
        ] {
            wait_for("the caBundle", async || {
                let found = self
                    .kubectl(&["get", kind, name, "-o", "json"])
                    .await
                    .json()
                    .unwrap();
                found["webhooks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|hook| hook["clientConfig"]["caBundle"].is_string())
            })
            .await;
        }
        // The API server loads a configuration with a short delay.
        let invalid = Self::attachment(
            "probe",
            &json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}}),
        );
        wait_for("the first refusal", async || {
            self.apply_with(&invalid, &["--dry-run=server"])
                .await
                .is_err()
        })
        .await;
    }
}

/// Returns the output of a command, errors and warnings first, or its failure.
pub(crate) fn output(ran: Ran) -> Result<String, String> {
    let text = format!("{}{}", ran.err, ran.out);
    if ran.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// Waits until a condition holds.
pub(crate) async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        sleep(POLL).await;
    }
}
