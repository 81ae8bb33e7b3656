//! The operator on many sets: how long until all their resources are ready, and what they cost at rest.

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
use super::table::{Goal, Table, Unit, number, seconds};

const MIB: f64 = 1_048_576.0;
/// Images that are pushed at once.
const AT_ONCE: usize = 16;
/// The tags of a set.
const TAGS: usize = 40;
/// The sets of the largest measurement.
const MOST: usize = 300;

/// How much is measured.
struct Size {
    sets: usize,
    tags: usize,
    interval: Duration,
}

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let mut table = Table::new();
    let mut growth = Growth::default();
    let sizes = if effort.smoke {
        vec![1, 2]
    } else {
        let sizes = [1, 10, 30, 100].into_iter();
        sizes
            .chain([MOST])
            .filter(|sets| sets * TAGS <= effort.most.max(MOST * TAGS))
            .collect()
    };
    let last = sizes.last().copied();
    for sets in sizes {
        let size = Size {
            sets,
            tags: if effort.smoke { 3 } else { TAGS },
            interval: effort.watch,
        };
        of_size(lab, &size, Some(sets) == last, &mut table, &mut growth).await?;
    }
    Ok(format!(
        "{}\n{}",
        table.into_text(),
        growth.into_text(effort)?
    ))
}

/// So many sets, each with a repository of its own, on a control plane of their own.
async fn of_size(
    lab: &Lab,
    size: &Size,
    is_last: bool,
    table: &mut Table,
    growth: &mut Growth,
) -> anyhow::Result<()> {
    let Size {
        sets,
        tags,
        interval,
    } = *size;
    let children = sets * tags;
    say(&format!("{sets} sets: pushing {children} images"));
    let specs = images(lab, size).await?;
    let cluster = ControlPlane::start(&lab.tools).await?;
    let api = ApiServer::of(lab, &cluster).await?;
    let operator = Operator::start(lab, &cluster, true).await?;
    let began = Instant::now();
    for (name, spec) in specs {
        api.create_set(&name, &spec).await?;
    }
    let look = Duration::from_millis(50).max(Duration::from_micros(100) * u32::try_from(children)?);
    operator.ready(children, look).await?;
    operator.sets_ready(sets, look).await?;
    let (ready, cpu) = (seconds(began.elapsed()), seconds(operator.cpu()?));
    api.confirm_ready(children).await?;
    let (memory, counted) = (number(operator.memory()?), operator.counted().await?);
    say(&format!("{sets} sets: ready after {ready:.1} s"));
    growth.row(sets, ready, cpu, memory);
    let what = format!(
        "{sets} sets with {tags} tags, each tag an index and 4 platforms: until all are ready"
    );
    table.value(&what, ready, Unit::Seconds, Goal::None);
    table.value("processor time for it", cpu, Unit::Seconds, Goal::None);
    let each = |requests: usize| number(requests) / number(children);
    table.value(
        "requests to the registry, each tag",
        each(counted.registry),
        Unit::Few,
        Goal::None,
    );
    table.value(
        "requests to the API server, each tag",
        each(counted.cluster),
        Unit::Few,
        Goal::None,
    );
    if is_last {
        rest(&operator, sets, interval, table).await?;
    }
    operator.stop().await
}

/// What the sets cost when there is nothing to do.
async fn rest(
    operator: &Operator,
    sets: usize,
    interval: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    say(&format!(
        "{sets} sets at rest: three intervals of {interval:?}"
    ));
    // The first passes after all are ready count their children once more.
    sleep(interval).await;
    let (before, cpu) = (operator.counted().await?, operator.cpu()?);
    sleep(2 * interval).await;
    let (after, spent) = (
        operator.counted().await?,
        operator.cpu()?.saturating_sub(cpu),
    );
    let each = |count: fn(&Counted) -> usize| number(count(&after) - count(&before)) / 2.0;
    let memory = number(operator.memory()?);
    table.value(
        "at rest: memory",
        memory,
        Unit::Mebibytes,
        Goal::Most(120.0 * MIB),
    );
    let lists = each(|counted| counted.registry);
    // Intervals vary by 5 %.
    let goal = Goal::Most((number(sets) * 1.06).ceil());
    table.value(
        "at rest: requests to the registry an interval",
        lists,
        Unit::Count,
        goal,
    );
    let writes = each(|counted| counted.writes);
    table.value(
        "at rest: writes to the API server an interval",
        writes,
        Unit::Count,
        Goal::Most(0.0),
    );
    let hour = seconds(spent) / seconds(2 * interval) * 3600.0;
    let what = format!(
        "at rest: processor time an hour, with an interval of {} s",
        interval.as_secs()
    );
    table.value(&what, hour, Unit::Seconds, Goal::None);
    Ok(())
}

/// How the cost grows with the sets.
#[derive(Default)]
struct Growth {
    rows: String,
    time: Vec<(usize, f64)>,
    cpu: Vec<(usize, f64)>,
    memory: Vec<(usize, f64)>,
}

impl Growth {
    fn row(&mut self, sets: usize, ready: f64, cpu: f64, memory: f64) {
        let [time, spent] = [ready, cpu].map(|value| Unit::Seconds.write(value));
        let bytes = Unit::Mebibytes.write(memory);
        let _ = writeln!(self.rows, "| {sets} | {time} | {spent} | {bytes} |");
        self.time.push((sets, ready));
        self.cpu.push((sets, cpu));
        self.memory.push((sets, memory / MIB));
    }

    fn into_text(self, effort: &Effort) -> anyhow::Result<String> {
        let mut text = format!(
            "| sets | until all are ready | processor time | memory right after |\n| --- | --- | --- | --- |\n{}",
            self.rows
        );
        let curve = |title, points| Curve { title, points };
        let time = vec![
            curve("until all are ready", self.time),
            curve("processor time", self.cpu),
        ];
        let memory = vec![curve("memory", self.memory)];
        for (file, up, curves) in [("sets", "seconds", time), ("sets-memory", "MiB", memory)] {
            let across = "sets";
            text.push_str(&Plot { across, up, curves }.save(file, effort)?);
        }
        Ok(text)
    }
}

/// Pushes the images of each set into a repository of its own. Returns the specs of the sets.
async fn images(lab: &Lab, size: &Size) -> anyhow::Result<Vec<(String, Value)>> {
    let (repository, registry) = (lab.repository(), &lab.modern.registry);
    let raw = registry.raw()?;
    let pushes = (0..size.sets).flat_map(|set| (0..size.tags).map(move |tag| (set, tag)));
    futures::stream::iter(pushes)
        .map(|(set, tag)| {
            let (repository, raw) = (format!("{repository}/{set}"), &raw);
            async move {
                let (seed, tag) = (format!("scale {tag}"), format!("v1.{tag}.0"));
                with_platforms(4, &seed)
                    .push(raw, &repository, &tag)
                    .await
                    .map(drop)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let spec = |set: usize| {
        let artifact =
            json!({"artifactType": "application/vnd.demo.test", "annotations": {"bench": "sets"}});
        json!({
            "repositories": [format!("{}/{repository}/{set}", registry.host())],
            "tags": {"semver": ">=1.0.0"},
            "immutable": true,
            "interval": format!("{}s", size.interval.as_secs()),
            "template": {"spec": {"insecure": true, "artifact": artifact}},
        })
    };
    Ok((0..size.sets)
        .map(|set| (format!("sets-{set}"), spec(set)))
        .collect())
}
