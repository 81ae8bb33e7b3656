//! The controller and the webhook as processes with the arguments, the environment and the ServiceAccount of their Deployments.

use std::time::{Duration, Instant};

use affix::api::{ConditionType, ImageAttachment, ImageAttachmentSet, SET_LABEL, find_condition};
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::port;
use affix_testbed::process::{Launch, Process};
use affix_testbed::tools::Tools;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::cluster::{Cluster, PATIENCE, POLL};
use crate::support::helm::NAMESPACE;
use crate::support::mount::Mount;

/// The resource with `deletionPolicy: Delete`.
pub(crate) const MORTAL: &str = "mortal";
/// The set, with one child.
const SET: &str = "releases";
/// The Deployment of the controller.
pub(crate) const DEPLOYMENT: &str = "affix-controller";

/// The Deployment of the webhook.
pub(crate) const WEBHOOK: &str = "affix-webhook";

/// Returns values with free ports and with registries on loopback addresses.
pub(crate) fn values_for_here() -> Vec<String> {
    let ports = [
        "controller.ports.metrics",
        "controller.ports.health",
        "webhook.ports.metrics",
        "webhook.ports.health",
        "webhook.ports.webhook",
    ];
    let ports = ports
        .into_iter()
        .map(|value| format!("{value}={}", port::free().unwrap()));
    ports
        .chain(["registries.allowLoopback=true".to_owned()])
        .collect()
}

/// A running controller or webhook.
pub(crate) struct Operator {
    process: Process,
    /// The port of the probes.
    health: u16,
    /// The port of the webhooks, if the process has one.
    webhooks: Option<u16>,
    mounts: Vec<Mount>,
    watches: bool,
    _dir: TempDir,
}

impl Operator {
    /// Starts the process of a Deployment. With `watches`, it must be allowed to watch Secrets and ConfigMaps.
    pub(crate) async fn start(cluster: &Cluster, deployment: &str, watches: bool) -> Self {
        Self::start_in(cluster, NAMESPACE, deployment, watches).await
    }

    /// Starts the process of a Deployment in another namespace.
    pub(crate) async fn start_in(
        cluster: &Cluster,
        namespace: &str,
        deployment: &str,
        watches: bool,
    ) -> Self {
        let deployment = cluster
            .get(&["deployment", deployment, "--namespace", namespace])
            .await;
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let account = pod["serviceAccountName"].as_str().unwrap();
        let kubeconfig = cluster
            .plane
            .service_account_kubeconfig(namespace, account)
            .await
            .unwrap();
        let dir = tempfile::Builder::new()
            .prefix("affix-installed-")
            .tempdir()
            .unwrap();
        let mut args: Vec<String> = container["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| arg.as_str().unwrap().to_owned())
            .collect();
        let (mut mounts, mut paths) = (Vec::new(), Vec::new());
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let name = volume["name"].as_str().unwrap();
            let mounted = container["volumeMounts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|mount| mount["name"] == name)
                .unwrap();
            let (path, here) = (
                mounted["mountPath"].as_str().unwrap(),
                dir.path().join(name),
            );
            mounts.push(Mount::new(cluster, namespace, volume, &here).await);
            paths.push((path.to_owned(), here.to_str().unwrap().to_owned()));
        }
        // The folders stand in for the pod's own file system.
        let local = |text: &str| {
            paths.iter().fold(text.to_owned(), |text, (path, here)| {
                text.replace(path, here)
            })
        };
        args.iter_mut().for_each(|arg| *arg = local(arg));
        let mut launch = Launch::new(
            "the installed affix",
            env!("CARGO_BIN_EXE_affix"),
            dir.path().join("log"),
        )
        .args(args.iter().cloned())
        // Replaces the token and the address of the API server in a pod.
        .env("KUBECONFIG", kubeconfig)
        .orphans_folder(dir.path());
        for variable in container["env"].as_array().unwrap() {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => local(variable["value"].as_str().unwrap()),
                Some("metadata.namespace") => namespace.to_owned(),
                Some(other) => panic!("the tests do not know the field {other}"),
            };
            launch = launch.env(variable["name"].as_str().unwrap(), value);
        }
        let process = launch.start(&Tools::core().await.unwrap()).unwrap();
        let port = |flag: &str| {
            args.iter()
                .find_map(|arg| arg.strip_prefix(flag))
                .map(|port| port.parse().unwrap())
        };
        let (health, webhooks) = (port("--health-addr=:").unwrap(), port("--listen-addr=:"));
        Self {
            process,
            health,
            webhooks,
            mounts,
            watches,
            _dir: dir,
        }
    }

    /// Returns the port of the webhooks.
    pub(crate) fn webhooks(&self) -> u16 {
        self.webhooks.unwrap()
    }

    /// Updates the mounted files, as the kubelet does some time after a change.
    pub(crate) async fn remount(&self, cluster: &Cluster) {
        for mount in &self.mounts {
            mount.update(cluster).await;
        }
    }

