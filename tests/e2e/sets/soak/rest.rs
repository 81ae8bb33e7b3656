//! Many sets at rest: one list of tags each interval, no write to the API server, little memory.

use std::collections::BTreeMap;
use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Op};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::is_whole;
use crate::sets::{Sets, ready_of};
use crate::support::controller::Controller;
use crate::support::images::SIGNATURE;
use crate::support::namespace::Namespace;

/// The bound on the resident memory, in KiB.
const MOST: u64 = 120 << 10;
/// The time for all children, on a busy machine.
const LONG: Duration = Duration::from_mins(30);
const LOOK: Duration = Duration::from_millis(500);

/// Returns the number of sets, of tags of each, and the interval in seconds.
fn size() -> (usize, usize, u64) {
    if is_whole() {
        (300, 40, 60)
    } else {
        (10, 20, 2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sets_at_rest_cost_one_list_an_interval_and_no_write() {
    let (count, tags, interval) = size();
    let namespace = Namespace::new("set-many").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let repository = |nth: usize| format!("team/app-{nth}");
    for nth in 0..count {
        for minor in 0..tags {
            let image = registry.image(&repository(nth), &format!("v1.{minor}.0"));
            image.push_single();
        }
    }
    let controller = Controller::start(&namespace).await;
    let name = |nth: usize| format!("releases-{nth}");
    for nth in 0..count {
        let artifact =
            json!({"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": "hello"}});
        let spec = json!({
            "repositories": [registry.reference(&repository(nth))],
            "immutable": true,
            "interval": format!("{interval}s"),
            "template": {"spec": {"insecure": true, "artifact": artifact}},
        });
        sets.apply(&name(nth), spec).await;
    }
    let (deadline, all) = (Instant::now() + LONG, format!("{tags}/{tags}"));
    for nth in 0..count {
        loop {
            let set = sets.get(&name(nth)).await;
            let ready = set.status.as_ref().and_then(|status| status.ready.clone());
            if ready.as_ref() == Some(&all) && ready_of(&set) == Some(("True", "Attached")) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {:#?}",
                name(nth),
                set.status
            );
            sleep(LOOK).await;
        }
    }

    let writes = async || -> Vec<String> {
        let metrics = controller.metrics().await;
        let written = metrics.lines().filter(|line| {
            line.starts_with("rest_client_requests_total") && !line.contains("method=\"GET\"")
        });
        written.map(str::to_owned).collect()
    };
    // The last events of children may trigger one more pass of their set.
    let mut before = writes().await;
    loop {
        sleep(Duration::from_secs(2)).await;
        let now = writes().await;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "{now:#?}");
        before = now;
    }
    let began = Instant::now();
    registry.clear();
    let (lists, elapsed) = loop {
        let (requests, elapsed) = (registry.requests(), began.elapsed());
        let mut lists: BTreeMap<String, u32> = BTreeMap::new();
        for request in requests {
            assert_eq!(request.op, Op::TagList, "{}", request.target());
            *lists
                .entry(request.repository.unwrap_or_default())
                .or_default() += 1;
        }
        if lists.len() == count && lists.values().all(|lists| *lists > 1) {
            break (lists, elapsed);
        }
        assert!(Instant::now() < deadline, "{lists:?}");
        sleep(LOOK).await;
    };
    // An interval is at most 5 % shorter than the spec says.
    let shortest = Duration::from_secs(interval).mul_f64(0.95);
    for (repository, lists) in lists {
        assert!(
            shortest * (lists - 1) <= elapsed,
            "{repository}: {lists} lists in {elapsed:?}"
        );
    }
    assert_eq!(writes().await, before);
    let resident = controller.memory().resident();
    println!("{count} sets with {tags} children each at rest: {resident} KiB");
    assert!(resident <= MOST, "{resident} KiB");
    sets.check_rules().await;
}
