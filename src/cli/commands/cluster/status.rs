//! `affix status`: the state of the resources of a cluster.

use std::fmt::Debug;

use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{ImageAttachment, ImageAttachmentSet, SET_LABEL, is_object_name};
use crate::attachment::sets::set_label;
use crate::cli::exit::{Error, Exit, message, print};
use crate::cli::output::report::{self, Format};
use crate::cli::output::status::{Resources, tables};
use crate::cli::output::text::Clean;
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

  # One resource, or a set with the ImageAttachments that it made
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
    let resources = read(config, &args)
        .await
        .map_err(|error| Error::Failed(explain(&error)))?;
    if let Some(format) = args.output {
        let sets = resources.sets.iter().map(serde_json::to_value);
        let values = sets.chain(resources.attachments.iter().map(serde_json::to_value));
        let values: Result<Vec<Value>, _> = values.collect();
        let values = values.map_err(|error| Error::Failed(error.to_string()))?;
        print(&report::objects(&values, format)?)?;
    } else if resources.is_empty() {
        print("no ImageAttachments\n")?;
    } else {
        print(&tables(&resources))?;
    }
    Ok(if resources.is_settled() {
        Exit::Done
    } else {
        Exit::Incomplete
    })
}

async fn read(config: Config, args: &Args) -> Result<Resources, kube::Error> {
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config)?;
    let Some(name) = &args.name else {
        let namespace = (!args.all_namespaces).then_some(&*namespace);
        let attachments = list(&api::<ImageAttachment>(&client, namespace), None).await?;
        let sets = list(&api(&client, namespace), None).await;
        let sets = sets.or_else(without_sets)?;
        return Ok(Resources { sets, attachments });
    };
    let attachments = api::<ImageAttachment>(&client, Some(&namespace));
    let object = attachments.get_opt(name).await?;
    let set = api::<ImageAttachmentSet>(&client, Some(&namespace));
    let set = set.get_opt(name).await;
    let set = set.or_else(|error| without_sets(error).map(|_| None))?;
    let mut found: Vec<ImageAttachment> = object.into_iter().collect();
    if set.is_some() {
        let label = format!("{SET_LABEL}={}", set_label(name));
        let children = list(&attachments, Some(&label)).await?;
        found.extend(children.into_iter().filter(|child| {
            // An ImageAttachment of the name of the set is there already.
            child.metadata.name.as_ref() != Some(name)
        }));
    } else if found.is_empty() {
        // The answer of the API server, which says what it does not know.
        found.push(attachments.get(name).await?);
    }
    Ok(Resources {
        sets: set.into_iter().collect(),
        attachments: found,
    })
}

/// Returns the API of a kind in a namespace, or in all.
fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Reads a list, page by page.
async fn list<K>(api: &Api<K>, labels: Option<&str>) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE_SIZE);
    if let Some(labels) = labels {
        params = params.labels(labels);
    }
    loop {
        let page = api.list(&params).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// Goes on without sets in a cluster that does not have the kind, and where the user may not read it.
fn without_sets(error: kube::Error) -> Result<Vec<ImageAttachmentSet>, kube::Error> {
    match &error {
        kube::Error::Api(status) if matches!(status.code, 403 | 404) => {
            message(&format!(
                "notice: the sets are unknown: {}",
                Clean(&status.message)
            ));
            Ok(Vec::new())
        }
        _ => Err(error),
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
