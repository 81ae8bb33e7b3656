//! The command and the operator do the same work: what one did, the other finds done.

use affix::api::Origin;
use affix_testbed::hostile::{HostileRegistry, Matcher, Quirks};
use affix_testbed::run::{Ran, Run};
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{host, note};
use crate::support::namespace::Namespace;

async fn affix(args: &[&str], document: &Value) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let run = Run::new(env!("CARGO_BIN_EXE_affix"))
        .args(args.iter().copied())
        .env("HOME", home.path());
    run.input(document.to_string()).output().await.unwrap()
}

fn document(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec})
}

fn manifests_put(registry: &HostileRegistry) -> usize {
    registry
        .requests_that(&Matcher::on(affix_testbed::hostile::Op::ManifestPut))
        .len()
}

#[tokio::test]
async fn what_the_command_attached_the_operator_adopts_and_the_other_way_round() {
    let namespace = Namespace::new("command").await;
    let controller = Controller::start(&namespace).await;
    for (mode, quirks) in [("api", Quirks::default()), ("tag", Quirks::distribution())] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let image = host(&registry, "v1");
        let by_hand = document(mode, note(&registry.reference(&image.name())));

        let plan = affix(&["plan", "-f", "-"], &by_hand)
            .await
            .stdout()
            .unwrap();
        assert!(
            plan.contains("attach") && manifests_put(&registry) == 0,
            "{plan}\n{}",
            registry.transcript()
        );
        affix(&["attach", "-f", "-"], &by_hand)
            .await
            .stdout()
            .unwrap();
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            1
        );
        registry.clear();
        namespace.apply(mode, by_hand["spec"].clone()).await;
        let status = namespace.ready(mode).await;
        assert!(
            status
                .targets
                .iter()
                .all(|row| row.origin == Some(Origin::Adopted)),
            "{status:#?}"
        );
        assert_eq!(manifests_put(&registry), 0, "{}", registry.transcript());

        let second = host(&registry, "v2");
        let name = format!("{mode}-second");
        let by_operator = document(&name, note(&registry.reference(&second.name())));
        namespace.apply(&name, by_operator["spec"].clone()).await;
        let made = namespace.ready(&name).await;
        registry.clear();
        let plan = affix(&["plan", "-f", "-"], &by_operator)
            .await
            .stdout()
            .unwrap();
        assert!(
            plan.contains("adopt") && !plan.contains("attach  "),
            "{plan}"
        );
        let done = affix(&["attach", "-f", "-", "-o", "json"], &by_operator)
            .await
            .json()
            .unwrap();
        assert_eq!(manifests_put(&registry), 0, "{}", registry.transcript());
        let status = if done["kind"] == "List" {
            &done["items"][0]["status"]
        } else {
            &done["status"]
        };
        for row in &made.targets {
            let rows = status["targets"].as_array().unwrap();
            let same = rows
                .iter()
                .find(|found| found["digest"] == row.digest)
                .unwrap_or_else(|| panic!("{done:#}"));
            assert_eq!(
                (&same["attachment"], &same["origin"]),
                (&json!(row.attachment), &json!("Adopted")),
                "{done:#}"
            );
        }
    }
    drop(controller);
    namespace.check_rules().await;
}
