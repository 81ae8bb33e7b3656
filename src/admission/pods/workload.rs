//! Pods and workloads: their images, node constraints and pull secrets. Pure.
//!
//! The types contain only the needed fields of a pod spec. A complete container struct takes a kilobyte
//! of memory for three bytes of JSON.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::admission::review::request::Metadata;
use affix_registry::oci::Platform;

/// Node labels for architecture and operating system, each with its deprecated name.
const ARCHITECTURE_LABELS: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// The reviewed parts of a pod or workload.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// True for a pod, false for a workload that creates pods.
    pub(crate) is_pod: bool,
    /// All images with their JSON pointers.
    pub(crate) images: Vec<ImageUse>,
    /// The node constraints.
    pub(crate) nodes: NodeConstraints,
    /// Names of the pull secrets.
    pub(crate) pull_secrets: Vec<String>,
}

/// A workload whose images or node constraints are new or changed.
#[derive(Debug)]
pub(crate) struct ChangedWorkload {
    pub(crate) workload: Workload,
    /// The workload before an update.
    pub(crate) old: Option<Workload>,
    pub(crate) metadata: Metadata,
}

impl ChangedWorkload {
    /// Returns whether `image` has a use that the old workload lacks. All images are new if the node
    /// constraints changed.
    pub(crate) fn is_new_image(&self, image: &str) -> bool {
        self.old.as_ref().is_none_or(|old| {
            self.workload.nodes != old.nodes
                || self
                    .workload
                    .images
                    .iter()
                    .any(|used| used.image == image && !old.images.contains(used))
        })
    }
}

/// An image in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageUse {
    /// The image as written.
    pub(crate) image: String,
    /// JSON pointer to the image.
    pub(crate) pointer: String,
}

/// The needed fields of a pod spec. Each list may be absent, null or empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    os: Option<NameRef>,
    image_pull_secrets: Option<Vec<NameRef>>,
}

#[derive(Deserialize)]
struct Container {
    image: Option<String>,
}

#[derive(Deserialize)]
struct Volume {
    image: Option<ImageVolume>,
}

#[derive(Deserialize)]
struct ImageVolume {
    reference: Option<String>,
}

#[derive(Deserialize)]
struct NameRef {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<Required>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    node_selector_terms: Option<Vec<NodeSelectorTerm>>,
}

/// An object or template with a `spec`.
#[derive(Deserialize)]
struct Spec<T> {
    spec: T,
}

#[derive(Deserialize)]
struct Template<T> {
    template: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobTemplate<T> {
    job_template: T,
}

/// Returns the pod spec of an object of `kind` and its JSON pointer.
fn pod_spec(kind: &str, object: &str) -> Option<(PodSpec, &'static str)> {
    type Workload = Spec<Template<Spec<PodSpec>>>;
    Some(match kind {
        "Pod" => (
            serde_json::from_str::<Spec<PodSpec>>(object).ok()?.spec,
            "/spec",
        ),
        "PodTemplate" => (
            serde_json::from_str::<Template<Spec<PodSpec>>>(object)
                .ok()?
                .template
                .spec,
            "/template/spec",
        ),
        "CronJob" => {
            let job = serde_json::from_str::<Spec<JobTemplate<Workload>>>(object)
                .ok()?
                .spec
                .job_template;
            (
                job.spec.template.spec,
                "/spec/jobTemplate/spec/template/spec",
            )
        }
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => (
            serde_json::from_str::<Workload>(object)
                .ok()?
                .spec
                .template
                .spec,
            "/spec/template/spec",
        ),
        _ => return None,
    })
}

impl Workload {
    /// Reads an object. Returns `None` for another kind, and for a malformed object, which the API
    /// server refuses itself.
    pub(crate) fn read(kind: &str, object: &RawValue) -> Option<Self> {
        let (spec, at) = pod_spec(kind, object.get())?;
        let nodes = NodeConstraints::of(&spec);
        let pull_secrets = spec
            .image_pull_secrets
            .iter()
            .flatten()
            .map(|secret| secret.name.clone())
            .collect();
        Some(Self {
            is_pod: kind == "Pod",
            images: images(spec, at),
            nodes,
            pull_secrets,
        })
    }

