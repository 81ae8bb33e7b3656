//! The effect of the end-of-life dates of an image on a pod. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::admission::pods::workload::NodeConstraints;
use crate::admission::review::warning_text::warning;
use crate::engine::{Basis, Day, LifecycleReport, Mark, Marks, PlatformReport};
use affix_registry::oci::Digest;

/// An end-of-life date that has passed or is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportEntry {
    /// The digest of the marked manifest.
    pub(crate) digest: Digest,
    /// The marked platforms. Empty for the index.
    platforms: Vec<String>,
    /// The date in its original notation.
    pub(crate) date: String,
    day: Day,
    /// The date as an instant since the epoch.
    pub(crate) instant: SignedDuration,
    /// The date has passed.
    pub(crate) has_ended: bool,
    /// The pod runs the marked manifest. Otherwise the entry is for information only.
    pub(crate) applies: bool,
    basis: Basis,
}

impl LifecycleReport {
    /// Returns the enforced marks that apply to a pod on `nodes`: those of the selected platforms, or that of
    /// the index if no architecture is selected. `None` stands for a manifest without a mark.
    pub(crate) fn applicable_marks<'a>(
        &'a self,
        nodes: &'a NodeConstraints,
    ) -> Vec<Option<&'a Mark>> {
        let selected_platforms: Vec<_> = self
            .selected_platforms(nodes)
            .map(|platform_report| platform_report.marks.enforced.as_ref())
            .collect();
        if selected_platforms.is_empty() {
            vec![self.marks.enforced.as_ref()]
        } else {
            selected_platforms
        }
    }

    fn selected_platforms<'a>(
        &'a self,
        nodes: &'a NodeConstraints,
    ) -> impl Iterator<Item = &'a PlatformReport> {
        let any = nodes.allow_any_architecture();
        self.platforms
            .iter()
            .filter(move |platform_report| !any && nodes.can_run(&platform_report.platform))
    }

    /// Returns the entries for a pod on `nodes`: dates that have passed at `now`, and dates before
    /// `horizon`, the enforced ones first.
    pub(crate) fn entries(
        &self,
        nodes: &NodeConstraints,
        now: SignedDuration,
        horizon: SignedDuration,
    ) -> Vec<ReportEntry> {
        let mut entries = self.entries_of(|marks| marks.enforced.as_ref(), nodes, now, horizon);
        entries.extend(self.entries_of(|marks| marks.advisory.as_ref(), nodes, now, horizon));
        entries
    }

    fn entries_of(
        &self,
        mark_of: fn(&Marks) -> Option<&Mark>,
        nodes: &NodeConstraints,
        now: SignedDuration,
        horizon: SignedDuration,
    ) -> Vec<ReportEntry> {
        let entry = |digest: &Digest, platforms: Vec<String>, mark: &Mark, applies: bool| {
            let due = mark.date.instant() <= horizon;
            due.then(|| ReportEntry {
                digest: digest.clone(),
                platforms,
                date: mark.date.as_str().to_owned(),
                day: mark.day(),
                instant: mark.date.instant(),
                has_ended: mark.has_ended(now),
                applies,
                basis: mark.basis,
            })
        };
        let root_applies = self.selected_platforms(nodes).next().is_none();
        let mut entries: Vec<ReportEntry> = Vec::new();
        let root = mark_of(&self.marks)
            .and_then(|mark| entry(&self.digest, Vec::new(), mark, root_applies));
        for platform_report in &self.platforms {
            let applies = !root_applies && nodes.can_run(&platform_report.platform);
            let Some(mark) = mark_of(&platform_report.marks) else {
                continue;
            };
            let Some(next) = entry(
                &platform_report.digest,
                vec![platform_report.platform.to_string()],
                mark,
                applies,
            ) else {
                continue;
            };
            // The entry of the index already covers this platform.
            if !applies
                && root
                    .as_ref()
                    .is_some_and(|root| root.applies && root.day == next.day)
            {
                continue;
            }
            match entries.iter_mut().find(|seen| {
                seen.day == next.day
                    && seen.applies == next.applies
                    && seen.has_ended == next.has_ended
                    && seen.basis == next.basis
            }) {
                Some(seen) => seen.platforms.extend(next.platforms),
                None => entries.push(next),
            }
        }
        root.into_iter().chain(entries).collect()
    }
}

