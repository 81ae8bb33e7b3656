//! Runs a program in namespaces and cgroups of its own, in which it may start a node.
//!
//! The program and all its descendants end with this process, however that ends: the kernel kills `unshare` with its parent, and
//! `unshare` kills process 1 of the namespace.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::setup;

/// The beginning of the names of the cgroups.
const PREFIX: &str = "affix-node-";
/// The maximum time until the processes of a killed namespace are gone.
const DEATH: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
const NAMESPACES: [&str; 8] = [
    "--mount",
    "--net",
    "--pid",
    "--uts",
    "--ipc",
    "--cgroup",
    "--fork",
    "--mount-proc",
];
const PACKAGES: &str = "runc containernetworking-plugins iptables conntrack iproute2";

/// A cgroup v1 hierarchy.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    /// The controllers, as mount options: `cpu,cpuacct` or `name=systemd`.
    pub(super) controllers: String,
    /// The cgroup of this process.
    path: String,
}

impl Hierarchy {
    /// The folder below `/sys/fs/cgroup`.
    pub(super) fn folder(&self) -> &str {
        self.controllers
            .strip_prefix("name=")
            .unwrap_or(&self.controllers)
    }

    /// The cgroup of this process as a folder.
    fn own(&self) -> PathBuf {
        let mount = Path::new("/sys/fs/cgroup").join(self.folder());
        let own = mount.join(self.path.trim_start_matches('/'));
        // In a container, the path is the host's and the mount is the container's.
        if own.join("cgroup.procs").exists() {
            own
        } else {
            mount
        }
    }
}

/// The cgroup v1 hierarchies of this process.
pub(super) fn hierarchies() -> anyhow::Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/self/cgroup")?))
}

/// Reads lines of `ID:CONTROLLERS:PATH`. That of cgroup v2 has no controllers.
fn parse(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some(Hierarchy {
                controllers: fields.next().filter(|name| !name.is_empty())?.to_owned(),
                path: fields.next()?.to_owned(),
            })
        })
        .collect()
}

/// Returns the reason why this machine cannot run a node, if there is one.
///
/// # Errors
///
/// Returns an error if the machine cannot be examined.
pub fn obstacle() -> anyhow::Result<Option<String>> {
    if fs::metadata("/proc/self").map(|own| own.uid()).ok() != Some(0) {
        return Ok(Some("a node needs Linux and root".to_owned()));
    }
    let path = super::search_path(Path::new("/usr/sbin"))?;
    let missing: Vec<&str> = ["runc", "iptables", "conntrack", "ip", "unshare", "setpriv"]
        .into_iter()
        .filter(|name| !std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
        .chain(
            setup::network_plugins()
                .is_none()
                .then_some("the CNI plugins"),
        )
        .collect();
    if !missing.is_empty() {
        return Ok(Some(format!(
            "{} not installed: apt-get install --no-install-recommends {PACKAGES}",
            missing.join(", ")
        )));
    }
    let found = hierarchies()?;
    let lacks = |name: &str| {
        !found
            .iter()
            .any(|one| one.folder().split(',').any(|c| c == name))
    };
    if ["memory", "cpu", "pids"].into_iter().any(lacks) {
        return Ok(Some(
            "the node supports cgroup v1 only, and this machine has cgroup v2: run the chart on kind instead".to_owned(),
        ));
    }
    let script = "ip link add node0 type veth peer name node0p && mount -t tmpfs tmpfs /run";
    let probe = Command::new("unshare")
        .args(NAMESPACES)
        .args(["sh", "-c", script])
        .env("PATH", &path)
        .output()?;
    Ok((!probe.status.success()).then(|| {
        let error = String::from_utf8_lossy(&probe.stderr);
        format!("namespaces cannot be created: {}", error.trim())
    }))
}

/// Runs a program in new namespaces until it ends or `stop` is ready. Then all its processes are killed. Its temporary files are in `dir`.
///
/// # Errors
///
/// Returns an error if the namespaces or cgroups cannot be created or removed.
pub async fn run(
    program: &Path,
    args: &[OsString],
    dir: &Path,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<ExitStatus> {
    remove_stale()?;
    let cgroups = create()?;
    // The shell joins the cgroups, so that they are the roots of the namespace. In it, another shell is process 1, which reaps orphans.
    let join =
        r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@""#;
    let mut child = tokio::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-ec", join, "sh"])
        .args(&cgroups)
        .args(["--", "unshare", "--kill-child"])
        .args(NAMESPACES)
        .args(["sh", "-c", r#""$@" & wait $!"#, "sh"])
        .arg(program)
        .args(args)
        .env("TMPDIR", dir)
        .kill_on_drop(true)
        .spawn()
        .context("setpriv cannot be started")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        () = stop => {
            child.kill().await?;
            child.wait().await?
        }
    };
    remove(&cgroups).await?;
    Ok(status)
}

/// Creates a cgroup in each hierarchy.
fn create() -> anyhow::Result<Vec<PathBuf>> {
    let mut cgroups = Vec::new();
    for hierarchy in hierarchies()? {
        let own = hierarchy.own();
        let cgroup = own.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&cgroup)
            .with_context(|| format!("{} cannot be created", cgroup.display()))?;
        if hierarchy.folder().split(',').any(|name| name == "cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(cgroup.join(file), fs::read(own.join(file))?)?;
            }
        }
        cgroups.push(cgroup);
    }
    Ok(cgroups)
}

/// Removes cgroups once their processes are gone.
async fn remove(cgroups: &[PathBuf]) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEATH;
    for cgroup in cgroups {
        while let Err(error) = remove_tree(cgroup) {
            if Instant::now() > deadline {
                return Err(error)
                    .with_context(|| format!("{} cannot be removed", cgroup.display()));
            }
            sleep(POLL).await;
        }
    }
    Ok(())
}

/// Removes the cgroups of a process that was killed.
fn remove_stale() -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(hierarchy.own())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX);
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // A cgroup with processes stays.
                let _ = remove_tree(&entry.path());
            }
        }
    }
    Ok(())
}

/// Removes a cgroup with its descendants. Their files are the kernel's.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_have_their_controllers_and_cgroup_v2_is_left_out() {
        let text = "5:name=systemd:/\n4:cpu,cpuacct:/a:b\n0::/init.scope\n";
        let found = parse(text);
        let read: Vec<(&str, &str)> = found
            .iter()
            .map(|one| (one.folder(), one.path.as_str()))
            .collect();
        assert_eq!(read, [("systemd", "/"), ("cpu,cpuacct", "/a:b")]);
        assert_eq!(
            found.first().map(|one| one.controllers.as_str()),
            Some("name=systemd")
        );
    }
}