    /// Returns whether both have the same images in the same places and the same node constraints.
    pub(crate) fn has_same_images_and_nodes(&self, other: &Self) -> bool {
        self.images == other.images && self.nodes == other.nodes
    }
}

fn images(spec: PodSpec, at: &str) -> Vec<ImageUse> {
    let containers = |list: Option<Vec<Container>>, place: &'static str| {
        let images = list.into_iter().flatten().map(|container| container.image);
        images
            .enumerate()
            .map(move |(index, image)| (image, format!("{at}/{place}/{index}/image")))
    };
    let volumes = spec
        .volumes
        .into_iter()
        .flatten()
        .map(|volume| volume.image.and_then(|image| image.reference));
    let volumes = volumes
        .enumerate()
        .map(|(index, image)| (image, format!("{at}/volumes/{index}/image/reference")));
    containers(spec.containers, "containers")
        .chain(containers(spec.init_containers, "initContainers"))
        .chain(containers(spec.ephemeral_containers, "ephemeralContainers"))
        .chain(volumes)
        .filter_map(|(image, pointer)| {
            Some(ImageUse {
                image: image.filter(|image| !image.is_empty())?,
                pointer,
            })
        })
        .collect()
}

/// The architectures and operating systems of the nodes on which a pod can run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeConstraints {
    selected: Vec<NodeSelectorRequirement>,
    terms: Vec<NodeSelectorTerm>,
    os: Option<String>,
}