impl ReportEntry {
    /// Returns whether a pod can be refused for this date.
    pub(crate) fn is_enforced(&self) -> bool {
        self.basis == Basis::Enforced
    }

    /// Returns a warning of at most 120 characters.
    pub(crate) fn message(&self, image: &str) -> String {
        self.message_with(image, "")
    }

    /// Returns a warning of at most 120 characters that ends with `consequence`.
    pub(crate) fn message_with(&self, image: &str, consequence: &str) -> String {
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
            &format!(
                "{platforms}{reached} end of life on {}{}{consequence}",
                self.day,
                self.basis.remark()
            ),
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

    fn digest(platform_report: &str) -> Digest {
        Digest::sha256(platform_report.as_bytes())
    }

    fn mark(date: &str) -> Option<Mark> {
        Some(Mark {
            date: date.parse().unwrap(),
            created: None,
            basis: Basis::Enforced,
        })
    }

    /// Returns the report of an index with two platforms.
    fn report(index: Option<Mark>, amd64: Option<Mark>, arm64: Option<Mark>) -> LifecycleReport {
        let platform_report = |platform: &str, mark: Option<Mark>| PlatformReport {
            platform: platform.parse().unwrap(),
            digest: digest(platform),
            marks: mark.into(),
        };
        LifecycleReport {
            digest: digest("index"),
            marks: index.into(),
            platforms: vec![
                platform_report("linux/amd64", amd64),
                platform_report("linux/arm64", arm64),
            ],
        }
    }

    fn nodes(architecture: Option<&str>) -> NodeConstraints {
        let selector = architecture.map(|architecture| json!({"kubernetes.io/arch": architecture}));
        let pod = json!({"spec": {"containers": [], "nodeSelector": selector}});
        Workload::read("Pod", &serde_json::value::to_raw_value(&pod).unwrap())
            .unwrap()
            .nodes
    }

    fn messages(report: &LifecycleReport, architecture: Option<&str>) -> Vec<(String, bool, bool)> {
        let at = |text: &str| {
            text.parse::<k8s_openapi::jiff::Timestamp>()
                .unwrap()
                .as_duration()
        };
        let entries = report.entries(
            &nodes(architecture),
            at("2026-01-01T00:00:00Z"),
            at("2026-01-31T00:00:00Z"),
        );
        entries
            .iter()
            .map(|entry| (entry.message("app:v1"), entry.has_ended, entry.applies))
            .collect()
    }

    #[test]
    fn without_an_architecture_the_mark_of_the_index_applies() {
        let ended = "image app:v1 reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            messages(
                &report(mark("2025-03-20"), mark("2025-03-20T10:00:00Z"), None),
                None
            ),
            [(ended.clone(), true, true)]
        );
        let mentioned = "image app:v1 (linux/amd64) reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            messages(&report(None, mark("2025-03-20"), None), None),
            [(mentioned, true, false)]
        );
        let both =
            "image app:v1 (linux/amd64, linux/arm64) reached end of life on 2025-03-20".to_owned();
        assert_eq!(
            messages(&report(None, mark("2025-03-20"), mark("2025-03-20")), None),
            [(both, true, false)]
        );
    }

    #[test]
    fn with_an_architecture_the_mark_of_the_platform_applies() {
        let scenario = report(mark("2025-03-20"), mark("2025-03-20"), None);
        let messages = |architecture| {
            messages(&scenario, Some(architecture))
                .into_iter()
                .map(|(_, _, applies)| applies)
                .collect::<Vec<_>>()
        };
        assert_eq!(messages("amd64"), [false, true]);
        assert_eq!(messages("arm64"), [false, false]);
        // For an architecture that the image lacks, the mark of the index applies.
        assert_eq!(messages("s390x"), [true]);
    }

    #[test]
    fn a_near_date_is_reported_and_a_distant_one_is_not() {
        assert_eq!(
            messages(&report(mark("2026-01-20"), None, None), None),
            [(
                "image app:v1 reaches end of life on 2026-01-20".to_owned(),
                false,
                true
            )]
        );
        assert!(messages(&report(mark("2026-01-01"), None, None), None)[0].1);
        assert!(messages(&report(mark("2026-02-01"), mark("9999-12-31"), None), None).is_empty());
    }
}
