//! Findings as objects of OpenReports (`openreports.io/v1alpha1`) and of the policy working group (`wgpolicyk8s.io/v1alpha2`). Pure.
//!
//! Both have the same fields. The objects of a namespace are stable: nothing but a changed finding changes them.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::finding::{Finding, State};

/// The maximum size of the results of one object, in bytes. etcd accepts about 1.5 MB, and an apply has managed fields besides.
const MAX_BYTES: usize = 512 << 10;
/// The name of the first object of a namespace.
const NAME: &str = "affix-images";
/// The label of the objects, as a selector.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by=affix";

/// Returns whether an object has a name that [`documents`] gives.
pub(crate) fn is_own_name(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| {
        let number = rest.strip_prefix('-').unwrap_or(rest);
        number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The kind of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Report of openreports.io/v1alpha1.
    Openreports,
    /// PolicyReport of wgpolicyk8s.io/v1alpha2.
    Wgpolicyk8s,
}

impl ReportFormat {
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Openreports => "openreports.io",
            Self::Wgpolicyk8s => "wgpolicyk8s.io",
        }
    }

    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Openreports => "v1alpha1",
            Self::Wgpolicyk8s => "v1alpha2",
        }
    }

    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Openreports => "Report",
            Self::Wgpolicyk8s => "PolicyReport",
        }
    }

    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Openreports => "reports",
            Self::Wgpolicyk8s => "policyreports",
        }
    }
}

/// Returns the objects for findings, by namespace and name. A namespace with many findings has several.
pub(crate) fn documents(format: ReportFormat, findings: &[Finding]) -> Vec<Value> {
    let mut by_namespace: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        let of_namespace = by_namespace.entry(&finding.namespace).or_default();
        of_namespace.push(finding);
    }
    let mut documents = Vec::new();
    for (namespace, findings) in by_namespace {
        let (mut chunk, mut bytes, mut number) = (Chunk::default(), 0, 1);
        for finding in findings {
            let result = result(finding);
            let size = result.to_string().len();
            if bytes + size > MAX_BYTES && bytes > 0 {
                documents.push(std::mem::take(&mut chunk).object(format, namespace, number));
                (bytes, number) = (0, number + 1);
            }
            bytes += size;
            chunk.add(finding.state, result);
        }
        documents.push(chunk.object(format, namespace, number));
    }
    documents
}

/// The results of one object.
#[derive(Default)]
struct Chunk {
    counts: [usize; State::ALL.len()],
    results: Vec<Value>,
}

impl Chunk {
    fn add(&mut self, state: State, result: Value) {
        let counts = State::ALL.iter().zip(&mut self.counts);
        for (_, count) in counts.filter(|(other, _)| **other == state) {
            *count += 1;
        }
        self.results.push(result);
    }

    fn object(self, format: ReportFormat, namespace: &str, number: usize) -> Value {
        let name = if number == 1 {
            NAME.to_owned()
        } else {
            format!("{NAME}-{number}")
        };
        let [fail, warn, error, pass] = self.counts;
        let mut object = json!({
            "apiVersion": format!("{}/{}", format.group(), format.version()),
            "kind": format.kind(),
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "affix"},
            },
            "summary": {"pass": pass, "fail": fail, "warn": warn, "error": error, "skip": 0},
            "results": self.results,
        });
        if format == ReportFormat::Openreports
            && let Some(fields) = object.as_object_mut()
        {
            fields.insert("source".to_owned(), json!("affix"));
        }
        object
    }
}

/// Returns the result for a finding.
fn result(finding: &Finding) -> Value {
    let (result, severity) = match finding.state {
        State::OutOfLife => ("fail", "high"),
        State::EndingSoon => ("warn", "medium"),
        State::Unknown => ("error", "low"),
        State::Alive => ("pass", "info"),
    };
    let pods: Vec<Value> = finding
        .example_pods
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Pod", "namespace": finding.namespace, "name": name}))
        .collect();
    json!({
        "source": "affix",
        "policy": "end-of-life",
        "category": "Image lifecycle",
        "severity": severity,
        "result": result,
        "scored": true,
        "message": message(finding),
        "properties": properties(finding),
        "resources": pods,
    })
}

