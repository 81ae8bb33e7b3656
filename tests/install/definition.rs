//! An operator with an older CRD or without one: it reports the problem and continues after the CRD was updated.

use std::time::{Duration, Instant};

use affix_testbed::hostile::HostileRegistry;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::access::effective;
use crate::support::cluster::{Cluster, PATIENCE, POLL};
use crate::support::golden::read;
use crate::support::helm::NAMESPACE;
use crate::support::operator::{DEPLOYMENT, Job, MORTAL, Operator, values_for_here};

/// Returns the CRD of the older chart.
fn older() -> Value {
    serde_saphyr::from_str(&read("tests/install/older-chart/templates/crd.yaml")).unwrap()
}

fn current() -> Value {
    serde_json::to_value(affix::api::crd()).unwrap()
}

fn without_status(mut definition: Value) -> Value {
    definition["spec"]["versions"][0]
        .as_object_mut()
        .unwrap()
        .remove("subresources")
        .unwrap();
    definition
}

/// Returns the current CRD without the fields of spec that hold a resource back.
fn without_restrictions() -> Value {
    let mut definition = current();
    let properties =
        &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let spec = properties["spec"]["properties"].as_object_mut().unwrap();
    for field in RESTRICTIONS {
        spec.remove(field).unwrap();
    }
    // The rules of the removed fields go with them.
    properties["spec"]
        .as_object_mut()
        .unwrap()
        .remove("x-kubernetes-validations");
    definition
}

const RESTRICTIONS: [&str; 3] = ["dryRun", "suspend", "targets"];

/// Defines the sets as this version has them, and the attachments as given.
async fn define(cluster: &Cluster, definition: &Value) {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let both = format!("{definition}\n---\n{}", affix::api::set_crd_yaml());
    cluster
        .plane
        .kubectl_with(arguments, both)
        .await
        .unwrap()
        .stdout()
        .unwrap();
    cluster.established().await;
}

