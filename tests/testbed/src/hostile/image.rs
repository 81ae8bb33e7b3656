//! Test images: an index and its manifests, put into a store by one call.

use serde_json::{Value, json};

use super::digest::Algorithm;
use super::store::Store;

/// An image to be pushed.
#[must_use]
pub struct ImageBuilder {
    store: Store,
    repository: String,
    tag: String,
    seed: String,
    docker: bool,
    algorithm: Algorithm,
    parts: Vec<Part>,
    annotations: serde_json::Map<String, Value>,
}

enum Part {
    Platform(String),
    Attestation(String),
    Missing(String),
    Unnamed,
    Entry(Value),
}

/// An image that was pushed.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its repository.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// The digest of the index, or of the manifest where there is no index.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: usize,
    /// The entries of the index, in its order.
    pub children: Vec<Child>,
}

/// An entry of an index.
#[derive(Clone, Debug)]
pub struct Child {
    /// The platform as it was asked for; `None` for attestations and entries without one.
    pub platform: Option<String>,
    /// Its digest.
    pub digest: String,
    /// The whole entry.
    pub entry: Value,
}

impl Image {
    /// The entry with this platform, as it was asked for.
    #[must_use]
    pub fn child(&self, platform: &str) -> Option<&Child> {
        self.children
            .iter()
            .find(|child| child.platform.as_deref() == Some(platform))
    }

    /// The digest of [`child`](Self::child); empty where there is none.
    #[must_use]
    pub fn platform(&self, platform: &str) -> &str {
        self.child(platform).map_or("", |child| &child.digest)
    }

    /// `<repository>:<tag>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// `<repository>@<digest>`.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// `mediaType`, `digest` and `size`.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

impl ImageBuilder {
    pub(super) fn new(store: &Store, repository: &str, tag: &str) -> Self {
        Self {
            store: store.clone(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            seed: tag.to_owned(),
            docker: false,
            algorithm: Algorithm::Sha256,
            parts: Vec::new(),
            annotations: serde_json::Map::new(),
        }
    }

    /// With a manifest for this platform: `os/arch[/variant][:os.version]`.
    pub fn platform(self, platform: &str) -> Self {
        self.part(Part::Platform(platform.to_owned()))
    }

    /// With a manifest for each of these platforms.
    pub fn platforms<'a>(self, platforms: impl IntoIterator<Item = &'a str>) -> Self {
        platforms.into_iter().fold(self, Self::platform)
    }

    /// With a build attestation of the manifest for `platform`, which comes before it.
    pub fn attestation(self, platform: &str) -> Self {
        self.part(Part::Attestation(platform.to_owned()))
    }

    /// With an entry for this platform whose manifest is not there.
    pub fn missing(self, platform: &str) -> Self {
        self.part(Part::Missing(platform.to_owned()))
    }

    /// With a manifest whose entry has no platform.
    pub fn unnamed(self) -> Self {
        self.part(Part::Unnamed)
    }

    /// With this entry as it stands: of another image, of another index, twice the same.
    pub fn entry(self, entry: &Value) -> Self {
        self.part(Part::Entry(entry.clone()))
    }

    /// With this annotation on the index.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), json!(value));
        self
    }

    /// With Docker's media types.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// With sha512 digests of manifests.
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// With content that depends on this instead of the tag: equal seeds give equal digests.
    pub fn seed(mut self, seed: &str) -> Self {
        seed.clone_into(&mut self.seed);
        self
    }

    /// Puts the index, and all it lists, into the store.
    pub fn push(self) -> Image {
        let mut children: Vec<Child> = Vec::new();
        for part in &self.parts {
            let child = self.child(part, &children);
            children.push(child);
        }
        let media_type = self.media_type(
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.oci.image.index.v1+json",
        );
        let entries: Vec<&Value> = children.iter().map(|child| &child.entry).collect();
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        if let (Some(fields), false) = (index.as_object_mut(), self.annotations.is_empty()) {
            fields.insert(
                "annotations".to_owned(),
                Value::Object(self.annotations.clone()),
            );
        }
        let bytes = index.to_string();
        let size = bytes.len();
        let digest = self.put(Some(&self.tag), media_type, bytes);
        Image {
            repository: self.repository,
            tag: self.tag,
            digest,
            media_type: media_type.to_owned(),
            size,
            children,
        }
    }

