//! The command, a new process each time, against loops of other people's tools.

use std::time::Duration;

use affix_testbed::distance::round_trips;
use affix_testbed::tools::Tool;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Effort;
use super::images::official;
use super::lab::{Lab, Site};
use super::run::Measured;
use super::table::{Goal, Series, Table, Unit, number, seconds};

/// The round-trip times that are measured.
const DISTANCES: [u64; 2] = [20, 50];
/// Seconds that the process itself may take beside its round trips, start to end.
const OWN_TIME: f64 = 0.02;
const KEY: &str = "bench";

pub(super) const ORAS: &str = "\"$tool\" attach --artifact-type application/vnd.microsoft.artifact.lifecycle \
    -a vnd.microsoft.artifact.lifecycle.end-of-life.date=2025-03-20T01:20:30Z";
const REGCTL: &str = "\"$tool\" artifact put --artifact-type application/vnd.microsoft.artifact.lifecycle \
    --annotation vnd.microsoft.artifact.lifecycle.end-of-life.date=2025-03-20T01:20:30Z";

/// A format of cosign's signatures.
struct Format {
    name: &'static str,
    /// The option of cosign, if it is not its default.
    flag: Option<&'static str>,
    /// The goal as a multiple of cosign's time, with the referrers API.
    goal_with_api: f64,
    goal_without_api: f64,
}

const BUNDLE: Format = Format {
    name: "Bundle",
    flag: None,
    goal_with_api: 15.0,
    goal_without_api: 12.0,
};
const TAG: Format = Format {
    name: "Tag",
    flag: Some("--new-bundle-format=false"),
    goal_with_api: 10.0,
    goal_without_api: 10.0,
};

/// What two commands cost, side by side.
#[derive(Default)]
struct Pair {
    ours: Series,
    theirs: Series,
    requests: Series,
    their_requests: Series,
    round_trips: Series,
}

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let mut table = Table::new();
    let distances = if effort.smoke {
        DISTANCES.get(..1).unwrap_or_default()
    } else {
        &DISTANCES
    };
    for site in [&lab.modern, &lab.modern_tls, &lab.plain, &lab.plain_tls] {
        for &distance in distances {
            site.far.set(Duration::from_millis(distance));
            attach(lab, site, distance, effort, &mut table).await?;
        }
    }
    let secret = key(lab).await?;
    for site in [&lab.modern, &lab.modern_tls, &lab.plain, &lab.plain_tls] {
        for &distance in distances {
            site.far.set(Duration::from_millis(distance));
            for format in [&BUNDLE, &TAG] {
                sign(lab, site, distance, &secret, format, effort, &mut table).await?;
            }
            attest(lab, site, distance, &secret, effort, &mut table).await?;
        }
    }
    for site in [&lab.modern, &lab.modern_tls] {
        for &distance in distances {
            site.far.set(Duration::from_millis(distance));
            tree(lab, site, distance, effort, &mut table).await?;
        }
    }
    loopback(lab, effort, &mut table).await?;
    Ok(table.into_text())
}

impl Pair {
    async fn ours(&mut self, site: &Site, run: Measured) -> anyhow::Result<()> {
        drop(site.far.take());
        self.ours.push(seconds(run.run().await?.wall));
        let passed = site.far.take();
        self.requests.push(number(passed.len()));
        self.round_trips.push(number(round_trips(&passed)));
        Ok(())
    }

    async fn theirs(&mut self, site: &Site, run: Measured) -> anyhow::Result<()> {
        drop(site.far.take());
        self.theirs.push(seconds(run.run().await?.wall));
        self.their_requests.push(number(site.far.take().len()));
        Ok(())
    }
}

