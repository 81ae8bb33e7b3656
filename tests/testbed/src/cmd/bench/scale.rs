//! The operator on many resources: how long until all are ready, and what they cost at rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Effort;
use super::api_server::ApiServer;
use super::images::with_platforms;
use super::lab::Lab;
use super::operator::Operator;
use super::table::{Goal, Table, Unit, number, seconds};

/// Images that are pushed at once.
const AT_ONCE: usize = 8;
/// How often is looked whether all are ready.
const LOOK: Duration = Duration::from_millis(250);
/// How long the operator is watched at rest.
const WATCHED: Duration = Duration::from_secs(60);
const MIB: f64 = 1_048_576.0;
/// What Flux publishes a time for.
const COMPARED: usize = 1000;

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let mut table = Table::new();
    let mut sizes: Vec<usize> = [10, 100, COMPARED].into_iter().filter(|size| *size < effort.most).collect();
    sizes.push(effort.most);
    for size in sizes {
        resources(lab, size, effort, &mut table).await?;
    }
    Ok(table.into_text())
}

/// So many resources, each with an image of its own, on a control plane of their own.
async fn resources(lab: &Lab, count: usize, effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    let specs = images(lab, count).await?;
    let cluster = ControlPlane::start(&lab.tools).await?;
    let api = ApiServer::of(lab, &cluster).await?;
    let operator = Operator::start(lab, &cluster, true).await?;
    drop(lab.modern.far.take());
    let began = Instant::now();
    api.create(specs).await?;
    let created = began.elapsed();
    api.ready(count, LOOK).await?;
    let goal = if count == COMPARED { Goal::Most(15.0) } else { Goal::None };
    let what =
        format!("{count} resources, each an index and 4 platforms: from the first apply until all are ready (applied after {created:.1?})");
    table.value(&what, seconds(began.elapsed()), Unit::Seconds, goal);
    table.value("their requests to the registry", number(lab.modern.far.take().len()), Unit::Count, Goal::None);
    table.value("processor time for it", seconds(operator.cpu()?), Unit::Seconds, Goal::None);
    rest(lab, &operator, effort, table).await?;
    operator.stop().await?;

    drop(lab.modern.far.take());
    let operator = Operator::start(lab, &cluster, true).await?;
    table.value("restart: from start to watching", seconds(operator.started), Unit::Seconds, Goal::None);
    sleep(watched(effort)).await;
    let what = format!("requests to the registry in the first {} s after it", watched(effort).as_secs());
    let requests = lab.modern.far.take();
    table.value(&what, number(requests.len()), Unit::Count, Goal::None);
    let first = requests.first().map(|request| request.sent);
    let mut by_second: BTreeMap<u64, usize> = BTreeMap::new();
    for request in &requests {
        *by_second.entry(first.map_or(0, |first| (request.sent - first).as_secs())).or_default() += 1;
    }
    table.value("the most in one second", number(by_second.values().copied().max().unwrap_or(0)), Unit::Count, Goal::None);
    table.value(
        "memory after it",
        number(operator.memory()?),
        Unit::Mebibytes,
        if count > COMPARED { Goal::Most(48.0 * MIB) } else { Goal::None },
    );
    operator.stop().await
}

/// What they cost when there is nothing to do.
async fn rest(lab: &Lab, operator: &Operator, effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    sleep(watched(effort)).await;
    drop(lab.modern.far.take());
    let before = operator.cpu()?;
    sleep(watched(effort)).await;
    let hours = watched(effort).as_secs_f64() / 3600.0;
    table.value("at rest: memory", number(operator.memory()?), Unit::Mebibytes, Goal::None);
    table.value("at rest: processor time an hour", seconds(operator.cpu()?.saturating_sub(before)) / hours, Unit::Seconds, Goal::None);
    table.value("at rest: requests an hour", number(lab.modern.far.take().len()) / hours, Unit::Count, Goal::None);
    Ok(())
}

fn watched(effort: &Effort) -> Duration {
    if effort.smoke { Duration::from_secs(1) } else { WATCHED }
}

/// So many images, and a resource for each: on its tag, so that each has something to look at.
async fn images(lab: &Lab, count: usize) -> anyhow::Result<Vec<(String, Value)>> {
    let repository = lab.repository();
    let raw = lab.modern.registry.raw()?;
    // The platforms' images are the same everywhere: what counts is one index and four subjects a resource.
    futures::stream::iter(0..count)
        .map(|nth| {
            let (repository, raw) = (format!("{repository}/{nth}"), &raw);
            async move {
                let pushed = with_platforms(4, "scale").push(raw, &repository, "v1").await?;
                let image = format!("{}/{repository}:{}", lab.modern.far.host(), pushed.tag);
                let artifact = json!({"artifactType": "application/vnd.demo.test", "annotations": {"bench": "scale"}});
                Ok::<_, anyhow::Error>((format!("scale-{nth}"), json!({"image": image, "insecure": true, "artifact": artifact})))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
