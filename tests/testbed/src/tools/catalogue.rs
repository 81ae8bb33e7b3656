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
    /// `helm` of the next major version.
    Helm4,
    /// An evaluator made of the health checks of Flux.
    Flux,
    /// `kubeconform`.
    Kubeconform,
    /// An evaluator of alert rules made of Prometheus's engine.
    Rules,
    /// A runner of Argo CD's scripts made of gopher-lua.
    Lua,
    /// A command made of the library kstatus.
    Kstatus,
    /// `actionlint`.
    Actionlint,
    /// A check of dashboards made of Grafana's types.
    Dashboard,
    /// `krew`, the plugin manager of kubectl.
    Krew,
    /// kubelet, kube-proxy and kube-scheduler in one binary.
    Node,
    /// CoreDNS.
    Dns,
    /// The process of a pod's sandbox.
    Pause,
    /// `containerd`.
    Containerd,
    /// containerd's parent process of a pod's containers.
    ContainerdShim,
    /// A verifier made of the library of podman, skopeo and CRI-O.
    ContainersImage,
    /// The tester of Sigstore's policy-controller.
    PolicyController,
    /// The Kyverno CLI.
    Kyverno,
    /// The certificate authority of Sigstore.
    Fulcio,
    /// The transparency log of Sigstore, version 2.
    Rekor,
    /// The timestamp authority of Sigstore.
    TimestampAuthority,
    /// TesseraCT, a log of certificates.
    CtLog,
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
const JUDGES: &str = "judges";
const GITOPS: &str = "gitops";
const DASHBOARD: &str = "dashboard";
const KREW: &str = "krew";
const NODE: &str = "node";
const CONTAINERD: &str = "containerd";
const KYVERNO: &str = "kyverno";
const SIGSTORE: &str = "sigstore";
const POLICY_CONTROLLER: &str = "policycontroller";
/// The one module with build tags.
pub(super) const CONTAINERS_IMAGE: &str = "containersimage";
const CONTAINER_REGISTRY: &str = "github.com/google/go-containerregistry";
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
        use Tool::{
            Actionlint, ContainersImage, ControllerManager, Cosign, Dashboard, Flux, Helm, Helm4,
            Krew, Kstatus, Kubeconform, Kyverno, Lua, Notation, PolicyController, Rules,
        };
        let mut all = Self::core();
        all.extend([
            ControllerManager,
            Cosign,
            Notation,
            Helm,
            Kubeconform,
            Rules,
            Lua,
            Kstatus,
            Actionlint,
            Flux,
            Helm4,
            Dashboard,
            Krew,
            ContainersImage,
            PolicyController,
            Kyverno,
        ]);
        all.extend(Self::sigstore());
        all
    }

    /// The group that a Sigstore instance needs besides the first group.
    pub(super) fn sigstore() -> [Self; 5] {
        use Tool::{Cosign, CtLog, Fulcio, Rekor, TimestampAuthority};
        [Cosign, TimestampAuthority, Rekor, Fulcio, CtLog]
    }

    /// The group that a node needs besides the first group.
    pub(super) fn node() -> Vec<Self> {
        use Tool::{Containerd, ContainerdShim, ControllerManager, Cosign, Dns, Helm, Node, Pause};
        vec![
            ControllerManager,
            Cosign,
            Helm,
            Node,
            Pause,
            Dns,
            Containerd,
            ContainerdShim,
        ]
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
        match self {
            Self::Underling => Recipe {
                module: REGISTRIES,
                package: "./underling",
                binary: "underling",
                title: "the supervisor",
                origin: "",
                cold: 10,
            },
            Self::OciRegistry => Recipe {
                module: REGISTRIES,
                package: "./ociregistry",
                binary: "ociregistry",
                title: "the registry with the referrers API",
                origin: "cuelabs.dev/go/oci/ociregistry",
                cold: 20,
            },
            Self::Liar => Recipe {
                module: REGISTRIES,
                package: "./liar",
                binary: "liar",
                title: "the registry that lies",
                origin: CONTAINER_REGISTRY,
                cold: 3,
            },
            Self::Tokens => Recipe {
                module: REGISTRIES,
                package: "./tokens",
                binary: "tokens",
                title: "the token server",
                origin: "",
                cold: 2,
            },
            Self::Distribution => Recipe {
                module: REGISTRIES,
                package: "./distribution",
                binary: "distribution",
                title: "distribution",
                origin: "github.com/distribution/distribution/v3",
                cold: 60,
            },
            Self::Oras => Recipe {
                module: REGISTRIES,
                package: "oras.land/oras/cmd/oras",
                binary: "oras",
                title: "oras",
                origin: "oras.land/oras",
                cold: 10,
            },
            Self::Crane => Recipe {
                module: REGISTRIES,
                package: "github.com/google/go-containerregistry/cmd/crane",
                binary: "crane",
                title: "crane",
                origin: CONTAINER_REGISTRY,
                cold: 5,
            },
            Self::Regctl => Recipe {
                module: REGISTRIES,
                package: "github.com/regclient/regclient/cmd/regctl",
                binary: "regctl",
                title: "regctl",
                origin: "github.com/regclient/regclient",
                cold: 5,
            },
            Self::ApiServer => Recipe {
                module: CONTROL_PLANE,
                package: "./apiserver",
                binary: "apiserver",
                title: "kube-apiserver with etcd inside",
                origin: KUBERNETES,
                cold: 230,
            },
            Self::Kubectl => Recipe {
                module: CONTROL_PLANE,
                package: "k8s.io/kubernetes/cmd/kubectl",
                binary: "kubectl",
                title: "kubectl",
                origin: KUBERNETES,
                cold: 25,
            },
            Self::ControllerManager => Recipe {
                module: CONTROL_PLANE,
                package: "./controller-manager",
                binary: "controller-manager",
                title: "kube-controller-manager",
                origin: KUBERNETES,
                cold: 60,
            },
            Self::Cosign => Recipe {
                module: EXTRA,
                package: "github.com/sigstore/cosign/v3/cmd/cosign",
                binary: "cosign",
                title: "cosign",
                origin: "github.com/sigstore/cosign/v3",
                cold: 160,
            },
            Self::Notation => Recipe {
                module: EXTRA,
                package: "./notation",
                binary: "notation",
                title: "notation",
                origin: "github.com/notaryproject/notation-go",
                cold: 5,
            },
            Self::Helm => Recipe {
                module: EXTRA,
                package: "helm.sh/helm/v3/cmd/helm",
                binary: "helm",
                title: "helm",
                origin: "helm.sh/helm/v3",
                cold: 30,
            },
            Self::Helm4 => Recipe {
                module: GITOPS,
                package: "helm.sh/helm/v4/cmd/helm",
                binary: "helm",
                title: "helm 4",
                origin: "helm.sh/helm/v4",
                cold: 90,
            },
            Self::Flux => Recipe {
                module: GITOPS,
                package: "./flux",
                binary: "flux",
                title: "the health checks of Flux",
                origin: "github.com/fluxcd/pkg/runtime",
                cold: 30,
            },
            Self::Kubeconform => Recipe {
                module: EXTRA,
                package: "github.com/yannh/kubeconform/cmd/kubeconform",
                binary: "kubeconform",
                title: "kubeconform",
                origin: "github.com/yannh/kubeconform",
                cold: 3,
            },
            Self::Rules => Recipe {
                module: JUDGES,
                package: "./rules",
                binary: "rules",
                title: "the evaluator of alert rules of Prometheus",
                origin: "github.com/prometheus/prometheus",
                cold: 45,
            },
            Self::Lua => Recipe {
                module: JUDGES,
                package: "./lua",
                binary: "lua",
                title: "gopher-lua",
                origin: "github.com/yuin/gopher-lua",
                cold: 3,
            },
            Self::Kstatus => Recipe {
                module: JUDGES,
                package: "./kstatus",
                binary: "kstatus",
                title: "kstatus of cli-utils",
                origin: "sigs.k8s.io/cli-utils",
                cold: 15,
            },
            Self::Actionlint => Recipe {
                module: JUDGES,
                package: "github.com/rhysd/actionlint/cmd/actionlint",
                binary: "actionlint",
                title: "actionlint",
                origin: "github.com/rhysd/actionlint",
                cold: 10,
            },
            Self::Dashboard => Recipe {
                module: DASHBOARD,
                package: ".",
                binary: "dashboard",
                title: "the check of dashboards of Grafana's types",
                origin: "github.com/grafana/grafana-foundation-sdk/go",
                cold: 10,
            },
            Self::Krew => Recipe {
                module: KREW,
                package: "sigs.k8s.io/krew/cmd/krew",
                binary: "krew",
                title: "krew",
                origin: "sigs.k8s.io/krew",
                cold: 20,
            },
            Self::Node => Recipe {
                module: CONTROL_PLANE,
                package: "./node",
                binary: "node",
                title: "kubelet, kube-proxy and kube-scheduler",
                origin: KUBERNETES,
                cold: 120,
            },
            Self::Dns => Recipe {
                module: NODE,
                package: "./dns",
                binary: "dns",
                title: "CoreDNS",
                origin: "github.com/coredns/coredns",
                cold: 90,
            },
            Self::Pause => Recipe {
                module: NODE,
                package: "./pause",
                binary: "pause",
                title: "the process of a sandbox",
                origin: "",
                cold: 1,
            },
            Self::Containerd => Recipe {
                module: CONTAINERD,
                package: "github.com/containerd/containerd/v2/cmd/containerd",
                binary: "containerd",
                title: "containerd",
                origin: "github.com/containerd/containerd/v2",
                cold: 60,
            },
            Self::ContainerdShim => Recipe {
                module: CONTAINERD,
                package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                binary: "containerd-shim-runc-v2",
                title: "containerd's shim",
                origin: "github.com/containerd/containerd/v2",
                cold: 5,
            },
            Self::Kyverno => Recipe {
                module: KYVERNO,
                package: "github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno",
                binary: "kyverno",
                title: "the Kyverno CLI",
                origin: "github.com/kyverno/kyverno",
                cold: 240,
            },
            Self::PolicyController => Recipe {
                module: POLICY_CONTROLLER,
                package: "github.com/sigstore/policy-controller/cmd/tester",
                binary: "tester",
                title: "the tester of policy-controller",
                origin: "github.com/sigstore/policy-controller",
                cold: 180,
            },
            Self::Fulcio => Recipe {
                module: SIGSTORE,
                package: "github.com/sigstore/fulcio",
                binary: "fulcio",
                title: "Fulcio",
                origin: "github.com/sigstore/fulcio",
                cold: 30,
            },
            Self::Rekor => Recipe {
                module: SIGSTORE,
                package: "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
                binary: "rekor",
                title: "Rekor v2",
                origin: "github.com/sigstore/rekor-tiles/v2",
                cold: 30,
            },
            Self::TimestampAuthority => Recipe {
                module: SIGSTORE,
                package: "./timestamps",
                binary: "timestamps",
                title: "the timestamp authority",
                origin: "github.com/sigstore/timestamp-authority/v2",
                cold: 60,
            },
            Self::CtLog => Recipe {
                module: SIGSTORE,
                package: "github.com/transparency-dev/tesseract/cmd/tesseract/posix",
                binary: "tesseract",
                title: "TesseraCT",
                origin: "github.com/transparency-dev/tesseract",
                cold: 15,
            },
            Self::ContainersImage => Recipe {
                module: CONTAINERS_IMAGE,
                package: "./verify",
                binary: "verify",
                title: "the library of podman and CRI-O",
                origin: "go.podman.io/image/v5",
                cold: 60,
            },
        }
    }
}
