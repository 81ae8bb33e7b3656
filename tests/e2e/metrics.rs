//! The page about metrics against what a running operator serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::http_client;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::sets::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{host, note, with};
use crate::support::namespace::{Namespace, PATIENCE};

/// Of one metric: its type and its labels.
type Listed = BTreeMap<String, (String, BTreeSet<String>)>;

#[tokio::test]
async fn what_is_served_is_what_the_page_about_metrics_lists() {
    let namespace = Namespace::new("metrics").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let election = [
        "--leader-elect",
        "--leader-election-namespace",
        &namespace.name,
    ];
    let controller = Controller::start_with(&namespace, &election).await;
    let authority = Authority::new().unwrap();
    namespace
        .tls(
            "key",
            &authority
                .signer_for(Duration::from_hours(24 * 300))
                .unwrap(),
        )
        .await;
    namespace
        .apply("signed", json!({"image": image, "insecure": true, "signature": {"notation": {"keySecretRef": {"name": "key"}}}}))
        .await;
    namespace.apply("noted", note(&image)).await;
    for name in ["signed", "noted"] {
        namespace.ready(name).await;
    }
    let held = with(note(&image), json!({"suspend": true}));
    namespace.apply("held", held).await;
    namespace.suspended("held").await;
    let sets = Sets::of(&namespace);
    release(&registry, "v1.0.0");
    for (name, suspend) in [("releases", false), ("rests", true)] {
        let suspend = json!({"suspend": suspend});
        sets.apply(name, with(notes(&registry, json!({})), suspend))
            .await;
    }
    sets.ready("releases", "1/1").await;
    serves(
        &controller,
        &documented(|section| !["Webhook", "Reports"].contains(&section)),
    )
    .await;
    for (accept, kind) in [
        (
            "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("text/plain", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
    ] {
        let (served, text) = controller.metrics_as(accept).await;
        assert!(served.starts_with(kind), "{accept}: {served}");
        let is_open = kind.starts_with("application/");
        assert_eq!(text.ends_with("# EOF\n"), is_open, "{accept}: {text}");
        let counter = format!(
            "# TYPE affix_attachments{} counter\n",
            if is_open { "" } else { "_total" }
        );
        assert!(text.contains(&counter), "{accept}: {text}");
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn what_the_webhook_serves_is_what_the_page_about_metrics_lists() {
    let namespace = Namespace::new("webhook-metrics").await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    authority.server(dir.path()).unwrap();
    let (webhook, address) = Controller::start_webhook(&namespace, dir.path()).await;
    // The first review of its kind begins a series.
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "operation": "CREATE", "namespace": namespace.name, "name": "pod", "dryRun": false,
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "userInfo": {"username": "somebody"}, "object": {"metadata": {"name": "pod"}, "spec": {"containers": []}},
    }});
    let answer = http_client::client(Some(authority.pem()))
        .unwrap()
        .post(format!("https://{address}/validate-pods"))
        .json(&review)
        .send()
        .await
        .unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
    serves(
        &webhook,
        &documented(|section| ["Webhook", "Process"].contains(&section)),
    )
    .await;
}

/// Waits until exactly these metrics are served: a pass is counted a moment after its status is written.
async fn serves(controller: &Controller, documented: &Listed) {
    assert!(documented.len() > 10, "{documented:?}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = controller.metrics().await;
        let served = served(&text);
        if served == *documented {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "served:\n{served:#?}\ndocumented:\n{documented:#?}\n{text}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_nothing_that_the_page_does_not_list() {
    let documented = documented(|_| true);
    let dashboard: Value =
        serde_json::from_str(include_str!("../../charts/affix/files/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut queries: Vec<&str> = panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() > 20, "{queries:?}");
    queries.extend(
        include_str!("../../charts/affix/files/alerts.yaml")
            .lines()
            .filter(|line| line.contains('(')),
    );
    for query in queries {
        let words = query
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .filter(|word| {
                [
                    "affix_",
                    "controller_runtime_",
                    "workqueue_",
                    "rest_client_",
                    "process_",
                    "leader_",
                ]
                .iter()
                .any(|start| word.starts_with(start))
            });
        for word in words {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(
                documented.contains_key(name),
                "{name} of {query} is not in docs/metrics.md"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn grafana_knows_every_field_and_value_of_the_dashboard() {
    let tools = Tools::with(&[Tool::Dashboard]).await.unwrap();
    let dashboard = include_str!("../../charts/affix/files/dashboard.json");
    let check = async |text: String| {
        let run = Run::new(tools.path(Tool::Dashboard).unwrap()).input(text);
        run.output().await.unwrap()
    };
    let titles = check(dashboard.to_owned()).await.stdout().unwrap();
    let read: Value = serde_json::from_str(dashboard).unwrap();
    let panels = read["panels"].as_array().unwrap().iter();
    let expected: Vec<&str> = panels
        .filter(|panel| panel["type"] != "row")
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles.lines().collect::<Vec<_>>(), expected);
    for (right, wrong) in [
        ("\"gridPos\"", "\"gridPosition\""),
        ("\"includeAll\"", "\"includesAll\""),
    ] {
        assert!(dashboard.contains(right), "{right}");
        let refused = check(dashboard.replacen(right, wrong, 1)).await;
        assert!(
            !refused.status.success() && !refused.err.is_empty(),
            "{wrong}"
        );
    }
}

/// The rows ``| `name` | type | `label`, `label` | unit | meaning |`` of the sections that count.
fn documented(counts: impl Fn(&str) -> bool) -> Listed {
    let page = include_str!("../../docs/metrics.md").split("\n## ").skip(1);
    let sections = page.filter(|section| counts(section.lines().next().unwrap_or_default()));
    let rows = sections.flat_map(str::lines).filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, unit, meaning, _] = cells.as_slice() else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let in_seconds = name.contains("_seconds");
        assert!(
            in_seconds == (*unit == "seconds") && !meaning.is_empty(),
            "{line}"
        );
        let labels = labels
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(|label| label.trim_matches('`').to_owned());
        Some((name.to_owned(), ((*kind).to_owned(), labels.collect())))
    });
    rows.collect()
}

/// What a scrape holds, by the names that queries use.
fn served(text: &str) -> Listed {
    let mut listed = Listed::new();
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (family, kind) in types {
        let name = match kind {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.to_owned(),
        };
        let samples = text.lines().filter_map(|line| {
            let (series, _) = line.rsplit_once(' ')?;
            let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
            let own = sample == name
                || (kind == "histogram"
                    && sample
                        .strip_prefix(family)
                        .is_some_and(|end| end == "_count"));
            own.then(|| {
                labels
                    .split('"')
                    .step_by(2)
                    .filter_map(|part| part.trim_matches(['}', ',']).strip_suffix('='))
            })
        });
        let labels: BTreeSet<String> = samples.flatten().map(str::to_owned).collect();
        // A family that counts nothing yet is there by its type alone.
        if text
            .lines()
            .any(|line| line.starts_with(&format!("{family}_")) || line.starts_with(&name))
        {
            listed.insert(name, (kind.to_owned(), labels));
        }
    }
    listed
}