    /// Returns the requests that the API server has rejected so far as an error.
    fn unrefused(&self) -> Result<(), String> {
        let log = self.process.log().unwrap().replace('\\', "");
        let rotation = |line: &str| {
            [
                "reconcile.fluxcd.io/watch=Enabled is not permitted",
                "cannot list resource",
                "cannot watch resource",
            ]
            .iter()
            .any(|part| line.contains(part))
        };
        let refused = |line: &&str| {
            if rotation(line) {
                self.watches
            } else {
                line.contains("orbidden")
            }
        };
        let refusals: Vec<&str> = log.lines().filter(refused).collect();
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(refusals.join("\n"))
        }
    }

    /// Returns the log.
    pub(crate) fn log(&self) -> String {
        self.process.log().unwrap()
    }

    /// Returns status and text of `/readyz`.
    pub(crate) async fn readyz(&self) -> Result<(u16, String), String> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.health))
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((
            status,
            answer.text().await.map_err(|error| error.to_string())?,
        ))
    }

    /// Waits until `/readyz` succeeds.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        // Kubelets use IPv4 or IPv6.
        for host in ["127.0.0.1", "[::1]"] {
            self.wait(|| async {
                let answer = reqwest::get(format!("http://{host}:{}/readyz", self.health)).await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    Ok(())
                } else {
                    Err(format!("it is not ready at {host}"))
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until `holds` succeeds. A rejected request of the process is an error.
    pub(crate) async fn wait<F: Future<Output = Result<(), String>>>(
        &self,
        holds: impl Fn() -> F,
    ) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.unrefused()?;
            let Err(why) = holds().await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(format!("{why}\n{}", self.process.log().unwrap()));
            }
            sleep(POLL).await;
        }
    }

    /// Stops the process with SIGTERM.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        let status = self.process.stop().await.unwrap();
        self.unrefused()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{status}\n{}", self.process.log().unwrap()))
        }
    }
}

/// Work for a controller: a registry with an image, and resources in a namespace.
pub(crate) struct Job<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    registry: HostileRegistry,
    /// True if the controller may read Secrets, and watch them.
    needs_secrets: bool,
    watches: bool,
}

impl<'a> Job<'a> {
    pub(crate) async fn new(cluster: &'a Cluster, namespace: &'a str) -> Self {
        let registry = HostileRegistry::start().await.unwrap();
        registry
            .image("team/app", "v1")
            .platforms(["linux/amd64", "linux/arm64"])
            .push();
        Self {
            cluster,
            namespace,
            registry,
            needs_secrets: true,
            watches: true,
        }
    }

    /// Pushes another image to the tag and returns its digest.
    pub(crate) fn move_tag(&self) -> String {
        self.registry
            .image("team/app", "v1")
            .platforms(["linux/amd64", "linux/arm64"])
            .seed("another")
            .push()
            .digest
    }

    /// Omits the resources that need a Secret.
    pub(crate) fn without_secrets(mut self) -> Self {
        self.needs_secrets = false;
        self
    }

    /// Expects rejected watches of Secrets and ConfigMaps.
    pub(crate) fn without_watching(mut self) -> Self {
        self.watches = false;
        self
    }

