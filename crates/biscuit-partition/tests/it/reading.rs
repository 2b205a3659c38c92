//! Reads, audits and rebuilds of a table of periods.

use biscuit_apply::RunMode;
use biscuit_change::{BadRows, ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Outcome;
use biscuit_journal::CommitExtras;
use biscuit_partition::{PeriodBasis, PeriodTable};
use biscuit_testkit::{RecordingStore, assert_rows_snapshot, table};
use datafusion::prelude::{SessionContext, col, lit};
use object_store::ObjectStoreExt;

use crate::lab::{self, changes, dataset, effective, files_of, objects, run, spec, states};

const EVENTS: &str = r#"
{"id":"k1","eff":"2024-01-10","v":"a","op":"c"}
{"id":"k1","eff":"2024-03-05","v":"b","op":"u"}
{"id":"k2","eff":"2024-02-07","v":"c","op":"c"}
{"id":"k2","eff":"2024-04-07","v":"","op":"d"}
"#;

async fn four_months() -> (biscuit_journal::TableStorage, PeriodTable) {
    let storage = lab::memory();
    let table = lab::table(&storage, spec(), effective());
    run(&table, EVENTS, "2024-04-15").await.expect("the run succeeds");
    (storage, table)
}

#[tokio::test]
async fn files_of_other_periods_are_not_opened() {
    let (storage, _) = four_months().await;
    let (recorder, recorded) = RecordingStore::storage(&storage);
    let table = lab::table(&recorded, spec(), effective());
    let opened = |recorder: &RecordingStore| {
        let calls = recorder.calls();
        ["2024-01", "2024-02", "2024-03", "2024-04"].map(|p| !calls.with(&format!("get lake/t/period={p}")).is_empty())
    };
    let rows = table
        .as_of(&SessionContext::new(), "2024-02-10".parse().expect("the instant is valid"))
        .await
        .expect("the table is readable");
    assert_eq!(rows.count().await.expect("the rows are readable"), 2);
    assert_eq!(opened(&recorder), [false, true, false, false]);

    let (recorder, recorded) = RecordingStore::storage(&storage);
    let table = lab::table(&recorded, spec(), effective());
    // March has a newer record of the key.
    let late = r#"{"id":"k1","eff":"2024-02-20","v":"late","op":"u"}"#;
    run(&table, late, "2024-04-15").await.expect("the run succeeds");
    assert_eq!(opened(&recorder), [false, true, true, false]);
    // Opening a period does not read the one before it.
    run(&table, "", "2024-05-15").await.expect("May opens");
    assert_eq!(opened(&recorder), [false, true, true, false]);
}

#[tokio::test]
async fn as_of_returns_the_rows_of_one_period() {
    let (_, table) = four_months().await;
    let ctx = SessionContext::new();
    let rows = table
        .as_of(&ctx, "2024-02-29T23:59:59Z".parse().expect("the instant is valid"))
        .await
        .expect("the table is readable");
    assert_rows_snapshot!(rows.collect().await.expect("the rows are readable"), @r"
    id:string | eff:string | v:string
    k1        | 2024-01-10 | a
    k2        | 2024-02-07 | c
    ");
    for out in ["2023-12-31T23:59:59Z", "2024-05-01T00:00:00Z"] {
        let e =
            table.as_of(&ctx, out.parse().expect("the instant is valid")).await.expect_err("the period does not exist");
        assert_eq!(e.code(), "NoSuchPeriod");
        assert!(e.to_string().contains("2024-01 to 2024-04"), "{e}");
    }
}

#[tokio::test]
async fn history_has_one_row_for_each_state() {
    let (_, table) = four_months().await;
    let ctx = SessionContext::new();
    let rows =
        table.history(&ctx, col("id").in_list(vec![lit("k1"), lit("k2")], false)).await.expect("the table is readable");
    assert_rows_snapshot!(rows.collect().await.expect("the rows are readable"), @r"
    id:string | eff:string | v:string | period_from:string | period_to:string
    k1        | 2024-01-10 | a        | 2024-01            | 2024-02
    k1        | 2024-03-05 | b        | 2024-03            | 2024-04
    k2        | 2024-02-07 | c        | 2024-02            | 2024-03
    ");
}

#[tokio::test]
async fn table_is_opened_with_the_plan_in_its_journal() {
    let (storage, _) = four_months().await;
    let table = PeriodTable::open(dataset(storage.clone())).await.expect("the table is readable");
    let missing = table
        .missing_periods("2024-06-02".parse().expect("the instant is valid"))
        .await
        .expect("the periods are readable");
    assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2024-05", "2024-06"]);
    // A run without records opens the missing periods, with one commit for each.
    let report =
        table.run(ChangeRecords::default(), "2024-06-02".parse().expect("the instant is valid"), RunMode::Commit).await;
    let report = report.expect("the run succeeds");
    assert_eq!((report.commits, report.periods.len()), (2, 6));
    assert!(
        table
            .missing_periods("2024-06-02".parse().expect("the instant is valid"))
            .await
            .expect("the periods are readable")
            .is_empty()
    );
    let states = table.states().await.expect("the periods are readable");
    let shown: Vec<_> = states.iter().map(|s| (s.period.as_str(), s.rows, s.files, s.shared)).collect();
    let all = [("2024-01", 1, 1, 0), ("2024-02", 2, 1, 0), ("2024-03", 2, 1, 0), ("2024-04", 1, 1, 0)];
    assert_eq!(shown[..4], all);
    assert_eq!(shown[4..], [("2024-05", 1, 1, 1), ("2024-06", 1, 1, 1)]);
    let plain = lab::memory();
    assert_eq!(PeriodTable::open(dataset(plain)).await.expect_err("the table has no periods").code(), "NoPeriods");
}

#[tokio::test]
async fn audit_finds_differences_and_rebuild_repairs_exactly_these() {
    let (storage, table) = four_months().await;
    let events = || changes(EVENTS).expect("the records are valid");
    assert!(
        table
            .verify(&events())
            .await
            .expect("the audit succeeds")
            .iter()
            .all(biscuit_partition::report::PeriodAudit::is_sound)
    );
    // Another program writes a file to February, with an extra row and a duplicate row.
    let rows = self::table("id:string | eff:string | v:string\n k9 | 2024-02-01 | theirs\n k1 | 2024-01-10 | a");
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("the writer opens");
    writer.write(&rows).expect("the rows are readable");
    writer.close().expect("the file is written");
    storage.store.put(&"lake/t/period=2024-02/part-0.parquet".into(), bytes.into()).await.expect("the put succeeds");
    let others = [files_of(&storage, "2024-01").await, files_of(&storage, "2024-03").await];
    let audits = table.verify(&events()).await.expect("the audit succeeds");
    let february = &audits[1];
    assert_eq!(
        (february.rows, february.expected, february.surplus, february.missing, february.different),
        (4, 2, 2, 0, 0)
    );
    assert!(audits.iter().filter(|a| a.period != "2024-02").all(biscuit_partition::report::PeriodAudit::is_sound));

    let calendar = effective().calendar;
    let february = [calendar.parse("2024-02").expect("the period is valid")];
    let before = objects(&storage).await;
    let plan = table.rebuild(&february, events(), RunMode::DryRun).await.expect("the dry run succeeds");
    assert_eq!((plan.outcome, plan.periods[0].after, plan.periods[0].files.removed), (Outcome::Planned, 2, 2));
    assert_eq!(objects(&storage).await, before);
    table.rebuild(&february, events(), RunMode::Commit).await.expect("the rebuild succeeds");
    assert_eq!(states(&storage, &["2024-01", "2024-02"]).await, ["k1=a", "k1=a,k2=c"]);
    assert_eq!([files_of(&storage, "2024-01").await, files_of(&storage, "2024-03").await], others);
    assert!(
        table
            .verify(&events())
            .await
            .expect("the audit succeeds")
            .iter()
            .all(biscuit_partition::report::PeriodAudit::is_sound)
    );
    let may = [calendar.parse("2024-05").expect("the period is valid")];
    assert_eq!(
        table.rebuild(&may, events(), RunMode::Commit).await.expect_err("May does not exist").code(),
        "NoSuchPeriod"
    );
}

#[tokio::test]
async fn by_ingestion_records_count_in_the_period_of_the_run() {
    let storage = lab::memory();
    let table = lab::table(&storage, spec(), lab::months(PeriodBasis::Ingestion));
    let line = |v: &str, eff: &str, op: &str| format!(r#"{{"id":"k1","eff":"{eff}","v":"{v}","op":"{op}"}}"#);
    run(&table, &line("a", "2024-01-10", "c"), "2024-01-31T23:00:00Z").await.expect("the run of January succeeds");
    let report =
        run(&table, &line("b", "2024-01-20", "u"), "2024-02-01T00:00:00Z").await.expect("the run of February succeeds");
    assert_eq!(report.periods.iter().map(|p| p.keys).collect::<Vec<_>>(), [0, 1]);
    let months = ["2024-01", "2024-02", "2024-03"];
    assert_eq!(states(&storage, &months).await, ["k1=a", "k1=b", ""]);
    // A retry of January after its end passes the same instant. Its record is older than February's.
    run(&table, &line("a2", "2024-01-15", "u"), "2024-01-31T23:00:00Z")
        .await
        .expect("the second run of January succeeds");
    assert_eq!(states(&storage, &months).await, ["k1=a2", "k1=b", ""]);
    run(&table, &line("", "2024-03-01", "d"), "2024-03-02").await.expect("the run of March succeeds");
    assert_eq!(states(&storage, &months).await, ["k1=a2", "k1=b", ""]);
    // An older record does not bring the row back in April either.
    run(&table, &line("old", "2024-02-20", "u"), "2024-04-02").await.expect("the run of April succeeds");
    assert_eq!(states(&storage, &["2024-03", "2024-04"]).await, ["", ""]);
    assert_eq!(
        table
            .rebuild(&[], changes("").expect("there are no events"), RunMode::Commit)
            .await
            .expect_err("there are no events")
            .code(),
        "InvalidArguments"
    );
}

#[tokio::test]
async fn periods_can_be_partitioned_further() {
    let storage = lab::memory();
    let options = lab::options().with_partition_by(["region"]);
    let table = lab::table_with(&storage, spec(), options, effective());
    let line = |id: &str, eff: &str, region: &str| {
        format!(r#"{{"id":"{id}","eff":"{eff}","region":"{region}","v":"x","op":"c"}}"#)
    };
    let lines = [line("k1", "2024-01-10", "north"), line("k2", "2024-01-11", "south")].join("\n");
    run(&table, &lines, "2024-02-15").await.expect("the run succeeds");
    let folders = || async {
        let folder =
            |(name, _): &(String, _)| name.strip_prefix("lake/t/")?.rsplit_once('/').map(|(f, _)| f.to_owned());
        let mut all: Vec<String> = objects(&storage).await.iter().filter_map(folder).collect();
        all.dedup();
        all
    };
    let four = [
        "period=2024-01/region=north",
        "period=2024-01/region=south",
        "period=2024-02/region=north",
        "period=2024-02/region=south",
    ];
    assert_eq!(folders().await, four);
    // One key moves to another region in February. The file of the other key is unchanged, even in the period that
    // the run creates.
    let north = files_of(&storage, "2024-02/region=north").await;
    run(&table, &line("k2", "2024-02-03", "west"), "2024-03-15").await.expect("the run succeeds");
    assert_eq!(files_of(&storage, "2024-02/region=north").await, north);
    assert_eq!(folders().await.len(), 6);
    let ctx = SessionContext::new();
    let rows =
        table.as_of(&ctx, "2024-03-01".parse().expect("the instant is valid")).await.expect("the table is readable");
    assert_rows_snapshot!(rows.collect().await.expect("the rows are readable"), @r"
    id:string | eff:string | v:string | region:string
    k1        | 2024-01-10 | x        | north
    k2        | 2024-02-03 | x        | west
    ");
    let lines = [lines, line("k2", "2024-02-03", "west")].join("\n");
    assert!(
        table
            .verify(&changes(&lines).expect("the records are valid"))
            .await
            .expect("the audit succeeds")
            .iter()
            .all(biscuit_partition::report::PeriodAudit::is_sound)
    );
}

#[tokio::test]
async fn truncate_takes_effect_in_its_period_and_later() {
    let storage = lab::memory();
    let table = lab::table(&storage, spec().with_op_rank(["t", "c", "u", "d"]), effective());
    run(&table, EVENTS, "2024-03-15").await.expect("the run succeeds");
    let truncate = r#"{"id":null,"eff":"2024-02-20","v":null,"op":"t"}"#;
    run(&table, truncate, "2024-03-15").await.expect("the truncate is merged");
    assert_eq!(states(&storage, &["2024-01", "2024-02", "2024-03"]).await, ["k1=a", "", "k1=b"]);
    // Older records do not come back in February or later. January is unchanged and accepts late records.
    let late = [
        r#"{"id":"k5","eff":"2024-02-10","v":"gone","op":"c"}"#,
        r#"{"id":"k6","eff":"2024-01-10","v":"january","op":"c"}"#,
        r#"{"id":"k7","eff":"2024-02-25","v":"after","op":"c"}"#,
    ];
    run(&table, &late.join("\n"), "2024-03-15").await.expect("the late records are merged");
    let got = states(&storage, &["2024-01", "2024-02", "2024-03"]).await;
    assert_eq!(got, ["k1=a,k6=january", "k7=after", "k1=b,k7=after"]);
    let before = objects(&storage).await;
    assert_eq!(run(&table, truncate, "2024-03-15").await.expect("the rerun succeeds").outcome, Outcome::Unchanged);
    assert_eq!(objects(&storage).await, before);
}

#[tokio::test]
async fn rebuild_keeps_the_tombstones_of_later_periods() {
    let storage = lab::memory();
    let table = lab::table(&storage, spec(), effective());
    let line = |v: &str, eff: &str, op: &str| format!(r#"{{"id":"k1","eff":"{eff}","v":"{v}","op":"{op}"}}"#);
    let events = [line("a", "2024-01-10", "c"), line("", "2024-02-20", "d")];
    run(&table, &events.join("\n"), "2024-03-15").await.expect("the run succeeds");
    // The events for the rebuild of February lack the delete.
    let february = [effective().calendar.parse("2024-02").expect("the period is valid")];
    table
        .rebuild(&february, changes(&events[0]).expect("the records are valid"), RunMode::Commit)
        .await
        .expect("the rebuild succeeds");
    let months = ["2024-01", "2024-02", "2024-03"];
    assert_eq!(states(&storage, &months).await, ["k1=a", "k1=a", ""]);
    run(&table, &line("late", "2024-02-10", "u"), "2024-03-15").await.expect("the late record is merged");
    assert_eq!(states(&storage, &months).await, ["k1=a", "k1=late", ""]);
}

#[tokio::test]
async fn every_commit_of_a_run_has_the_id_of_the_run() {
    let (storage, table) = four_months().await;
    let before = dataset(storage.clone()).observe().await.expect("the table is readable");
    let version = before.observed.head.version;
    let extras = CommitExtras::default().with_run("monthly-06");
    let june = changes(r#"{"id":"k3","eff":"2024-06-02","v":"n","op":"c"}"#).expect("the record is valid");
    let as_of = "2024-06-15".parse().expect("the instant is valid");
    let report = table.run_on(before, june, as_of, RunMode::Commit, extras).await.expect("the run succeeds");
    assert_eq!(report.commits, 2, "May and June");
    let history = dataset(storage).journal().history().await.expect("the history is readable");
    let of = |new: bool| history.iter().filter(move |past| (past.record.version > version) == new);
    assert!(of(false).count() > 0 && of(false).all(|past| past.record.run.is_none()));
    let runs: Vec<_> = of(true).map(|past| past.record.run.as_deref()).collect();
    assert_eq!(runs, [Some("monthly-06"); 2]);
}

#[tokio::test]
async fn events_without_a_period_are_quarantined_or_errors() {
    let (storage, table) = four_months().await;
    let early = r#"{"id":"k0","eff":"2023-11-20","v":"early","op":"c"}"#;
    let events = changes(&format!("{EVENTS}{early}")).expect("the records are valid");
    let february = effective().calendar.parse("2024-02").expect("the period is valid");
    assert_eq!(
        table.audit(&february, &events).await.expect_err("the period is before January").code(),
        "BeforeFirstPeriod"
    );
    let e = table.rebuild(&[february], events, RunMode::DryRun).await.expect_err("the period is before January");
    assert_eq!(e.code(), "BeforeFirstPeriod");

    let options = lab::options().with_bad_rows(BadRows::Quarantine, 100.0);
    let table = lab::table_with(&storage, spec(), options, effective());
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op").with_bad_rows(BadRows::Quarantine));
    let undated = r#"{"id":"k0","eff":null,"v":"undated","op":"c"}"#;
    reader
        .read("events.jsonl", format!("{EVENTS}{early}\n{undated}\n").into_bytes().into())
        .expect("the records are valid");
    let report = table
        .rebuild(&[february], reader.finish().expect("the records are valid"), RunMode::DryRun)
        .await
        .expect("the dry run succeeds");
    // Two events take effect up to February and two have no period. The others belong to later periods.
    assert_eq!((report.records, report.verdicts.total(), report.verdicts.quarantined), (4, 4, 2));
    assert_eq!(report.periods[0].after, 2);
}
