//! Interrupts: before its commit a run is stopped without a trace, after its commit the version stands.

use std::sync::Arc;

use biscuit_core::ErrorKind;
use biscuit_journal::RunInterrupt;

use crate::table::{journal, memory, names, texts};

#[tokio::test]
async fn a_stopped_run_commits_nothing_and_leaves_nothing() {
    let storage = memory();
    let interrupt = Arc::new(RunInterrupt::default());
    let j = journal(&storage).with_interrupt(interrupt.clone());
    let observed = j.observe().await.expect("the table can be observed");
    let (mut dropped, mut refused) = (j.begin_commit(&observed), j.begin_commit(&observed));
    for table_commit in [&mut dropped, &mut refused] {
        table_commit.stage("", "txt", "never".into()).await.expect("the file is staged");
        table_commit.with_state("bookmark", "never".into()).await.expect("the file is staged");
    }
    assert!(interrupt.stop(), "nothing is being committed");
    drop(dropped);
    assert_eq!(refused.commit().await.unwrap_err().kind(), ErrorKind::Interrupted);
    interrupt.clean_up().await.expect("the clean-up succeeds");
    assert!(names(&storage, "-").await.iter().all(|n| !n.contains("/staging/") && !n.contains("/state/")));
    assert!(texts(&j).await.is_empty());
}

#[tokio::test]
async fn clean_up_keeps_files_that_were_committed_before_the_stop() {
    let storage = memory();
    let interrupt = Arc::new(RunInterrupt::default());
    let j = journal(&storage).with_interrupt(interrupt.clone());
    let observed = j.observe().await.expect("the table can be observed");
    let other = j.begin_commit(&observed);
    let mut table_commit = j.begin_commit(&observed);
    table_commit.stage("", "txt", "one".into()).await.expect("the file is staged");
    table_commit.with_state("bookmark", "seven".into()).await.expect("the file is staged");
    table_commit.commit().await.expect("the commit succeeds");
    assert_eq!(interrupt.committing(), None);
    assert!(interrupt.stop());
    drop(other);
    interrupt.clean_up().await.expect("the clean-up succeeds");
    let head = j.head().await.expect("the head can be read");
    assert_eq!(j.read_state(&head, &head.state["bookmark"]).await.expect("the state file is readable"), "seven");
    assert_eq!(texts(&j).await, ["one"]);
}
