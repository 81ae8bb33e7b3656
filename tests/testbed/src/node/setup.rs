//! Mounts, network and kernel settings of the node, from within its namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::ADDRESS;
use super::isolation::hierarchies;

/// The name of the node.
pub(super) const NAME: &str = "node1";
/// containerd's socket, on the node's own `/run`.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The folders that the node's processes write to.
const DATA: [&str; 5] = [
    "var/lib/kubelet",
    "var/lib/containerd",
    "var/lib/cni",
    "var/log/pods",
    "var/log/containers",
];
/// The settings that `protectKernelDefaults` of the kubelet requires. The kernel is shared with the host, so files show them.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The folder of the CNI plugins.
pub(super) fn network_plugins() -> Option<PathBuf> {
    ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join("bridge").is_file())
}

/// Prepares the namespaces for a node with its data in `dir`. `hosts` are names with their IP addresses.
pub(super) fn prepare(dir: &Path, hosts: &[(&str, &str)]) -> anyhow::Result<()> {
    run("hostname", &[NAME])?;
    mount_cgroups()?;
    // The node's processes create folders in these, which must not appear on the host.
    for folder in ["/run", "/var/lib", "/var/log"] {
        run("mount", &["-t", "tmpfs", "tmpfs", folder])?;
    }
    fs::create_dir_all("/run/lock")?;
    for folder in DATA {
        let (source, target) = (dir.join(folder), Path::new("/").join(folder));
        fs::create_dir_all(&source)?;
        fs::create_dir_all(&target)?;
        bind(&source, &target)?;
    }
    for (name, value) in KERNEL {
        show(
            dir,
            &format!("{value}\n"),
            &Path::new("/proc/sys").join(name),
        )?;
    }
    let names: String = hosts
        .iter()
        .map(|(name, address)| format!("{address} {name}\n"))
        .collect();
    show(
        dir,
        &format!("127.0.0.1 localhost {NAME}\n{names}"),
        Path::new("/etc/hosts"),
    )?;
    let resolver = format!("nameserver {ADDRESS}\nsearch svc.cluster.local cluster.local\n");
    fs::write(dir.join("resolv.conf"), &resolver)?;
    show(dir, &resolver, Path::new("/etc/resolv.conf"))?;
    run("mount", &["--make-rshared", "/"])?;

    // A veth pair, because not every kernel has dummy devices.
    for line in [
        "link set lo up",
        "link add node0 type veth peer name node0p",
        "link set node0p up",
        &format!("addr add {ADDRESS}/24 dev node0"),
        "link set node0 up",
        "route add default dev node0",
    ] {
        run("ip", &line.split(' ').collect::<Vec<_>>())?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // The setting exists only with the kernel module br_netfilter. Without it, Services do not work between pods of one node.
    let bridged = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if bridged.exists() {
        fs::write(bridged, "1")?;
    }
    Ok(())
}

/// Mounts a sysfs with the node's network, and cgroup hierarchies whose roots are the node's cgroups.
fn mount_cgroups() -> anyhow::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = hierarchies()?;
    run("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
    run(
        "mount",
        &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup"],
    )?;
    for hierarchy in hierarchies {
        let target = root.join(hierarchy.folder());
        fs::create_dir(&target)?;
        let path = target.display().to_string();
        run(
            "mount",
            &[
                "-t",
                "cgroup",
                "-o",
                &hierarchy.controllers,
                "cgroup",
                &path,
            ],
        )?;
        for controller in hierarchy.folder().split(',') {
            if controller != hierarchy.folder() {
                std::os::unix::fs::symlink(&target, root.join(controller))?;
            }
        }
    }
    Ok(())
}

/// Shows `content` in place of a file.
fn show(dir: &Path, content: &str, target: &Path) -> anyhow::Result<()> {
    let name = target.display().to_string().replace('/', "_");
    let source = dir.join(format!("shown{name}"));
    fs::write(&source, content)?;
    bind(&source, target)
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    let (source, target) = (source.display().to_string(), target.display().to_string());
    run("mount", &["--bind", &source, &target])
}

/// Runs a program of the system to its end.
fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(args)
        .env("PATH", super::search_path(Path::new("/usr/sbin"))?)
        .output()
        .with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!(
            "`{program} {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
