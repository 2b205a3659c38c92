//! Memory of runs: compaction, rewinds and names.

use biscuit_bookmark::{Bookmark, BookmarkOptions, ObjectExplanation, ReadMode, ReplayRange, bookmark_names};

use crate::lab::Lab;

#[tokio::test]
async fn many_runs_leave_few_state_files_and_every_run_can_be_replayed() {
    let lab = Lab::new();
    for n in 1..=40 {
        lab.put(&format!("{n:02}"), "10:00", "v1");
        assert_eq!(lab.run(&format!("run{n}")).await, [format!("{n:02}")]);
    }
    let head = lab.observe().await.head;
    assert_eq!(head.state.len(), 2 + 8, "{:?}", head.state.keys());
    let replay = ReadMode::Replay(ReplayRange::parse_runs(Some("run9"), Some("run11")).unwrap().unwrap());
    assert_eq!(crate::lab::names(&lab.select(&replay).await), ["10", "11"]);
    assert!(lab.select(&ReadMode::Advance).await.objects.is_empty());
    assert_eq!(bookmark_names(&head), ["b"]);
}

#[tokio::test]
async fn objects_of_compacted_runs_are_known_and_cannot_be_replayed() {
    let lab = Lab::new();
    let options = BookmarkOptions::default().with_keep_runs(4);
    for n in 1..=33 {
        lab.put(&format!("{n:02}"), "10:00", "v1");
        lab.run_with(&format!("run{n}"), &options).await;
    }
    assert!(lab.select_with(&options, &ReadMode::Advance).await.unwrap().objects.is_empty());
    assert_eq!(lab.explain("03").await, ObjectExplanation::Known { run: 3, id: None });
    let state = lab.state(&options).await;
    assert_eq!(state.rewind(&"3".parse().unwrap()).unwrap_err().code(), "RunCompacted");
    assert_eq!(state.rewind(&"run3".parse().unwrap()).unwrap_err().code(), "UnknownRun");
    assert_eq!(state.watermark(), Some(crate::lab::at("10:00")));
    // Overwritten objects of compacted runs are still noticed, and a reset makes the next run read all objects.
    lab.put("03", "10:05", "v2");
    assert_eq!(lab.run_with("next", &options).await, ["03"]);
    let observed = lab.observe().await;
    let mut table_commit = lab.journal.begin_commit(&observed);
    table_commit.with_extras(lab.state(&options).await.reset().unwrap()).await.unwrap();
    table_commit.commit().await.unwrap();
    assert_eq!(lab.run_with("all", &options).await.len(), 33);
    for n in 1..=20 {
        assert!(lab.run_with(&format!("idle{n}"), &options).await.is_empty());
    }
}

#[tokio::test]
async fn consecutive_rewinds_forget_one_span() {
    let lab = crate::cases::five_runs().await;
    for to in ["4", "2", "3"] {
        let observed = lab.observe().await;
        let mut table_commit = lab.journal.begin_commit(&observed);
        let change = lab.state(&BookmarkOptions::default()).await.rewind(&to.parse().unwrap()).unwrap();
        table_commit.with_extras(change).await.unwrap();
        table_commit.commit().await.unwrap();
    }
    // A rewind to a later run does not remember forgotten runs again.
    assert_eq!(lab.run("again").await, ["3", "4", "5"]);
    let counted: Vec<_> = lab
        .state(&BookmarkOptions::default())
        .await
        .runs()
        .filter(|(_, counts)| *counts)
        .map(|(r, _)| r.number)
        .collect();
    assert_eq!(counted, [1, 2, 6]);
}

#[test]
fn invalid_names_are_refused() {
    for bad in ["", "a/b", "a b", "ä", ".", &"x".repeat(101)] {
        assert_eq!(Bookmark::new(bad).unwrap_err().code(), "InvalidBookmark", "{bad}");
    }
}
