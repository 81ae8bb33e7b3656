//! `affix tree`: the image, its platforms, and what is attached to each.

mod gather;
mod model;
mod render;

use std::collections::BTreeSet;

use clap::ValueEnum;

use super::exit::{Error, Exit, print};
use super::text::Clean;
use super::{desk, login, report};
use affix_registry::Access;
use affix_registry::oci::Reference;

/// Show an image, its platforms and what is attached to each, as one tree
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Under the index and under each manifest stand its referrers: artifact type, digest, time of creation, annotations. A referrer's \
own referrers (the signature of an SBOM) are shown one level deep. Build attestations are marked.

The registry is reached with your login: REGISTRY_AUTH_FILE, then $DOCKER_CONFIG/config.json or ~/.docker/config.json, then \
$XDG_RUNTIME_DIR/containers/auth.json. Credential helpers are not run.

Examples:
  affix tree registry.example.com/team/app:v1
  affix tree registry.example.com/team/app@sha256:…
  affix tree --full-digests ghcr.io/team/app:v1
  affix tree --plain-http localhost:5000/app:v1
  affix tree -o json docker.io/library/nginx:1.29 | jq '.referrers[].artifactType'

Exit codes: 0 all was listed, 1 something could not be, 2 the reference is malformed."
)]
pub(super) struct Args {
    /// The image, with its registry and a tag or a digest
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Print JSON instead of a tree
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<TreeFormat>,

    /// Show whole digests instead of their first twelve characters
    #[arg(long)]
    full_digests: bool,

    /// Speak plain HTTP with the registry
    #[arg(long)]
    plain_http: bool,
}

/// How a tree is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TreeFormat {
    /// As JSON, with whole digests and all annotations
    Json,
}

/// Gathers and prints.
pub(super) async fn run(args: Args) -> Result<Exit, Error> {
    let reference: Reference = args
        .image
        .parse()
        .map_err(|error| Error::bad_input(Clean(&format!("{error}"))))?;
    let credentials = login::of_user(&BTreeSet::from([&reference.host]));
    let access = Access {
        credentials,
        insecure: args.plain_http,
        ..Access::default()
    };
    let failed =
        |error: affix_registry::RegistryError| Error::Failed(Clean(&error.to_string()).to_string());
    let registries = desk::registries();
    let session = registries
        .open(&reference.host, &reference.repository, access)
        .map_err(failed)?;
    let tree = gather::gather(&session, &reference, &registries.options().limits)
        .await
        .map_err(failed)?;
    let text = match args.output {
        Some(TreeFormat::Json) => report::json(&tree)?,
        None => render::render(&tree, args.full_digests),
    };
    print(&text)?;
    Ok(if tree.is_complete() {
        Exit::Done
    } else {
        Exit::Incomplete
    })
}
