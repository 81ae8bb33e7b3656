//! The state of each running image. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::SignedDuration;
use serde::Serialize;

use super::lookup::Answer;
use super::running::{ImageKey, Place, RunningImages, Use};
use super::signer::Signers;
use crate::engine::LifecycleReport;
use affix_registry::oci::Digest;

/// The marks of the images that were looked up.
pub(crate) type Answers = HashMap<ImageKey, Answer>;

/// The maximum length of a cause, in characters.
const MAX_CAUSE_CHARS: usize = 512;
/// The cause for an image without a digest.
const NO_DIGEST: &str = "the node reports no digest of a registry for it, as for an image that was loaded into the node";

/// The state of a running image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum State {
    /// The end-of-life date has passed.
    OutOfLife,
    /// The end-of-life date is near.
    EndingSoon,
    /// The marks could not be read.
    Unknown,
    /// No end-of-life date has passed or is near.
    Alive,
}

impl State {
    /// All states, the most urgent first.
    pub(crate) const ALL: [Self; 4] = [
        Self::OutOfLife,
        Self::EndingSoon,
        Self::Unknown,
        Self::Alive,
    ];

    /// Returns the name in labels of metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::OutOfLife => "out_of_life",
            Self::EndingSoon => "ending_soon",
            Self::Unknown => "unknown",
            Self::Alive => "alive",
        }
    }

    /// Returns the name in texts.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::OutOfLife => "out of life",
            Self::EndingSoon => "ending soon",
            Self::Unknown => "unknown",
            Self::Alive => "alive",
        }
    }
}

/// An image that runs in a namespace on nodes of one platform, and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// The namespace of the pods.
    pub(crate) namespace: String,
    /// Host and repository, or the name that the node reports for an image without a digest.
    pub(crate) image: String,
    /// A tag by which it was pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// The digest that runs: that of an index, or of a single manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// The platform of the nodes, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// The state.
    pub(crate) state: State,
    /// The effective end-of-life date, as it is written in the mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) date: Option<String>,
    /// The manifest whose mark decides: that of the platform, or the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) marked: Option<String>,
    /// The resources that sign the image or the manifest of the platform, as `namespace/name`.
    pub(crate) signed_by: Vec<String>,
    /// The cause of an unknown state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    /// The number of pods.
    pub(crate) pods: usize,
    /// The names of a few of the pods.
    pub(crate) example_pods: Vec<String>,
}

/// The findings of a cluster, or of some of its namespaces.
#[derive(Debug, Serialize)]
pub(crate) struct Assessment {
    /// The findings, the most urgent first, then by namespace and image.
    #[serde(rename = "images")]
    pub(crate) findings: Vec<Finding>,
    /// The totals.
    pub(crate) summary: Summary,
}

/// The totals of an assessment. States count images by namespace and platform.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// Pods that have not ended.
    pub(crate) pods: usize,
    /// Different images, by digest.
    pub(crate) digests: usize,
    pub(crate) out_of_life: usize,
    pub(crate) ending_soon: usize,
    pub(crate) unknown: usize,
    pub(crate) alive: usize,
    /// Uses of images that are not listed, because there are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) not_listed: usize,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Assessment {
    /// Returns the number of findings with a state.
    pub(crate) fn count(&self, state: State) -> usize {
        let summary = &self.summary;
        match state {
            State::OutOfLife => summary.out_of_life,
            State::EndingSoon => summary.ending_soon,
            State::Unknown => summary.unknown,
            State::Alive => summary.alive,
        }
    }
}

/// Returns the state of each running image at `now`. A date before `horizon` is near.
pub(crate) fn assess(
    running: &RunningImages,
    answers: &Answers,
    signers: &Signers,
    now: SignedDuration,
    horizon: SignedDuration,
) -> Assessment {
    let mut findings: Vec<Finding> = Vec::new();
    for (key, image) in &running.images {
        let answer = answers.get(key);
        for (place, used) in &image.uses {
            let report = answer.and_then(|answer| answer.as_ref().ok());
            let mut finding = finding(key, place, used);
            if let Some(report) = report {
                judge(&mut finding, report, place, now, horizon);
            } else {
                finding.cause = Some(match (answer, &key.digest) {
                    (Some(Err(cause)), _) => cause.chars().take(MAX_CAUSE_CHARS).collect(),
                    (_, None) => NO_DIGEST.to_owned(),
                    _ => "not looked up yet".to_owned(),
                });
            }
            finding.signed_by = signed_by(key, report.map(|report| &**report), place, signers);
            findings.push(finding);
        }
    }
    findings.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    let count = |state: State| findings.iter().filter(|it| it.state == state).count();
    let summary = Summary {
        pods: running.pods,
        digests: running.images.len(),
        out_of_life: count(State::OutOfLife),
        ending_soon: count(State::EndingSoon),
        unknown: count(State::Unknown),
        alive: count(State::Alive),
        not_listed: running.not_listed,
    };
    Assessment { findings, summary }
}

