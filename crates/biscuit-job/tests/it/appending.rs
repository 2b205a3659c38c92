//! The mode `append`: each input once, late events, replays, dry runs, and tables whose files were compacted.

use biscuit_bookmark::{ReadMode, ReplayRange};
use biscuit_core::Outcome;
use biscuit_job::RunOptions;

use crate::lab::Lab;

pub(crate) const EVENTS: &str = "
    name = 'events'
    [sources.events]
    url = 'raw/events'
    format = 'json'
    source_file = 'source_file'
    [sources.events.contract]
    columns = [
        {name = 'id', type = 'bigint', nullable = false},
        {name = 'at', type = 'timestamp'},
        {name = 'v', type = 'string'},
    ]
    [target]
    url = 'lake/events'
    mode = 'append'
    partition_by = ['day']
    derive = {day = {from = 'at', as = 'date'}}
";

pub(crate) fn event(id: u32, at: &str) -> String {
    format!("{{\"id\":{id},\"at\":\"{at}\",\"v\":\"v{id}\"}}\n")
}

#[tokio::test]
async fn each_input_is_appended_once_and_late_events_go_to_their_partitions() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(2, "2024-03-02T10:00:00Z")).await;
    let report = lab.run(EVENTS).await.unwrap();
    assert_eq!((report.outcome, report.outputs[0].rows), (Outcome::Committed, 2));
    assert_eq!(report.outputs[0].partitions, ["day=2024-03-01", "day=2024-03-02"]);
    let before = lab.paths("lake/events").await;
    let report = lab.run(EVENTS).await.unwrap();
    assert_eq!((report.outcome, report.outputs[0].version), (Outcome::Unchanged, 1));
    assert_eq!(lab.paths("lake/events").await, before);
    // A late event and a new event.
    lab.put("raw/events/2.json", event(3, "2024-03-01T23:59:59Z") + &event(4, "2024-03-03T00:00:00Z")).await;
    let report = lab.run(EVENTS).await.unwrap();
    assert_eq!(report.outputs[0].partitions, ["day=2024-03-01", "day=2024-03-03"]);
    assert_eq!(
        lab.rows("lake/events").await.trim(),
        "
id:bigint | at:timestamp        | v:string | source_file:string | day:date
1         | 2024-03-01T10:00:00 | v1       | /raw/events/1.json | 2024-03-01
2         | 2024-03-02T10:00:00 | v2       | /raw/events/1.json | 2024-03-02
3         | 2024-03-01T23:59:59 | v3       | /raw/events/2.json | 2024-03-01
4         | 2024-03-03T00:00:00 | v4       | /raw/events/2.json | 2024-03-03
"
        .trim()
    );
}

#[tokio::test]
async fn input_that_is_read_again_replaces_its_earlier_rows() {
    let lab = Lab::new();
    for n in 1..=3 {
        lab.put(&format!("raw/events/{n}.json"), event(n, "2024-03-01T10:00:00Z")).await;
        lab.run(EVENTS).await.unwrap();
    }
    lab.put("raw/events/2.json", event(2, "2024-03-05T10:00:00Z") + &event(9, "2024-03-05T10:00:00Z")).await;
    let report = lab.run(EVENTS).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].replaced), (2, 1));
    assert_eq!(report.outputs[0].sources["events"].selection.counts.overwritten, 1);
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3", "9"]);
    let replay = RunOptions::default()
        .with_mode(ReadMode::Replay(ReplayRange::parse_runs(Some("0"), Some("2")).unwrap().unwrap()));
    let report = lab.run_with(EVENTS, &replay).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].replaced), (3, 2));
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2", "3", "9"]);
}

#[tokio::test]
async fn append_without_a_bookmark_is_refused() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    let e = lab.run(&EVENTS.replace("format = 'json'", "format = 'json'\nbookmark = false")).await.unwrap_err();
    assert_eq!(
        (e.code(), e.message()),
        (
            "InvalidArguments",
            "an output with the mode `append` needs a bookmark; without one, input would be stored twice"
        )
    );
    for mode in [ReadMode::Full, ReadMode::ReadOnly] {
        let e = lab.run_with(EVENTS, &RunOptions::default().with_mode(mode)).await.unwrap_err();
        assert_eq!(e.code(), "InvalidArguments");
    }
}

#[tokio::test]
async fn dry_run_prints_the_plan_and_changes_nothing() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    let report = lab.run_with(EVENTS, &RunOptions::default().with_dry_run(biscuit_job::DryRun::Plan)).await.unwrap();
    assert_eq!(report.outcome, Outcome::Planned);
    let plan = report.outputs[0].plan.join("\n");
    for line in [
        "read 1 files of `events`, 46 bytes",
        "  /raw/events/1.json",
        "write columns id bigint, at timestamp, v string, source_file string",
        "append to the table, partitioned by day",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    assert!(lab.paths("lake/events").await.is_empty());
    assert_eq!(lab.run(EVENTS).await.unwrap().outputs[0].rows, 1);
}

#[tokio::test]
async fn rereading_input_of_compacted_files_is_refused() {
    let lab = Lab::new();
    for n in 1..=2 {
        lab.put(&format!("raw/events/{n}.json"), event(n, "2024-03-01T10:00:00Z")).await;
        lab.run(EVENTS).await.unwrap();
    }
    // Another program combines the two files into one.
    let dataset = lab.dataset("lake/events");
    let journal = dataset.journal();
    let observed = journal.observe().await.unwrap();
    let mut table_commit = journal.begin_commit(&observed);
    let bytes = lab.get(&format!("lake/events/{}", observed.files[0].path)).await;
    table_commit.stage("day=2024-03-01", "parquet", bytes.into()).await.unwrap();
    observed.files.iter().for_each(|f| table_commit.remove(f));
    table_commit.commit().await.unwrap();
    lab.put("raw/events/1.json", event(7, "2024-03-01T10:00:00Z")).await;
    let e = lab.run(EVENTS).await.unwrap_err();
    assert_eq!(e.code(), "FilesRewritten");
    // The mode that the error recommends works. Afterwards the objects of single files are no longer known, and the
    // next overwrite is refused.
    let whole = EVENTS.replace("'append'", "'replace-partitions'");
    lab.run(&whole).await.unwrap();
    assert_eq!(lab.column("lake/events", "id").await, ["2", "7"]);
    lab.put("raw/events/3.json", event(3, "2024-03-01T10:00:00Z")).await;
    lab.run(EVENTS).await.unwrap();
    lab.put("raw/events/1.json", event(8, "2024-03-01T10:00:00Z")).await;
    let e = lab.run(EVENTS).await.unwrap_err();
    assert!(e.code() == "CannotReplace" && e.message().contains("that run 3 replaced as a whole"), "{e}");
    lab.run(&whole).await.unwrap();
    assert_eq!(lab.column("lake/events", "id").await, ["2", "3", "8"]);
}
