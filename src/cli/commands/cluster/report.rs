//! `affix report`: the images that run in a cluster, and their state.

use std::collections::BTreeSet;

use clap::ValueEnum;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::json;

use super::status::object_name;
use crate::api::GoDuration;
use crate::cli::exit::{Error, Exit, message, print};
use crate::cli::interrupt::interrupted;
use crate::cli::local;
use crate::cli::output::images;
use crate::cli::output::report::json;
use crate::cli::output::text::Clean;
use crate::engine::{LifecycleRules, LifecycleType};
use crate::inventory::{
    Answers, Assessment, LookUps, ReportFormat, RunningImages, Signers, State, assess, documents,
    read_images, read_platforms, read_signers,
};
use crate::service::{ApiServerError, cluster_config};
use affix_registry::HostPattern;
use affix_registry::oci::Host;

/// The number of images that are looked up at once. The registry client limits the requests to one registry.
const MAX_CONCURRENT: usize = 16;

/// Show which images run in a cluster, and which of them are out of life, signed or unknown
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The cluster is that of the kubeconfig (KUBECONFIG, ~/.kube/config). affix need not be installed there. The digest and the platform \
of an image are those that the nodes report, and each image is looked up once, with your login for its registry (as in affix tree). The mark \
on the manifest of the platform decides; that on the index decides if the platform is unknown.

The states are: out of life (the end-of-life date has passed), ending soon (it passes within --warn-before), unknown (the marks could not be \
read) and alive. SIGNED BY names the ImageAttachments of the cluster whose signature is on the image or on the manifest of the platform.

Examples:
  # The namespace of the kubeconfig
  affix report

  # All namespaces; exit code 1 if an image is out of life
  affix report -A

  # The namespaces that run images past their end of life, with jq
  affix report -A -o json | jq -r '.images[] | select(.state == \"OutOfLife\") | .namespace' | sort -u

  # Reports of openreports.io for a cluster that has this API
  affix report -A -o openreports | kubectl apply --server-side -f -

Exit codes: 0 no image is out of life, 1 one is, or the cluster cannot be read; 2 the input is invalid."
)]
pub(in crate::cli) struct Args {
    /// Namespace; by default that of the kubeconfig
    #[arg(short, long, value_name = "NAMESPACE", value_parser = object_name, conflicts_with = "all_namespaces")]
    namespace: Option<String>,

    /// Show the images of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Print JSON, or the objects of an API for reports, instead of a table
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,

    /// Artifact types of end-of-life marks, as TYPE or TYPE=ANNOTATION; the default annotation of application/NAME is
    /// NAME.end-of-life.date
    #[arg(
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        default_value = "application/vnd.microsoft.artifact.lifecycle"
    )]
    lifecycle_type: Vec<LifecycleType>,

    /// Time before the end-of-life date from which an image counts as ending soon
    #[arg(long, value_name = "DURATION", default_value = "720h")]
    warn_before: GoDuration,

    /// Registries that are reached over plain HTTP
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_registries: Vec<HostPattern>,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON with the images and a summary
    Json,
    /// A v1 List with objects of openreports.io/v1alpha1, in JSON
    Openreports,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let assessment = tokio::select! {
        biased;
        () = interrupted() => return Ok(Exit::Interrupted),
        assessment = gather(&args) => assessment?,
    };
    let text = match args.output {
        Some(Format::Json) => json(&assessment)?,
        Some(Format::Openreports) => {
            let items = documents(ReportFormat::Openreports, &assessment.findings);
            json(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?
        }
        None => images::table(&assessment),
    };
    print(&text)?;
    Ok(if assessment.count(State::OutOfLife) > 0 {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

/// Reads the cluster, then the registries.
async fn gather(args: &Args) -> Result<Assessment, Error> {
    let config = cluster_config()
        .await
        .map_err(|error| Error::Failed(error.to_string()))?;
    let scope = if args.all_namespaces {
        None
    } else {
        let namespace = args.namespace.clone();
        Some(namespace.unwrap_or_else(|| config.default_namespace.clone()))
    };
    let client = Client::try_from(config).map_err(|error| Error::Failed(error.to_string()))?;
    let running = local::announced(
        || "reading the pods of the cluster".to_owned(),
        running(&client, scope.clone()),
    )
    .await?;
    let answers = look_up(args, &running).await;
    let signers = signers(&client, scope, &running, &answers).await;
    let now = Timestamp::now().as_duration();
    let warn_before = SignedDuration::try_from(args.warn_before.get());
    let horizon = now.saturating_add(warn_before.unwrap_or(SignedDuration::MAX));
    Ok(assess(&running, &answers, &signers, now, horizon))
}

/// Reads the nodes and the pods. Without the permission to list nodes, the platforms are unknown.
async fn running(client: &Client, scope: Option<String>) -> Result<RunningImages, Error> {
    let nodes = match read_platforms(client).await {
        Ok(nodes) => nodes,
        Err(error @ ApiServerError::Refused(_)) => {
            notice(&format!(
                "the platforms of the nodes are unknown, so the mark on the index decides: {error}"
            ));
            std::collections::HashMap::new()
        }
        Err(error) => return Err(Error::Failed(error.to_string())),
    };
    read_images(client, &[scope], &nodes)
        .await
        .map_err(|error| Error::Failed(error.to_string()))
}

/// Looks up the marks of every image once, with the user's logins.
async fn look_up(args: &Args, running: &RunningImages) -> Answers {
    let images: Vec<_> = running
        .iter()
        .filter_map(|(key, image)| Some((key, image.reference()?)))
        .collect();
    let hosts: BTreeSet<&Host> = images.iter().map(|(_, image)| &image.host).collect();
    let logins = local::user_logins(&hosts).await;
    let look_ups = LookUps {
        registries: local::registries(),
        insecure: args.insecure_registries.clone(),
    };
    let rules = LifecycleRules {
        types: args.lifecycle_type.clone().into(),
        trust: None,
    };
    let (rules, look_ups, logins, now) = (&rules, &look_ups, &logins, Timestamp::now());
    let count = images.len();
    let work = images.into_iter().map(|(key, image)| async move {
        let answer = look_ups.ask(rules, image, logins, now).await;
        (key.clone(), answer)
    });
    let work = stream::iter(work)
        .buffer_unordered(MAX_CONCURRENT)
        .collect();
    local::announced(|| format!("looking up {count} images"), work).await
}

/// Reads the resources that sign the images: those of all namespaces, or of one if the user may list no others.
async fn signers(
    client: &Client,
    scope: Option<String>,
    running: &RunningImages,
    answers: &Answers,
) -> Signers {
    let mut read = read_signers(client, &[None], running, answers).await;
    if let (Err(ApiServerError::Refused(answer)), Some(_)) = (&read, &scope)
        && answer.code == 403
    {
        read = read_signers(client, &[scope], running, answers).await;
    }
    match read {
        Ok(signers) => signers,
        // The cluster does not have the resource, so nothing is signed by one.
        Err(error) if error.code() == Some(404) => Signers::default(),
        Err(error) => {
            notice(&format!("the resources that sign are unknown: {error}"));
            Signers::default()
        }
    }
}

fn notice(text: &str) {
    message(&format!("notice: {}", Clean(text)));
}
