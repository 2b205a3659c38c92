//! The mode `replace-partitions`, rebuilds, and `impact`.

use biscuit_bookmark::{Bookmark, list};
use biscuit_core::Outcome;
use biscuit_job::internal::source_place;
use biscuit_job::{RunOptions, impact};

use crate::appending::{EVENTS, event};
use crate::lab::{Lab, run};

fn by_partition() -> String {
    EVENTS.replace("mode = 'append'", "mode = 'replace-partitions'")
}

#[tokio::test]
async fn replaced_partition_contains_all_input_that_reaches_it() {
    let (lab, job) = (Lab::new(), by_partition());
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(2, "2024-03-02T10:00:00Z")).await;
    lab.put("raw/events/2.json", event(3, "2024-03-02T10:00:00Z")).await;
    lab.run(&job).await.unwrap();
    let before = lab.paths("lake/events").await;
    lab.put("raw/events/3.json", event(4, "2024-03-02T11:00:00Z")).await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!(report.outputs[0].partitions, ["day=2024-03-02"]);
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3", "4"]);
    // The other partition is unchanged.
    let first = before.iter().find(|p| p.starts_with("day=2024-03-01")).unwrap();
    assert!(lab.paths("lake/events").await.contains(first));
    assert_eq!(lab.run(&job).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn overwritten_object_leaves_its_former_partitions() {
    for (job, mode) in [(by_partition(), "replace-partitions"), (EVENTS.to_owned(), "append")] {
        let lab = Lab::new();
        lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(2, "2024-03-02T10:00:00Z")).await;
        lab.put("raw/events/2.json", event(3, "2024-03-02T10:00:00Z")).await;
        lab.run(&job).await.unwrap();
        lab.put("raw/events/1.json", event(9, "2024-03-03T10:00:00Z")).await;
        lab.run(&job).await.unwrap();
        assert_eq!(lab.column("lake/events", "id").await, ["3", "9"], "{mode}");
    }
}

#[tokio::test]
async fn rebuild_replaces_exactly_the_named_partitions() {
    for job in [by_partition(), EVENTS.to_owned()] {
        let lab = Lab::new();
        for n in 1..=3 {
            let text = event(n, "2024-03-01T10:00:00Z") + &event(n + 10, &format!("2024-03-0{}T10:00:00Z", n + 1));
            lab.put(&format!("raw/events/{n}.json"), text).await;
            lab.run(&job).await.unwrap();
        }
        let (rows, before) = (lab.rows("lake/events").await, lab.paths("lake/events").await);
        let options = RunOptions::default().with_rebuild(["day=2024-03-01"]);
        let report = lab.run_with(&job, &options).await.unwrap();
        assert_eq!(
            (report.outputs[0].rows, report.outputs[0].partitions.clone()),
            (3, vec!["day=2024-03-01".to_owned()])
        );
        assert_eq!(lab.rows("lake/events").await, rows);
        let kept =
            |paths: &[String]| paths.iter().filter(|p| !p.starts_with("day=2024-03-01")).cloned().collect::<Vec<_>>();
        assert_eq!(kept(&lab.paths("lake/events").await), kept(&before));
        // Later runs continue, and an overwritten object replaces its rows in the rebuilt partition.
        assert_eq!(lab.run(&job).await.unwrap().outcome, Outcome::Unchanged);
        lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z")).await;
        lab.run(&job).await.unwrap();
        assert_eq!(lab.column("lake/events", "id").await, ["1", "11", "13", "2", "3"]);
    }
}

#[tokio::test]
async fn a_rebuild_that_would_lose_rows_is_refused() {
    let lab = Lab::new();
    for n in 1..=2 {
        lab.put(&format!("raw/events/{n}.json"), event(n, "2024-03-01T10:00:00Z")).await;
        lab.run(EVENTS).await.unwrap();
    }
    let before = lab.rows("lake/events").await;
    let options = RunOptions::default().with_rebuild(["day=2024-03-01"]);
    lab.put("raw/events/1.json", event(7, "2024-03-01T10:00:00Z")).await;
    let e = lab.run_with(EVENTS, &options).await.unwrap_err();
    assert!(e.code() == "CannotReplace" && e.message().contains("was overwritten since it was read"), "{e}");
    lab.remove("raw/events/1.json").await;
    let e = lab.run_with(EVENTS, &options).await.unwrap_err();
    assert!(e.code() == "CannotReplace" && e.message().contains("no longer exists"), "{e}");
    assert_eq!(lab.rows("lake/events").await, before);
}

#[tokio::test]
async fn rebuild_of_rows_with_unknown_input_is_refused() {
    for job in [by_partition(), EVENTS.to_owned()] {
        let lab = Lab::new();
        lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(2, "2024-03-02T10:00:00Z")).await;
        lab.run(&job).await.unwrap();
        let rebuild = |day: &str| RunOptions::default().with_rebuild([format!("day={day}")]);
        let e = lab.run_with(&job, &rebuild("2024-03-11")).await.unwrap_err();
        assert_eq!(
            (e.code(), e.message()),
            (
                "UnknownPartition",
                "the table has no partition `day=2024-03-11`, and no known input has rows in it; check the name"
            )
        );
        // Another program writes a file to a partition of its own, and one to a partition of the job.
        let ours = lab.paths("lake/events").await;
        let bytes = lab.get(&format!("lake/events/{}", ours[0])).await;
        for day in ["2024-03-02", "2024-03-09"] {
            lab.put(&format!("lake/events/day={day}/part-0.parquet"), bytes.clone()).await;
        }
        let before = lab.rows("lake/events").await;
        let e = lab.run_with(&job, &rebuild("2024-03-09")).await.unwrap_err();
        assert!(e.code() == "UnknownPartition" && e.message().contains("the input of the rows in"), "{e}");
        let e = lab.run_with(&job, &rebuild("2024-03-02").with_dry_run(biscuit_job::DryRun::Plan)).await.unwrap_err();
        assert_eq!((e.code(), e.file()), ("CannotReplace", Some("day=2024-03-02/part-0.parquet")));
        assert_eq!(lab.rows("lake/events").await, before);
        lab.run_with(&job, &rebuild("2024-03-01")).await.unwrap();
        assert_eq!(lab.rows("lake/events").await, before);
    }
}

