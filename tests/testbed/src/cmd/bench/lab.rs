//! Where the measurements are made: two registries over plain HTTP and over TLS, each also reached over a distance, and other people's tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::distance::Distance;
use affix_testbed::images::{Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Options, Registry};
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
    /// Both once more over TLS 1.3 and HTTP/2.
    pub(super) modern_tls: Site,
    pub(super) plain_tls: Site,
    pub(super) peer: Peer,
    next: AtomicUsize,
}

/// A registry, near and far.
pub(super) struct Site {
    pub(super) title: &'static str,
    pub(super) has_referrers_api: bool,
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

impl Site {
    async fn plain_http(
        title: &'static str,
        has_referrers_api: bool,
        options: Options,
        peer: &mut Peer,
    ) -> anyhow::Result<Self> {
        let registry = options.start().await?;
        let far = Distance::to(registry.host(), Duration::ZERO).await?;
        peer.know_plain(registry.host())?;
        peer.know_plain(&far.host())?;
        Ok(Self {
            title,
            has_referrers_api,
            registry,
            far,
        })
    }

    async fn over_tls(
        title: &'static str,
        has_referrers_api: bool,
        options: Options,
        authority: &Arc<Authority>,
        peer: &mut Peer,
    ) -> anyhow::Result<Self> {
        let registry = options.tls(authority).start().await?;
        let far = Distance::over_tls(&registry, authority, Duration::ZERO).await?;
        peer.know(&registry, None)?;
        peer.know_tls(&far.host(), authority.pem())?;
        Ok(Self {
            title,
            has_referrers_api,
            registry,
            far,
        })
    }

    /// The flag by which oras and `affix tree` speak plain HTTP; empty where the registry speaks TLS.
    pub(super) fn plain_http_flag(&self) -> &'static str {
        if self.registry.is_tls() {
            ""
        } else {
            "--plain-http"
        }
    }

    /// A resource's spec for this registry: `insecure` where it speaks plain HTTP.
    pub(super) fn spec(&self, mut spec: Value) -> Value {
        if let (false, Some(fields)) = (self.registry.is_tls(), spec.as_object_mut()) {
            fields.insert("insecure".to_owned(), Value::Bool(true));
        }
        spec
    }

    /// An end-of-life mark for every manifest of an image of this registry.
    pub(super) fn mark(&self, image: &str) -> Value {
        self.spec(json!({"image": image, "endOfLife": {"date": "2025-03-20T01:20:30Z"}}))
    }
}

impl Lab {
    pub(super) async fn open(tools: &Tools, affix: &Path) -> anyhow::Result<Self> {
        let mut peer = Peer::new(tools)?;
        let authority = Arc::new(Authority::new()?);
        let modern = Site::plain_http(
            "referrers API",
            true,
            Registry::ociregistry(tools),
            &mut peer,
        )
        .await?;
        let plain = Site::plain_http(
            "fallback tag",
            false,
            Registry::distribution(tools),
            &mut peer,
        )
        .await?;
        let modern_tls = Site::over_tls(
            "referrers API, TLS and HTTP/2",
            true,
            Registry::ociregistry(tools),
            &authority,
            &mut peer,
        )
        .await?;
        let plain_tls = Site::over_tls(
            "fallback tag, TLS and HTTP/2",
            false,
            Registry::distribution(tools),
            &authority,
            &mut peer,
        )
        .await?;
        Ok(Self {
            tools: tools.clone(),
            affix: affix.to_owned(),
            modern,
            plain,
            modern_tls,
            plain_tls,
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