    /// Returns resources with files from a ConfigMap, with a login from a Secret and from a ServiceAccount.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let metadata = |name: &str| json!({"name": name, "namespace": self.namespace});
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("files"), "data": {"note.txt": "a note"}}),
        ];
        let mut attachment = |name: &str, fields: Value| {
            let mut spec = json!({
                "image": self.registry.reference("team/app:v1"), "insecure": true,
                "artifact": {"artifactType": format!("application/vnd.demo.{name}"), "filesFrom": [{"configMapRef": {"name": "files"}}]},
            });
            spec.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            objects.push(json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": metadata(name), "spec": spec}));
        };
        attachment("anonymous", json!({}));
        let template =
            json!({"insecure": true, "artifact": {"artifactType": "application/vnd.demo.set"}});
        let set = json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": metadata(SET),
            "spec": {"repositories": [self.registry.reference("team/app")], "template": {"spec": template}},
        });
        attachment(MORTAL, json!({"deletionPolicy": "Delete"}));
        if self.needs_secrets {
            attachment("login", json!({"secretRef": {"name": "login"}}));
            attachment("account", json!({"serviceAccountName": "builder"}));
            let config = json!({"auths": {"registry.example.com": {"username": "ci", "password": "secret"}}}).to_string();
            objects.extend([
                json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": metadata("login"), "type": "kubernetes.io/dockerconfigjson",
                    "stringData": {".dockerconfigjson": config},
                }),
                json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("builder"),
                    "imagePullSecrets": [{"name": "login"}],
                }),
            ]);
        }
        objects.push(set);
        objects
    }

    /// Runs a new controller until the work is done. The error has the rejected request or the missing result.
    pub(crate) async fn run(&self) -> Result<(), String> {
        let done = self.run_and_keep().await;
        self.clear().await;
        done.map(drop)
    }

    /// Does the same, keeps the resources, and returns the number of target rows of each.
    pub(crate) async fn run_and_keep(&self) -> Result<Vec<usize>, String> {
        let operator = Operator::start(self.cluster, DEPLOYMENT, self.watches).await;
        self.run_by(&operator).await?;
        operator.stop().await?;
        let objects = self
            .cluster
            .attachments(self.namespace)
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        Ok(objects
            .iter()
            .map(|object| {
                object
                    .status
                    .as_ref()
                    .map_or(0, |status| status.targets.len())
            })
            .collect())
    }

    /// Waits until a running controller has done the work. The resources stay.
    pub(crate) async fn run_by(&self, operator: &Operator) -> Result<(), String> {
        self.cluster.apply(&self.objects()).await;
        operator.ready().await?;
        let api: Api<ImageAttachment> = self.cluster.attachments(self.namespace);
        operator.wait(|| all_attached(&api)).await?;
        // The controller records an event after it has written the status.
        operator
            .wait(|| async {
                let told: Vec<String> = self
                    .events()
                    .await
                    .into_iter()
                    .filter_map(|event| event.regarding?.name)
                    .collect();
                let objects = api
                    .list(&ListParams::default())
                    .await
                    .map_err(|error| error.to_string())?;
                let untold: Vec<String> = objects
                    .iter()
                    .map(ResourceExt::name_any)
                    .filter(|name| !told.contains(name))
                    .collect();
                if untold.is_empty() {
                    Ok(())
                } else {
                    Err(format!("no event about {untold:?}"))
                }
            })
            .await?;
        // A repeated event raises the count of the first one.
        for suspend in [true, false, true, false] {
            let patch = json!({"spec": {"suspend": suspend}});
            api.patch("anonymous", &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
            operator
                .wait(|| async {
                    let object = api
                        .get("anonymous")
                        .await
                        .map_err(|error| error.to_string())?;
                    let observed = object.status.map(|status| status.observed_generation);
                    if observed == object.metadata.generation {
                        all_attached(&api).await
                    } else {
                        Err(format!("suspend: {suspend}"))
                    }
                })
                .await?;
        }
        operator
            .wait(|| async {
                let counted = self
                    .events()
                    .await
                    .iter()
                    .any(|event| event.series.as_ref().is_some_and(|series| series.count > 1));
                if counted {
                    Ok(())
                } else {
                    Err("no event has come again".to_owned())
                }
            })
            .await?;
        api.delete(MORTAL, &DeleteParams::default()).await.unwrap();
        operator
            .wait(|| async {
                if api.get_opt(MORTAL).await.unwrap().is_some() {
                    Err(format!("{MORTAL} stays"))
                } else {
                    Ok(())
                }
            })
            .await?;
        self.run_set(operator, &api).await
    }

    /// Waits until the set is ready, and until it has deleted its child once its tag is no longer selected.
    async fn run_set(&self, operator: &Operator, api: &Api<ImageAttachment>) -> Result<(), String> {
        let sets = self.sets();
        let counts = |wanted: &'static str| {
            let sets = &sets;
            async move {
                let set = sets.get(SET).await.map_err(|error| error.to_string())?;
                let found = set
                    .status
                    .as_ref()
                    .and_then(|status| status.ready.as_deref());
                if found == Some(wanted) {
                    Ok(())
                } else {
                    Err(format!("{:#?}", set.status))
                }
            }
        };
        operator.wait(|| counts("1/1")).await?;
        let patch = json!({"spec": {"tags": {"include": ["none-*"]}}});
        sets.patch(SET, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        operator.wait(|| counts("0/0")).await?;
        let children = ListParams::default().labels(&format!("{SET_LABEL}={SET}"));
        operator
            .wait(|| async {
                let left = api
                    .list(&children)
                    .await
                    .map_err(|error| error.to_string())?;
                if left.items.is_empty() {
                    Ok(())
                } else {
                    Err("the child stays".to_owned())
                }
            })
            .await
    }

    fn sets(&self) -> Api<ImageAttachmentSet> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    async fn events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Removes the resources, their events and the Lease.
    pub(crate) async fn clear(&self) {
        let api = self.cluster.attachments(self.namespace);
        if api.get_opt(MORTAL).await.unwrap().is_some() {
            // The test has stopped its controller.
            let patch = json!({"metadata": {"finalizers": null}});
            api.patch(MORTAL, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
        }
        let (params, all) = (DeleteParams::default(), ListParams::default());
        self.sets().delete_collection(&params, &all).await.unwrap();
        api.delete_collection(&params, &all).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        leases
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .unwrap();
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        events
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !api
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
        {
            assert!(
                Instant::now() < deadline,
                "something blocks the deletion of a resource"
            );
            sleep(POLL).await;
        }
    }
}

async fn all_attached(api: &Api<ImageAttachment>) -> Result<(), String> {
    let objects = api
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let waiting: Vec<String> = objects
        .iter()
        .filter_map(|object| {
            let conditions = object
                .status
                .as_ref()
                .map(|status| status.conditions.as_slice())
                .unwrap_or_default();
            let ready = find_condition(conditions, ConditionType::Ready);
            if ready.is_some_and(|ready| ready.status == "True") {
                None
            } else {
                Some(format!("{}: {ready:?}", object.name_any()))
            }
        })
        .collect();
    if waiting.is_empty() && !objects.items.is_empty() {
        Ok(())
    } else {
        Err(waiting.join("\n"))
    }
}
