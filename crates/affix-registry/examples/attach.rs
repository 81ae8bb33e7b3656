//! Attaches a file to an image as a referrer, and lists the referrers of the image.
//!
//! ```console
//! $ cargo run -p affix-registry --example attach -- \
//!     registry.example.com/team/app:v1 sbom.spdx.json application/spdx+json
//! ```
//!
//! `DOCKER_CONFIG_FILE` names a docker config with the login. `PLAIN_HTTP=1` uses plain HTTP.
#![allow(
    clippy::print_stdout,
    dead_code,
    reason = "a program prints its result, and the test that includes this file calls only run"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use affix_registry::oci::{
    ArtifactType, Descriptor, Digest, ImageManifest, Reference, annotation, media_type,
};
use affix_registry::{
    Access, Keychain, ListingSource, Locator, Options, Registries, Session, TagChange,
};
use bytes::Bytes;

/// The input of the example.
pub(crate) struct Input {
    pub(crate) image: Reference,
    pub(crate) file: PathBuf,
    pub(crate) artifact_type: ArtifactType,
    pub(crate) credentials: Keychain,
    pub(crate) plain_http: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, file, artifact_type] = arguments.as_slice() else {
        return Err("usage: attach IMAGE FILE ARTIFACT_TYPE".into());
    };
    let credentials = match std::env::var_os("DOCKER_CONFIG_FILE") {
        Some(path) => Keychain::parse(&std::fs::read(path)?)?,
        None => Keychain::anonymous(),
    };
    let report = run(Input {
        image: image.parse()?,
        file: file.into(),
        artifact_type: artifact_type.parse()?,
        credentials,
        plain_http: std::env::var_os("PLAIN_HTTP").is_some(),
    })
    .await?;
    print!("{report}");
    Ok(())
}

/// Attaches the file. Returns a line for the attachment and one for each referrer of the image.
pub(crate) async fn run(input: Input) -> Result<String, Box<dyn Error>> {
    // One value for the process: it shares connections, tokens and rate limits.
    let registries = Registries::new(Options {
        allow_loopback: input.plain_http,
        ..Options::default()
    });
    // One session for each repository and credential.
    let session = registries.open(
        &input.image.host,
        &input.image.repository,
        Access {
            credentials: input.credentials,
            insecure: input.plain_http,
            ..Access::default()
        },
    )?;

    let locator = Locator::of(&input.image).ok_or("the image has neither a tag nor a digest")?;
    let subject = session.manifest(&locator).await?.descriptor();
    let attached = attach(&session, &subject, &input.file, &input.artifact_type).await?;

    let mut report = format!("attached {attached} to {}\n", subject.digest);
    for referrer in session.referrers(&subject.digest, None).await?.entries {
        report += &format!("{} {}\n", referrer.digest, referrer.artifact_type);
    }
    Ok(report)
}

async fn attach(
    session: &Session,
    subject: &Descriptor,
    file: &Path,
    artifact_type: &ArtifactType,
) -> Result<Digest, Box<dyn Error>> {
    // The blobs come first: a registry rejects a manifest whose blobs it does not have.
    let content = Bytes::from(std::fs::read(file)?);
    let mut layer = Descriptor::of(media_type::OCTET_STREAM, &content);
    if let Some(name) = file.file_name() {
        let name = name.to_string_lossy().into_owned();
        layer.annotations.insert(annotation::TITLE.to_owned(), name);
    }
    session.put_blob(content).await?;
    let config = Descriptor::empty();
    if !session.has_blob(&config.digest).await? {
        session.put_blob(Bytes::from_static(b"{}")).await?;
    }

    // A referrer is a manifest with a subject.
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.to_string()),
        config,
        layers: vec![layer],
        skipped: Vec::new(),
        subject: Some(subject.stripped()),
        annotations: BTreeMap::new(),
    };
    let bytes = Bytes::from(serde_json::to_vec(&manifest)?);
    let descriptor = Descriptor {
        artifact_type: artifact_type.to_string(),
        ..Descriptor::of(media_type::OCI_MANIFEST, &bytes)
    };
    let digest = descriptor.digest.clone();
    session
        .put_manifest(&digest.clone().into(), media_type::OCI_MANIFEST, bytes)
        .await?;

    // A registry without the referrers API needs an entry in the fallback tag.
    let listing = session.referrers(&subject.digest, None).await?;
    if listing.source == ListingSource::FallbackTag {
        let change = TagChange {
            add: vec![descriptor],
            remove: Vec::new(),
        };
        session.rewrite_fallback(subject, change, false).await?;
    }
    Ok(digest)
}