fn sort_key(finding: &Finding) -> (State, &str, &str, Reverse<usize>, &Option<String>) {
    (
        finding.state,
        &finding.namespace,
        &finding.image,
        Reverse(finding.pods),
        &finding.digest,
    )
}

/// Returns the finding on one use of an image, whose state is unknown so far.
fn finding(key: &ImageKey, (namespace, platform): &Place, used: &Use) -> Finding {
    Finding {
        namespace: namespace.to_string(),
        image: key.name.to_string(),
        tag: used.tag.clone(),
        digest: key.digest.as_ref().map(ToString::to_string),
        platform: platform.as_ref().map(ToString::to_string),
        state: State::Unknown,
        date: None,
        marked: None,
        signed_by: Vec::new(),
        cause: None,
        pods: used.pods,
        example_pods: used.examples.iter().cloned().collect(),
    }
}

/// Sets the state by the mark of the manifest that runs.
fn judge(
    finding: &mut Finding,
    report: &LifecycleReport,
    (_, platform): &Place,
    now: SignedDuration,
    horizon: SignedDuration,
) {
    let (digest, mark) = report.on_platform(platform.as_deref());
    finding.state = match mark {
        Some(mark) if mark.has_ended(now) => State::OutOfLife,
        Some(mark) if mark.date.instant() <= horizon => State::EndingSoon,
        _ => State::Alive,
    };
    finding.date = mark.map(|mark| mark.date.as_str().to_owned());
    finding.marked = mark.map(|_| digest.to_string());
}

