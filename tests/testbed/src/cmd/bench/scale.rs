//! The operator on many resources: how long until all are ready, what a restart brings, and what they cost at rest.
//!
//! Nothing stands between the operator and the registry here: a proxy that writes down each of a hundred thousand requests would take
//! the processor that is measured. The operator counts its requests itself.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::say;
use super::Effort;
use super::api_server::ApiServer;
use super::images::with_platforms;
use super::lab::Lab;
use super::operator::{Counted, Operator};
use super::plot::{Curve, Plot};
use super::table::{Goal, Series, Table, Unit, number, seconds};

/// Images that are pushed at once.
const AT_ONCE: usize = 16;
/// How often is looked whether all are ready: so rarely that it costs the operator nothing to speak of.
fn look(count: usize) -> Duration {
    Duration::from_micros(100)
        .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
        .max(Duration::from_millis(50))
}

const MIB: f64 = 1_048_576.0;
/// What Flux publishes a time for.
const COMPARED: usize = 1000;
/// How often that is measured at most: a round is a control plane, a thousand images and a thousand resources.
const ROUNDS: usize = 3;

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let mut table = Table::new();
    let mut growth = Growth::default();
    let mut sizes: Vec<usize> = [10, 100, COMPARED]
        .into_iter()
        .filter(|size| *size < effort.most)
        .collect();
    sizes.push(effort.most);
    for size in sizes {
        resources(lab, size, effort, &mut table, &mut growth).await?;
    }
    Ok(format!(
        "{}\n{}",
        table.into_text(),
        growth.into_text(effort)?
    ))
}

/// So many resources, each with an image of its own, on a control plane of their own.
async fn resources(
    lab: &Lab,
    count: usize,
    effort: &Effort,
    table: &mut Table,
    growth: &mut Growth,
) -> anyhow::Result<()> {
    let rounds = if count == COMPARED {
        effort.rounds.min(ROUNDS)
    } else {
        1
    };
    let [mut ready, mut cpu] = [(); 2].map(|()| Series::default());
    let mut last = None;
    for round in 1..=rounds {
        drop(last.take());
        say(&format!(
            "{count} resources, round {round} of {rounds}: pushing their images"
        ));
        let specs = images(lab, count).await?;
        let applied = Applied::of(lab, specs).await?;
        say(&format!(
            "{count} resources: applied after {:.1?}, all ready after {:.1?}",
            applied.created, applied.ready
        ));
        ready.push(seconds(applied.ready));
        cpu.push(seconds(applied.operator.cpu()?));
        last = Some(applied);
    }
    let Some(Applied {
        cluster,
        operator,
        created,
        counted,
        ..
    }) = last
    else {
        return Ok(());
    };
    let goal = if count == COMPARED {
        Goal::Most(15.0)
    } else {
        Goal::None
    };
    let what = format!(
        "{count} resources, each an index and 4 platforms: from the first apply (of the last after {created:.1?}) until all are ready"
    );
    table.figure(&what, &ready, Unit::Seconds, goal);
    table.figure("processor time for it", &cpu, Unit::Seconds, Goal::None);
    let each = |requests: usize| number(requests) / number(count);
    table.value(
        "requests to the registry, each resource",
        each(counted.registry),
        Unit::Few,
        Goal::None,
    );
    table.value(
        "requests to the API server, each resource",
        each(counted.cluster),
        Unit::Few,
        Goal::None,
    );
    let memory = number(operator.memory()?);
    table.value("memory right after it", memory, Unit::Mebibytes, Goal::None);
    growth.row(count, ready.median(), cpu.median(), memory);
    operator.stop().await?;
    if count >= COMPARED || effort.smoke {
        rest(lab, &cluster, count, effort, table).await
    } else {
        Ok(())
    }
}

