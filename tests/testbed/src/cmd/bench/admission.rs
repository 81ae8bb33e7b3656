//! The webhooks on one core: how long an answer takes at a steady rate, and what they add to a request of the API server.
//!
//! A call is measured from when it was due, so a queue that builds up is not hidden. The callers have the other cores.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use affix_testbed::certificates::Authority;
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::images::{Image, Index};
use affix_testbed::process::{Launch, Process};
use affix_testbed::{http_client, port};
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use super::Effort;
use super::api_server::ApiServer;
use super::lab::Lab;
use super::table::{Series, Unit, seconds};

const TASKSET: &str = "/usr/bin/taskset";
/// How long the webhook may take to answer first.
const START: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "measured";

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let cluster = ControlPlane::start(&lab.tools).await?;
    ApiServer::of(lab, &cluster).await?;
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"affix.dev/end-of-life": "warn"}}});
    cluster
        .kubectl_with(["apply", "-f", "-"], labelled.to_string())
        .await?
        .stdout()?;
    let index = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let image = index
        .push(&lab.modern.registry.raw()?, &lab.repository(), "v1")
        .await?;
    // As the schema lets them through and code refuses: a good one has its registry asked, which is measured apart.
    let refused = attachment("registry.example.com/Team/app:v1", false);
    let kinds = [
        ("ImageAttachment", "validate-imageattachment", &refused),
        (
            "Pod, its image pinned and known",
            "validate-pods",
            &pod(&image.pinned()),
        ),
        (
            "Pod, its tag looked up each time",
            "validate-pods",
            &pod(&image.tagged()),
        ),
    ];

    let (length, rates) = if effort.smoke {
        (Duration::from_millis(500), [20, 50])
    } else {
        (Duration::from_secs(10), [500, 2000])
    };
    let webhook = Webhook::start(lab, &cluster).await?;
    let mut page =
        "| review | calls | p50 | p99 | answered |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for (what, path, object) in kinds {
        for rate in rates {
            let calls = webhook.at_rate(path, &review(object), rate, length).await;
            let took = calls
                .iter()
                .flatten()
                .fold(Series::default(), |mut took, call| {
                    took.push(seconds(*call));
                    took
                });
            let answered = calls.iter().flatten().count();
            page += &format!(
                "| {what} | {rate} a second | {} | {} of {} |\n",
                columns(&took),
                answered,
                calls.len()
            );
        }
    }

    page += "\n| created by the API server, one after the other | webhooks | p50 | p99 |\n| --- | --- | --- | --- |\n";
    let count = if effort.smoke { 5 } else { 500 };
    let good = attachment(&image.pinned(), true);
    let creations = [
        (
            "ImageAttachment",
            "apis/affix.dev/v1alpha1",
            "imageattachments",
            &good,
        ),
        ("Pod", "api/v1", "pods", kinds[1].2),
    ];
    let server = Server {
        client: http_client::client(Some(cluster.ca_pem()))?,
        cluster: &cluster,
    };
    for with in [false, true] {
        if with {
            server.configure(&webhook).await?;
        }
        for (what, group, plural, object) in creations {
            let mut took = Series::default();
            for _ in 0..count {
                took.push(seconds(server.create(group, plural, object).await?));
            }
            page += &format!(
                "| {what} | {} | {} |\n",
                if with { "with" } else { "without" },
                columns(&took)
            );
        }
    }
    Ok(page)
}

fn columns(took: &Series) -> String {
    format!(
        "{} | {}",
        Unit::Milliseconds.write(took.percentile(0.5)),
        Unit::Milliseconds.write(took.percentile(0.99))
    )
}

fn attachment(image: &str, insecure: bool) -> Value {
    let artifact = json!({"artifactType": "application/vnd.demo", "annotations": {"a": "b"}});
    json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "measured"},
        "spec": {"image": image, "insecure": insecure, "artifact": artifact}
    })
}

fn pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "measured"}, "spec": {"containers": [{"name": "main", "image": image}]}
    })
}

fn kind(object: &Value) -> &str {
    object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn review(object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4", "kind": {"group": "", "version": "v1", "kind": kind(object)},
            "resource": {"group": "", "version": "v1", "resource": "x"}, "name": "measured", "namespace": NAMESPACE, "operation": "CREATE",
            "userInfo": {"username": "admin"}, "object": object
        }
    })
    .to_string()
}

/// `affix webhook` on one core, where the system can do that. It ends with its value.
struct Webhook {
    process: Process,
    url: String,
    authority: Authority,
    callers: reqwest::Client,
}