/// An end-of-life mark on eight platforms and the index. The loops name the image by its tag and the platforms by their names, as one
/// writes them; a loop of oras is measured with the digests given as well.
async fn attach(
    lab: &Lab,
    site: &Site,
    distance: u64,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let flag = site.plain_http_flag();
    let [mut oras, mut regctl, mut given] = [(); 3].map(|()| Pair::default());
    for _ in 0..effort.rounds {
        for (pair, tool, by_name) in [
            (&mut oras, Tool::Oras, true),
            (&mut regctl, Tool::Regctl, true),
            (&mut given, Tool::Oras, false),
        ] {
            let target = lab.fresh(site, &official("ours")).await?;
            let file = lab.file(
                &site.mark(&format!("{}@{}", target.far, target.image.digest())),
                &[],
            )?;
            pair.ours(site, lab.affix(&["attach", "-f", &file])).await?;
            let target = lab.fresh(site, &official("theirs")).await?;
            let name = format!("{}:{}", target.far, target.image.tag);
            let theirs = match tool {
                Tool::Regctl => lab.each_by_name(tool, &format!("{REGCTL} --subject {name}"))?,
                _ if by_name => lab.each_by_name(tool, &format!("{ORAS} {flag} {name}"))?,
                _ => lab.each(tool, &target, &format!("{ORAS} {flag} {}@$d", target.far))?,
            };
            pair.theirs(site, theirs).await?;
        }
    }
    let what = format!(
        "attach to 8 platforms and the index, {}, {distance} ms",
        site.title
    );
    let is_api = site.has_referrers_api;
    let times = match (is_api, site.registry.is_tls()) {
        (true, true) => Goal::Times(10.0),
        (true, false) => Goal::Times(8.0),
        (false, _) => Goal::None,
    };
    for (pair, name, goal) in [
        (&oras, "`oras attach` in a loop", times),
        (&given, "`oras attach` in a loop, given the digests", times),
        (&regctl, "`regctl artifact put` in a loop", Goal::None),
    ] {
        table.versus(&what, &pair.ours, name, &pair.theirs, Unit::Seconds, goal);
    }
    let most = |most| if is_api { Goal::Most(most) } else { Goal::None };
    let [by_name, digests, others] =
        [&oras, &given, &regctl].map(|pair| pair.their_requests.median());
    let requests = format!(
        "its requests (oras {by_name:.0}, given the digests {digests:.0}, regctl {others:.0})"
    );
    table.figure(&requests, &oras.requests, Unit::Count, most(22.0));
    table.figure(
        "its round trips one after the other",
        &oras.round_trips,
        Unit::Count,
        most(4.0),
    );
    if site.registry.is_tls() && is_api {
        // TCP and TLS 1.3 take a round trip each; three waves and at most one more follow.
        let round_trip = seconds(Duration::from_millis(distance));
        table.figure(
            "its time, in round trips",
            &oras.ours.scaled(1.0 / round_trip),
            Unit::Few,
            Goal::Most(6.0 + OWN_TIME / round_trip),
        );
    }
    Ok(())
}

/// A key pair that cosign made, as the Secret that affix reads.
async fn key(lab: &Lab) -> anyhow::Result<Value> {
    lab.tool(
        Tool::Cosign,
        &["generate-key-pair", "--output-key-prefix", KEY],
    )?
    .run()
    .await?;
    let key = STANDARD.encode(std::fs::read(lab.peer.file(&format!("{KEY}.key")))?);
    Ok(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY}, "data": {"cosign.key": key, "cosign.password": ""}}),
    )
}

/// A signature on eight platforms and the index.
async fn sign(
    lab: &Lab,
    site: &Site,
    distance: u64,
    secret: &Value,
    format: &Format,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut pair = Pair::default();
    for _ in 0..effort.rounds {
        let target = lab.fresh(site, &official("ours")).await?;
        let image = format!("{}@{}", target.far, target.image.digest());
        let spec = site.spec(
            json!({"image": image, "signature": {"cosign": {"keySecretRef": {"name": KEY}, "formats": [format.name]}}}),
        );
        let file = lab.file(&spec, std::slice::from_ref(secret))?;
        pair.ours(site, lab.affix(&["attach", "-f", &file])).await?;
        let target = lab.fresh(site, &official("theirs")).await?;
        let image = format!("{}@{}", target.far, target.image.digest());
        let key = format!("{KEY}.key");
        let mut sign = vec![
            "sign",
            "--recursive",
            "--key",
            &key,
            "--tlog-upload=false",
            "--use-signing-config=false",
        ];
        sign.extend(format.flag);
        sign.extend(["--yes", &image]);
        pair.theirs(site, lab.tool(Tool::Cosign, &sign)?).await?;
    }
    let goal = match site.has_referrers_api {
        true => format.goal_with_api,
        false => format.goal_without_api,
    };
    let form = format.flag.map_or("", |_| " in the Tag format");
    let what = format!(
        "sign 8 platforms and the index{form}, {}, {distance} ms",
        site.title
    );
    let theirs = match format.flag {
        Some(flag) => format!("`cosign sign --recursive {flag}`"),
        None => "`cosign sign --recursive`".to_owned(),
    };
    table.versus(
        &what,
        &pair.ours,
        &theirs,
        &pair.theirs,
        Unit::Seconds,
        Goal::Times(goal),
    );
    table.versus(
        "its requests",
        &pair.requests,
        "cosign",
        &pair.their_requests,
        Unit::Count,
        Goal::None,
    );
    Ok(())
}

/// A signed statement on eight platforms and the index, against a loop over the digests: cosign attests one digest for each call.
async fn attest(
    lab: &Lab,
    site: &Site,
    distance: u64,
    secret: &Value,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let predicate =
        json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": []});
    std::fs::write(lab.peer.file("bom.json"), predicate.to_string())?;
    let line = |repository: &str| {
        format!(
            "\"$tool\" attest --key {KEY}.key --type cyclonedx --predicate bom.json --tlog-upload=false --use-signing-config=false \
             --yes {repository}@$d"
        )
    };
    let mut pair = Pair::default();
    for _ in 0..effort.rounds {
        let target = lab.fresh(site, &official("ours")).await?;
        let image = format!("{}@{}", target.far, target.image.digest());
        let spec = site.spec(json!({"image": image, "attestation": {
            "predicateType": "cyclonedx", "predicates": [{"value": predicate.to_string()}],
            "cosign": {"keySecretRef": {"name": KEY}},
        }}));
        let file = lab.file(&spec, std::slice::from_ref(secret))?;
        pair.ours(site, lab.affix(&["attach", "-f", &file])).await?;
        let target = lab.fresh(site, &official("theirs")).await?;
        let theirs = lab.each(Tool::Cosign, &target, &line(&target.far))?;
        pair.theirs(site, theirs).await?;
    }
    let what = format!(
        "attest 8 platforms and the index, {}, {distance} ms",
        site.title
    );
    table.versus(
        &what,
        &pair.ours,
        "`cosign attest` in a loop, given the digests",
        &pair.theirs,
        Unit::Seconds,
        Goal::Times(10.0),
    );
    table.versus(
        "its requests",
        &pair.requests,
        "cosign",
        &pair.their_requests,
        Unit::Count,
        Goal::None,
    );
    Ok(())
}

