//! The recording sink writes once for each commit id, as every sink must.

use biscuit_core::{Instant, Outcome, Run, RunId, Sink};
use biscuit_testkit::RecordingSink;

#[tokio::test]
async fn second_write_of_a_commit_changes_nothing() {
    let sink = RecordingSink::counting(|v: &Vec<i64>| v.len() as u64);
    let run = Run::new("job", RunId::new("1"), Instant::from_micros(0));
    let first = sink.write(&run, &run.commit_id("x"), vec![1, 2]).await.expect("the write succeeds");
    let again =
        sink.write(&run.clone().with_attempt(2), &run.commit_id("x"), vec![1, 2]).await.expect("the write succeeds");
    assert_eq!((first.outcome, again.outcome, again.rows), (Outcome::Committed, Outcome::Unchanged, 2));
    assert_eq!(sink.written().len(), 1);
    sink.write(&run, &run.commit_id("y"), vec![3]).await.expect("the write succeeds");
    assert_eq!(sink.written()[1].value, [3]);
}