/// Returns the resources that sign the image, or the manifest that runs on the platform.
fn signed_by(
    key: &ImageKey,
    report: Option<&LifecycleReport>,
    (_, platform): &Place,
    signers: &Signers,
) -> Vec<String> {
    let on_platform = report.map(|report| report.on_platform(platform.as_deref()).0);
    let manifests: BTreeSet<&Digest> = key.digest.iter().chain(on_platform).collect();
    let resources = manifests
        .into_iter()
        .flat_map(|digest| signers.for_manifest(&key.name, digest));
    let resources: BTreeSet<&String> = resources.collect();
    resources.into_iter().cloned().collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use std::sync::Arc;

    use super::super::signer::ListedSigner;
    use super::*;
    use crate::engine::{Basis, Mark, Marks, PlatformReport};
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn digest(letter: &str) -> Digest {
        format!("sha256:{}", letter.repeat(64)).parse().unwrap()
    }

    fn at(text: &str) -> SignedDuration {
        text.parse::<Timestamp>().unwrap().as_duration()
    }

    fn mark(date: &str) -> Option<Mark> {
        Some(Mark {
            date: date.parse().unwrap(),
            created: None,
            basis: Basis::Enforced,
        })
    }

    /// Returns one pod of the image `a` on each of two nodes, and one of an image without a digest.
    fn running() -> RunningImages {
        let nodes = [("one", "linux/amd64"), ("two", "linux/arm64")];
        let nodes =
            nodes.map(|(name, platform)| (name.to_owned(), Arc::new(platform.parse().unwrap())));
        let mut running = RunningImages::on(nodes.into());
        for (name, node, id) in [
            ("x", "one", format!("r.example.com/app@{}", digest("a"))),
            ("y", "two", format!("r.example.com/app@{}", digest("a"))),
            ("z", "one", "docker://sha256:0".to_owned()),
        ] {
            let pod = json!({
                "metadata": {"namespace": "team", "name": name}, "spec": {"nodeName": node},
                "status": {"containerStatuses": [{"image": "r.example.com/app:v1", "imageID": id}]},
            });
            running.add(&serde_json::from_value(pod).unwrap());
        }
        running
    }

    fn key() -> ImageKey {
        ImageKey {
            name: "r.example.com/app".into(),
            digest: Some(digest("a")),
        }
    }

    fn states(answer: Option<Answer>, now: &str) -> Vec<(Option<String>, State, Option<String>)> {
        let answers = answer.map(|answer| (key(), answer)).into_iter().collect();
        let (now, horizon) = (at(now), at(now) + SignedDuration::from_hours(720));
        let assessment = assess(&running(), &answers, &Signers::default(), now, horizon);
        let findings = assessment.findings.into_iter();
        let findings = findings.map(|finding| (finding.platform, finding.state, finding.cause));
        findings.collect()
    }

    #[test]
    fn the_mark_of_the_platform_that_runs_decides_and_time_passes() {
        let platform = |platform: &str, letter: &str, mark| PlatformReport {
            platform: platform.parse().unwrap(),
            digest: digest(letter),
            marks: Marks::from(mark),
        };
        let report = Arc::new(LifecycleReport {
            digest: digest("a"),
            marks: mark("2026-06-30").into(),
            platforms: vec![
                platform("linux/amd64", "b", mark("2026-06-30")),
                platform("linux/arm64/v8", "c", None),
            ],
        });
        let of = |now| {
            let states = states(Some(Ok(Arc::clone(&report))), now).into_iter();
            let states = states.filter_map(|(platform, state, cause)| {
                Some((platform?, state)).filter(|_| cause.is_none())
            });
            states.collect::<Vec<_>>()
        };
        let (amd64, arm64) = ("linux/amd64".to_owned(), "linux/arm64".to_owned());
        let rows = |state| vec![(amd64.clone(), state), (arm64.clone(), State::Alive)];
        assert_eq!(of("2026-01-01T00:00:00Z"), rows(State::Alive));
        assert_eq!(of("2026-06-15T00:00:00Z"), rows(State::EndingSoon));
        assert_eq!(of("2026-06-30T00:00:00Z"), rows(State::OutOfLife));
    }

    #[test]
    fn an_image_that_cannot_be_read_is_unknown_with_its_cause() {
        let refused = states(Some(Err("HTTP 401".into())), "2026-01-01T00:00:00Z");
        let causes: Vec<_> = refused
            .iter()
            .map(|(_, state, cause)| (*state, cause.as_deref().unwrap()))
            .collect();
        let unknown = State::Unknown;
        assert_eq!(
            causes,
            [
                (unknown, "HTTP 401"),
                (unknown, "HTTP 401"),
                (unknown, NO_DIGEST)
            ]
        );
        let (.., cause) = &states(None, "2026-01-01T00:00:00Z")[0];
        assert_eq!(cause.as_deref(), Some("not looked up yet"));
    }

    #[test]
    fn the_resources_that_sign_the_index_or_the_platform_are_named() {
        let signer = |name: &str, image: &str, letter: &str, generation: i64| -> ListedSigner {
            let object = json!({
                "metadata": {"namespace": "sign", "name": name, "generation": 1},
                "spec": {"image": image, "signature": {"cosign": {"keySecretRef": {"name": "key"}}}},
                "status": {"observedGeneration": generation, "targets": [
                    {"kind": "Index", "digest": digest(letter).to_string(), "state": "Attached"},
                    {"kind": "Index", "digest": digest("a").to_string(), "state": "Failed"},
                ]},
            });
            serde_json::from_value(object).unwrap()
        };
        let report = LifecycleReport {
            digest: digest("a"),
            marks: Marks::default(),
            platforms: vec![PlatformReport {
                platform: "linux/amd64".parse().unwrap(),
                digest: digest("b"),
                marks: Marks::default(),
            }],
        };
        let wanted = ["a", "b"].map(|letter| ("r.example.com/app".to_owned(), digest(letter)));
        let mut signers = Signers::of(wanted);
        for listed in [
            signer("index", "r.example.com/app:v1", "a", 1),
            signer("platform", "r.example.com/app:v1", "b", 1),
            signer("elsewhere", "r.example.com/other:v1", "a", 1),
            signer("outdated", "r.example.com/app:v1", "a", 0),
            signer("failed", "r.example.com/app:v1", "f", 1),
        ] {
            signers.add(&listed);
        }
        let answers = [(key(), Ok(Arc::new(report)))].into();
        let now = at("2026-01-01T00:00:00Z");
        let assessment = assess(&running(), &answers, &signers, now, now);
        let signed: Vec<_> = assessment
            .findings
            .iter()
            .map(|finding| (finding.platform.as_deref(), finding.signed_by.join(",")))
            .collect();
        let both = "sign/index,sign/platform".to_owned();
        assert!(signed.contains(&(Some("linux/amd64"), both)), "{signed:?}");
        let index = "sign/index".to_owned();
        assert!(signed.contains(&(Some("linux/arm64"), index)), "{signed:?}");
    }
}
