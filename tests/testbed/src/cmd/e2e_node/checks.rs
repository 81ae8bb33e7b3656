//! The checks, in order. Each is one sentence in the output.

use std::time::Instant;

use affix_testbed::tools::Tool;
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::lab::{Lab, ROLLOUT, SYSTEM, line};
use super::traffic::Traffic;

const CRDS: [&str; 2] = [
    "customresourcedefinition.apiextensions.k8s.io/imageattachments.affix.dev",
    "customresourcedefinition.apiextensions.k8s.io/imageattachmentsets.affix.dev",
];

/// Kinds that no release owns: the API server itself registers an APIService for each CRD.
const UNOWNED: [&str; 3] = ["apiservices", "bindings", "events"];

pub(super) const ENDED: &str = "reached end of life on 2025-03-20";

/// Runs a check and prints its name with its time.
macro_rules! check {
    ($lab:ident, $name:literal, $check:ident) => {{
        let began = Instant::now();
        $lab.$check().await.context(concat!("failed: ", $name))?;
        line($name, began);
    }};
}

impl Lab {
    pub(super) async fn all(&mut self) -> anyhow::Result<()> {
        check!(
            self,
            "the chart is installed with default values under restricted Pod Security",
            install
        );
        check!(
            self,
            "helm test passes, and its log names the refusal",
            helm_test
        );
        check!(self, "two ImageAttachments become Ready", attachments);
        check!(self, "cosign verifies the signature", cosign);
        self.note_memory("after the first signature")?;
        check!(
            self,
            "the API server refuses an invalid ImageAttachment through the Service",
            refusal
        );
        check!(
            self,
            "a pod with an old image runs with a warning in a warning namespace",
            warn
        );
        check!(
            self,
            "a pod with an old image is refused in an enforcing namespace",
            enforce
        );
        check!(
            self,
            "a tag is replaced with its digest, and the kubelet runs that digest",
            pin
        );
        check!(
            self,
            "kubectl debug runs a good image and is refused an old one",
            debug
        );
        check!(
            self,
            "a label, set env, rollout restart and scale warn that pods will be refused",
            outage
        );
        check!(
            self,
            "a pod with two old containers can be repaired and debugged",
            repair
        );
        check!(self, "a label on kube-system refuses no pod", system);
        check!(self, "an upgrade sets failurePolicy Fail", fail);
        let traffic = self.traffic()?;
        let rolled = self.rollouts().await;
        let calls = traffic.stop().await?;
        rolled?;
        self.note_calls(&calls)?;
        self.note_memory("at the end")?;
        check!(
            self,
            "tightened flags stop neither a suspension nor an exempt image",
            tighten
        );
        check!(self, "an uninstall leaves only the CRDs", uninstall);
        Ok(())
    }

    async fn install(&mut self) -> anyhow::Result<()> {
        self.kubectl(&format!("create namespace {SYSTEM}")).await?;
        self.kubectl(&format!(
            "label namespace {SYSTEM} pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted"
        ))
        .await?;
        let installed = self
            .helm(&format!(
                "install affix CHART --set image.repository={} --wait {ROLLOUT}",
                self.repository
            ))
            .await?;
        let warnings = installed.err.clone();
        installed.stdout()?;
        ensure!(!warnings.contains("PodSecurity"), "{warnings}");
        Ok(())
    }

    async fn helm_test(&mut self) -> anyhow::Result<()> {
        let tested = self
            .helm(&format!("test affix --logs {ROLLOUT}"))
            .await?
            .stdout()?;
        ensure!(
            tested.contains("Succeeded")
                && tested.contains("it refused an invalid ImageAttachment"),
            "{tested}"
        );
        Ok(())
    }

