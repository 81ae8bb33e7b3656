//! How the cost of `affix attach` grows with the targets of an image and with what is attached already.

use std::fmt::Write as _;

use affix_testbed::images::Pushed;
use affix_testbed::registry::RawClient;
use anyhow::bail;
use serde_json::{Value, json};

use super::super::say;
use super::Effort;
use super::images::with_platforms;
use super::lab::{Lab, Site};
use super::plot::{Curve, Plot};
use super::table::{Series, Unit, number, seconds};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// What grows, how it is made, and how far.
struct Axis {
    title: &'static str,
    steps: &'static [usize],
    few: &'static [usize],
}

const TARGETS: Axis = Axis {
    title: "targets",
    steps: &[1, 2, 4, 8, 16, 32, 64],
    few: &[1, 4],
};
const REFERRERS: Axis = Axis {
    title: "referrers of the subject",
    steps: &[0, 10, 100, 300, 999],
    few: &[0, 10],
};

pub(super) async fn measure(lab: &Lab, effort: &Effort) -> anyhow::Result<String> {
    let mut text = String::new();
    for (axis, file) in [(TARGETS, "targets"), (REFERRERS, "referrers")] {
        let steps = if effort.smoke { axis.few } else { axis.steps };
        let _ = writeln!(
            text,
            "| {} | time, {} | requests | time, {} | requests |",
            axis.title, lab.modern.title, lab.plain.title
        );
        text.push_str("| --- | --- | --- | --- | --- |\n");
        let mut curves = [&lab.modern, &lab.plain].map(|site| Curve {
            title: site.title,
            points: Vec::new(),
        });
        for step in steps {
            say(&format!("{} {step}", axis.title));
            let _ = write!(text, "| {step} ");
            for (site, curve) in [&lab.modern, &lab.plain].into_iter().zip(&mut curves) {
                let (time, requests) = one(lab, site, axis.title, *step, effort).await?;
                let _ = write!(
                    text,
                    "| {} | {requests:.0} ",
                    Unit::Milliseconds.write(time.median())
                );
                curve.points.push((*step, time.median() * 1e3));
            }
            text.push_str("|\n");
        }
        text.push('\n');
        let plot = Plot {
            across: axis.title,
            up: "milliseconds",
            curves: curves.into(),
        };
        text.push_str(&plot.save(file, effort)?);
        text.push('\n');
    }
    Ok(text)
}

/// One step of an axis: the time of a new process on loopback, and its requests.
async fn one(
    lab: &Lab,
    site: &Site,
    axis: &str,
    step: usize,
    effort: &Effort,
) -> anyhow::Result<(Series, f64)> {
    let (mut time, mut requests) = (Series::default(), 0.0);
    for _ in 0..effort.rounds {
        let platforms = if axis == TARGETS.title { step - 1 } else { 1 };
        let target = lab
            .fresh(site, &with_platforms(platforms.max(1), "growth"))
            .await?;
        let image = format!("{}@{}", target.far, target.image.digest());
        let mut spec = site.mark(&image);
        if axis != TARGETS.title || platforms == 0 {
            spec = with_scope(spec);
        }
        if axis != TARGETS.title {
            referrers(
                &site.registry.raw()?,
                &target.image,
                step,
                site.title == lab.modern.title,
            )
            .await?;
        }
        let file = lab.file(&spec, &[])?;
        drop(site.far.take());
        time.push(seconds(
            lab.affix(&["attach", "-f", &file]).run().await?.wall,
        ));
        requests = number(site.far.take().len());
    }
    Ok((time, requests))
}

/// Only the index is a target.
fn with_scope(mut spec: Value) -> Value {
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("targets".to_owned(), json!({"scope": "Index"}));
    }
    spec
}

/// Attaches so many small artifacts to the index; without the referrers API, lists them in the fallback tag.
async fn referrers(raw: &RawClient, image: &Pushed, count: usize, api: bool) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    raw.blob(&image.repository, EMPTY, b"{}".to_vec()).await?;
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2});
    let index = &image.descriptor;
    let subject =
        json!({"mediaType": index.media_type, "digest": index.digest, "size": index.size});
    let mut entries = Vec::new();
    for nth in 0..count {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.demo.other", "config": empty, "layers": [empty],
            "subject": subject, "annotations": {"nth": nth.to_string()},
        })
        .to_string();
        let put = raw
            .put_manifest(
                &image.repository,
                &format!("growth-{nth}"),
                MANIFEST,
                manifest.clone(),
            )
            .await?
            .ok()?;
        let Some(digest) = put.header("docker-content-digest") else {
            bail!("a registry that does not say the digest")
        };
        entries
            .push(json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len(), "artifactType": "application/vnd.demo.other"}));
    }
    if !api {
        let tag = image.digest().replace(':', "-");
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
        raw.put_manifest(&image.repository, &tag, INDEX, index)
            .await?
            .ok()?;
    }
    Ok(())
}
