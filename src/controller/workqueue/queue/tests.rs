use futures::FutureExt as _;

use affix_registry::Priority;

use super::*;
use crate::controller::watch::resource_name::Kind;

fn name(name: &str) -> Arc<ResourceName> {
    Arc::new(ResourceName::new(Kind::Attachment, Some("team"), name))
}

fn high(host: &str) -> Flow {
    Flow::to_host(Priority::Interactive, "team", host)
}

fn low(host: &str) -> Flow {
    Flow::to_host(Priority::Background, "team", host)
}

fn queue(resources: &[(&str, Flow)]) -> WorkQueue {
    let mut queue = WorkQueue::default();
    for (resource, flow) in resources {
        queue.add(name(resource), flow.clone());
    }
    queue
}

/// Takes resources while `is_permitted` allows their flow.
fn take_all(queue: &mut WorkQueue, is_permitted: impl Fn(&Flow) -> bool) -> Vec<String> {
    std::iter::from_fn(|| {
        queue.take(|flow| is_permitted(flow).then_some(()).ok_or(Denied::Registry))
    })
    .map(|taken| taken.name.to_string())
    .collect()
}

/// Requeues resources after these delays in seconds, as after a reconcile.
fn delay(queue: &mut WorkQueue, delays: &[(&str, u64)]) {
    for (resource, seconds) in delays {
        queue.finish(&name(resource), Some(Duration::from_secs(*seconds)));
    }
}

/// Waits for delayed resources; returns each with the seconds since `started`.
async fn due(queue: &mut WorkQueue, started: Instant, count: usize) -> Vec<(String, u64)> {
    let mut due = Vec::new();
    for _ in 0..count {
        let name = queue.next_due().await.to_string();
        due.push((name, started.elapsed().as_secs()));
    }
    due
}