fn message(finding: &Finding) -> String {
    let tag = finding.tag.as_ref().map(|tag| format!(":{tag}"));
    let digest = finding.digest.as_ref().map(|digest| format!("@{digest}"));
    let (tag, digest) = (tag.unwrap_or_default(), digest.unwrap_or_default());
    let image = format!("{}{tag}{digest}", finding.image);
    let date = finding.date.as_deref().unwrap_or_default();
    match finding.state {
        State::OutOfLife => format!("image {image} reached end of life on {date}"),
        State::EndingSoon => format!("image {image} reaches end of life on {date}"),
        State::Unknown => {
            let cause = finding.cause.as_deref().unwrap_or_default();
            format!("image {image} was not checked: {cause}")
        }
        State::Alive if date.is_empty() => format!("image {image} has no end-of-life date"),
        State::Alive => format!("image {image} reaches end of life on {date}"),
    }
}

/// Returns the fields of a finding as texts.
fn properties(finding: &Finding) -> Map<String, Value> {
    let signed_by = finding.signed_by.join(", ");
    let fields = [
        ("image", Some(finding.image.clone())),
        ("tag", finding.tag.clone()),
        ("digest", finding.digest.clone()),
        ("platform", finding.platform.clone()),
        ("endOfLife", finding.date.clone()),
        ("signedBy", Some(signed_by).filter(|text| !text.is_empty())),
        ("pods", Some(finding.pods.to_string())),
        ("state", Some(finding.state.text().to_owned())),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?))))
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;

    fn finding(namespace: &str, nth: usize, state: State) -> Finding {
        Finding {
            namespace: namespace.to_owned(),
            image: format!("r.example.com/{}/app-{nth:05}", "x".repeat(200)),
            tag: Some("v1".to_owned()),
            digest: Some(format!("sha256:{nth:064}")),
            platform: None,
            state,
            date: (state == State::OutOfLife).then(|| "2025-03-20".to_owned()),
            marked: None,
            signed_by: Vec::new(),
            cause: None,
            pods: 3,
            example_pods: vec!["app-1".to_owned()],
        }
    }

    #[test]
    fn each_namespace_has_objects_below_the_limit_of_etcd_with_its_own_summary() {
        let mut findings: Vec<Finding> = (0..2000)
            .map(|nth| finding("many", nth, State::Alive))
            .collect();
        findings.push(finding("few", 0, State::OutOfLife));
        findings.push(finding("few", 1, State::Unknown));
        for format in [ReportFormat::Openreports, ReportFormat::Wgpolicyk8s] {
            let documents = documents(format, &findings);
            let summary = json!({"pass": 0, "fail": 1, "warn": 0, "error": 1, "skip": 0});
            assert_eq!(documents[0]["summary"], summary);
            assert_eq!(documents[0]["metadata"]["namespace"], "few");
            assert!(documents.len() > 2, "{}", documents.len());
            let (mut results, mut names) = (0, Vec::new());
            for document in &documents[1..] {
                assert!(document.to_string().len() < 600 << 10);
                let count = document["results"].as_array().unwrap().len();
                assert_eq!(document["summary"]["pass"], count);
                results += count;
                names.push(document["metadata"]["name"].as_str().unwrap());
            }
            assert_eq!(results, 2000);
            assert_eq!(names[..2], ["affix-images", "affix-images-2"]);
        }
    }

    #[test]
    fn a_result_says_which_image_is_out_of_life_since_when() {
        let result = result(&finding("few", 7, State::OutOfLife));
        let message = result["message"].as_str().unwrap();
        assert!(
            message.starts_with("image r.example.com/")
                && message.contains(":v1@sha256:")
                && message.ends_with("reached end of life on 2025-03-20"),
            "{message}"
        );
        assert_eq!(
            (&result["result"], &result["properties"]["pods"]),
            (&json!("fail"), &json!("3"))
        );
    }
}
