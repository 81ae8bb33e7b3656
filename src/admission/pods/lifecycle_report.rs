//! What is known of an image's end of life, and what that means for a pod. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::admission::pods::mark::{Day, Mark};
use crate::admission::pods::workload::Nodes;
use crate::admission::review::image_name::warning;
use affix_registry::oci::{Digest, Platform};

/// The marks on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The index, or the single manifest.
    pub(crate) digest: Digest,
    /// The mark on it.
    pub(crate) mark: Option<Mark>,
    /// The platforms of an index; empty for a single manifest.
    pub(crate) platforms: Vec<OfPlatform>,
}

/// The mark on one platform's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfPlatform {
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    pub(crate) mark: Option<Mark>,
}

/// One thing to say about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What carries the mark.
    pub(crate) digest: Digest,
    /// Its platforms; empty for the index.
    platforms: Vec<String>,
    /// The date as written.
    pub(crate) date: String,
    day: Day,
    /// Whether the date has passed.
    pub(crate) has_ended: bool,
    /// Whether the pod runs what carries the mark; otherwise it is mentioned only.
    pub(crate) counts: bool,
}

impl Facts {
    /// Those who know both: of two marks on one manifest the newer.
    pub(crate) fn merge(mut self, other: &Self) -> Self {
        let newest = |ours: &mut Option<Mark>, theirs: &Option<Mark>| {
            *ours = Mark::newest(ours.take().into_iter().chain(theirs.clone()))
        };
        newest(&mut self.mark, &other.mark);
        for theirs in &other.platforms {
            match self
                .platforms
                .iter_mut()
                .find(|ours| ours.digest == theirs.digest && ours.platform == theirs.platform)
            {
                Some(ours) => newest(&mut ours.mark, &theirs.mark),
                None => self.platforms.push(theirs.clone()),
            }
        }
        self
    }

    /// The marks of what a pod on `nodes` runs: of its platforms where it chooses an architecture, else of the index. `None`
    /// stands for a manifest without one.
    pub(crate) fn counting<'a>(&'a self, nodes: &'a Nodes) -> Vec<Option<&'a Mark>> {
        let chosen: Vec<_> = self.chosen(nodes).map(|of| of.mark.as_ref()).collect();
        if chosen.is_empty() {
            vec![self.mark.as_ref()]
        } else {
            chosen
        }
    }

    fn chosen<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = &'a OfPlatform> {
        let any = nodes.are_any();
        self.platforms
            .iter()
            .filter(move |of| !any && nodes.can_run(&of.platform))
    }

    /// What is to be said to a pod on `nodes` at `now`: dates that have passed, and those of before `horizon`.
    pub(crate) fn findings(
        &self,
        nodes: &Nodes,
        now: SignedDuration,
        horizon: SignedDuration,
    ) -> Vec<Finding> {
        let finding = |digest: &Digest, platforms: Vec<String>, mark: &Mark, counts: bool| {
            let due = mark.date.instant() <= horizon;
            due.then(|| Finding {
                digest: digest.clone(),
                platforms,
                date: mark.date.as_str().to_owned(),
                day: mark.day(),
                has_ended: mark.has_ended(now),
                counts,
            })
        };
        let root_counts = self.chosen(nodes).next().is_none();
        let mut findings: Vec<Finding> = Vec::new();
        let root = self
            .mark
            .as_ref()
            .and_then(|mark| finding(&self.digest, Vec::new(), mark, root_counts));
        for of in self.platforms.iter().filter(|of| of.mark.is_some()) {
            let counts = !root_counts && nodes.can_run(&of.platform);
            let Some(mark) = &of.mark else { continue };
            let Some(next) = finding(&of.digest, vec![of.platform.to_string()], mark, counts)
            else {
                continue;
            };
            // What the index says already need not be said of each platform.
            if !counts
                && root
                    .as_ref()
                    .is_some_and(|root| root.counts && root.day == next.day)
            {
                continue;
            }
            match findings.iter_mut().find(|seen| {
                seen.day == next.day
                    && seen.counts == next.counts
                    && seen.has_ended == next.has_ended
            }) {
                Some(seen) => seen.platforms.extend(next.platforms),
                None => findings.push(next),
            }
        }
        root.into_iter().chain(findings).collect()
    }
}

