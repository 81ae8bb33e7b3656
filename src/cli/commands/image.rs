//! The documents of `affix attach IMAGE`: the flags describe the same resource that a file would.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::api::Pinned;
use crate::cli::documents::{Documents, Input, ScopeArgs};
use crate::cli::exit::{Error, message};
use crate::cli::local;
use crate::cli::output::text::Clean;
use affix_registry::oci::Reference;
use affix_registry::{Access, Locator};

/// The largest file of the command line, in bytes: the size limit of a ConfigMap, which holds it in a cluster.
const MAX_FILE: u64 = 1 << 20;

/// The files above which a ConfigMap holds the content, in bytes.
const MAX_INLINE: usize = 16 << 10;

/// The flags that describe a resource.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "One image, without a file of resources")]
pub(super) struct ImageArgs {
    /// Image with its registry and a tag or a digest
    #[arg(value_name = "IMAGE", conflicts_with = "files")]
    pub image: Option<String>,

    /// Files to attach, each as FILE or FILE:MEDIA-TYPE; with --artifact-type
    #[arg(value_name = "FILE", requires = "artifact_type")]
    layers: Vec<String>,

    /// Mark the image as no longer supported from this date, such as 2027-03-20 or 2027-03-20T12:00:00Z
    #[arg(long, value_name = "DATE", requires = "image", conflicts_with_all = ["files", "artifact_type", "sign_with"])]
    end_of_life: Option<String>,

    /// Attach files and annotations with this artifact type
    #[arg(
        long,
        value_name = "TYPE",
        requires = "image",
        conflicts_with = "files",
        conflicts_with = "sign_with"
    )]
    artifact_type: Option<String>,

    /// Sign with a private key of cosign. COSIGN_PASSWORD has its password; without it, the terminal asks for it
    #[arg(
        long,
        value_name = "KEY-FILE",
        requires = "image",
        conflicts_with = "files"
    )]
    sign_with: Option<PathBuf>,

    /// Annotation as KEY=VALUE; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", requires = "image", conflicts_with = "files", value_parser = annotation)]
    annotation: Vec<(String, String)>,

    /// Platform such as linux/amd64; may be repeated. The index is a target in any case. All platforms if not set
    #[arg(
        long,
        value_name = "PLATFORM",
        requires = "image",
        conflicts_with = "files"
    )]
    platform: Vec<String>,

    /// Use plain HTTP for the registry
    #[arg(long, requires = "image", conflicts_with = "files")]
    plain_http: bool,

    /// Name of the resource; by default made from the image
    #[arg(
        long,
        value_name = "NAME",
        requires = "image",
        conflicts_with = "files"
    )]
    name: Option<String>,

    /// Show the plan only; with IMAGE and -o yaml or -o json, print the resource, to be committed
    #[arg(long)]
    pub dry_run: bool,
}

/// Parses `KEY=VALUE`.
fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE".to_owned()),
    }
}

/// The resource of the flags, and the objects that it references.
pub(super) struct Built {
    /// The resource, then ConfigMaps. They may be printed.
    pub objects: Vec<Value>,
    /// The Secret with the private key. It is never printed.
    key: Option<Value>,
}

impl Built {
    /// Returns the note on the Secret of a resource that signs, which is not printed.
    pub(super) fn key_note(&self) -> Option<String> {
        let name = self.key.as_ref()?.pointer("/metadata/name")?.as_str()?;
        Some(format!(
            "notice: the private key is not printed: create the Secret {name} in the cluster with `cosign generate-key-pair k8s://NAMESPACE/{name}`, \
             or from the files of your key"
        ))
    }

    /// Returns the objects as documents.
    ///
    /// # Errors
    /// Bad input: the rules of the schema.
    pub(super) fn documents(&self) -> Result<Documents, Error> {
        let texts = self.objects.iter().chain(&self.key).map(Value::to_string);
        let input = Input {
            name: "command line".to_owned(),
            text: texts.collect::<Vec<String>>().join("\n"),
            from_folder: false,
            path: None,
            skipped: None,
        };
        Documents::from_inputs(&[input], Pinned::Final, "default")
    }
}

