//! The configuration files of the node's processes.

use std::path::Path;

use anyhow::Context;

use super::{ADDRESS, setup};
use crate::certificates;

/// The repository and the tag of the sandbox's image.
pub(super) const PAUSE_REPOSITORY: &str = "node/pause";
pub(super) const PAUSE_TAG: &str = "1";

/// Writes all files into `dir`. `registry` is HOST:PORT, with a certificate of the authority `ca_pem`.
pub(super) fn write(
    dir: &Path,
    kubeconfig: &Path,
    registry: &str,
    ca_pem: &str,
) -> anyhow::Result<()> {
    let trust = dir.join("certs.d").join(registry);
    for folder in [&trust, &dir.join("net.d"), &dir.join("log")] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be created", folder.display()))?;
    }
    let kubeconfig = kubeconfig.display();
    let here = dir.display();
    for (file, content) in [
        ("containerd.toml", containerd(dir, registry)?),
        ("net.d/10-pods.conflist", NETWORK.to_owned()),
        ("kubelet.yaml", kubelet(dir)),
        (
            "kube-proxy.yaml",
            format!(
                "{PROXY}clientConnection: {{kubeconfig: {kubeconfig}}}\nhostnameOverride: {}\n",
                setup::NAME
            ),
        ),
        (
            "Corefile",
            format!(
                ".:53 {{\n  bind {ADDRESS}\n  errors\n  cache 5\n  kubernetes cluster.local {{\n    kubeconfig {kubeconfig}\n  }}\n}}\n"
            ),
        ),
        ("ca.crt", ca_pem.to_owned()),
    ] {
        certificates::write(&dir.join(file), &content)?;
    }
    certificates::write(
        &trust.join("hosts.toml"),
        &format!(
            "server = \"https://{registry}\"\n[host.\"https://{registry}\"]\n  ca = \"{here}/ca.crt\"\n"
        ),
    )
}

/// The manifests of the registry's Service.
pub(super) fn services(address: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: lab}}
---
apiVersion: v1
kind: Service
metadata: {{name: registry, namespace: lab}}
spec: {{ports: [{{name: https, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: registry, namespace: lab, labels: {{kubernetes.io/service-name: registry}}}}
addressType: IPv4
ports: [{{name: https, port: {port}}}]
endpoints: [{{addresses: [\"{address}\"], conditions: {{ready: true}}}}]
"
    )
}

/// The OOM scores stay as they are: only a privileged process may lower them.
fn containerd(dir: &Path, registry: &str) -> anyhow::Result<String> {
    let here = dir.display();
    let plugins = setup::network_plugins().context("no CNI plugins")?;
    Ok(format!(
        "version = 3
oom_score = 0
disabled_plugins = ['io.containerd.nri.v1.nri']
[plugins.'io.containerd.internal.v1.opt']
  path = '{here}/opt'
[grpc]
  address = '{socket}'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '{here}/certs.d'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{registry}/{PAUSE_REPOSITORY}:{PAUSE_TAG}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{}']
  conf_dir = '{here}/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
",
        plugins.display(),
        socket = setup::CONTAINERD
    ))
}

/// The API server is the only client of the kubelet, so the kubelet authorises all requests.
fn kubelet(dir: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix://{socket}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
clusterDomain: cluster.local
clusterDNS: [{ADDRESS}]
resolvConf: {here}/resolv.conf
volumePluginDir: {here}/plugins
protectKernelDefaults: true
oomScoreAdj: 0
evictionHard: {{memory.available: 50Mi, nodefs.available: \"0%\", nodefs.inodesFree: \"0%\", imagefs.available: \"0%\"}}
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: [pods]
serializeImagePulls: false
",
        socket = setup::CONTAINERD,
        here = dir.display()
    )
}

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/var/lib/cni/networks"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"#;

/// Without limits for connection tracking, which belong to the host.
const PROXY: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
";