/// Waits until `/readyz` says that it waits for the definition because of these words.
async fn waits_because(operator: &Operator, words: &str) {
    let waits = || async {
        let (status, text) = operator.readyz().await?;
        let said = format!("the CRD imageattachments.affix.dev ({words}");
        if status == 503 && text.contains(&said) {
            Ok(())
        } else {
            Err(format!("{status} {text}, not {said}"))
        }
    };
    operator.wait(waits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn an_operator_newer_than_its_crd_reports_it_and_works_once_it_is_current() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let here = values_for_here();
    let values: Vec<&str> = here
        .iter()
        .map(String::as_str)
        .chain(["crds.enabled=false"])
        .collect();
    cluster
        .helm
        .release("install", &values)
        .await
        .stdout()
        .unwrap();
    effective(&cluster).await;

    let operator = Operator::start(&cluster, DEPLOYMENT, true).await;
    waits_because(&operator, "the API server does not serve imageattachments of affix.dev/v1alpha1: install the CRD (affix crd |")
        .await;
    define(&cluster, &without_status(older())).await;
    waits_because(&operator, "the CRD has no status subresource: replace it").await;
    let old = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "old", "namespace": "team-a"},
        "spec": {"image": "registry.example.com/team/app:v1", "suspend": true, "artifact": {"artifactType": "application/vnd.demo"}},
    });
    cluster.apply(&[old]).await;
    define(&cluster, &older()).await;
    waits_because(
        &operator,
        "the CRD is older than this affix and lacks spec.",
    )
    .await;
    // The resource has an event about it too.
    operator
        .wait(|| async {
            let events = cluster
                .get(&["events.events.k8s.io", "--namespace", "team-a"])
                .await;
            let told = events["items"].as_array().unwrap().iter().any(|event| {
                event["regarding"]["name"] == "old"
                    && event["type"] == "Warning"
                    && event["note"].as_str().is_some_and(|note| {
                        note.starts_with("nothing is attached: the CRD is older")
                    })
            });
            if told {
                Ok(())
            } else {
                Err(format!("no event about it: {events:#}"))
            }
        })
        .await
        .unwrap();
    // It takes no Lease, so a compatible replica can work.
    let leases = cluster.get(&["leases", "--namespace", NAMESPACE]).await;
    assert_eq!(leases["items"], json!([]));
    // The log has one line for each cause, not one for each check.
    let log = operator.log();
    let said = log
        .lines()
        .filter(|line| line.contains("CRD not known to be compatible"))
        .count();
    assert!((3..=4).contains(&said), "{said} lines\n{log}");

    define(&cluster, &current()).await;
    operator.ready().await.unwrap();
    cluster
        .kubectl(&["delete", "imageattachment", "old", "--namespace", "team-a"])
        .await;
    let job = Job::new(&cluster, "team-a").await;
    job.run_by(&operator).await.unwrap();

    // The operator also notices an older CRD while it works, and continues after the CRD was updated. The short interval
    // makes the test independent of watch events, which the API server may drop while it changes a CRD.
    const ANONYMOUS: [&str; 4] = ["ia", "anonymous", "--namespace", "team-a"];
    let often = ["--type=merge", "--patch", r#"{"spec":{"interval":"1s"}}"#];
    cluster
        .kubectl(&[&["patch"], &ANONYMOUS[..], &often[..]].concat())
        .await;
    let observed = || async {
        let object = cluster.get(&ANONYMOUS).await;
        let is_observed =
            object["status"]["observedGeneration"] == object["metadata"]["generation"];
        if is_observed {
            Ok(())
        } else {
            Err(format!("{object:#}"))
        }
    };
    operator.wait(observed).await.unwrap();
    cluster.apply(&job.objects()).await;
    let resources = cluster.attachments("team-a");
    let held = || async {
        let object = resources
            .get_opt(MORTAL)
            .await
            .map_err(|error| error.to_string())?;
        let is_held =
            object.is_some_and(|object| object.status.and_then(|status| status.attached).is_some());
        if is_held {
            Ok(())
        } else {
            Err("it is not attached".to_owned())
        }
    };
    operator.wait(held).await.unwrap();
    define(&cluster, &without_status(current())).await;
    let deadline = Instant::now() + PATIENCE;
    while cluster
        .plane
        .kubectl([&["get", "--subresource=status"], &ANONYMOUS[..]].concat())
        .await
        .unwrap()
        .status
        .success()
    {
        assert!(Instant::now() < deadline, "status is still served");
        sleep(POLL).await;
    }
    let digest = job.move_tag();
    waits_because(&operator, "the CRD has no status subresource").await;
    // A deletion does not wait for the CRD; otherwise a namespace would hang.
    let asked = "reconcile.fluxcd.io/requestedAt=now";
    cluster
        .kubectl(&["annotate", "ia", MORTAL, "--namespace", "team-a", asked])
        .await;
    sleep(Duration::from_secs(2)).await;
    cluster
        .kubectl(&[
            "delete",
            "ia",
            MORTAL,
            "--namespace",
            "team-a",
            "--wait=false",
        ])
        .await;
    let gone = || async {
        if resources
            .get_opt(MORTAL)
            .await
            .is_ok_and(|object| object.is_none())
        {
            Ok(())
        } else {
            Err(format!("{MORTAL} stays"))
        }
    };
    operator.wait(gone).await.unwrap();
    define(&cluster, &current()).await;
    operator.ready().await.unwrap();
    let followed = || async {
        let object = cluster.get(&ANONYMOUS).await;
        if object["status"]["image"]["digest"] == digest {
            Ok(())
        } else {
            Err(format!("{object:#}"))
        }
    };
    operator.wait(followed).await.unwrap();
    operator.stop().await.unwrap();
    job.clear().await;
}

