//! Reads an image and its referrers in few dependent round trips: the manifest, then all listings at once, then the listings of the
//! referrers.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{BoxFuture, FutureExt as _, join_all};

use super::model::{CosignLayer, CosignTag, Node, NodeKind, Referrer, Tree};
use affix_registry::oci::{
    Descriptor, ImageIndex, Manifest, Platform, Reference, annotation, media_type,
};
use affix_registry::{ErrorKind, Fetched, Limits, Locator, RegistryError, Session};

/// The maximum number of referrers whose own referrers are read. The tree reports how many were not.
const MAX_FOLLOWED: usize = 256;
/// The maximum number of referrers whose manifest is read because the listing lacks type or annotations.
const MAX_READ: usize = 64;
/// The annotation with the manifest that an attestation of BuildKit describes.
const ATTESTS: &str = "vnd.docker.reference.digest";

/// Reads the whole tree.
///
/// # Errors
/// If the image itself cannot be read. Errors below it become part of the tree.
pub(super) async fn gather(
    session: &Session,
    reference: &Reference,
    limits: &Limits,
) -> Result<Tree, RegistryError> {
    // A parsed reference has a tag or a digest.
    let Some(locator) = Locator::of(reference) else {
        return Ok(empty(reference));
    };
    let gatherer = Gatherer {
        session,
        limits,
        followed: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
    };
    let fetched = session.manifest(&locator).await?;
    let root = gatherer.root(fetched).await;
    let not_followed = gatherer
        .followed
        .load(Ordering::Relaxed)
        .saturating_sub(MAX_FOLLOWED);
    Ok(Tree {
        image: reference.to_string(),
        root,
        not_followed,
    })
}

fn empty(reference: &Reference) -> Tree {
    Tree {
        image: reference.to_string(),
        root: node(NodeKind::Unknown, &Descriptor::empty()),
        not_followed: 0,
    }
}

fn node(kind: NodeKind, descriptor: &Descriptor) -> Node {
    Node {
        kind,
        platforms: Vec::new(),
        digest: descriptor.digest.clone(),
        media_type: descriptor.media_type.clone(),
        size: descriptor.size,
        attests: None,
        referrers: Vec::new(),
        tags: Vec::new(),
        manifests: Vec::new(),
        errors: Vec::new(),
    }
}

struct Gatherer<'a> {
    session: &'a Session,
    limits: &'a Limits,
    followed: AtomicUsize,
    read: AtomicUsize,
}

