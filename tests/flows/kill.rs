//! Two real processes merge into one table on a local disk, and are killed during the merge.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use biscuit_apply::verify;
use biscuit_dataset::{Dataset, Location};
use biscuit_flows::process;
use biscuit_testkit::{assert_rows_eq, table};
use datafusion::arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;

/// Number of rounds with `BISCUIT_TEST_SCALE=full`.
const ROUNDS: u32 = 200;

const FIRST: &str = r#"
{"id":1,"seq":1,"day":"a","v":"x","op":"c"}
{"id":2,"seq":1,"day":"b","v":"y","op":"c"}
{"id":3,"seq":1,"day":"b","v":"z","op":"c"}
{"id":4,"seq":1,"day":"c","v":"w","op":"c"}
"#;
/// Changes of the two processes: keys of each one alone, and keys of both.
const BOTH: [&str; 2] = [
    r#"
{"id":1,"seq":2,"day":"b","v":"moved by one","op":"u"}
{"id":3,"seq":4,"day":"b","v":null,"op":"d"}
{"id":5,"seq":2,"day":"d","v":"of one","op":"c"}
"#,
    r#"
{"id":1,"seq":3,"day":"c","v":"moved by two","op":"u"}
{"id":2,"seq":3,"day":"a","v":"changed by two","op":"u"}
{"id":3,"seq":3,"day":"b","v":"late","op":"u"}
{"id":6,"seq":2,"day":"d","v":"of two","op":"c"}
"#,
];

/// Starts a merge that is killed or stopped at a call to the store.
pub(crate) fn start(table: impl AsRef<std::ffi::OsStr>, changes: &Path, at: u64, when: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_merger"))
        .arg(table)
        .arg(changes)
        .arg(at.to_string())
        .arg(when)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the process starts")
}

fn start_in(folder: &Path, n: usize, at: u64, when: &str) -> Child {
    start(folder.join("lake/t"), &folder.join(format!("changes-{n}.jsonl")), at, when)
}

/// Returns the answer of a process, or `None` if it was killed.
pub(crate) fn end(child: Child) -> Option<String> {
    use std::os::unix::process::ExitStatusExt;
    let out = child.wait_with_output().expect("the process ends");
    if out.status.signal() == Some(9) {
        return None;
    }
    let answer = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    assert!(out.status.success() || answer == "Conflict", "{answer}: {}", String::from_utf8_lossy(&out.stderr));
    Some(answer)
}

/// Returns the rows that the table has after both processes were run again, whatever happened before.
pub(crate) fn want() -> RecordBatch {
    table(
        "id:bigint | seq:bigint | day:string | v:string
         1 | 3 | c | moved by two
         2 | 3 | a | changed by two
         4 | 1 | c | w
         5 | 2 | d | of one
         6 | 2 | d | of two",
    )
}

/// Writes the change files into a folder: the first rows, and the changes of the two processes.
pub(crate) fn write_changes(folder: &Path) {
    for (n, lines) in BOTH.iter().enumerate() {
        std::fs::write(folder.join(format!("changes-{n}.jsonl")), lines).expect("the file is written");
    }
    std::fs::write(folder.join("first.jsonl"), FIRST).expect("the file is written");
}

/// Returns the call at which a process is killed in a round. Over all rounds it moves through all calls and a little
/// beyond.
pub(crate) fn call_of(calls: u64, round: u64, rounds: u64) -> u64 {
    1 + round * (calls + calls / 4) / rounds
}

/// Creates a table with the first rows, and the change files beside it.
async fn populated(folder: &Path) -> Dataset {
    write_changes(folder);
    let location = Location::parse(&folder.join("lake/t").to_string_lossy()).expect("the place is valid");
    let dataset = Dataset::new(location, process::options());
    process::merge(&dataset, &folder.join("first.jsonl").to_string_lossy()).await.expect("the merge succeeds");
    dataset
}

/// Returns all files below a folder, including files that a listing of the store does not show.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path.to_string_lossy().into_owned()) }
    }
    all
}

async fn check(folder: &Path, dataset: &Dataset, round: u64) {
    // As a scheduler does: both jobs again, then the scheduled recovery.
    for n in [0, 1] {
        assert!(end(start_in(folder, n, 0, "before")).is_some(), "round {round}");
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
    // Everything on the disk is live: nothing is half-written, and nothing is staged.
    let seen = dataset.observe().await.expect("the table is observed");
    let live: BTreeSet<_> = seen.files().iter().map(|f| folder.join("lake/t").join(f.path())).collect();
    let on_disk: BTreeSet<_> = files(&folder.join("lake/t")).into_iter().map(PathBuf::from).collect();
    assert_eq!(on_disk, live, "round {round}");
    let state = files(&folder.join("lake/.biscuit"));
    let left = |f: &&String| f.contains("/staging/") || f.contains("/probe/") || f.contains('#');
    assert_eq!(state.iter().find(left), None, "round {round}");
}

#[tokio::test]
async fn two_processes_killed_at_any_store_call_leave_the_right_rows_and_no_orphan_files() {
    let rehearsal = tempfile::tempdir().expect("the folder is created");
    populated(rehearsal.path()).await;
    let calls: Vec<u64> = (0..2)
        .map(|n| {
            end(start_in(rehearsal.path(), n, 0, "before"))
                .and_then(|a| a.parse().ok())
                .expect("the number of calls is known")
        })
        .collect();
    let (mut killed, mut finished, mut conflicts) = (0, 0, 0);
    let rounds = u64::from(biscuit_testkit::internal::scaled(ROUNDS));
    for round in 0..rounds {
        let folder = tempfile::tempdir().expect("the folder is created");
        let dataset = populated(folder.path()).await;
        // From round to round, the first is killed later and the second earlier.
        let at = |of: u64, round: u64| call_of(of, round, rounds);
        let when = if round % 2 == 0 { "before" } else { "after" };
        let one = start_in(folder.path(), 0, at(calls[0], round), when);
        let two = start_in(folder.path(), 1, at(calls[1], rounds - 1 - round), when);
        for answer in [end(one), end(two)] {
            match answer.as_deref() {
                None => killed += 1,
                Some("Conflict") => conflicts += 1,
                Some(_) => finished += 1,
            }
        }
        check(folder.path(), &dataset, round).await;
    }
    println!("{rounds} rounds, runs of {calls:?} calls: {killed} killed, {finished} finished, {conflicts} conflicts");
    assert!(killed > rounds && finished > 0, "{killed} killed, {finished} finished");
}