/// Without these fields the API server prunes them: a dry run and a suspended resource would be pushed, to every platform.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn nothing_is_attached_while_the_crd_lacks_dry_run_suspend_and_targets() {
    let cluster = Cluster::new().await;
    cluster.namespace("team-a").await;
    let here = values_for_here();
    let values = here.iter().map(String::as_str);
    let values: Vec<&str> = values.chain(["crds.enabled=false"]).collect();
    let installed = cluster.helm.release("install", &values).await;
    installed.stdout().unwrap();
    effective(&cluster).await;
    let registry = HostileRegistry::start().await.unwrap();
    let platforms = ["linux/amd64", "linux/arm64"];
    registry.image("team/app", "v1").platforms(platforms).push();
    let resource = |name: &str, restriction: Value| {
        let mut spec = json!({
            "image": registry.reference("team/app:v1"), "insecure": true, "interval": "1s",
            "artifact": {"artifactType": "application/vnd.demo"},
        });
        let fields = restriction.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
            "metadata": {"name": name, "namespace": "team-a"}, "spec": spec,
        })
    };
    // kubectl would refuse the fields that the CRD lacks. GitOps tools and older clients do not validate.
    let apply = |objects: Vec<Value>| {
        let text: String = objects.iter().map(Value::to_string).collect();
        let args = ["apply", "--validate=false", "-f", "-"];
        let applied = cluster.plane.kubectl_with(args, text);
        async move { applied.await.unwrap().stdout().unwrap() }
    };
    let writes = || {
        let requests = registry.requests();
        let writes = requests
            .iter()
            .filter(|request| request.method != "GET" && request.method != "HEAD");
        writes.count()
    };
    define(&cluster, &without_restrictions()).await;
    apply(vec![
        resource("planned", json!({"dryRun": true})),
        resource("suspended", json!({"suspend": true})),
        resource("selected", json!({"targets": {"scope": "Index"}})),
    ])
    .await;
    let words = "the CRD is older than this affix and lacks spec.dryRun, spec.suspend, spec.targets: upgrade it";
    let operator = Operator::start(&cluster, DEPLOYMENT, true).await;
    waits_because(&operator, words).await;
    let log = operator.log();
    assert!(log.contains(words), "{log}");
    let has_event = |name: &'static str| {
        let (cluster, operator) = (&cluster, &operator);
        async move {
            let seen = || async {
                let events = cluster
                    .get(&["events.events.k8s.io", "--namespace", "team-a"])
                    .await;
                let found = events["items"].as_array().unwrap().iter().any(|event| {
                    let note = event["note"].as_str().unwrap_or_default();
                    event["regarding"]["name"] == name
                        && note.contains("lacks spec.dryRun, spec.suspend, spec.targets")
                });
                if found {
                    Ok(())
                } else {
                    Err(format!("no event of {name}: {events:#}"))
                }
            };
            operator.wait(seen).await.unwrap();
        }
    };
    for name in ["planned", "suspended", "selected"] {
        has_event(name).await;
    }
    assert_eq!(registry.requests().len(), 0);

    // With the current CRD the same resources are held back by their own fields. Those that were pruned must be applied anew.
    let names = ["planned", "suspended", "selected"];
    let delete = ["delete", "ia", "--namespace", "team-a"];
    cluster.kubectl(&[&delete[..], &names[..]].concat()).await;
    define(&cluster, &current()).await;
    operator.ready().await.unwrap();
    apply(vec![
        resource("planned", json!({"dryRun": true})),
        resource("suspended", json!({"suspend": true})),
    ])
    .await;
    let planned = || async {
        let object = cluster
            .get(&["ia", "planned", "--namespace", "team-a"])
            .await;
        let is_planned = object["status"]["targets"][0]["state"] == "Planned"
            && object["status"]["observedGeneration"] == object["metadata"]["generation"];
        if is_planned {
            Ok(())
        } else {
            Err(format!("{object:#}"))
        }
    };
    operator.wait(planned).await.unwrap();
    let before = writes();

    // An older CRD is noticed while the operator works, and before it reads what the API server pruned.
    define(&cluster, &without_restrictions()).await;
    waits_because(&operator, words).await;
    apply(vec![resource("later", json!({"dryRun": true}))]).await;
    has_event("planned").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(writes(), before, "{:#?}", registry.requests());
    define(&cluster, &current()).await;
    cluster
        .kubectl(&[
            "delete",
            "ia",
            "--all",
            "--namespace",
            "team-a",
            "--wait=false",
        ])
        .await;
    operator.stop().await.unwrap();
}
