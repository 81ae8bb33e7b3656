//! The operator on few resources: what it costs to have it, and how soon it acts.

use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::distance::round_trips;
use affix_testbed::tools::Tool;
use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::sleep;

use super::super::say;
use super::Effort;
use super::api_server::ApiServer;
use super::command::ORAS;
use super::images::official;
use super::lab::Lab;
use super::operator::Operator;
use super::table::{Goal, Series, Table, Unit, number, seconds};

/// How long the operator is left alone before it is at rest.
const REST: Duration = Duration::from_secs(10);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);
const MIB: f64 = 1_048_576.0;
/// How long an edit may take to show at the registry.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let cluster = ControlPlane::start(&lab.tools).await?;
    let api = ApiServer::of(lab, &cluster).await?;
    let mut table = Table::new();
    say("the operator without a resource");
    let size = std::fs::metadata(&lab.affix)?.len();
    table.value(
        "size of the binary",
        number(size),
        Unit::Mebibytes,
        Goal::Most(30.0 * MIB),
    );
    start(lab, &cluster, effort, &mut table).await?;

    let operator = Operator::start(lab, &cluster, false).await?;
    sleep(if effort.smoke { LOOK } else { REST }).await;
    let idle = operator.memory()?;
    table.value(
        "memory without a resource",
        number(idle),
        Unit::Mebibytes,
        Goal::Most(24.0 * MIB),
    );
    foreign_secrets(&api, &operator, idle, effort, &mut table).await?;
    warm(lab, &api, effort, &mut table).await?;
    edits(lab, &api, effort, &mut table).await?;
    operator.stop().await?;
    Ok(table.into_text())
}

/// From the start of the process until it watches.
async fn start(
    lab: &Lab,
    cluster: &ControlPlane,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut started = Series::default();
    for _ in 0..effort.rounds {
        let operator = Operator::start(lab, cluster, false).await?;
        started.push(seconds(operator.started));
        operator.stop().await?;
    }
    table.figure(
        "from start to watching",
        &started,
        Unit::Seconds,
        Goal::Most(0.3),
    );
    Ok(())
}

/// Secrets that no resource names.
async fn foreign_secrets(
    api: &ApiServer,
    operator: &Operator,
    before: u64,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let (count, size) = if effort.smoke {
        (2, 1 << 10)
    } else {
        (300, 1_000_000)
    };
    say(&format!("{count} foreign Secrets"));
    let data = STANDARD.encode(vec![7_u8; size]);
    for nth in 0..count {
        let name = format!("foreign-{nth}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"blob": data}});
        api.create_in("/api/v1/namespaces/default/secrets", &secret)
            .await?;
    }
    sleep(if effort.smoke { LOOK } else { REST }).await;
    let growth = operator.memory()?.saturating_sub(before);
    let what = format!("growth by {count} foreign Secrets of {} kB", size / 1000);
    table.value(&what, number(growth), Unit::Mebibytes, Goal::Most(MIB));
    Ok(())
}

/// The same work as the command's, by an operator that knows the registry: from its first call to its last.
async fn warm(
    lab: &Lab,
    api: &ApiServer,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let site = &lab.modern;
    for distance in [20, 50] {
        say(&format!("the warm operator beside oras, {distance} ms"));
        site.far.set(Duration::from_millis(distance));
        let [mut ours, mut theirs, mut chain] = [(); 3].map(|()| Series::default());
        // The first round opens the connections and is not counted.
        for round in 0..=effort.rounds {
            let target = lab.fresh(site, &official("ours")).await?;
            drop(site.far.take());
            let name = format!("warm-{distance}-{round}");
            api.create([(
                name,
                site.mark(&format!("{}@{}", target.far, target.image.digest())),
            )])
            .await?;
            let passed = calls(lab, 19).await?;
            let (Some(first), Some(last)) = (
                passed.first(),
                passed.iter().map(|request| request.answered).max(),
            ) else {
                bail!("no request passed")
            };
            if round == 0 {
                continue;
            }
            ours.push(seconds(last - first.sent));
            chain.push(number(round_trips(&passed)));
            let target = lab.fresh(site, &official("theirs")).await?;
            theirs.push(seconds(
                lab.each(
                    Tool::Oras,
                    &target,
                    &format!("{ORAS} --plain-http {}@$d", target.far),
                )?
                .run()
                .await?
                .wall,
            ));
        }
        let what = format!(
            "the warm operator, the same attach, {}, {distance} ms: first call to last",
            site.title
        );
        table.versus(
            &what,
            &ours,
            "`oras attach` in a loop",
            &theirs,
            Unit::Seconds,
            Goal::Times(12.0),
        );
        table.figure(
            "its round trips one after the other",
            &chain,
            Unit::Count,
            Goal::Most(4.0),
        );
    }
    Ok(())
}

/// Waits for so many requests over the distance, and until none has come for a while.
async fn calls(lab: &Lab, least: usize) -> anyhow::Result<Vec<affix_testbed::distance::Passed>> {
    const QUIET: Duration = Duration::from_millis(500);
    let (began, mut last) = (Instant::now(), Instant::now());
    let mut passed = Vec::new();
    while passed.len() < least || last.elapsed() < QUIET {
        let more = lab.modern.far.take();
        if !more.is_empty() {
            last = Instant::now();
            passed.extend(more);
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "{} requests after {PATIENCE:?}, and {least} were to come",
                passed.len()
            );
        }
        sleep(LOOK).await;
    }
    passed.sort_by_key(|request| request.sent);
    Ok(passed)
}

/// From an edit that is sent to the API server until its first request is at the registry.
async fn edits(
    lab: &Lab,
    api: &ApiServer,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let site = &lab.modern;
    site.far.set(Duration::ZERO);
    let target = lab.fresh(site, &official("edits")).await?;
    let name = "edited";
    api.create([(
        name.to_owned(),
        site.mark(&format!("{}@{}", target.far, target.image.digest())),
    )])
    .await?;
    calls(lab, 19).await?;
    let mut delays = Series::default();
    let edits = if effort.smoke { 2 } else { 100 };
    say(&format!("{edits} edits"));
    for nth in 0..edits {
        drop(site.far.take());
        let sent = Instant::now();
        api.patch(
            name,
            &json!({"endOfLife": {"annotations": {"edit": nth.to_string()}}}),
        )
        .await?;
        let passed = calls(lab, 1).await?;
        if let Some(first) = passed.first() {
            delays.push(seconds(first.sent - sent));
        }
    }
    let what = format!("from an edit to the first call of the registry: p99 of {edits}");
    table.value(
        &what,
        delays.percentile(0.99),
        Unit::Milliseconds,
        Goal::Most(0.02),
    );
    table.value(
        "the same: median",
        delays.median(),
        Unit::Milliseconds,
        Goal::None,
    );
    Ok(())
}