#[tokio::test]
async fn a_flow_keeps_its_order_and_flows_take_turns() {
    let mut queue = queue(&[
        ("a1", low("a")),
        ("a2", low("a")),
        ("a3", low("a")),
        ("b1", low("b")),
        ("c1", high("a")),
    ]);
    assert_eq!(
        take_all(&mut queue, |_| true),
        ["team/a1", "team/c1", "team/b1", "team/a2", "team/a3"]
    );
    assert_eq!(
        (
            queue.len(),
            queue.flows.len(),
            queue.groups.len(),
            queue.turns.len()
        ),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn t35_namespaces_take_turns_however_many_registries_one_has() {
    let mut queue = WorkQueue::default();
    let mut add = |namespace: &str, resource: &str, host: &str| {
        let name = Arc::new(ResourceName::new(
            Kind::Attachment,
            Some(namespace),
            resource,
        ));
        queue.add(name, Flow::to_host(Priority::Interactive, namespace, host));
    };
    for host in ["1", "2", "3"] {
        add("many", &format!("{host}a"), host);
        add("many", &format!("{host}b"), host);
    }
    add("one", "a", "r");
    add("one", "b", "r");
    let order = take_all(&mut queue, |_| true);
    assert_eq!(
        order,
        [
            "many/1a", "one/a", "many/2a", "one/b", "many/3a", "many/1b", "many/2b", "many/3b"
        ]
    );
}

#[tokio::test]
async fn t35_a_flow_moves_to_the_other_lane_in_its_order_and_a_full_lane_stops_no_other() {
    let mut queue = queue(&[
        ("a", high("slow")),
        ("b", high("slow")),
        ("c", high("fast")),
        ("d", low("fast")),
    ]);
    let is_slow = |flow: &Flow| flow.host.as_deref() == Some("slow");
    let mut take = |limit: &dyn Fn(&Flow) -> Result<(), Denied>| -> Vec<String> {
        let taken = std::iter::from_fn(|| queue.take(limit));
        taken.map(|taken| taken.name.to_string()).collect()
    };
    let none_slow = take(&|flow| match flow.lane.is_slow == is_slow(flow) {
        false => Err(Denied::OtherLane),
        true if flow.lane.is_slow => Err(Denied::Lane),
        true => Ok(()),
    });
    assert_eq!(none_slow, ["team/c", "team/d"]);
    let all = take(&|flow| match flow.lane.is_slow == is_slow(flow) {
        false => Err(Denied::OtherLane),
        true => Ok(()),
    });
    assert_eq!(all, ["team/a", "team/b"]);
}

#[tokio::test]
async fn a_flow_without_a_permit_does_not_block_the_others() {
    let mut queue = queue(&[
        ("a1", low("dead")),
        ("a2", low("dead")),
        ("b", low("alive")),
        ("c", high("dead")),
        ("d", Flow::unlimited("team")),
    ]);
    assert_eq!(
        take_all(&mut queue, |flow| *flow != low("dead")),
        ["team/b", "team/c", "team/d"]
    );
    assert_eq!(queue.len(), 2);
    assert_eq!(take_all(&mut queue, |_| true), ["team/a1", "team/a2"]);
}

#[tokio::test]
async fn a_queued_resource_moves_to_the_higher_priority_and_not_back() {
    let mut queue = queue(&[
        ("a", low("r")),
        ("b", low("r")),
        ("b", high("r")),
        ("b", low("r")),
    ]);
    assert_eq!(queue.len(), 2);
    assert_eq!(take_all(&mut queue, |flow| *flow == high("r")), ["team/b"]);
    assert_eq!(take_all(&mut queue, |_| true), ["team/a"]);
}

#[tokio::test]
async fn a_resource_with_a_new_image_moves_to_the_flow_of_its_new_registry() {
    let mut queue = queue(&[("a", high("old")), ("a", high("new"))]);
    assert_eq!(queue.len(), 1);
    assert!(take_all(&mut queue, |flow| *flow == high("old")).is_empty());
    assert_eq!(take_all(&mut queue, |_| true), ["team/a"]);
}

#[tokio::test]
async fn a_resource_in_flight_is_queued_again_only_if_it_was_added_meanwhile() {
    let mut queue = queue(&[("a", low("r"))]);
    assert_eq!(take_all(&mut queue, |_| true), ["team/a"]);
    for flow in [high("r"), low("r")] {
        queue.add(name("a"), flow);
    }
    assert!(take_all(&mut queue, |_| true).is_empty());
    queue.finish(&name("a"), Some(Duration::ZERO));
    assert_eq!(take_all(&mut queue, |flow| *flow == high("r")), ["team/a"]);
    queue.finish(&name("a"), None);
    assert!(take_all(&mut queue, |_| true).is_empty() && queue.in_flight.is_empty());
    assert!(queue.delayed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_wait_counts_from_the_first_add() {
    let (mut queue, started) = (queue(&[("a", low("r"))]), Instant::now());
    tokio::time::advance(Duration::from_secs(5)).await;
    queue.add(name("a"), high("r"));
    assert_eq!(queue.take(|_| Ok(())).unwrap().queued_at, started);
}

#[tokio::test(start_paused = true)]
async fn delayed_resources_are_due_in_order_and_never_early() {
    let (mut queue, started) = (WorkQueue::default(), Instant::now());
    delay(
        &mut queue,
        &[("later", 20), ("soon", 10), ("a-year", u64::MAX)],
    );
    assert_eq!(
        due(&mut queue, started, 2).await,
        [("team/soon".to_owned(), 10), ("team/later".to_owned(), 20)]
    );
    assert_eq!(
        due(&mut queue, started, 1).await,
        [("team/a-year".to_owned(), MAX_DELAY.as_secs())]
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_delay_of_a_resource_replaces_the_earlier_ones() {
    let (mut queue, started) = (WorkQueue::default(), Instant::now());
    delay(&mut queue, &[("a", 5), ("a", 60), ("a", 30)]);
    assert_eq!(
        due(&mut queue, started, 1).await,
        [("team/a".to_owned(), 30)]
    );
    assert!(queue.delay_keys.is_empty() && queue.delayed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_or_a_deletion_cancels_the_delay() {
    let mut queue = WorkQueue::default();
    delay(&mut queue, &[("reconciled", 1), ("deleted", 1)]);
    queue.add(name("reconciled"), high("r"));
    assert_eq!(take_all(&mut queue, |_| true), ["team/reconciled"]);
    queue.cancel_delay(&name("deleted"));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(queue.next_due().now_or_never().is_none());
    assert!(queue.delay_keys.is_empty() && queue.delayed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_delay_is_due_first_even_if_it_is_added_later() {
    let (mut queue, started) = (WorkQueue::default(), Instant::now());
    delay(&mut queue, &[("later", 100)]);
    assert!(queue.next_due().now_or_never().is_none());
    delay(&mut queue, &[("sooner", 10)]);
    assert_eq!(
        due(&mut queue, started, 2).await,
        [
            ("team/sooner".to_owned(), 10),
            ("team/later".to_owned(), 100)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn t35_a_queued_deletion_is_due_when_its_time_is_over() {
    let (mut queue, started) = (WorkQueue::default(), Instant::now());
    let deadline = Some(Duration::from_secs(300));
    queue.add_until(&name("a"), high("dead"), deadline);
    assert_eq!(
        due(&mut queue, started, 1).await,
        [("team/a".to_owned(), 300)]
    );
    assert!(queue.is_queued(&name("a")));
    queue.add(name("a"), Flow::unlimited("team"));
    assert_eq!(take_all(&mut queue, |flow| flow.host.is_none()), ["team/a"]);
}