impl ImageArgs {
    /// Returns the resource. An image with a date gets its digest from the registry, because a date belongs to one image.
    ///
    /// # Errors
    /// Bad input, a file that cannot be read, or a tag that cannot be resolved.
    /// `prints_only`: the resource is printed, so the password of a key is not needed.
    pub(super) async fn build(
        &self,
        image: &str,
        scope: &ScopeArgs,
        prints_only: bool,
    ) -> Result<Built, Error> {
        let reference: Reference = image.parse().map_err(|error| {
            let text = format!("{error}").replace("set insecure: true", "use --plain-http");
            Error::bad_input(Clean(&text))
        })?;
        let annotations: Map<String, Value> = (self.annotation.iter().cloned())
            .map(|(key, value)| (key, value.into()))
            .collect();
        if annotations.len() < self.annotation.len() {
            return Err(Error::bad_input("--annotation: a key is given twice"));
        }
        let mut spec = json!({"image": image});
        if self.plain_http {
            set(&mut spec, "insecure", json!(true));
        }
        if !self.platform.is_empty() {
            set(&mut spec, "targets", json!({"platforms": self.platform}));
        }
        let mut objects = Vec::new();
        let mut key = None;
        let name = |kind: &str| match &self.name {
            Some(name) => name.clone(),
            None => object_name(&reference, kind),
        };
        let name = if let Some(date) = &self.end_of_life {
            set(
                &mut spec,
                "endOfLife",
                with_annotations(json!({"date": date}), annotations),
            );
            name("end-of-life")
        } else if let Some(path) = &self.sign_with {
            let name = name("signature");
            let secret = format!("{name}-key");
            let cosign = json!({"keySecretRef": {"name": secret}});
            set(
                &mut spec,
                "signature",
                json!({"cosign": with_annotations(cosign, annotations)}),
            );
            key = Some(key_secret(path, &secret, scope, !prints_only)?);
            name
        } else if let Some(artifact_type) = &self.artifact_type {
            let name = name("artifact");
            let mut artifact =
                with_annotations(json!({"artifactType": artifact_type}), annotations);
            let (files, config_map) = self.files(&name, scope)?;
            if !files.is_empty() {
                set(&mut artifact, "files", json!(files));
            }
            set(&mut spec, "artifact", artifact);
            objects.extend(config_map);
            name
        } else {
            return Err(Error::bad_input(
                "IMAGE alone says nothing to attach: add --end-of-life DATE, --artifact-type TYPE or --sign-with KEY-FILE",
            ));
        };
        let resource = object("affix.dev/v1alpha1", "ImageAttachment", &name, scope);
        let mut built = Built {
            objects: vec![with(resource, "spec", spec)],
            key,
        };
        built.objects.extend(objects);
        if self.end_of_life.is_some() && reference.digest.is_none() {
            // The rules of the schema come before the first request. A digest takes the place of the one to come.
            let mut checked = built.objects.clone();
            set_image(&mut checked, &format!("{image}@sha256:{}", "0".repeat(64)));
            Built {
                objects: checked,
                key: None,
            }
            .documents()?;
            let pinned = self.resolve(reference).await?;
            message(&format!("notice: the date belongs to {pinned}"));
            set_image(&mut built.objects, &pinned);
        }
        Ok(built)
    }

    /// Returns the image with the digest that its tag names now.
    async fn resolve(&self, reference: Reference) -> Result<String, Error> {
        let Some(tag) = reference.tag.clone() else {
            return Err(Error::bad_input("IMAGE: a tag or a digest is missing"));
        };
        let failed = |error: affix_registry::RegistryError| {
            Error::Failed(format!("{reference}: {}", Clean(&error.to_string())))
        };
        let access = Access {
            credentials: local::user_logins(&[&reference.host].into()).await,
            insecure: self.plain_http,
            ..Access::default()
        };
        let session = local::registries()
            .open(&reference.host, &reference.repository, access)
            .map_err(failed)?;
        let tag = Locator::Tag(tag);
        let head = local::announced(
            || format!("waiting for {}", reference.host),
            session.head(&tag),
        );
        let digest = Some(head.await.map_err(failed)?.digest);
        Ok(Reference {
            digest,
            ..reference
        }
        .to_string())
    }

    /// Returns the files of the artifact, and the ConfigMap with those that are binary or large.
    fn files(&self, name: &str, scope: &ScopeArgs) -> Result<(Vec<Value>, Option<Value>), Error> {
        let map_name = format!("{name}-files");
        let mut data = Map::new();
        let mut files = Vec::new();
        for (nth, layer) in self.layers.iter().enumerate() {
            let (path, media_type) = split_layer(layer);
            let bytes = read(path)?;
            let mut file = json!({"name": title(path)});
            if let Some(media_type) = media_type {
                set(&mut file, "mediaType", media_type.into());
            }
            match std::str::from_utf8(&bytes) {
                Ok(text) if text.len() <= MAX_INLINE => set(&mut file, "value", text.into()),
                _ => {
                    let key = format!("file-{nth}");
                    set(
                        &mut file,
                        "valueFrom",
                        json!({"configMapKeyRef": {"name": map_name, "key": key}}),
                    );
                    let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
                    data.insert(key, encoded.into());
                }
            }
            files.push(file);
        }
        let map = (!data.is_empty()).then(|| {
            let map = object("v1", "ConfigMap", &map_name, scope);
            with(map, "binaryData", Value::Object(data))
        });
        Ok((files, map))
    }
}

fn object(api_version: &str, kind: &str, name: &str, scope: &ScopeArgs) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(namespace) = &scope.namespace {
        set(&mut metadata, "namespace", namespace.as_str().into());
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

/// Sets a field of a JSON object.
fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    set(&mut object, field, value);
    object
}

