//! A namespace of the shared control plane, and the configurations that send its objects to one webhook.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use affix::api::{ImageAttachment, crd_yaml};
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::run::Ran;
use affix_testbed::tools::Tools;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// How long a test waits for one thing to become true.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
const CONFIGURATIONS: &str = include_str!("../../config/webhook/configurations.yaml");

/// A test's own place.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) tools: Tools,
    pub(crate) plane: &'static ControlPlane,
    pub(crate) client: Client,
}

impl Place {
    /// A new namespace with these labels.
    pub(crate) async fn new(about: &str, labels: Value) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let tools = Tools::core().await.unwrap();
        let plane = ControlPlane::shared(&tools).await.unwrap();
        Self::on(plane, &INSTALLED, tools, about, labels).await
    }

    /// A new namespace of a control plane that knows the resource once `installed` is set.
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
                    .kubectl_with(["apply", "--server-side", "-f", "-"], crd_yaml())
                    .await
                    .unwrap()
                    .stdout()
                    .unwrap();
                wait("the resource", async || {
                    let wait = [
                        "wait",
                        "--for=condition=Established",
                        "--timeout=60s",
                        "crd/imageattachments.affix.dev",
                    ];
                    plane.kubectl(wait).await.unwrap().stdout().is_ok()
                })
                .await;
            })
            .await;
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let place = Self {
            name: format!("{about}-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            tools,
            plane,
            client,
        };
        place.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.name, "labels": labels}})).await.unwrap();
        place
    }

    /// Runs kubectl in the namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Ran {
        self.plane
            .kubectl(["--namespace", &self.name].iter().chain(args).copied())
            .await
            .unwrap()
    }

    /// Applies an object in the namespace, and says what kubectl printed, warnings first; or why it was refused.
    pub(crate) async fn apply(&self, object: &Value) -> Result<String, String> {
        self.apply_with(object, &[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn apply_with(&self, object: &Value, more: &[&str]) -> Result<String, String> {
        let args = [
            "--namespace",
            &self.name,
            "apply",
            "--server-side",
            "-f",
            "-",
        ];
        said(
            self.plane
                .kubectl_with(args.iter().chain(more).copied(), object.to_string())
                .await
                .unwrap(),
        )
    }

    /// Asks the API server to take an ImageAttachment as it stands, without keeping it.
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

    /// An ImageAttachment.
    pub(crate) fn attachment(name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
    }

    /// A pod of one container, with more fields of its spec.
    pub(crate) fn pod(name: &str, image: &str, spec: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": image}]}});
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        pod
    }

    /// What the API server does with a pod that nobody keeps: what it says, or why it refuses.
    pub(crate) async fn try_pod(&self, image: &str, spec: Value) -> Result<String, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tried-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.apply(&Self::pod(&name, image, spec)).await
    }

    /// Sends the namespace's objects to `address`, by the configurations that ship, and waits for their caBundle.
    pub(crate) async fn configure(&self, address: &str) {
        self.configure_as(&self.name, address).await;
    }

    /// The same by configurations of another name.
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
                for expression in hook["namespaceSelector"]["matchExpressions"]
                    .as_array_mut()
                    .unwrap()
                {
                    if expression["key"] == "kubernetes.io/metadata.name" {
                        *expression = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.name]});
                    }
                }
            }
            self.apply(&configuration).await.unwrap();
        }
        for kind in [
            "validatingwebhookconfiguration",
            "mutatingwebhookconfiguration",
        ] {
            wait("the caBundle", async || {
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
        // The API server learns of a configuration a moment after it was written.
        let odd = Self::attachment(
            "probe",
            &json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}}),
        );
        wait("the first refusal", async || {
            self.apply_with(&odd, &["--dry-run=server"]).await.is_err()
        })
        .await;
    }
}

/// What a command printed, errors and warnings first; or its failure.
pub(crate) fn said(ran: Ran) -> Result<String, String> {
    let text = format!("{}{}", ran.err, ran.out);
    if ran.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// Waits until something holds.
pub(crate) async fn wait(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(POLL).await;
    }
}