impl Finding {
    /// In at most 120 characters.
    pub(crate) fn message(&self, image: &str) -> String {
        let platforms = match self.platforms.as_slice() {
            [] => String::new(),
            some if some.len() <= 2 => format!("({}) ", some.join(", ")),
            some => format!(
                "({} and {} more) ",
                some.first().map_or("", String::as_str),
                some.len() - 1
            ),
        };
        let reached = if self.has_ended { "reached" } else { "reaches" };
        warning(
            "image",
            image,
            &format!("{platforms}{reached} end of life on {}", self.day),
        )
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::pods::workload::Workload;
    use serde_json::json;

    fn digest(of: &str) -> Digest {
        Digest::sha256(of.as_bytes())
    }

    fn mark(date: &str) -> Option<Mark> {
        Some(Mark {
            date: date.parse().unwrap(),
            created: None,
        })
    }

    /// An index with two platforms.
    fn facts(index: Option<Mark>, amd64: Option<Mark>, arm64: Option<Mark>) -> Facts {
        let of = |platform: &str, mark| OfPlatform {
            platform: platform.parse().unwrap(),
            digest: digest(platform),
            mark,
        };
        Facts {
            digest: digest("index"),
            mark: index,
            platforms: vec![of("linux/amd64", amd64), of("linux/arm64", arm64)],
        }
    }

    fn nodes(architecture: Option<&str>) -> Nodes {
        let selector = architecture.map(|architecture| json!({"kubernetes.io/arch": architecture}));
        let pod = json!({"spec": {"containers": [], "nodeSelector": selector}});
        Workload::read("Pod", &serde_json::value::to_raw_value(&pod).unwrap())
            .unwrap()
            .nodes
    }

    fn said(facts: &Facts, architecture: Option<&str>) -> Vec<(String, bool, bool)> {
        let at = |text: &str| {
            text.parse::<k8s_openapi::jiff::Timestamp>()
                .unwrap()
                .as_duration()
        };
        let findings = facts.findings(
            &nodes(architecture),
            at("2026-01-01T00:00:00Z"),
            at("2026-01-31T00:00:00Z"),
        );
        findings
            .iter()
            .map(|finding| (finding.message("app:v1"), finding.has_ended, finding.counts))
            .collect()
    }

    #[test]
    fn the_index_counts_where_no_architecture_is_chosen_and_a_platform_is_mentioned() {
        let ended = "image app:v1 reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            said(
                &facts(mark("2025-03-20"), mark("2025-03-20T10:00:00Z"), None),
                None
            ),
            [(ended.clone(), true, true)]
        );
        let mentioned = "image app:v1 (linux/amd64) reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            said(&facts(None, mark("2025-03-20"), None), None),
            [(mentioned, true, false)]
        );
        let both =
            "image app:v1 (linux/amd64, linux/arm64) reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            said(&facts(None, mark("2025-03-20"), mark("2025-03-20")), None),
            [(both, true, false)]
        );
    }

    #[test]
    fn the_platform_counts_where_an_architecture_is_chosen_and_the_index_is_mentioned() {
        let scenario = facts(mark("2025-03-20"), mark("2025-03-20"), None);
        let said = |architecture| {
            said(&scenario, Some(architecture))
                .into_iter()
                .map(|(_, _, counts)| counts)
                .collect::<Vec<_>>()
        };
        assert_eq!(said("amd64"), [false, true]);
        assert_eq!(said("arm64"), [false, false]);
        // An architecture that the image lacks: the index speaks for it.
        assert_eq!(said("s390x"), [true]);
    }

    #[test]
    fn a_date_soon_is_said_and_one_far_away_is_not() {
        assert_eq!(
            said(&facts(mark("2026-01-20"), None, None), None),
            [(
                "image app:v1 reaches end of life on 2026-01-20".to_owned(),
                false,
                true
            )]
        );
        assert!(said(&facts(mark("2026-01-01"), None, None), None)[0].1);
        assert!(said(&facts(mark("2026-02-01"), mark("9999-12-31"), None), None).is_empty());
    }

    #[test]
    fn two_who_know_are_merged_by_the_newer_mark() {
        let created = |date: &str, created: &str| {
            Some(Mark {
                date: date.parse().unwrap(),
                created: Some(created.parse().unwrap()),
            })
        };
        let ours = facts(created("2025-01-01", "2024-01-01T00:00:00Z"), None, None);
        let theirs = facts(
            created("2030-01-01", "2025-01-01T00:00:00Z"),
            mark("2025-01-01"),
            None,
        );
        let merged = ours.merge(&theirs);
        assert_eq!(
            (merged.mark, merged.platforms),
            (theirs.mark, theirs.platforms)
        );
    }
}
