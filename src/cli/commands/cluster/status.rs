//! `affix status`: the state of the resources of a cluster.

use kube::api::{Api, ListParams};
use kube::{Client, Config};
use serde_json::Value;

use crate::api::{ImageAttachment, is_object_name};
use crate::cli::exit::{Error, Exit, print};
use crate::cli::output::report::{self, Format};
use crate::cli::output::status::{is_settled, tables};
use crate::service::cluster_config;

/// The number of resources in one page of a list.
const PAGE_SIZE: u32 = 100;

/// Show the targets and conditions of the resources in a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The cluster is that of the kubeconfig (KUBECONFIG, ~/.kube/config). No registry is asked.

Examples:
  # The resources of the namespace of the kubeconfig
  affix status

  # One resource
  affix status app-v1 -n team-a

  # All resources of the cluster that are not ready, with jq
  affix status -A -o json | jq '.items[] | select(.status.conditions[] | .type == \"Ready\" and .status != \"True\")'

Exit codes: 0 every resource is ready, suspended, or a dry run with a plan; 1 one is not, or the cluster cannot be read; 2 the input is invalid."
)]
pub(in crate::cli) struct Args {
    /// Name of a resource; by default all of the namespace
    #[arg(value_name = "NAME", value_parser = object_name)]
    name: Option<String>,

    /// Namespace; by default that of the kubeconfig
    #[arg(short, long, value_name = "NAMESPACE", value_parser = object_name, conflicts_with = "all_namespaces")]
    namespace: Option<String>,

    /// Show the resources of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,

    /// Print the resources, instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

pub(super) fn object_name(text: &str) -> Result<String, String> {
    if is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("it is not a name: write lower-case letters, digits, - and .".to_owned())
    }
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let config = cluster_config()
        .await
        .map_err(|error| Error::Failed(error.to_string()))?;
    let objects = read(config, &args)
        .await
        .map_err(|error| Error::Failed(explain(&error)))?;
    if let Some(format) = args.output {
        let values: Result<Vec<Value>, _> = objects.iter().map(serde_json::to_value).collect();
        let values = values.map_err(|error| Error::Failed(error.to_string()))?;
        print(&report::objects(&values, format)?)?;
    } else if objects.is_empty() {
        print("no ImageAttachments\n")?;
    } else {
        print(&tables(&objects))?;
    }
    Ok(if objects.iter().all(is_settled) {
        Exit::Done
    } else {
        Exit::Incomplete
    })
}

async fn read(config: Config, args: &Args) -> Result<Vec<ImageAttachment>, kube::Error> {
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config)?;
    let api: Api<ImageAttachment> = if args.all_namespaces {
        Api::all(client)
    } else {
        Api::namespaced(client, &namespace)
    };
    if let Some(name) = &args.name {
        return Ok(vec![api.get(name).await?]);
    }
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE_SIZE);
    loop {
        let page = api.list(&params).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// Returns the cause for users. The message of kube repeats the whole status.
fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 && status.message.contains("could not find") => {
            "the cluster does not know ImageAttachments: install affix, or its CRD with `affix crd | kubectl apply -f -`".to_owned()
        }
        kube::Error::Api(status) => {
            format!("the API server answered {}: {}", status.code, status.message)
        }
        other => format!("cannot reach the cluster of the kubeconfig: {other}"),
    }
}
