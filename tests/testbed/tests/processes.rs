//! Children never outlive the tests that start them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's failure is its message"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use affix_testbed::process::{Launch, Process};
use affix_testbed::tools::Tools;

/// A child that prints its process id, then runs for a minute.
async fn sleeper(tools: &Tools, dir: &Path, script: &str) -> (Process, u32) {
    let launch = Launch::new("sleeper", "/bin/sh", dir.join("log")).args(["-c", script]);
    let mut process = launch.start(tools).unwrap();
    let found = process
        .wait_for(Duration::from_mins(1), "process id", |log| {
            log.lines().last()?.parse().ok()
        })
        .await
        .unwrap();
    (process, found)
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_child_that_is_dropped_is_gone_at_once() {
    let tools = Tools::core().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (process, pid) = sleeper(
        &tools,
        dir.path(),
        "trap '' TERM; echo $$; sleep 60 & wait; sleep 60",
    )
    .await;
    assert!(lives(pid));
    drop(process);
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_child_whose_supervisor_is_killed_is_killed_by_the_kernel() {
    let tools = Tools::core().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut process, pid) = sleeper(&tools, dir.path(), "echo $$; exec sleep 60").await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .to_owned();
    assert!(
        Command::new("kill")
            .args(["-KILL", &parent])
            .status()
            .unwrap()
            .success()
    );
    process.wait(Duration::from_mins(1)).await.unwrap();
    for _ in 0..6000 {
        if !lives(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{pid} outlived its supervisor");
}

#[tokio::test]
async fn a_child_whose_owner_dies_is_killed_and_its_folder_goes_with_it() {
    let tools = Tools::core().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    // The owner is an echo that ends at once and lets go of the leash.
    let underling = tools.path(affix_testbed::tools::Tool::Underling).unwrap();
    let script = format!(
        "echo nothing | {} -remove {} /bin/sleep 60",
        underling.display(),
        folder.display()
    );
    let owner = Command::new("/bin/sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(owner.status.code(), Some(137), "{owner:?}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn stopping_lets_a_child_end_in_order_and_killing_does_not() {
    let tools = Tools::core().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo goodbye; exit 7' TERM; echo $$; while :; do sleep 0.05; done";
    let (mut process, _) = sleeper(&tools, dir.path(), script).await;
    assert_eq!(process.stop().await.unwrap().code(), Some(7));
    assert!(process.log().unwrap().ends_with("goodbye\n"));

    let (mut process, _) = sleeper(&tools, dir.path(), script).await;
    assert_eq!(process.kill().await.unwrap().code(), Some(137));
    assert!(!process.log().unwrap().contains("goodbye"));
}

#[tokio::test]
async fn what_a_child_said_before_it_failed_is_in_the_message() {
    let tools = Tools::core().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new("the loser", "/bin/sh", dir.path().join("log"))
        .args(["-c", "echo no luck; exit 3"]);
    let mut process = launch.start(&tools).unwrap();
    let error = process
        .wait_for::<()>(Duration::from_secs(5), "fortune", |_| None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the loser ended with exit status: 3 before fortune:\nno luck"
    );
}
