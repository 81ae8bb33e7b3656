//! Where the measurements are made: two registries, each also reached over a distance, and other people's tools.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use affix_testbed::distance::Distance;
use affix_testbed::images::{Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use super::images;
use super::run::Measured;

/// What everything is measured with.
pub(super) struct Lab {
    pub(super) tools: Tools,
    pub(super) affix: PathBuf,
    /// The registry with the referrers API.
    pub(super) modern: Site,
    /// distribution, without it.
    pub(super) plain: Site,
    pub(super) peer: Peer,
    next: AtomicUsize,
}

/// A registry, near and far.
pub(super) struct Site {
    pub(super) title: &'static str,
    pub(super) registry: Registry,
    pub(super) far: Distance,
}

/// A fresh image in a repository of its own.
pub(super) struct Target {
    pub(super) image: Pushed,
    /// `HOST:PORT/REPOSITORY`, over the distance.
    pub(super) far: String,
    /// The same without distance.
    pub(super) near: String,
}

impl Lab {
    pub(super) async fn open(tools: &Tools, affix: &Path) -> anyhow::Result<Self> {
        let mut peer = Peer::new(tools)?;
        let mut sites = Vec::new();
        for (title, options) in [
            ("referrers API", Registry::ociregistry(tools)),
            ("fallback tag", Registry::distribution(tools)),
        ] {
            let registry = options.start().await?;
            let far = Distance::to(registry.host(), Duration::ZERO).await?;
            peer.know_plain(registry.host())?;
            peer.know_plain(&far.host())?;
            sites.push(Site {
                title,
                registry,
                far,
            });
        }
        let (Some(plain), Some(modern)) = (sites.pop(), sites.pop()) else {
            anyhow::bail!("two registries were started")
        };
        Ok(Self {
            tools: tools.clone(),
            affix: affix.to_owned(),
            modern,
            plain,
            peer,
            next: AtomicUsize::new(1),
        })
    }

    /// A repository that nothing was pushed to.
    pub(super) fn repository(&self) -> String {
        format!("bench/app{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Pushes an image, past the distance and its record.
    pub(super) async fn fresh(&self, site: &Site, index: &Index) -> anyhow::Result<Target> {
        let repository = self.repository();
        let image = images::push(index, &site.registry, &repository).await?;
        Ok(Target {
            image,
            far: format!("{}/{repository}", site.far.host()),
            near: format!("{}/{repository}", site.registry.host()),
        })
    }

    /// affix, in the home of the tools.
    pub(super) fn affix<A: AsRef<str>>(&self, args: &[A]) -> Measured {
        self.at_home(
            Measured::new(&self.affix, &self.peer.file("")).args(args.iter().map(AsRef::as_ref)),
        )
    }

    /// A file for `affix attach -f`: one resource, and what it names.
    pub(super) fn file(&self, spec: &Value, more: &[Value]) -> anyhow::Result<String> {
        let resource = resource("bench", spec);
        let documents = std::iter::once(&resource)
            .chain(more)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n---\n");
        let path = self.peer.file("resource.yaml");
        std::fs::write(&path, documents)?;
        Ok(path.display().to_string())
    }

    /// One of the tools.
    pub(super) fn tool(&self, tool: Tool, args: &[&str]) -> anyhow::Result<Measured> {
        Ok(self.at_home(
            Measured::new(self.tools.path(tool)?, &self.peer.file("")).args(args.iter().copied()),
        ))
    }

    /// A loop in the shell over the digests of an image, which somebody has found out before: `$tool` is the tool, `$d` each of the
    /// manifests.
    pub(super) fn each(&self, tool: Tool, target: &Target, line: &str) -> anyhow::Result<Measured> {
        let digests = images::manifests(&target.image).join(" ");
        self.shell(
            tool,
            &format!("set -e; for d in {digests}; do {line} </dev/null; done"),
        )
    }

    /// A loop in the shell by names, as one would write it: `line` once for the index, and for each platform with the flag for it.
    pub(super) fn each_by_name(&self, tool: Tool, line: &str) -> anyhow::Result<Measured> {
        let platforms = images::PLATFORMS.join(" ");
        self.shell(tool, &format!("set -e; {line} </dev/null; for p in {platforms}; do {line} --platform $p </dev/null; done"))
    }

    fn shell(&self, tool: Tool, script: &str) -> anyhow::Result<Measured> {
        let shell = Measured::new("/bin/sh", &self.peer.file(""))
            .args(["-c", script])
            .env("tool", self.tools.path(tool)?);
        Ok(self.at_home(shell))
    }

    fn at_home(&self, measured: Measured) -> Measured {
        self.peer
            .environment()
            .into_iter()
            .fold(measured, |measured, (name, value)| {
                measured.env(name, value)
            })
    }
}

/// An ImageAttachment.
pub(super) fn resource(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
}

/// An end-of-life mark for every manifest of an image.
pub(super) fn mark(image: &str) -> Value {
    json!({"image": image, "insecure": true, "endOfLife": {"date": "2025-03-20T01:20:30Z"}})
}
