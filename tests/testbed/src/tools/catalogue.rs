//! Which tools there are: the one table of their packages, their groups and how long they take.

use std::path::{Path, PathBuf};

/// A program that the testbed runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// The supervisor of every child process.
    Underling,
    /// kube-apiserver with etcd inside.
    ApiServer,
    /// kubectl, of the same release.
    Kubectl,
    /// A registry with the referrers API, in memory.
    OciRegistry,
    /// go-containerregistry's registry, which lies about referrers.
    Liar,
    /// The token server.
    Tokens,
    /// The registry `distribution`, without the referrers API.
    Distribution,
    /// The reader and writer `oras`.
    Oras,
    /// The reader and writer `crane`.
    Crane,
    /// The reader and writer `regctl`.
    Regctl,
    /// kube-controller-manager: what collects garbage and ends namespaces.
    ControllerManager,
    /// `cosign`.
    Cosign,
    /// A signer and verifier made of notation-go.
    Notation,
    /// `helm`.
    Helm,
    /// `kubeconform`.
    Kubeconform,
}

/// How a tool is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    /// The folder of its Go module below `tests/testbed/go`.
    pub(super) module: &'static str,
    /// The package to build.
    pub(super) package: &'static str,
    /// The name of the binary.
    pub(super) binary: &'static str,
    /// What the progress calls it.
    pub(super) title: &'static str,
    /// The required module whose version is the tool's; empty for those whose source is here.
    pub(super) origin: &'static str,
    /// About how many seconds it takes on two cores with an empty build cache, after those before it.
    pub(super) cold: u64,
}

const CONTROL_PLANE: &str = "controlplane";
const REGISTRIES: &str = "registries";
const EXTRA: &str = "extra";
pub(super) const KUBERNETES: &str = "k8s.io/kubernetes";

impl Tool {
    /// The group that most tests and the demo need, in the order of building: quick ones first.
    pub(super) fn core() -> Vec<Self> {
        use Tool::{
            ApiServer, Crane, Distribution, Kubectl, Liar, OciRegistry, Oras, Regctl, Tokens,
            Underling,
        };
        vec![
            Underling,
            OciRegistry,
            Liar,
            Tokens,
            Distribution,
            Oras,
            Crane,
            Regctl,
            ApiServer,
            Kubectl,
        ]
    }

    /// Every tool, in the order of building.
    pub(super) fn all() -> Vec<Self> {
        use Tool::{ControllerManager, Cosign, Helm, Kubeconform, Notation};
        let mut all = Self::core();
        all.extend([ControllerManager, Cosign, Notation, Helm, Kubeconform]);
        all
    }

    /// Where the tool is in a folder that envtest made, if it is there.
    pub(super) fn in_assets(self, dir: &Path) -> Option<PathBuf> {
        let name = match self {
            Self::ApiServer => "kube-apiserver",
            Self::Kubectl => "kubectl",
            _ => return None,
        };
        Some(dir.join(name)).filter(|path| path.is_file())
    }

    pub(super) fn recipe(self) -> Recipe {
        let (module, package, binary, title, origin, cold) = match self {
            Self::Underling => (
                REGISTRIES,
                "./underling",
                "underling",
                "the supervisor",
                "",
                2,
            ),
            Self::ApiServer => (
                CONTROL_PLANE,
                "./apiserver",
                "apiserver",
                "kube-apiserver with etcd inside",
                KUBERNETES,
                230,
            ),
            Self::Kubectl => (
                CONTROL_PLANE,
                "k8s.io/kubernetes/cmd/kubectl",
                "kubectl",
                "kubectl",
                KUBERNETES,
                25,
            ),
            Self::OciRegistry => {
                let origin = "cuelabs.dev/go/oci/ociregistry";
                (
                    REGISTRIES,
                    "./ociregistry",
                    "ociregistry",
                    "the registry with the referrers API",
                    origin,
                    15,
                )
            }
            Self::Liar => {
                let origin = "github.com/google/go-containerregistry";
                (
                    REGISTRIES,
                    "./liar",
                    "liar",
                    "the registry that lies",
                    origin,
                    3,
                )
            }
            Self::Tokens => (REGISTRIES, "./tokens", "tokens", "the token server", "", 2),
            Self::Distribution => {
                let package = "github.com/distribution/distribution/v3/cmd/registry";
                let origin = "github.com/distribution/distribution/v3";
                (
                    REGISTRIES,
                    package,
                    "distribution",
                    "distribution",
                    origin,
                    130,
                )
            }
            Self::Oras => (
                REGISTRIES,
                "oras.land/oras/cmd/oras",
                "oras",
                "oras",
                "oras.land/oras",
                10,
            ),
            Self::Crane => {
                let package = "github.com/google/go-containerregistry/cmd/crane";
                (
                    REGISTRIES,
                    package,
                    "crane",
                    "crane",
                    "github.com/google/go-containerregistry",
                    5,
                )
            }
            Self::Regctl => {
                let package = "github.com/regclient/regclient/cmd/regctl";
                (
                    REGISTRIES,
                    package,
                    "regctl",
                    "regctl",
                    "github.com/regclient/regclient",
                    5,
                )
            }
            Self::ControllerManager => {
                let title = "kube-controller-manager";
                (
                    CONTROL_PLANE,
                    "./controller-manager",
                    "controller-manager",
                    title,
                    KUBERNETES,
                    60,
                )
            }
            Self::Cosign => {
                let package = "github.com/sigstore/cosign/v3/cmd/cosign";
                (
                    EXTRA,
                    package,
                    "cosign",
                    "cosign",
                    "github.com/sigstore/cosign/v3",
                    150,
                )
            }
            Self::Notation => {
                let origin = "github.com/notaryproject/notation-go";
                (EXTRA, "./notation", "notation", "notation", origin, 10)
            }
            Self::Helm => (
                EXTRA,
                "helm.sh/helm/v3/cmd/helm",
                "helm",
                "helm",
                "helm.sh/helm/v3",
                60,
            ),
            Self::Kubeconform => {
                let package = "github.com/yannh/kubeconform/cmd/kubeconform";
                (
                    EXTRA,
                    package,
                    "kubeconform",
                    "kubeconform",
                    "github.com/yannh/kubeconform",
                    5,
                )
            }
        };
        Recipe {
            module,
            package,
            binary,
            title,
            origin,
            cold,
        }
    }
}
