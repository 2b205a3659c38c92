//! Two real processes merge into one table on S3. They are killed during the merge, or are stopped after their commit
//! while other processes go on. Needs a server: see `s3.rs`. `BISCUIT_KILL_ROUNDS` is the number of rounds (default:
//! 10).

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use biscuit_apply::verify;
use biscuit_dataset::Dataset;
use biscuit_flows::process;
use biscuit_testkit::{RecordingStore, assert_rows_eq};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::kill::{call_of, end, start, want, write_changes};

fn rounds() -> u64 {
    std::env::var("BISCUIT_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

fn url(test: &str, round: u64) -> String {
    format!("s3://biscuit-test/{test}-{}-{round}/lake/t", std::process::id())
}

/// Creates a table with the first rows.
async fn populated(url: &str, changes: &Path) -> Dataset {
    let dataset = Dataset::new(process::location(url).await.expect("the place is valid"), process::options());
    process::merge(&dataset, &changes.join("first.jsonl").to_string_lossy()).await.expect("the merge succeeds");
    dataset
}

fn begin(url: &str, changes: &Path, n: usize, at: u64, when: &str) -> Child {
    start(url, &changes.join(format!("changes-{n}.jsonl")), at, when)
}

/// Runs both jobs again and then the recovery, as a scheduler does. Expects the right rows, no orphan files and no
/// lost files.
async fn check(url: &str, changes: &Path, dataset: &Dataset, round: u64) {
    for n in [0, 1] {
        assert!(end(begin(url, changes, n, 0, "before")).is_some(), "round {round}");
    }
    dataset.journal().recover_with_fence().await.expect("the recovery succeeds");
    let rows = dataset
        .load(&SessionContext::new())
        .await
        .expect("the frame is valid")
        .collect()
        .await
        .expect("the rows are readable");
    assert_rows_eq!(rows, want());
    let found = verify(dataset, &[]).await.expect("the verification succeeds");
    assert!(found.is_sound() && found.orphan_files.is_empty() && found.external.is_empty(), "round {round}: {found:?}");
    let names = async |root: &object_store::path::Path| -> Vec<String> {
        let store: &dyn ObjectStore = &dataset.location().storage().store;
        store.list(Some(root)).map_ok(|m| m.location.to_string()).try_collect().await.expect("the listing succeeds")
    };
    let live = dataset.observe().await.expect("the table is observed").files().len();
    assert_eq!(names(dataset.location().path()).await.len(), live, "round {round}");
    let state = names(dataset.journal().state_root()).await;
    assert_eq!(state.iter().find(|f| f.contains("/staging/") || f.contains("/probe/")), None, "round {round}");
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn two_processes_killed_at_any_request_to_s3_leave_the_right_rows_and_no_orphan_files() {
    let folder = tempfile::tempdir().expect("the folder is created");
    write_changes(folder.path());
    let rehearsal = url("kill", u64::MAX);
    populated(&rehearsal, folder.path()).await;
    let calls = [0, 1].map(|n| end(begin(&rehearsal, folder.path(), n, 0, "before")).and_then(|a| a.parse().ok()));
    let calls = calls.map(|n| n.expect("the number of calls is known"));
    let (mut killed, mut finished, mut conflicts) = (0, 0, 0);
    for round in 0..rounds() {
        let url = url("kill", round);
        let dataset = populated(&url, folder.path()).await;
        let when = if round % 2 == 0 { "before" } else { "after" };
        let one = begin(&url, folder.path(), 0, call_of(calls[0], round, rounds()), when);
        let two = begin(&url, folder.path(), 1, call_of(calls[1], rounds() - 1 - round, rounds()), when);
        for answer in [end(one), end(two)] {
            match answer.as_deref() {
                None => killed += 1,
                Some("Conflict") => conflicts += 1,
                Some(_) => finished += 1,
            }
        }
        check(&url, folder.path(), &dataset, round).await;
    }
    println!(
        "{} rounds, runs of {calls:?} calls: {killed} killed, {finished} finished, {conflicts} conflicts",
        rounds()
    );
    assert!(killed >= rounds(), "{killed} killed, {finished} finished");
}

/// Waits until a process is stopped. Returns false if it has ended.
fn stopped(child: &mut Child) -> bool {
    let pid = child.id().to_string();
    loop {
        let state = Command::new("ps").args(["-o", "state=", "-p", &pid]).output().expect("the command `ps` runs");
        match String::from_utf8_lossy(&state.stdout).trim().chars().next() {
            Some('T') => return true,
            _ if child.try_wait().expect("the process is observable").is_some() => return false,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn process_that_is_stopped_after_its_commit_on_s3_does_no_harm() {
    let folder = tempfile::tempdir().expect("the folder is created");
    write_changes(folder.path());
    let rehearsal = populated(&url("stop", u64::MAX), folder.path()).await;
    let (recorder, storage) = RecordingStore::storage(rehearsal.location().storage());
    let watched = Dataset::new(rehearsal.location().clone().with_storage(storage), process::options());
    process::merge(&watched, &folder.path().join("changes-0.jsonl").to_string_lossy())
        .await
        .expect("the merge succeeds");
    let calls = recorder.calls();
    // Syncs are recorded too, but are not requests.
    let requests: Vec<&String> = calls.all().iter().filter(|c| !c.starts_with("sync")).collect();
    let record =
        requests.iter().position(|c| c.starts_with("create") && c.ends_with("2.json")).expect("the record is found");
    let (record, all) = (record as u64 + 1, requests.len() as u64);
    let rounds = (rounds() / 4).max(3);
    let mut stood = 0;
    for round in 0..rounds {
        let url = url("stop", round);
        let dataset = populated(&url, folder.path()).await;
        let at = record + round * (all - record + 1) / rounds;
        let mut sleeper = begin(&url, folder.path(), 0, at, "stopped");
        let stands = stopped(&mut sleeper);
        // Two more merges while it sleeps: they finish its version first.
        for n in [1, 0] {
            assert!(end(begin(&url, folder.path(), n, 0, "before")).is_some(), "round {round}");
        }
        if stands {
            stood += 1;
            let woken = Command::new("kill").args(["-CONT", &sleeper.id().to_string()]).status();
            assert!(woken.expect("the command `kill` runs").success());
        }
        assert!(end(sleeper).is_some(), "round {round}: it ends by itself");
        check(&url, folder.path(), &dataset, round).await;
    }
    println!("{rounds} rounds, stopped at calls {record} to {all}: {stood} stood still");
    assert!(stood * 2 > rounds, "{stood} of {rounds} stood still");
}