impl NodeConstraints {
    fn of(spec: &PodSpec) -> Self {
        let known = |key: &str| ARCHITECTURE_LABELS.contains(&key) || OS_LABELS.contains(&key);
        let selected = spec
            .node_selector
            .iter()
            .flatten()
            .filter(|(key, _)| known(key))
            .map(|(key, value)| NodeSelectorRequirement {
                key: key.clone(),
                operator: "In".to_owned(),
                values: Some(vec![value.clone()]),
            });
        let node = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let required = node.and_then(|node| {
            node.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let terms = required
            .and_then(|required| required.node_selector_terms.clone())
            .unwrap_or_default();
        Self {
            selected: selected.collect(),
            terms,
            os: spec.os.as_ref().map(|os| os.name.clone()),
        }
    }

    /// Returns whether no architecture is required.
    pub(crate) fn allow_any_architecture(&self) -> bool {
        let is_architecture = |requirement: &NodeSelectorRequirement| {
            ARCHITECTURE_LABELS.contains(&requirement.key.as_str())
        };
        let is_unrestricted =
            |term: &NodeSelectorTerm| !term.match_expressions.iter().flatten().any(is_architecture);
        !self.selected.iter().any(is_architecture)
            && (self.terms.is_empty() || self.terms.iter().any(is_unrestricted))
    }

    /// Returns whether an image of `platform` can run on the nodes. The default operating system is
    /// Linux.
    pub(crate) fn can_run(&self, platform: &Platform) -> bool {
        let platform = platform.normalised();
        let system_fits = match &self.os {
            Some(os) => *os == platform.os,
            None => self.names_an_os() || platform.os == "linux",
        };
        let allowed = |requirement: &NodeSelectorRequirement| {
            let value = match requirement.key.as_str() {
                key if ARCHITECTURE_LABELS.contains(&key) => &platform.architecture,
                key if OS_LABELS.contains(&key) => &platform.os,
                _ => return true,
            };
            let listed = requirement
                .values
                .iter()
                .flatten()
                .any(|listed| listed == value);
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => true,
            }
        };
        system_fits
            && self.selected.iter().all(allowed)
            && (self.terms.is_empty()
                || self
                    .terms
                    .iter()
                    .any(|term| term.match_expressions.iter().flatten().all(allowed)))
    }

    fn names_an_os(&self) -> bool {
        let names =
            |requirement: &NodeSelectorRequirement| OS_LABELS.contains(&requirement.key.as_str());
        self.selected.iter().any(names)
            || self
                .terms
                .iter()
                .flat_map(|term| term.match_expressions.iter().flatten())
                .any(names)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::value::to_raw_value;
    use serde_json::{Value, json};

    fn read(kind: &str, object: &Value) -> Option<Workload> {
        Workload::read(kind, &to_raw_value(object).unwrap())
    }

    fn pod(spec: Value) -> Workload {
        read("Pod", &json!({"spec": spec})).unwrap()
    }

    fn runs(workload: &Workload, platform: &str) -> bool {
        workload.nodes.can_run(&platform.parse().unwrap())
    }

    #[test]
    fn images_of_all_containers_and_volumes_are_read() {
        let workload = pod(json!({
            "containers": [{"name": "a", "image": "a:1"}, {"name": "b"}, {"name": "c", "image": "c:1"}],
            "initContainers": [{"name": "i", "image": "i:1"}],
            "ephemeralContainers": [{"name": "e", "image": "e:1"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "w:1"}}],
            "imagePullSecrets": [{"name": "login"}],
        }));
        let found: Vec<_> = workload
            .images
            .iter()
            .map(|used| (used.image.as_str(), used.pointer.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("a:1", "/spec/containers/0/image"),
                ("c:1", "/spec/containers/2/image"),
                ("i:1", "/spec/initContainers/0/image"),
                ("e:1", "/spec/ephemeralContainers/0/image"),
                ("w:1", "/spec/volumes/1/image/reference"),
            ]
        );
        assert_eq!(workload.pull_secrets, ["login"]);
    }

    #[test]
    fn workloads_are_read_through_their_pod_template() {
        let template = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        for (kind, object) in [
            ("Deployment", json!({"spec": {"template": template}})),
            ("Job", json!({"spec": {"template": template}})),
            (
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
            ),
            ("PodTemplate", json!({"template": template})),
        ] {
            let workload = read(kind, &object).unwrap();
            assert!(!workload.is_pod && workload.images.len() == 1, "{kind}");
        }
        assert!(
            read("ConfigMap", &json!({})).is_none() && read("Pod", &json!({"spec": 1})).is_none()
        );
        let nulls = json!({"containers": null, "volumes": null, "affinity": null, "nodeSelector": null, "os": null, "imagePullSecrets": null});
        assert!(pod(nulls).images.is_empty());
    }

    #[test]
    fn a_selector_or_every_affinity_term_selects_an_architecture() {
        let free = pod(json!({"containers": []}));
        assert!(
            free.nodes.allow_any_architecture()
                && runs(&free, "linux/amd64")
                && !runs(&free, "windows/amd64")
        );
        let selected = pod(
            json!({"containers": [], "nodeSelector": {"kubernetes.io/arch": "arm64", "zone": "a"}}),
        );
        assert!(
            !selected.nodes.allow_any_architecture()
                && runs(&selected, "linux/arm64/v8")
                && runs(&selected, "linux/aarch64")
                && !runs(&selected, "linux/amd64")
        );
        let affinity = |terms: Value| {
            pod(
                json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
            )
        };
        let expression = |operator: &str, value: &str| json!({"matchExpressions": [{"key": "kubernetes.io/arch", "operator": operator, "values": [value]}]});
        let one = affinity(json!([expression("In", "amd64")]));
        assert!(
            !one.nodes.allow_any_architecture()
                && runs(&one, "linux/amd64")
                && !runs(&one, "linux/arm64")
        );
        let not = affinity(json!([expression("NotIn", "amd64")]));
        assert!(
            !not.nodes.allow_any_architecture()
                && !runs(&not, "linux/amd64")
                && runs(&not, "linux/arm64")
        );
        let either = affinity(
            json!([expression("In", "amd64"), {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
        );
        assert!(either.nodes.allow_any_architecture());
        let windows = pod(
            json!({"containers": [], "os": {"name": "windows"}, "nodeSelector": {"kubernetes.io/arch": "amd64"}}),
        );
        assert!(runs(&windows, "windows/amd64:10.0.20348.1") && !runs(&windows, "linux/amd64"));
    }
}