impl Webhook {
    async fn start(lab: &Lab, cluster: &ControlPlane) -> anyhow::Result<Self> {
        let dir = lab.peer.file("webhook");
        std::fs::create_dir_all(&dir)?;
        let authority = Authority::new()?;
        authority.server(&dir)?;
        let address = format!("127.0.0.1:{}", port::free()?);
        let log = lab.peer.file("webhook.log");
        let launch = if PathBuf::from(TASKSET).exists() {
            Launch::new("affix webhook", TASKSET, log)
                .args(["-c", "0"])
                .arg(&lab.affix)
        } else {
            Launch::new("affix webhook", &lab.affix, log)
        };
        let flags = [
            "webhook",
            "--allow-loopback",
            "--cache-ttl=1h",
            "--metrics-addr=0",
            "--health-addr=0",
            "--listen-addr",
            &address,
        ];
        let process = launch
            .args(flags)
            .args(["--insecure-registries", lab.modern.registry.host()])
            .arg("--certificate-dir")
            .arg(&dir)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("RUST_LOG", "warn")
            .start(&lab.tools)?;
        let callers = http_client::multiplexing(authority.pem())?;
        let mut webhook = Self {
            process,
            url: format!("https://{address}"),
            authority,
            callers,
        };
        let began = Instant::now();
        while webhook
            .call("validate-pods", &review(&pod("nginx")))
            .await
            .is_none()
        {
            if let Some(status) = webhook.process.ended()? {
                bail!(
                    "the webhook ended with {status}:\n{}",
                    webhook.process.log()?
                );
            }
            if began.elapsed() > START {
                bail!(
                    "the webhook does not answer after {START:?}:\n{}",
                    webhook.process.log()?
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(webhook)
    }

    /// Whether a call is answered.
    async fn call(&self, path: &str, body: &str) -> Option<()> {
        let answer = self
            .callers
            .post(format!("{}/{path}", self.url))
            .body(body.to_owned())
            .send()
            .await
            .ok()?
            .bytes()
            .await
            .ok()?;
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        answer.pointer("/response/uid")?.is_string().then_some(())
    }

    /// So many calls a second, whether or not those before have been answered.
    async fn at_rate(
        &self,
        path: &str,
        body: &str,
        rate: u32,
        length: Duration,
    ) -> Vec<Option<Duration>> {
        // Known from the first call on.
        self.call(path, body).await;
        let began = tokio::time::Instant::now();
        let pace = Duration::from_secs(1) / rate;
        let calls = (0..)
            .map(|nth| began + pace * nth)
            .take_while(|due| *due < began + length);
        futures::future::join_all(calls.map(|due| async move {
            sleep_until(due).await;
            self.call(path, body).await.map(|()| due.elapsed())
        }))
        .await
    }
}

/// The API server.
struct Server<'a> {
    client: reqwest::Client,
    cluster: &'a ControlPlane,
}

impl Server<'_> {
    /// Has it ask the webhook.
    async fn configure(&self, webhook: &Webhook) -> anyhow::Result<()> {
        let bundle = STANDARD.encode(webhook.authority.pem());
        let hook = |name: &str, path: &str, groups: &str, versions: &str, resource: &str| {
            json!({
                "name": name, "clientConfig": {"url": format!("{}/{path}", webhook.url), "caBundle": bundle}, "sideEffects": "None",
                "rules": [{"apiGroups": [groups], "apiVersions": [versions], "resources": [resource], "operations": ["CREATE"]}],
                "admissionReviewVersions": ["v1"], "timeoutSeconds": 2, "failurePolicy": "Fail"
            })
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "measured"},
            "webhooks": [
                hook("imageattachments.affix.dev", "validate-imageattachment", "affix.dev", "v1alpha1", "imageattachments"),
                hook("pods.affix.dev", "validate-pods", "", "v1", "pods")
            ]
        });
        self.cluster
            .kubectl_with(["apply", "-f", "-"], configuration.to_string())
            .await?
            .stdout()?;
        // It learns of it by a watch.
        sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    /// Creates an object without keeping it.
    async fn create(&self, group: &str, plural: &str, object: &Value) -> anyhow::Result<Duration> {
        let url = format!(
            "{}/{group}/namespaces/{NAMESPACE}/{plural}?dryRun=All",
            self.cluster.url()
        );
        let began = Instant::now();
        let request = self
            .client
            .post(url)
            .bearer_auth(self.cluster.admin_token())
            .header("content-type", "application/json");
        let answer = request.body(object.to_string()).send().await?;
        let (status, text) = (
            answer.status(),
            answer.text().await.context("an answer of the API server")?,
        );
        if !status.is_success() {
            bail!("the API server does not take a {}: {text}", kind(object));
        }
        Ok(began.elapsed())
    }
}