fn with_annotations(object: Value, annotations: Map<String, Value>) -> Value {
    if annotations.is_empty() {
        object
    } else {
        with(object, "annotations", Value::Object(annotations))
    }
}

fn set_image(objects: &mut [Value], image: &str) {
    let resource = objects.first_mut();
    if let Some(spec) = resource.and_then(|resource| resource.get_mut("spec")) {
        set(spec, "image", image.into());
    }
}

/// Returns the name of a resource: the last part of the repository, the tag and the kind of attachment.
fn object_name(reference: &Reference, kind: &str) -> String {
    let repository = reference.repository.as_str();
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let version = match (&reference.tag, &reference.digest) {
        (Some(tag), _) => tag.to_string(),
        (None, Some(digest)) => digest.short().to_owned(),
        (None, None) => String::new(),
    };
    let text = format!("{last}-{version}").to_ascii_lowercase();
    let text = text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let text: String = text.chars().take(200).collect();
    format!("{}-{kind}", text.trim_matches('-'))
}

/// Splits `FILE:MEDIA-TYPE`, as oras reads it. The name of a file may contain a colon.
fn split_layer(text: &str) -> (&Path, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, media_type)) if media_type.contains('/') && !Path::new(text).exists() => {
            (Path::new(path), Some(media_type))
        }
        _ => (Path::new(text), None),
    }
}

/// Returns the name of a file in the artifact: the path as it was given, or the last part of an absolute path or of one with `..`.
fn title(path: &Path) -> String {
    use std::path::Component;
    let parts: Option<Vec<&str>> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match parts {
        Some(parts) if !parts.is_empty() => parts.join("/"),
        _ => (path.file_name().unwrap_or_default())
            .to_string_lossy()
            .into_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let shown = Clean(&path.to_string_lossy()).to_string();
    let failed = |error: std::io::Error| Error::bad_input(format_args!("{shown}: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let count = file
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if count as u64 > MAX_FILE {
        return Err(Error::bad_input(format_args!(
            "{shown}: the file is larger than {MAX_FILE} bytes, the limit of a ConfigMap"
        )));
    }
    Ok(bytes)
}

/// Returns the Secret with the private key of a file, as `cosign generate-key-pair k8s://` writes it.
fn key_secret(
    path: &Path,
    name: &str,
    scope: &ScopeArgs,
    with_password: bool,
) -> Result<Value, Error> {
    let key = String::from_utf8(read(path)?).map_err(|_| {
        Error::bad_input(format_args!(
            "{}: it is not a private key: cosign generate-key-pair writes one",
            Clean(&path.to_string_lossy())
        ))
    })?;
    let is_encrypted = key.contains("ENCRYPTED");
    let mut data = json!({"cosign.key": key});
    if let Some(password) = password(path, with_password && is_encrypted)? {
        set(&mut data, "cosign.password", password.into());
    }
    let secret = object("v1", "Secret", name, scope);
    Ok(with(secret, "stringData", data))
}

/// Returns the password of a key from `COSIGN_PASSWORD`, or from the terminal, as cosign asks for it.
fn password(path: &Path, is_needed: bool) -> Result<Option<String>, Error> {
    if let Ok(password) = std::env::var("COSIGN_PASSWORD") {
        return Ok(Some(password));
    }
    if !is_needed {
        return Ok(None);
    }
    let shown = path.to_string_lossy();
    if !std::io::stdin().is_terminal() {
        return Err(Error::bad_input(format_args!(
            "{}: the key is encrypted: set its password in COSIGN_PASSWORD",
            Clean(&shown)
        )));
    }
    let prompt = format!("Password for the private key {}: ", Clean(&shown));
    rpassword::prompt_password(prompt)
        .map(Some)
        .map_err(|error| {
            Error::Failed(format!(
                "cannot read the password: {error}: set COSIGN_PASSWORD"
            ))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_name_of_a_resource_is_made_from_the_image() {
        let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        for (image, name) in [
            ("r.io/team/app:v1.2_RC".to_owned(), "app-v1-2-rc-artifact"),
            (
                format!("r.io/my_app@{digest}"),
                "my-app-44136fa355b3-artifact",
            ),
        ] {
            assert_eq!(object_name(&image.parse().unwrap(), "artifact"), name);
        }
    }

    #[test]
    fn a_file_may_have_a_media_type_and_keeps_its_relative_path() {
        let (path, media_type) = split_layer("dir/sbom.json:application/json");
        assert_eq!(
            (path, media_type),
            (Path::new("dir/sbom.json"), Some("application/json"))
        );
        assert_eq!(split_layer("a:b"), (Path::new("a:b"), None));
        for (path, expected) in [
            ("./a/b.txt", "a/b.txt"),
            ("/tmp/b.txt", "b.txt"),
            ("../b.txt", "b.txt"),
        ] {
            assert_eq!(title(Path::new(path)), expected);
        }
    }
}
