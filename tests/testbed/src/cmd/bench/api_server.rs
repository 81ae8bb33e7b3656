//! Plain requests to the API server: quicker than a kubectl process for each of ten thousand objects.

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::http_client;
use anyhow::{Context, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::lab::{Lab, resource};

const RESOURCES: &str = "/apis/affix.dev/v1alpha1/namespaces/default/imageattachments";
const SETS: &str = "/apis/affix.dev/v1alpha1/namespaces/default/imageattachmentsets";
/// Requests at once when much is created.
const AT_ONCE: usize = 16;

/// A client of the administrator.
pub(super) struct ApiServer {
    client: reqwest::Client,
    url: String,
    token: &'static str,
}

impl ApiServer {
    /// A control plane's, with affix's definition in it.
    pub(super) async fn of(lab: &Lab, cluster: &ControlPlane) -> anyhow::Result<Self> {
        let definition = affix_testbed::run::Run::new(&lab.affix)
            .args(["crd"])
            .output()
            .await?
            .stdout()?;
        cluster
            .kubectl_with(["apply", "--server-side", "-f", "-"], definition)
            .await?
            .stdout()?;
        cluster
            .kubectl([
                "wait",
                "--for=condition=Established",
                "crd/imageattachments.affix.dev",
                "crd/imageattachmentsets.affix.dev",
            ])
            .await?
            .stdout()?;
        Ok(Self {
            client: http_client::client(Some(cluster.ca_pem()))?,
            url: cluster.url(),
            token: cluster.admin_token(),
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let answer = request.bearer_auth(self.token).send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        if !status.is_success() {
            bail!(
                "the API server answered {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Creates resources, many at once.
    pub(super) async fn create(
        &self,
        specs: impl IntoIterator<Item = (String, Value)>,
    ) -> anyhow::Result<()> {
        futures::stream::iter(specs)
            .map(|(name, spec)| async move { self.create_in(RESOURCES, &resource(&name, &spec)).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Creates a set.
    pub(super) async fn create_set(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "metadata": {"name": name}, "spec": spec
        });
        self.create_in(SETS, &object).await
    }

    /// Creates any object.
    pub(super) async fn create_in(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        self.send(request.body(object.to_string())).await.map(drop)
    }

    /// Changes one resource.
    pub(super) async fn patch(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let request = self
            .client
            .patch(format!("{}{RESOURCES}/{name}", self.url))
            .header("content-type", "application/merge-patch+json");
        self.send(request.body(json!({"spec": spec}).to_string()))
            .await
            .map(drop)
    }

    /// Refuses what the API server does not say as well: that so many resources are ready.
    pub(super) async fn confirm_ready(&self, count: usize) -> anyhow::Result<()> {
        let (ready, example) = self.count_ready().await?;
        if ready < count {
            bail!("{ready} of {count} resources are ready; one that is not: {example}");
        }
        Ok(())
    }

    /// How many are ready, by the columns that kubectl prints, which cost the API server less than the resources.
    async fn count_ready(&self) -> anyhow::Result<(usize, String)> {
        let request = self.client.get(format!(
            "{}{RESOURCES}?resourceVersion=0&includeObject=None",
            self.url
        ));
        let table = self
            .send(request.header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1"))
            .await?;
        let list = |name: &str| {
            table
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let column = list("columnDefinitions")
            .iter()
            .position(|column| column.get("name").is_some_and(|name| name == "Ready"));
        let column = column.context("a column Ready")?;
        let cells: Vec<Value> = list("rows")
            .iter()
            .filter_map(|row| row.get("cells").cloned())
            .collect();
        let (ready, other): (Vec<&Value>, Vec<&Value>) = cells
            .iter()
            .partition(|cells| cells.get(column).is_some_and(|ready| ready == "True"));
        Ok((
            ready.len(),
            other.first().map(ToString::to_string).unwrap_or_default(),
        ))
    }
}