/// What a restart brings, and what the resources cost when there is nothing to do.
async fn rest(
    lab: &Lab,
    cluster: &ControlPlane,
    count: usize,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let watched = effort.watch;
    say(&format!(
        "{count} resources: a restart, and {} s at rest",
        2 * watched.as_secs()
    ));
    let operator = Operator::start(lab, cluster, true).await?;
    table.value(
        "restart: from start to watching",
        seconds(operator.started),
        Unit::Seconds,
        Goal::None,
    );
    let (mut before, mut most) = (Counted::default(), 0);
    for _ in 0..watched.as_secs() {
        sleep(Duration::from_secs(1)).await;
        let counted = operator.counted().await?;
        most = most.max(counted.registry - before.registry);
        before = counted;
    }
    table.value(
        &format!(
            "requests to the registry in the first {} s",
            watched.as_secs()
        ),
        number(before.registry),
        Unit::Count,
        Goal::None,
    );
    table.value(
        "the most in one second",
        number(most),
        Unit::Count,
        Goal::None,
    );
    let cpu = operator.cpu()?;
    sleep(watched).await;
    let (cpu, counted) = (
        operator.cpu()?.saturating_sub(cpu),
        operator.counted().await?,
    );
    let hours = watched.as_secs_f64() / 3600.0;
    let goal = if count > COMPARED {
        Goal::Most(80.0 * MIB)
    } else {
        Goal::None
    };
    table.value(
        "at rest: memory",
        number(operator.memory()?),
        Unit::Mebibytes,
        goal,
    );
    table.value(
        "at rest: processor time an hour",
        seconds(cpu) / hours,
        Unit::Seconds,
        Goal::None,
    );
    table.value(
        "at rest: requests to registries an hour",
        number(counted.registry - before.registry) / hours,
        Unit::Count,
        Goal::None,
    );
    table.value(
        "at rest: requests to the API server an hour",
        number(counted.cluster - before.cluster) / hours,
        Unit::Count,
        Goal::None,
    );
    operator.stop().await
}

/// Resources that were applied to an operator that was there, and became ready.
struct Applied {
    cluster: ControlPlane,
    operator: Operator,
    created: Duration,
    ready: Duration,
    counted: Counted,
}

impl Applied {
    async fn of(lab: &Lab, specs: Vec<(String, Value)>) -> anyhow::Result<Self> {
        let count = specs.len();
        let cluster = ControlPlane::start(&lab.tools).await?;
        let api = ApiServer::of(lab, &cluster).await?;
        let operator = Operator::start(lab, &cluster, true).await?;
        let began = Instant::now();
        let (created, _) = tokio::try_join!(
            async {
                api.create(specs).await?;
                anyhow::Ok(began.elapsed())
            },
            operator.ready(count, look(count))
        )?;
        let ready = began.elapsed();
        api.confirm_ready(count).await?;
        let counted = operator.counted().await?;
        Ok(Self {
            cluster,
            operator,
            created,
            ready,
            counted,
        })
    }
}

/// How the cost grows with the resources.
#[derive(Default)]
struct Growth {
    rows: String,
    time: Vec<(usize, f64)>,
    cpu: Vec<(usize, f64)>,
    memory: Vec<(usize, f64)>,
}

impl Growth {
    fn row(&mut self, count: usize, ready: f64, cpu: f64, memory: f64) {
        let [time, spent, bytes] = [
            (ready, Unit::Seconds),
            (cpu, Unit::Seconds),
            (memory, Unit::Mebibytes),
        ]
        .map(|(value, unit)| unit.write(value));
        let _ = writeln!(self.rows, "| {count} | {time} | {spent} | {bytes} |");
        self.time.push((count, ready));
        self.cpu.push((count, cpu));
        self.memory.push((count, memory / MIB));
    }

    fn into_text(self, effort: &Effort) -> anyhow::Result<String> {
        let mut text = format!(
            "| resources | until all are ready | processor time | memory right after |\n| --- | --- | --- | --- |\n{}",
            self.rows
        );
        let time = vec![
            Curve {
                title: "until all are ready",
                points: self.time,
            },
            Curve {
                title: "processor time",
                points: self.cpu,
            },
        ];
        let memory = vec![Curve {
            title: "memory",
            points: self.memory,
        }];
        for (file, up, curves) in [("resources", "seconds", time), ("memory", "MiB", memory)] {
            let plot = Plot {
                across: "resources",
                up,
                curves,
            };
            text.push_str(&plot.save(file, effort)?);
        }
        Ok(text)
    }
}

/// So many images, and a resource for each: on its tag, so that each has something to look at.
async fn images(lab: &Lab, count: usize) -> anyhow::Result<Vec<(String, Value)>> {
    let (repository, registry) = (lab.repository(), &lab.modern.registry);
    let raw = registry.raw()?;
    // The platforms' images are the same everywhere: what counts is one index and four subjects a resource.
    futures::stream::iter(0..count)
        .map(|nth| {
            let (repository, raw) = (format!("{repository}/{nth}"), &raw);
            async move {
                let pushed = with_platforms(4, "scale").push(raw, &repository, "v1").await?;
                let image = format!("{}/{repository}:{}", registry.host(), pushed.tag);
                let artifact = json!({"artifactType": "application/vnd.demo.test", "annotations": {"bench": "scale"}});
                Ok::<_, anyhow::Error>((format!("scale-{nth}"), json!({"image": image, "insecure": true, "artifact": artifact})))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
