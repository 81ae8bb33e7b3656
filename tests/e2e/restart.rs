//! A process that begins: it trusts status, asks the registries little by little, and goes to what somebody waits for.

use affix::api::Reason;
use affix_testbed::hostile::{Matcher, Op};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{host, note, scriptable, with};
use crate::support::namespace::{Namespace, PATIENCE};

/// How many resources are at rest.
const MANY: usize = 60;

#[tokio::test]
async fn after_a_restart_idle_resources_are_spread_out_and_waiting_ones_go_first() {
    let namespace = Namespace::new("restart").await;
    let controller = Controller::start(&namespace).await;
    let registries = scriptable().await;
    for (kind, registry) in registries.iter().enumerate() {
        let image = registry.reference(&host(registry, "v1").name());
        for nth in 0..MANY {
            // Half of them are looked at again long after this test.
            let interval = if nth % 2 == 0 { "1000h" } else { "4s" };
            namespace
                .apply(
                    &format!("rest-{kind}-{nth}"),
                    with(note(&image), json!({"interval": interval})),
                )
                .await;
        }
        for name in ["changed", "requested"] {
            let name = format!("{name}-{kind}");
            namespace
                .apply(
                    &name,
                    with(
                        note(&registry.reference(&host(registry, &name).name())),
                        json!({"interval": "1000h"}),
                    ),
                )
                .await;
        }
        let late = registry.reference(&format!("team/app:late-{kind}"));
        namespace
            .apply(&format!("failed-{kind}"), note(&late))
            .await;
    }
    for kind in 0..registries.len() {
        for nth in 0..MANY {
            namespace.ready(&format!("rest-{kind}-{nth}")).await;
        }
        namespace.ready(&format!("changed-{kind}")).await;
        namespace.ready(&format!("requested-{kind}")).await;
        namespace
            .refused(&format!("failed-{kind}"), Reason::NotFound)
            .await;
    }
    controller.kill().await;

    for (kind, registry) in registries.iter().enumerate() {
        let changed = registry.reference(&format!("team/app:changed-{kind}"));
        namespace
            .apply(
                &format!("changed-{kind}"),
                with(note(&changed), json!({"interval": "999h"})),
            )
            .await;
        namespace.ask(&format!("requested-{kind}"), "now").await;
        host(registry, &format!("late-{kind}"));
        registry.clear();
    }
    let controller = Controller::start(&namespace).await;
    for kind in 0..registries.len() {
        namespace.ready(&format!("changed-{kind}")).await;
        namespace.ready(&format!("failed-{kind}")).await;
        namespace.done(&format!("requested-{kind}"), "now").await;
    }
    // All that come again within four seconds have come: of the others none.
    let heads = Matcher::on(Op::ManifestHead).reference("v1");
    let looked = |log: &str| {
        (0..registries.len() * MANY)
            .filter(|nth| log.contains(&format!("name=\"{}\"", rest(*nth))))
            .count()
    };
    let deadline = Instant::now() + PATIENCE;
    while looked(&controller.log()) < MANY {
        assert!(
            Instant::now() < deadline,
            "only {} were looked at",
            looked(&controller.log())
        );
        sleep(std::time::Duration::from_millis(100)).await;
    }
    let log = controller.log();
    for nth in 0..registries.len() * MANY {
        let is_looked_at = log.contains(&format!("name=\"{}\"", rest(nth)));
        assert_eq!(is_looked_at, nth % 2 == 1, "{}", rest(nth));
    }
    for registry in &registries {
        assert!(
            registry.requests_that(&heads).len() >= MANY / 2,
            "{}",
            registry.transcript()
        );
    }
    namespace.check_rules().await;
}

/// The name of one that is at rest, of both registries.
fn rest(nth: usize) -> String {
    format!("rest-{}-{}", nth / MANY, nth % MANY)
}
