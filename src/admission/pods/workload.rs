//! Pods and what makes them: their images, the platforms that they can land on, and their pull secrets. Pure.
//!
//! The types here have those fields of a pod's spec and no others: the whole of a container takes a kilobyte for three bytes of JSON.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use serde::Deserialize;
use serde_json::value::RawValue;

use affix_registry::oci::Platform;

/// Labels of nodes; the second are older names of the same.
const ARCHITECTURE: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
const SYSTEM: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// What is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Whether it is a pod itself, and not what makes pods.
    pub(crate) is_pod: bool,
    /// Its images, each with the JSON pointer to where it stands.
    pub(crate) images: Vec<Used>,
    /// Where it can land.
    pub(crate) nodes: Nodes,
    /// The names of its pull secrets.
    pub(crate) pull_secrets: Vec<String>,
}

/// An image in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    /// As written.
    pub(crate) image: String,
    /// Where.
    pub(crate) pointer: String,
}

/// What is read of a pod's spec. Lists are read as the API server may write them: absent, null or empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    os: Option<Named>,
    image_pull_secrets: Option<Vec<Named>>,
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
struct Named {
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

/// An object, or a template, with what it is about in `spec`.
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

/// The spec of the pods of an object of `kind`, and the JSON pointer to it.
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
    /// Reads an object of `kind`; `None` where it is none that makes pods, or is malformed, which the API server will say.
    pub(crate) fn read(kind: &str, object: &RawValue) -> Option<Self> {
        let (spec, at) = pod_spec(kind, object.get())?;
        let nodes = Nodes::of(&spec);
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

    /// Whether the same images stand in the same places and can land on the same nodes.
    pub(crate) fn runs_the_same(&self, other: &Self) -> bool {
        self.images == other.images && self.nodes == other.nodes
    }
}

fn images(spec: PodSpec, at: &str) -> Vec<Used> {
    let containers = |list: Option<Vec<Container>>, place: &'static str| {
        let images = list.into_iter().flatten().map(|container| container.image);
        images
            .enumerate()
            .map(move |(nth, image)| (image, format!("{at}/{place}/{nth}/image")))
    };
    let volumes = spec
        .volumes
        .into_iter()
        .flatten()
        .map(|volume| volume.image.and_then(|image| image.reference));
    let volumes = volumes
        .enumerate()
        .map(|(nth, image)| (image, format!("{at}/volumes/{nth}/image/reference")));
    containers(spec.containers, "containers")
        .chain(containers(spec.init_containers, "initContainers"))
        .chain(containers(spec.ephemeral_containers, "ephemeralContainers"))
        .chain(volumes)
        .filter_map(|(image, pointer)| {
            Some(Used {
                image: image.filter(|image| !image.is_empty())?,
                pointer,
            })
        })
        .collect()
}

/// Which nodes a pod can land on, by architecture and system.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Nodes {
    selected: Vec<NodeSelectorRequirement>,
    terms: Vec<NodeSelectorTerm>,
    system: Option<String>,
}

impl Nodes {
    fn of(spec: &PodSpec) -> Self {
        let known = |key: &str| ARCHITECTURE.contains(&key) || SYSTEM.contains(&key);
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
            system: spec.os.as_ref().map(|os| os.name.clone()),
        }
    }

    /// Whether no architecture is asked for.
    pub(crate) fn are_any(&self) -> bool {
        let asks = |requirement: &NodeSelectorRequirement| {
            ARCHITECTURE.contains(&requirement.key.as_str())
        };
        let somewhere =
            |term: &NodeSelectorTerm| !term.match_expressions.iter().flatten().any(asks);
        !self.selected.iter().any(asks)
            && (self.terms.is_empty() || self.terms.iter().any(somewhere))
    }

    /// Whether the image of `platform` can run there. Where no system is named, it is Linux.
    pub(crate) fn can_run(&self, platform: &Platform) -> bool {
        let platform = platform.normalised();
        let system_fits = match &self.system {
            Some(system) => *system == platform.os,
            None => self.names_a_system() || platform.os == "linux",
        };
        let allowed = |requirement: &NodeSelectorRequirement| {
            let value = match requirement.key.as_str() {
                key if ARCHITECTURE.contains(&key) => &platform.architecture,
                key if SYSTEM.contains(&key) => &platform.os,
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

    fn names_a_system(&self) -> bool {
        let names =
            |requirement: &NodeSelectorRequirement| SYSTEM.contains(&requirement.key.as_str());
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
    fn images_of_every_kind_of_container_and_of_volumes_count() {
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
    fn what_makes_pods_is_read_by_its_template() {
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
    fn an_architecture_is_chosen_by_selector_or_by_every_term_of_an_affinity() {
        let free = pod(json!({"containers": []}));
        assert!(
            free.nodes.are_any() && runs(&free, "linux/amd64") && !runs(&free, "windows/amd64")
        );
        let selected = pod(
            json!({"containers": [], "nodeSelector": {"kubernetes.io/arch": "arm64", "zone": "a"}}),
        );
        assert!(
            !selected.nodes.are_any()
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
        assert!(!one.nodes.are_any() && runs(&one, "linux/amd64") && !runs(&one, "linux/arm64"));
        let not = affinity(json!([expression("NotIn", "amd64")]));
        assert!(!not.nodes.are_any() && !runs(&not, "linux/amd64") && runs(&not, "linux/arm64"));
        let either = affinity(
            json!([expression("In", "amd64"), {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
        );
        assert!(either.nodes.are_any());
        let windows = pod(
            json!({"containers": [], "os": {"name": "windows"}, "nodeSelector": {"kubernetes.io/arch": "amd64"}}),
        );
        assert!(runs(&windows, "windows/amd64:10.0.20348.1") && !runs(&windows, "linux/amd64"));
    }
}
