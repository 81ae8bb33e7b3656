//! The nodes, pods and resources of a cluster.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kube::Client;
use serde::Deserialize;

use super::finding::Answers;
use super::pages::for_each;
use super::pod::ListedPod;
use super::running::RunningImages;
use super::signer::{ListedSigner, Signers};
use crate::service::ApiServerError;
use affix_registry::oci::Platform;

/// The number of pods in a page. A pod seldom has more than 20 KB.
const PODS: u32 = 200;
/// The number of nodes in a page. A node lists its images and has about 20 KB.
const NODES: u32 = 100;
/// The number of ImageAttachments in a page. A resource can have 1.5 MB.
const ATTACHMENTS: u32 = 16;
/// The number of times that a list of pods is read, because its pages expire on a busy API server.
const TRIES: usize = 3;

/// The namespaces that are read. `None`: all of them at once.
pub(crate) type Scopes = [Option<String>];

/// A node of a list.
#[derive(Deserialize)]
struct ListedNode {
    #[serde(default)]
    metadata: NodeMetadata,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeMetadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeStatus {
    node_info: Option<NodeInfo>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    operating_system: String,
    architecture: String,
}

impl ListedNode {
    fn platform(&self) -> Option<Platform> {
        let label = |name: &str| {
            let labels = self.metadata.labels.as_ref()?;
            labels.get(name).cloned().filter(|value| !value.is_empty())
        };
        let info = self.status.node_info.as_ref();
        let reported = |of: fn(&NodeInfo) -> &String| {
            info.map(|info| of(info).clone())
                .filter(|value| !value.is_empty())
        };
        Some(Platform {
            os: reported(|info| &info.operating_system).or_else(|| label("kubernetes.io/os"))?,
            architecture: reported(|info| &info.architecture)
                .or_else(|| label("kubernetes.io/arch"))?,
            ..Platform::default()
        })
    }
}

/// Returns the platforms of the nodes, by name.
///
/// # Errors
/// The nodes cannot be listed.
pub(crate) async fn read_platforms(
    client: &Client,
) -> Result<HashMap<String, Arc<Platform>>, ApiServerError> {
    let mut known: HashSet<Arc<Platform>> = HashSet::new();
    let mut nodes = HashMap::new();
    for_each(client, "/api/v1/nodes", NODES, |node: ListedNode| {
        let Some(platform) = node.platform().map(Arc::new) else {
            return;
        };
        let platform = known.get(&platform).cloned().unwrap_or(platform);
        known.insert(Arc::clone(&platform));
        nodes.insert(node.metadata.name, platform);
    })
    .await?;
    Ok(nodes)
}

/// Returns the running images of the pods in `scopes`.
///
/// # Errors
/// The pods cannot be listed.
pub(crate) async fn read_images(
    client: &Client,
    scopes: &Scopes,
    nodes: &HashMap<String, Arc<Platform>>,
) -> Result<RunningImages, ApiServerError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut running = RunningImages::on(nodes.clone());
        let read = async {
            for scope in scopes {
                let path = collection("/api/v1", scope.as_deref(), "pods");
                for_each(client, &path, PODS, |pod: ListedPod| running.add(&pod)).await?;
            }
            Ok::<(), ApiServerError>(())
        };
        match read.await {
            Ok(()) => return Ok(running),
            // The rest of an expired list may not fit to its first pages.
            Err(error) if error.code() == Some(410) && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the resources in `scopes` that sign the running images or their platforms.
///
/// # Errors
/// The resources cannot be listed.
pub(crate) async fn read_signers(
    client: &Client,
    scopes: &Scopes,
    running: &RunningImages,
    answers: &Answers,
) -> Result<Signers, ApiServerError> {
    let mut signers = Signers::of(running.iter().flat_map(|(key, _)| {
        let report = answers.get(key).and_then(|answer| answer.as_ref().ok());
        let platforms = report.into_iter().flat_map(|report| &report.platforms);
        let platforms = platforms.map(|platform| platform.digest.clone());
        let manifests = key.digest.clone().into_iter().chain(platforms);
        manifests.map(move |digest| (key.name.to_string(), digest))
    }));
    for scope in scopes {
        let path = collection(
            "/apis/affix.dev/v1alpha1",
            scope.as_deref(),
            "imageattachments",
        );
        for_each(client, &path, ATTACHMENTS, |signer: ListedSigner| {
            signers.add(&signer);
        })
        .await?;
    }
    Ok(signers)
}

/// Returns the path of a collection.
fn collection(group: &str, scope: Option<&str>, plural: &str) -> String {
    match scope {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}