impl Gatherer<'_> {
    async fn root(&self, fetched: Fetched) -> Node {
        let descriptor = fetched.descriptor();
        match &fetched.manifest {
            Manifest::Index(index) => {
                let mut root = node(NodeKind::Index, &descriptor);
                let (listed, tags, manifests) = tokio::join!(
                    self.referrers(&descriptor, true),
                    self.tags(&descriptor),
                    self.children(index, 1)
                );
                root.take(listed);
                root.take_tags(tags);
                root.manifests = manifests;
                root
            }
            Manifest::Image(image) => {
                let mut root = node(NodeKind::Manifest, &descriptor);
                let (listed, tags, platform) = tokio::join!(
                    self.referrers(&descriptor, true),
                    self.tags(&descriptor),
                    self.platform(&image.config)
                );
                root.take(listed);
                root.take_tags(tags);
                root.platforms.extend(platform);
                root
            }
        }
    }

    /// Returns the platform of a single manifest, from its config. The tree is shown without it if the config cannot be read.
    async fn platform(&self, config: &Descriptor) -> Option<String> {
        if !media_type::is_image_config(&config.media_type) {
            return None;
        }
        let bytes = self
            .session
            .blob(config, self.limits.manifest_bytes)
            .await
            .ok()?;
        Platform::from_config(&bytes)
            .filter(|platform| !platform.is_empty())
            .map(|platform| platform.to_string())
    }

    /// Returns the entries of an index, each digest once.
    async fn children(&self, index: &ImageIndex, depth: usize) -> Vec<Node> {
        let mut entries: Vec<(Node, &Descriptor)> = Vec::new();
        for entry in index.manifests.iter().take(self.limits.index_entries) {
            let platform = entry
                .platform
                .as_ref()
                .filter(|platform| !platform.is_empty() && !platform.is_unknown());
            let platform = platform.map(ToString::to_string);
            match entries
                .iter_mut()
                .find(|(node, _)| node.digest == entry.digest)
            {
                Some((seen, _)) => seen
                    .platforms
                    .extend(platform.filter(|platform| !seen.platforms.contains(platform))),
                None => {
                    let mut node = node(kind(entry), entry);
                    node.platforms.extend(platform);
                    node.attests = entry.annotations.get(ATTESTS).cloned();
                    entries.push((node, entry));
                }
            }
        }
        let cut = index.manifests.len() > self.limits.index_entries;
        let mut nodes = join_all(
            entries
                .into_iter()
                .map(|(node, entry)| self.child(node, entry, depth)),
        )
        .await;
        if let (true, Some(last)) = (cut, nodes.last_mut()) {
            last.errors.push(format!(
                "the index lists more than {} manifests; the rest is not shown",
                self.limits.index_entries
            ));
        }
        nodes
    }

    fn child<'b>(
        &'b self,
        mut node: Node,
        entry: &'b Descriptor,
        depth: usize,
    ) -> BoxFuture<'b, Node> {
        async move {
            let nested = async {
                if node.kind != NodeKind::Index {
                    return Ok(Vec::new());
                }
                if depth >= self.limits.depth {
                    return Err("the index is nested too deeply to be shown".to_owned());
                }
                match self
                    .session
                    .manifest(&Locator::Digest(entry.digest.clone()))
                    .await
                {
                    Ok(Fetched {
                        manifest: Manifest::Index(index),
                        ..
                    }) => Ok(self.children(&index, depth + 1).await),
                    Ok(_) => Err("the manifest is listed as an index, but is not one".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            };
            let (listed, tags, nested) =
                tokio::join!(self.referrers(entry, true), self.tags(entry), nested);
            node.take(listed);
            node.take_tags(tags);
            match nested {
                Ok(manifests) => node.manifests = manifests,
                Err(error) => node.errors.push(error),
            }
            node
        }
        .boxed()
    }

    /// Returns the tags of cosign for `subject`: its signatures and its attestations.
    async fn tags(&self, subject: &Descriptor) -> Vec<Result<CosignTag, String>> {
        let name = subject.digest.fallback_tag();
        let names = [".sig", ".att"].map(|suffix| format!("{name}{suffix}"));
        let tags = join_all(names.into_iter().map(|name| self.tag(name))).await;
        tags.into_iter().flatten().collect()
    }

    async fn tag(&self, name: String) -> Option<Result<CosignTag, String>> {
        let at = Locator::Tag(name.parse().ok()?);
        let fetched = match self.session.manifest(&at).await {
            Ok(fetched) => fetched,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => return Some(Err(error.to_string())),
        };
        let layers = match fetched.manifest {
            Manifest::Image(image) => image.layers,
            Manifest::Index(_) => Vec::new(),
        };
        let layers = layers.into_iter().map(|layer| CosignLayer {
            media_type: layer.media_type,
            digest: layer.digest,
            size: layer.size,
            annotations: layer.annotations,
        });
        Some(Ok(CosignTag {
            tag: name,
            digest: fetched.digest,
            media_type: fetched.media_type,
            size: fetched.size,
            layers: layers.collect(),
        }))
    }

    /// Returns the referrers of `subject`, with `follow` also their referrers.
    fn referrers<'b>(
        &'b self,
        subject: &'b Descriptor,
        follow: bool,
    ) -> BoxFuture<'b, Result<Vec<Referrer>, String>> {
        async move {
            let listing = self
                .session
                .referrers(&subject.digest, None)
                .await
                .map_err(|error| error.to_string())?;
            let mut referrers = join_all(
                listing
                    .entries
                    .iter()
                    .map(|entry| self.referrer(entry, follow)),
            )
            .await;
            referrers.sort_by(|a, b| (created(a), &a.digest).cmp(&(created(b), &b.digest)));
            Ok(referrers)
        }
        .boxed()
    }

    async fn referrer(&self, entry: &Descriptor, follow: bool) -> Referrer {
        let mut referrer = Referrer {
            artifact_type: entry.artifact_type.clone(),
            digest: entry.digest.clone(),
            media_type: entry.media_type.clone(),
            size: entry.size,
            annotations: entry.annotations.clone(),
            referrers: Vec::new(),
            errors: Vec::new(),
        };
        let follow = follow && self.followed.fetch_add(1, Ordering::Relaxed) < MAX_FOLLOWED;
        let below = async {
            if follow {
                self.referrers(entry, false).await
            } else {
                Ok(Vec::new())
            }
        };
        let (below, manifest) = tokio::join!(below, self.manifest(entry));
        match below {
            Ok(below) => referrer.referrers = below,
            Err(error) => referrer.errors.push(error),
        }
        match manifest {
            Ok(Some((artifact_type, annotations))) => {
                referrer.artifact_type = artifact_type;
                referrer.annotations = annotations;
            }
            Ok(None) => {}
            Err(error) => referrer.errors.push(error),
        }
        referrer
    }

    /// Returns type and annotations from the manifest. Some tools and registries list neither, such as cosign on a fallback tag.
    async fn manifest(
        &self,
        entry: &Descriptor,
    ) -> Result<Option<(String, std::collections::BTreeMap<String, String>)>, String> {
        let is_complete = entry.listed_type().is_some() && !entry.annotations.is_empty();
        if is_complete || self.read.fetch_add(1, Ordering::Relaxed) >= MAX_READ {
            return Ok(None);
        }
        // At most MAX_READ, and only their annotations are kept.
        match self
            .session
            .uncounted()
            .manifest(&Locator::Digest(entry.digest.clone()))
            .await
        {
            Ok(Fetched {
                manifest: Manifest::Image(image),
                ..
            }) => Ok(Some((
                image.effective_artifact_type().to_owned(),
                image.annotations,
            ))),
            Ok(Fetched {
                manifest: Manifest::Index(index),
                ..
            }) => Ok(Some((
                index
                    .artifact_type
                    .unwrap_or_else(|| entry.artifact_type.clone()),
                index.annotations,
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err("the referrer is listed, but no longer in the registry".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Node {
    fn take(&mut self, listed: Result<Vec<Referrer>, String>) {
        match listed {
            Ok(referrers) => self.referrers = referrers,
            Err(error) => self.errors.push(error),
        }
    }

    fn take_tags(&mut self, tags: Vec<Result<CosignTag, String>>) {
        for tag in tags {
            match tag {
                Ok(tag) => self.tags.push(tag),
                Err(error) => self.errors.push(error),
            }
        }
    }
}

fn created(referrer: &Referrer) -> &str {
    referrer
        .annotations
        .get(annotation::CREATED)
        .map_or("", String::as_str)
}

/// Returns the kind of an entry of an index.
fn kind(entry: &Descriptor) -> NodeKind {
    let attests = entry.annotations.contains_key(annotation::REFERENCE_TYPE);
    if attests || entry.platform.as_ref().is_some_and(Platform::is_unknown) {
        return NodeKind::Attestation;
    }
    match media_type::kind(&entry.media_type) {
        media_type::Kind::Index => NodeKind::Index,
        media_type::Kind::Image => NodeKind::Manifest,
        media_type::Kind::Other => NodeKind::Unknown,
    }
}
