//! Outputs that are appended to: each object is in the output once, and the files of replaced runs are removed.

use std::collections::BTreeSet;

use biscuit_bookmark::{BookmarkOptions, InputSelection, ReadMode, ReplayRange, RunOutput};
use biscuit_core::Result;

use crate::lab::{Lab, names, run};

/// Runs a job that appends a file with the names and versions of its objects, and removes the files that it replaces.
async fn append(lab: &Lab, id: &str, mode: &ReadMode) -> Result<InputSelection> {
    let observed = lab.observe().await;
    let options = BookmarkOptions::default();
    let state = lab.state(&options).await;
    let input = lab.input().await;
    let mut selection = state.select(&input, mode)?;
    let replaced = state.replaced_output(&mut selection, &input)?;
    let mut table_commit = lab.journal.begin_commit(&observed);
    let mut output = RunOutput::default();
    if !selection.objects.is_empty() {
        let rows: Vec<String> = selection
            .objects
            .iter()
            .map(|o| format!("{} {}", o.url(), o.listed.etag.as_deref().expect("the test bench works")))
            .collect();
        let mut writer = table_commit.writer("", "csv");
        writer.write(rows.join("\n").into()).await?;
        let staged = writer.finish().await?;
        output.files = vec![staged.path().to_owned()];
        table_commit.publish(staged);
    }
    for file in &replaced.files {
        table_commit.remove(observed.file(file).expect("the test bench works"));
    }
    if let Some(change) = state.replace(&selection, &run(id), output, &replaced)? {
        table_commit.with_extras(change).await?;
    }
    table_commit.commit().await?;
    Ok(selection)
}

async fn rows(lab: &Lab) -> Vec<String> {
    let mut rows = Vec::new();
    for file in lab.observe().await.files {
        let path = object_store::path::Path::from(format!("lake/t/{}", file.path));
        let bytes = object_store::ObjectStoreExt::get(&*lab.storage.store, &path)
            .await
            .expect("the test bench works")
            .bytes()
            .await
            .expect("the test bench works");
        rows.extend(String::from_utf8(bytes.to_vec()).expect("the test bench works").lines().map(str::to_owned));
    }
    rows.sort();
    rows
}

/// Asserts that the output contains every existing object once, in its newest version.
async fn assert_once(lab: &Lab) {
    let there: BTreeSet<String> = lab
        .input()
        .await
        .objects()
        .map(|(o, _)| format!("{} {}", o.url(), o.listed.etag.as_deref().expect("the test bench works")))
        .collect();
    assert_eq!(rows(lab).await, there.into_iter().collect::<Vec<_>>());
}

async fn three_runs() -> Lab {
    let lab = Lab::new();
    for n in 1..=3 {
        lab.put(&format!("{n}a"), &format!("10:0{n}"), "v1");
        lab.put(&format!("{n}b"), &format!("10:0{n}"), "v1");
        append(&lab, &format!("run{n}"), &ReadMode::Advance).await.expect("the test bench works");
    }
    assert_once(&lab).await;
    lab
}

#[tokio::test]
async fn old_rows_of_an_overwritten_object_are_replaced() {
    let lab = three_runs().await;
    lab.put("2a", "10:09", "v2");
    let selection = append(&lab, "run4", &ReadMode::Advance).await.unwrap();
    assert_eq!(names(&selection), ["2b", "2a"]);
    assert_once(&lab).await;
    assert!(append(&lab, "run5", &ReadMode::Advance).await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn each_object_is_in_the_output_once_after_replays_resets_and_rewinds() {
    let lab = three_runs().await;
    let replay = |after: &str, through: &str| {
        ReadMode::Replay(ReplayRange::parse_runs(Some(after), Some(through)).unwrap().unwrap())
    };
    assert_eq!(append(&lab, "r1", &replay("1", "3")).await.unwrap().objects.len(), 4);
    assert_once(&lab).await;
    // Runs 2 and 3 were replayed together, so their rows are in one file.
    assert_eq!(append(&lab, "r2", &replay("1", "2")).await.unwrap().objects.len(), 4);
    assert_once(&lab).await;
    for to in ["1", "0"] {
        let observed = lab.observe().await;
        let mut table_commit = lab.journal.begin_commit(&observed);
        let change = lab.state(&BookmarkOptions::default()).await.rewind(&to.parse().unwrap()).unwrap();
        table_commit.with_extras(change).await.unwrap();
        table_commit.commit().await.unwrap();
        lab.put(&format!("new{to}"), "10:10", "v1");
        append(&lab, "after", &ReadMode::Advance).await.unwrap();
        assert_once(&lab).await;
    }
}

#[tokio::test]
async fn rows_of_a_missing_object_are_not_lost_with_those_of_another() {
    let lab = three_runs().await;
    lab.put("2a", "10:09", "v2");
    lab.remove("2b");
    let before = rows(&lab).await;
    let e = append(&lab, "run4", &ReadMode::Advance).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("CannotReplace", Some("mem://raw/2b")));
    assert_eq!(rows(&lab).await, before);
}

#[tokio::test]
async fn partitions_are_known_by_object_or_by_run() {
    let lab = Lab::new();
    lab.put("a", "10:00", "v1");
    lab.put("b", "10:00", "v1");
    let (observed, state) = (lab.observe().await, lab.state(&BookmarkOptions::default()).await);
    let selection = state.select(&lab.input().await, &ReadMode::Advance).unwrap();
    let mut output = RunOutput::default();
    output.partitions = vec!["day=1".into(), "day=2".into()];
    output.reached = vec![("mem://raw/a".into(), vec![1])];
    let mut table_commit = lab.journal.begin_commit(&observed);
    table_commit.with_extras(state.advance(&selection, &run("first"), output).unwrap().unwrap()).await.unwrap();
    table_commit.commit().await.unwrap();
    let state = lab.state(&BookmarkOptions::default()).await;
    let of = |name: &str| state.partitions_of(&|url, _| url.ends_with(name)).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!((of("/a"), of("/b")), (vec!["day=2".to_owned()], vec!["day=1".to_owned(), "day=2".to_owned()]));
    assert_eq!(state.partitions_of(&|_, run| run == 1).unwrap().len(), 2);
}