/// What is attached to an image and to each of its platforms.
async fn tree(
    lab: &Lab,
    site: &Site,
    distance: u64,
    effort: &Effort,
    table: &mut Table,
) -> anyhow::Result<()> {
    let flag = site.plain_http_flag();
    let target = lab.fresh(site, &official("tree")).await?;
    let file = lab.file(
        &site.mark(&format!("{}@{}", target.near, target.image.digest())),
        &[],
    )?;
    lab.affix(&["attach", "-f", &file]).run().await?;
    let image = format!("{}:{}", target.far, target.image.tag);
    let (mut regctl, mut oras) = (Pair::default(), Pair::default());
    for _ in 0..effort.rounds {
        for (pair, tool) in [(&mut regctl, Tool::Regctl), (&mut oras, Tool::Oras)] {
            pair.ours(site, lab.affix(&tree_arguments(flag, &image)))
                .await?;
            let theirs = match tool {
                Tool::Regctl => lab.tool(tool, &["artifact", "tree", &image])?,
                _ => lab.each_by_name(tool, &format!("\"$tool\" discover {flag} {image}"))?,
            };
            pair.theirs(site, theirs).await?;
        }
    }
    let what = format!("the tree of it, {}, {distance} ms", site.title);
    table.versus(
        &what,
        &regctl.ours,
        "`regctl artifact tree`",
        &regctl.theirs,
        Unit::Seconds,
        Goal::Times(8.0),
    );
    table.versus(
        &what,
        &oras.ours,
        "`oras discover` in a loop",
        &oras.theirs,
        Unit::Seconds,
        Goal::Times(8.0),
    );
    let [theirs, others] = [&regctl, &oras].map(|pair| pair.their_requests.median());
    table.figure(
        &format!("its requests (regctl {theirs:.0}, oras {others:.0})"),
        &regctl.requests,
        Unit::Count,
        Goal::None,
    );
    Ok(())
}

fn tree_arguments<'a>(flag: &'a str, image: &'a str) -> Vec<&'a str> {
    ["tree", flag, image]
        .into_iter()
        .filter(|argument| !argument.is_empty())
        .collect()
}

/// All nine targets, without distance, against oras on one.
async fn loopback(lab: &Lab, effort: &Effort, table: &mut Table) -> anyhow::Result<()> {
    let site = &lab.modern;
    let [mut wall, mut cpu, mut peak] = [(); 3].map(|()| (Series::default(), Series::default()));
    for _ in 0..effort.rounds * 4 {
        let target = lab.fresh(site, &official("ours")).await?;
        let file = lab.file(
            &site.mark(&format!("{}@{}", target.near, target.image.digest())),
            &[],
        )?;
        let ours = lab.affix(&["attach", "-f", &file]).run().await?;
        let target = lab.fresh(site, &official("theirs")).await?;
        let script = format!(
            "exec {ORAS} --plain-http {}@{} </dev/null",
            target.near,
            target.image.digest()
        );
        let shell = Measured::new("/bin/sh", &lab.peer.file(""))
            .args(["-c", &script])
            .env("tool", lab.tools.path(Tool::Oras)?);
        let theirs = shell.env("HOME", lab.peer.file("")).run().await?;
        // On a busy machine a process can be gone before anybody has looked at its memory.
        if ours.peak == 0 || theirs.peak == 0 {
            continue;
        }
        for (series, ours, theirs) in [
            (&mut wall, seconds(ours.wall), seconds(theirs.wall)),
            (&mut cpu, seconds(ours.cpu), seconds(theirs.cpu)),
            (&mut peak, number(ours.peak), number(theirs.peak)),
        ] {
            series.0.push(ours);
            series.1.push(theirs);
        }
    }
    let one = "one `oras attach` to one target";
    let what = "all nine targets on loopback, without distance";
    table.versus(
        &format!("{what}: time"),
        &wall.0,
        one,
        &wall.1,
        Unit::Milliseconds,
        Goal::None,
    );
    table.versus(
        &format!("{what}: processor time"),
        &cpu.0,
        one,
        &cpu.1,
        Unit::Milliseconds,
        Goal::None,
    );
    table.versus(
        &format!("{what}: peak memory"),
        &peak.0,
        one,
        &peak.1,
        Unit::Mebibytes,
        Goal::None,
    );
    Ok(())
}