    /// Puts the manifest of the first platform (`linux/amd64` where none was named) into the store and tags it, without an index.
    pub fn push_single(self) -> Image {
        let first = self.parts.iter().find_map(|part| match part {
            Part::Platform(platform) => Some(platform.as_str()),
            _ => None,
        });
        let (media_type, bytes) = self.manifest(first.unwrap_or("linux/amd64"));
        let size = bytes.len();
        let digest = self.put(Some(&self.tag), media_type, bytes);
        Image {
            repository: self.repository,
            tag: self.tag,
            digest,
            media_type: media_type.to_owned(),
            size,
            children: Vec::new(),
        }
    }

    fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    fn media_type(&self, docker: &'static str, oci: &'static str) -> &'static str {
        if self.docker { docker } else { oci }
    }

    fn put(&self, tag: Option<&str>, media_type: &str, bytes: String) -> String {
        self.store
            .put_manifest_by(self.algorithm, &self.repository, tag, media_type, bytes)
    }

    fn child(&self, part: &Part, before: &[Child]) -> Child {
        let listed = |media_type: &str, bytes: &str, digest: &str| json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        match part {
            Part::Entry(entry) => {
                let digest = entry
                    .get("digest")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                Child {
                    platform: None,
                    digest,
                    entry: entry.clone(),
                }
            }
            Part::Platform(platform) | Part::Missing(platform) => {
                let (media_type, bytes) = self.manifest(platform);
                let digest = self.algorithm.digest(bytes.as_bytes());
                let mut entry = listed(media_type, &bytes, &digest);
                set(&mut entry, "platform", platform_json(platform));
                if matches!(part, Part::Platform(_)) {
                    self.put(None, media_type, bytes);
                }
                Child {
                    platform: Some(platform.clone()),
                    digest,
                    entry,
                }
            }
            Part::Unnamed => {
                let (media_type, bytes) = self.manifest("unknown/unnamed");
                let digest = self.put(None, media_type, bytes.clone());
                Child {
                    platform: None,
                    entry: listed(media_type, &bytes, &digest),
                    digest,
                }
            }
            Part::Attestation(platform) => {
                let of = before
                    .iter()
                    .find(|child| child.platform.as_deref() == Some(platform));
                let of = of.map(|child| child.digest.clone()).unwrap_or_default();
                let (media_type, bytes) = self.attestation_manifest(&of);
                let digest = self.put(None, media_type, bytes.clone());
                let mut entry = listed(media_type, &bytes, &digest);
                set(
                    &mut entry,
                    "platform",
                    json!({"os": "unknown", "architecture": "unknown"}),
                );
                let annotations = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of});
                set(&mut entry, "annotations", annotations);
                Child {
                    platform: None,
                    digest,
                    entry,
                }
            }
        }
    }

    /// The image manifest of a platform, its config and layer being put into the store.
    fn manifest(&self, platform: &str) -> (&'static str, String) {
        let layer = format!("layer of {} for {platform}", self.seed);
        let mut config = platform_json(platform);
        set(
            &mut config,
            "rootfs",
            json!({"type": "layers", "diff_ids": [super::digest(layer.as_bytes())]}),
        );
        let config_type = self.media_type(
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.oci.image.config.v1+json",
        );
        let layer_type = self.media_type(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        );
        let media_type = self.media_type(
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.oci.image.manifest.v1+json",
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.blob(config_type, config.to_string()),
            "layers": [self.blob(layer_type, layer)],
        });
        (media_type, manifest.to_string())
    }

    fn attestation_manifest(&self, of: &str) -> (&'static str, String) {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let config = json!({"os": "unknown", "architecture": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}});
        let statement =
            json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": of}]});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.blob("application/vnd.oci.image.config.v1+json", config.to_string()),
            "layers": [self.blob("application/vnd.in-toto+json", statement.to_string())],
        });
        (media_type, manifest.to_string())
    }

    fn blob(&self, media_type: &str, bytes: String) -> Value {
        let size = bytes.len();
        let digest = self.store.put_blob(&self.repository, bytes);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }
}

/// `os/arch[/variant][:os.version]` as a platform object.
fn platform_json(text: &str) -> Value {
    let (path, version) = text
        .split_once(':')
        .map_or((text, None), |(path, version)| (path, Some(version)));
    let mut platform = json!({});
    let names = ["os", "architecture", "variant"];
    for (name, value) in names
        .into_iter()
        .zip(path.split('/'))
        .chain(version.map(|version| ("os.version", version)))
    {
        set(&mut platform, name, json!(value));
    }
    platform
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}