#[tokio::test]
async fn rows_of_another_job_in_a_partition_are_not_replaced() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    lab.put("raw/others/1.json", event(2, "2024-03-01T10:00:00Z")).await;
    lab.run(&by_partition()).await.unwrap();
    let other =
        by_partition().replace("raw/events", "raw/others").replace("events]", "others]").replace("events.", "others.");
    let e = lab.run(&other).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("CannotReplace", Some("/raw/events/1.json")));
    // A partition without rows of the other job can be written.
    lab.put("raw/others/1.json", event(2, "2024-03-02T10:00:00Z")).await;
    lab.run(&other).await.unwrap();
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2"]);
    // An append adds rows to a partition of the other job. A rebuild refuses to lose them.
    lab.put("raw/others/2.json", event(3, "2024-03-01T10:00:00Z")).await;
    lab.run(&other.replace("replace-partitions", "append")).await.unwrap();
    let rebuild = RunOptions::default().with_rebuild(["day=2024-03-01"]);
    let e = lab.run_with(&by_partition(), &rebuild).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("CannotReplace", Some("/raw/others/2.json")));
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3"]);
}

/// A table that another program created from the first two objects, and a bookmark that takes these objects as read.
async fn adopted(job: &str) -> Lab {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z") + &event(3, "2024-03-02T10:00:00Z")).await;
    lab.run(&job.replace("lake/events", "lake/made")).await.expect("the setup succeeds");
    for path in lab.paths("lake/made").await {
        let bytes = lab.get(&format!("lake/made/{path}")).await;
        lab.put(&format!("lake/events/{}", path.replace("biscuit-", "part-")), bytes).await;
    }
    let dataset = lab.dataset("lake/events");
    let observed = dataset.journal().observe().await.expect("the setup succeeds");
    let state = Bookmark::new("events")
        .expect("the setup succeeds")
        .load(dataset.journal(), &observed.head)
        .await
        .expect("the setup succeeds");
    let input = list(&[source_place(&lab, "/raw/events").await.expect("the setup succeeds")])
        .await
        .expect("the setup succeeds");
    let mut table_commit = dataset.journal().begin_commit(&observed);
    let extras = state.set_to_now(&input, &run(), observed.folders()).expect("the setup succeeds");
    table_commit.with_extras(extras).await.expect("the setup succeeds");
    table_commit.commit().await.expect("the setup succeeds");
    lab
}

#[tokio::test]
async fn adopted_input_is_read_again_for_the_partitions_that_existed_then() {
    for job in [by_partition(), EVENTS.to_owned()] {
        let lab = adopted(&job).await;
        assert_eq!(lab.run(&job).await.unwrap().outcome, Outcome::Unchanged);
        lab.put("raw/events/3.json", event(4, "2024-03-02T11:00:00Z") + &event(5, "2024-03-03T10:00:00Z")).await;
        for _ in 0..2 {
            lab.run(&job).await.unwrap();
            assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3", "4", "5"]);
        }
        let rebuild = RunOptions::default().with_rebuild(["day=2024-03-01", "day=2024-03-02"]);
        lab.run_with(&job, &rebuild).await.unwrap();
        assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn overwritten_adopted_input_is_not_stored_twice() {
    let lab = adopted(&by_partition()).await;
    lab.put("raw/events/2.json", event(7, "2024-03-02T10:00:00Z")).await;
    lab.run(&by_partition()).await.unwrap();
    assert_eq!(lab.column("lake/events", "id").await, ["1", "7"]);
    let lab = adopted(EVENTS).await;
    lab.put("raw/events/2.json", event(7, "2024-03-02T10:00:00Z")).await;
    let e = lab.run(EVENTS).await.unwrap_err();
    assert_eq!((e.code(), e.file()), ("CannotReplace", Some("/raw/events/2.json")));
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn impact_returns_the_partitions_that_input_has_reached() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(2, "2024-03-02T10:00:00Z")).await;
    lab.put("raw/events/2.json", event(3, "2024-03-05T10:00:00Z")).await;
    lab.run(EVENTS).await.unwrap();
    lab.put("raw/events/3.json", event(4, "2024-03-07T10:00:00Z")).await;
    lab.run(EVENTS).await.unwrap();
    let snapshot = lab.dataset("lake/events").view().await.unwrap();
    let of = async |objects: &[&str], runs: &[&str]| {
        let objects: Vec<String> = objects.iter().map(|o| format!("/raw/events/{o}.json")).collect();
        let runs: Vec<_> = runs.iter().map(|r| r.parse().unwrap()).collect();
        impact(&snapshot, None, &objects, &runs).await.map(|p| p.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(of(&["1"], &[]).await.unwrap(), ["day=2024-03-01", "day=2024-03-02"]);
    assert_eq!(of(&["2"], &[]).await.unwrap(), ["day=2024-03-05"]);
    assert_eq!(of(&[], &["2"]).await.unwrap(), ["day=2024-03-07"]);
    assert_eq!(of(&["9"], &[]).await.unwrap_err().code(), "UnknownInput");
    assert_eq!(of(&[], &["9"]).await.unwrap_err().code(), "UnknownRun");
}
