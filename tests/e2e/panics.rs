//! T11, T21: a panic whose message holds a secret, in the middle of a pass, of a visit, of the command.
//!
//! The fault is injected from outside: this test binary runs the whole of affix as a process of its own, with a subscriber for its log
//! that panics where a span or an event says a certain word. What ships has no such thing.

use std::time::Duration;

use affix::api::Reason;
use affix::cli::{Cli, run};
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::run::Run;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::canary::{CANARY, leak};
use crate::support::controller::Controller;
use crate::support::images::{host, note};
use crate::support::namespace::{Namespace, PATIENCE};

/// The variable that makes [`affix_with_a_fault`] one: a JSON list of affix's arguments, and one of the words.
const FAULT: &str = "AFFIX_TEST_FAULT";

/// The arguments by which this binary runs affix with `args` and the fault, and the variable that it needs.
fn in_the_test(args: Vec<String>, words: &[&str]) -> (Vec<String>, (&'static str, String)) {
    let test = [
        "panics::affix_with_a_fault",
        "--exact",
        "--nocapture",
        "--test-threads",
        "1",
    ];
    (
        test.map(str::to_owned).to_vec(),
        (FAULT, json!([args, words]).to_string()),
    )
}

/// Panics with a secret where a span or an event says one of these: words with a + between them, all of which it must say.
struct Fault(Vec<String>);

impl Fault {
    fn look(&self, said: &str) {
        if let Some(words) = self
            .0
            .iter()
            .find(|words| words.split('+').all(|word| said.contains(word)))
        {
            panic!("{words} was met; the login is {CANARY}-password");
        }
    }
}

#[derive(Default)]
struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        write!(self.0, "{value:?} ").unwrap();
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Fault {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut said = Said(format!("{} ", attributes.metadata().name()));
        attributes.record(&mut said);
        self.look(&said.0);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        self.look(&said.0);
    }
}

/// Not a test where nobody asks for the fault: then it is affix.
#[test]
fn affix_with_a_fault() {
    let Ok(fault) = std::env::var(FAULT) else {
        return;
    };
    let (args, words): (Vec<String>, Vec<String>) = serde_json::from_str(&fault).unwrap();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let filter = tracing_subscriber::filter::LevelFilter::TRACE;
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(Fault(words))
        .init();
    let args = std::iter::once("affix".to_owned()).chain(args);
    let _ = run(Cli::from_args(args.map(Into::into)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_t21_a_panic_affects_its_resource_only_and_its_message_stays_inside() {
    let namespace = Namespace::new("panics").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = |tag: &str| registry.reference(&host(&registry, tag).name());
    // In the pass, where it begins; in the visit, where it is told that it has ended.
    let words = [
        format!("pass +{}", image("in-the-pass")),
        "reconciled+\"in-the-visit\"".to_owned(),
    ];
    let program = std::env::current_exe().unwrap();
    let controller = Controller::start_by(&namespace, program, |args| {
        in_the_test(args, &[&words[0], &words[1]])
    })
    .await;
    namespace.apply("pass", note(&image("in-the-pass"))).await;
    namespace.apply("in-the-visit", note(&image("visit"))).await;
    namespace.apply("good", note(&image("good"))).await;
    namespace.ready("good").await;
    let message = namespace.refused("pass", Reason::RegistryUnavailable).await;
    assert!(message.contains("a bug of affix"), "{message}");
    namespace.ready("in-the-visit").await; // its status was written before

    // Each is counted a moment after status has told of it.
    let deadline = Instant::now() + PATIENCE;
    let (metrics, log) = loop {
        let (metrics, log) = (controller.metrics().await, controller.log());
        let panics = "controller_runtime_reconcile_panics_total{controller=\"imageattachment\"} ";
        let panics = metrics.lines().find_map(|line| line.strip_prefix(panics));
        let panics: u64 = panics.unwrap().parse().unwrap();
        if panics >= 2 && log.matches("affix panicked, which").count() >= 2 {
            break (metrics, log);
        }
        assert!(
            Instant::now() < deadline,
            "{panics} were counted, and told was:\n{log}"
        );
        sleep(Duration::from_millis(50)).await;
    };
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("affix panicked, which"))
        .collect();
    assert!(
        told.iter()
            .all(|line| line.contains("tests/e2e/panics.rs:")),
        "the place is told: {told:#?}"
    );
    assert!(
        log.contains("TRACE") && log.contains("reconcile panicked"),
        "{} bytes of log",
        log.len()
    );
    assert_eq!(leak(&log), None);
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let objects = namespace
        .attachments()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    for left in [
        serde_json::to_string_pretty(&events).unwrap(),
        serde_json::to_string_pretty(&objects).unwrap(),
        metrics,
    ] {
        assert_eq!(leak(&left), None);
    }
    drop(controller);
    namespace.check_rules().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_a_panic_of_the_command_tells_its_place_alone() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    let document = json!({"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "a"}, "spec": note(&image)});
    let (args, (name, fault)) = in_the_test(
        ["attach", "-f", "-"].map(str::to_owned).to_vec(),
        &["pass "],
    );
    let home = tempfile::tempdir().unwrap();
    let run = Run::new(std::env::current_exe().unwrap())
        .args(args)
        .env("HOME", home.path())
        .env(name, fault);
    let ran = run.input(document.to_string()).output().await.unwrap();
    assert!(!ran.status.success(), "{}", ran.err);
    let told = ran.err.lines().find(|line| line.contains("affix panicked"));
    assert!(
        told.is_some_and(|line| line.contains("tests/e2e/panics.rs:")),
        "{}",
        ran.err
    );
    assert_eq!((leak(&ran.out), leak(&ran.err)), (None, None));
}
