//! `affix tree`: an image, its platforms and their referrers.

mod gather;
mod model;
mod render;

use std::collections::BTreeSet;

use clap::ValueEnum;

use crate::cli::exit::{Error, Exit, print};
use crate::cli::local;
use crate::cli::output::report;
use crate::cli::output::text::Clean;
use affix_registry::Access;
use affix_registry::oci::Reference;

/// Show an image, its platforms and their referrers as a tree
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The tree shows the referrers of the index and of each manifest: artifact type, digest, time of creation, annotations. It \
shows the referrers of a referrer (such as the signature of an SBOM) one level deep, and the tags of cosign for each manifest (.sig and .att).

Your login is used for the registry: REGISTRY_AUTH_FILE, then $DOCKER_CONFIG/config.json or ~/.docker/config.json, then \
$XDG_RUNTIME_DIR/containers/auth.json and ~/.config/containers/auth.json. The credential helpers that these files name are run.

Examples:
  # Show the referrers of a tag or of a digest
  affix tree registry.example.com/team/app:v1
  affix tree registry.example.com/team/app@sha256:…

  # Show whole digests
  affix tree --full-digests ghcr.io/team/app:v1

  # Use a registry without TLS
  affix tree --plain-http localhost:5000/app:v1

  # List the artifact types of the referrers of the index
  affix tree -o json docker.io/library/nginx:1.29 | jq '.referrers[].artifactType'

Exit codes: 0 everything was listed, 1 something could not be listed, 2 the reference is malformed."
)]
pub(in crate::cli) struct Args {
    /// Image with its registry and a tag or a digest
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Print JSON, instead of a tree
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<TreeFormat>,

    /// Show whole digests, instead of their first twelve characters
    #[arg(long)]
    full_digests: bool,

    /// Use plain HTTP for the registry
    #[arg(long)]
    plain_http: bool,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TreeFormat {
    /// JSON with whole digests and all annotations
    Json,
}

/// Returns a message for the terminal, with the flags of this command in place of the fields of a resource.
fn with_flags(text: &str) -> String {
    let fields = [
        (
            "insecure: true, or --plain-http of affix tree",
            "--plain-http",
        ),
        ("set insecure: true", "use --plain-http"),
        (
            "name it in ca.crt of certSecretRef",
            "name a file with it in the variable SSL_CERT_FILE",
        ),
        (
            "name this certificate itself in ca.crt of certSecretRef",
            "name a file with this certificate itself in the variable SSL_CERT_FILE",
        ),
        (
            "set SSL_CERT_FILE, or name one in ca.crt",
            "set SSL_CERT_FILE",
        ),
        ("in the Secret of proxySecretRef, or in", "in"),
    ];
    let text = fields.iter().fold(text.to_owned(), |text, (field, flag)| {
        text.replace(field, flag)
    });
    Clean(&text).to_string()
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let reference: Reference = args
        .image
        .parse()
        .map_err(|error| Error::bad_input(with_flags(&format!("{error}"))))?;
    let credentials = local::user_logins(&BTreeSet::from([&reference.host])).await;
    let access = Access {
        credentials,
        insecure: args.plain_http,
        ..Access::default()
    };
    let failed = |error: affix_registry::RegistryError| {
        Error::Failed(with_flags(&format!("{reference}: {error}")))
    };
    let registries = local::registries();
    let session = registries
        .open(&reference.host, &reference.repository, access)
        .map_err(failed)?;
    let tree = local::announced(
        || format!("waiting for {}", reference.host),
        gather::gather(&session, &reference, &registries.options().limits),
    )
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