    async fn attachments(&mut self) -> anyhow::Result<()> {
        self.kubectl("create namespace apps").await?;
        self.tool(Tool::Cosign, ["generate-key-pair", "k8s://apps/cosign-key"])
            .await?
            .stdout()?;
        self.apply(&format!(
            "apiVersion: affix.dev/v1alpha1
kind: ImageAttachment
metadata: {{name: signed, namespace: apps}}
spec:
  image: {}
  signature: {{cosign: {{keySecretRef: {{name: cosign-key}}}}}}
---
apiVersion: affix.dev/v1alpha1
kind: ImageAttachment
metadata: {{name: ended, namespace: apps}}
spec:
  image: {}
  endOfLife: {{date: \"2025-03-20T01:20:30Z\"}}
",
            self.good.tagged(),
            self.old.pinned()
        ))
        .await?;
        self.kubectl(
            "wait --namespace apps --for=condition=Ready --timeout=60s imageattachment/signed imageattachment/ended",
        )
        .await
        .map(drop)
    }

    async fn cosign(&mut self) -> anyhow::Result<()> {
        let verify = async |image: &str| {
            let args = [
                "verify",
                "--key",
                "k8s://apps/cosign-key",
                "--insecure-ignore-tlog",
                image,
            ];
            self.tool(Tool::Cosign, args).await
        };
        verify(&self.good.tagged()).await?.stdout()?;
        let unsigned = verify(&self.old.tagged()).await?.failure()?;
        ensure!(unsigned.contains("no signatures found"), "{unsigned}");
        Ok(())
    }

    async fn refusal(&mut self) -> anyhow::Result<()> {
        let invalid = attachment("registry.example.com/Team/app:v1");
        let applied = self
            .cluster()
            .kubectl_with(["apply", "-f", "-"], invalid.to_string());
        let text = applied.await?.failure()?;
        ensure!(
            text.contains("admission webhook \"imageattachments.affix.dev\" denied the request")
                && text.contains("repository \"Team/app\" is malformed"),
            "{text}"
        );
        Ok(())
    }

    async fn warn(&mut self) -> anyhow::Result<()> {
        self.kubectl("create namespace shop").await?;
        self.kubectl("label namespace shop affix.dev/end-of-life=warn")
            .await?;
        let (old, good) = (self.old.tagged(), self.good.tagged());
        self.until("warning", async || {
            let ran = self
                .kubectl_ran(&format!(
                    "run old --namespace shop --image {old} --restart Never"
                ))
                .await?;
            if ran.err.contains(&format!("Warning: image {old} {ENDED}")) {
                return Ok(Ok(()));
            }
            self.kubectl("delete pod old --namespace shop --ignore-not-found --now")
                .await?;
            Ok(Err(format!("{}{}", ran.out, ran.err)))
        })
        .await?;
        let ran = self
            .kubectl_ran(&format!("run good --namespace shop --image {good}"))
            .await?;
        ensure!(!ran.err.contains("Warning"), "{}", ran.err);
        ran.stdout()?;
        self.kubectl(&format!(
            "wait --namespace shop --for=condition=Ready pod/old pod/good {ROLLOUT}"
        ))
        .await
        .map(drop)
    }

    async fn enforce(&mut self) -> anyhow::Result<()> {
        self.kubectl("label --overwrite namespace shop affix.dev/end-of-life=enforce")
            .await?;
        let command = format!("run refused --namespace shop --image {}", self.old.tagged());
        let text = self
            .until("refusal", async || {
                let ran = self.kubectl_ran(&command).await?;
                if !ran.status.success() {
                    return Ok(Ok(ran.err));
                }
                self.kubectl("delete pod refused --namespace shop --now")
                    .await?;
                Ok(Err(ran.err))
            })
            .await?;
        ensure!(
            text.contains("admission webhook \"pods.affix.dev\" denied the request")
                && text.contains(ENDED),
            "{text}"
        );
        Ok(())
    }

    async fn pin(&mut self) -> anyhow::Result<()> {
        self.kubectl("create namespace pinned").await?;
        self.kubectl("label namespace pinned affix.dev/resolve-digests=enabled")
            .await?;
        let command = format!(
            "run app --namespace pinned --image {} --output json",
            self.good.tagged()
        );
        let image = self
            .until("digest", async || {
                let ran = self.kubectl_ran(&command).await?;
                if !ran.status.success() {
                    return Ok(Err(ran.err));
                }
                let pod = ran.json()?;
                let image = text(&pod, "/spec/containers/0/image");
                if image.contains('@') {
                    return Ok(Ok(image));
                }
                self.kubectl("delete pod app --namespace pinned --now")
                    .await?;
                Ok(Err(image))
            })
            .await?;
        let digest = self.good.pinned();
        let digest = digest.rsplit('@').next().unwrap_or_default();
        ensure!(image.ends_with(digest), "{image}");
        self.kubectl(&format!(
            "wait --namespace pinned --for=condition=Ready pod/app {ROLLOUT}"
        ))
        .await?;
        let pod = self
            .kubectl_ran("get pod app --namespace pinned --output json")
            .await?
            .json()?;
        let running = text(&pod, "/status/containerStatuses/0/imageID");
        ensure!(
            running.ends_with(digest),
            "the kubelet runs {running}, not {digest}"
        );
        Ok(())
    }

    async fn debug(&mut self) -> anyhow::Result<()> {
        let debug = async |image: &str| {
            self.kubectl_ran(&format!(
                "debug good --namespace shop --image {image} --container debugger --attach=false --profile=general"
            ))
            .await
        };
        let refused = debug(&self.old.tagged()).await?.failure()?;
        ensure!(refused.contains(ENDED), "{refused}");
        debug(&self.good.tagged()).await?.stdout()?;
        let state = "jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}";
        let command = format!("wait pod/good --namespace shop --for={state} --timeout=60s");
        self.kubectl(&command).await.map(drop)
    }

    async fn fail(&mut self) -> anyhow::Result<()> {
        self.upgrade("").await
    }

    /// Upgrades the release with failurePolicy Fail and more values. The time-out is long, because this machine may be slow.
    pub(super) async fn upgrade(&self, values: &str) -> anyhow::Result<()> {
        let command = format!(
            "upgrade affix CHART --set image.repository={} --set webhook.failurePolicy=Fail --set webhook.timeoutSeconds=10 {values} --wait {ROLLOUT}",
            self.repository
        );
        self.helm(&command).await?.stdout().map(drop)
    }

    /// Starts requests that every webhook must answer.
    fn traffic(&self) -> anyhow::Result<Traffic> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "call-"},
            "spec": {"containers": [{"name": "app", "image": self.good.tagged()}]}
        });
        Traffic::start(
            self.cluster(),
            vec![
                ("/api/v1/namespaces/shop/pods".to_owned(), pod.clone()),
                ("/api/v1/namespaces/pinned/pods".to_owned(), pod),
                (
                    "/apis/affix.dev/v1alpha1/namespaces/apps/imageattachments".to_owned(),
                    attachment(&self.good.tagged()),
                ),
            ],
        )
    }

    async fn rollouts(&mut self) -> anyhow::Result<()> {
        check!(self, "webhook and controller restart", restart);
        check!(self, "the node is drained", drain);
        check!(self, "an upgrade runs another image", next);
        check!(self, "a rollback runs the first image", rollback);
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        self.kubectl(&format!("rollout restart deployment --namespace {SYSTEM}"))
            .await?;
        self.rolled_out().await
    }

    async fn rolled_out(&self) -> anyhow::Result<()> {
        for component in ["webhook", "controller"] {
            self.kubectl(&format!(
                "rollout status deployment/affix-{component} --namespace {SYSTEM} {ROLLOUT}"
            ))
            .await?;
        }
        Ok(())
    }

    /// A drain evicts the pods one by one, as the PodDisruptionBudget allows. There is only this node for their successors, so it becomes
    /// schedulable again during the drain.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let node = self.node.name();
        let old = self.pods().await?;
        let drain = format!("drain {node} --pod-selector app.kubernetes.io/name=affix {ROLLOUT}");
        let uncordon = async {
            self.until("cordon", async || {
                let found = self
                    .kubectl(&format!(
                        "get node {node} --output jsonpath={{.spec.unschedulable}}"
                    ))
                    .await?;
                Ok(if found == "true" { Ok(()) } else { Err(found) })
            })
            .await?;
            self.until("eviction", async || {
                let left = self.pods().await?;
                Ok(if old.iter().all(|name| left.contains(name)) {
                    Err(left.join(" "))
                } else {
                    Ok(())
                })
            })
            .await?;
            self.kubectl(&format!("uncordon {node}")).await
        };
        let (drained, _) = tokio::try_join!(self.kubectl(&drain), uncordon)?;
        ensure!(drained.contains("drained"), "{drained}");
        self.rolled_out().await?;
        let left = self.pods().await?;
        ensure!(
            !old.iter().any(|name| left.contains(name)),
            "{old:?} {left:?}"
        );
        Ok(())
    }

    /// The names of the pods of the Deployments.
    pub(super) async fn pods(&self) -> anyhow::Result<Vec<String>> {
        let names = self
            .kubectl(&format!(
                "get pods --namespace {SYSTEM} --selector pod-template-hash --output name"
            ))
            .await?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    async fn next(&mut self) -> anyhow::Result<()> {
        self.upgrade("--set image.tag=next").await?;
        self.runs(":next").await
    }

    async fn rollback(&mut self) -> anyhow::Result<()> {
        self.helm(&format!("rollback affix 2 --wait {ROLLOUT}"))
            .await?
            .stdout()?;
        self.runs(&format!(":{}", env!("CARGO_PKG_VERSION"))).await
    }

    /// Waits until all pods of the Deployments run the image with a tag.
    async fn runs(&self, tag: &str) -> anyhow::Result<()> {
        self.rolled_out().await?;
        self.until("pods of one image", async || {
            let images = self
                .kubectl(&format!(
                    "get pods --namespace {SYSTEM} --selector pod-template-hash --output jsonpath={{.items[*].spec.containers[*].image}}"
                ))
                .await?;
            let all = images.split_whitespace().all(|image| image.ends_with(tag));
            Ok(if all && !images.is_empty() { Ok(()) } else { Err(images) })
        })
        .await
    }

    async fn uninstall(&mut self) -> anyhow::Result<()> {
        self.kubectl("delete imageattachments --all --namespace apps --timeout=60s")
            .await?;
        self.helm(&format!("uninstall affix --wait {ROLLOUT}"))
            .await?
            .stdout()?;
        // Helm keeps the pods of tests, as docs/install.md says.
        self.kubectl(&format!(
            "delete pod affix-test --namespace {SYSTEM} --ignore-not-found"
        ))
        .await?;
        self.until_left(&CRDS).await?;
        self.kubectl(
            "delete crd imageattachments.affix.dev imageattachmentsets.affix.dev --timeout=60s",
        )
        .await?;
        self.until_left(&[]).await?;
        Ok(())
    }

    async fn until_left(&self, expected: &[&str]) -> anyhow::Result<()> {
        self.until("end of the release", async || {
            let left = self.leftovers().await?;
            Ok(if left == expected {
                Ok(())
            } else {
                Err(left.join("\n"))
            })
        })
        .await
    }

    /// All objects with affix in their names, and all objects of its namespace that Kubernetes does not create in every namespace.
    async fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        for namespaced in [true, false] {
            let kinds = self
                .kubectl(&format!(
                    "api-resources --verbs=list --namespaced={namespaced} --output name"
                ))
                .await?;
            let kinds: Vec<&str> = kinds
                .lines()
                .filter(|kind| !UNOWNED.iter().any(|unowned| kind.starts_with(unowned)))
                .collect();
            let place = if namespaced {
                format!("--namespace {SYSTEM}")
            } else {
                String::new()
            };
            let found = self
                .kubectl(&format!(
                    "get {} {place} --output name --ignore-not-found",
                    kinds.join(",")
                ))
                .await?;
            let ours = |name: &&str| {
                if namespaced {
                    !["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(name)
                } else {
                    name.contains("affix") && *name != format!("namespace/{SYSTEM}")
                }
            };
            left.extend(found.lines().filter(ours).map(str::to_owned));
        }
        Ok(left)
    }
}

/// A valid ImageAttachment for an image, as far as the schema knows.
fn attachment(image: &str) -> Value {
    json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
        "metadata": {"name": "call", "namespace": "apps"},
        "spec": {"image": image, "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}
    })
}

fn text(object: &Value, path: &str) -> String {
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
