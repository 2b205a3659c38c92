//! Records that arrive in March, and the rows of January, February and March after the run.

use biscuit_apply::RunMode;
use biscuit_core::{ErrorKind, Outcome};
use biscuit_journal::TableStorage;
use biscuit_partition::{BeforeFirstPeriod, PeriodCalendar, PeriodPlan, PeriodTable};
use object_store::ObjectStoreExt;

use crate::lab::{self, HISTORY, changes, effective, files_of, objects, run, spec, states, table};

const MARCH: &str = "2024-03-15";
const MONTHS: [&str; 3] = ["2024-01", "2024-02", "2024-03"];

fn record(id: &str, v: &str, eff: &str, op: &str) -> String {
    format!(r#"{{"id":"{id}","eff":"{eff}","v":"{v}","op":"{op}"}}"#)
}

async fn with_history(periods: PeriodPlan) -> (TableStorage, PeriodTable) {
    let storage = lab::memory();
    let table = table(&storage, spec(), periods);
    run(&table, HISTORY, MARCH).await.expect("the history is merged");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=b,k2=c", "k1=b,k2=c"]);
    (storage, table)
}

/// Returns the rows of the three months after these records arrived in March.
async fn after(lines: &str) -> Vec<String> {
    let (storage, table) = with_history(effective()).await;
    run(&table, lines, MARCH).await.expect("the run succeeds");
    states(&storage, &MONTHS).await
}

#[tokio::test]
async fn new_record_is_in_its_period() {
    assert_eq!(after(&record("k3", "n", "2024-03-02", "c")).await, ["k1=a", "k1=b,k2=c", "k1=b,k2=c,k3=n"]);
}

#[tokio::test]
async fn rerun_changes_nothing() {
    let (storage, table) = with_history(effective()).await;
    let lines = record("k3", "n", "2024-03-02", "c");
    let untouched = files_of(&storage, "2024-01").await;
    run(&table, &lines, MARCH).await.expect("the run succeeds");
    assert_eq!(files_of(&storage, "2024-01").await, untouched);
    let before = objects(&storage).await;
    for lines in [&lines, HISTORY, ""] {
        let report = run(&table, lines, MARCH).await.expect("the rerun succeeds");
        assert_eq!((report.outcome, report.commits), (Outcome::Unchanged, 0));
        assert_eq!(objects(&storage).await, before);
    }
}

#[tokio::test]
async fn period_without_records_is_a_copy_of_the_previous_one() {
    let storage = lab::memory();
    let table = table(&storage, spec(), effective());
    run(&table, &record("k1", "a", "2024-01-10", "c"), "2024-01-31").await.expect("the run of January succeeds");
    let report = run(&table, &record("k3", "n", "2024-03-02", "c"), MARCH).await.expect("the run of March succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=a", "k1=a,k3=n"]);
    assert_eq!(report.commits, 2, "one per period");
    assert_eq!(
        report.periods.iter().map(|p| (p.period.as_str(), p.files.copied)).collect::<Vec<_>>()[1],
        ("2024-02", 1)
    );
}

#[tokio::test]
async fn late_record_stops_at_a_newer_record() {
    let (storage, table) = with_history(effective()).await;
    let later = [files_of(&storage, "2024-02").await, files_of(&storage, "2024-03").await];
    let report = run(&table, &record("k1", "a2", "2024-01-20", "u"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a2", "k1=b,k2=c", "k1=b,k2=c"]);
    assert_eq!([files_of(&storage, "2024-02").await, files_of(&storage, "2024-03").await], later);
    let keys: Vec<u64> = report.periods.iter().map(|p| p.keys).collect();
    assert_eq!(keys, [1, 1, 0], "it is overtaken in February, and March is not looked at");
}

#[tokio::test]
async fn late_first_record_is_carried_to_the_last_period() {
    let got = after(&record("k4", "z", "2024-01-15", "c")).await;
    assert_eq!(got, ["k1=a,k4=z", "k1=b,k2=c,k4=z", "k1=b,k2=c,k4=z"]);
}

#[tokio::test]
async fn delete_before_the_first_record_of_a_key_does_nothing() {
    assert_eq!(after(&record("k2", "", "2024-01-25", "d")).await, ["k1=a", "k1=b,k2=c", "k1=b,k2=c"]);
}

#[tokio::test]
async fn late_delete_is_carried_to_later_periods() {
    assert_eq!(after(&record("k1", "", "2024-02-20", "d")).await, ["k1=a", "k2=c", "k2=c"]);
}

#[tokio::test]
async fn late_delete_does_not_remove_a_newer_row() {
    let (storage, table) = with_history(effective()).await;
    run(&table, &record("k1", "d", "2024-03-03", "u"), MARCH).await.expect("the run succeeds");
    run(&table, &record("k1", "", "2024-02-20", "d"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k2=c", "k1=d,k2=c"]);
    // The tombstone is in the period of the delete and in later ones: an older record does not bring the row back.
    run(&table, &record("k1", "old", "2024-02-10", "u"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k2=c", "k1=d,k2=c"]);
}

#[tokio::test]
async fn period_may_become_empty() {
    let (storage, table) = with_history(effective()).await;
    run(&table, &record("k1", "", "2024-01-30", "d"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["", "k1=b,k2=c", "k1=b,k2=c"]);
    // The empty period is still a period for late records.
    run(&table, &record("k9", "x", "2024-01-31", "c"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k9=x", "k1=b,k2=c,k9=x", "k1=b,k2=c,k9=x"]);
}

#[tokio::test]
async fn instant_between_two_periods_is_in_the_later_one() {
    for eff in ["2024-02-01T00:00:00", "2024-01-31T23:30:00-05:00"] {
        let (storage, table) = with_history(effective()).await;
        let lines = record("k5", "q", eff, "c");
        run(&table, &lines, MARCH).await.expect("the run succeeds");
        assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=b,k2=c,k5=q", "k1=b,k2=c,k5=q"], "{eff}");
    }
    let new_york = PeriodCalendar::new("month".parse().expect("the granularity is valid"), "America/New_York")
        .expect("the calendar is valid");
    let mut periods = effective();
    periods.calendar = new_york;
    let (storage, table) = with_history(periods).await;
    run(&table, &record("k5", "q", "2024-02-01T00:00:00", "c"), MARCH).await.expect("the run succeeds");
    run(&table, &record("k6", "r", "2024-01-31T23:30:00-05:00", "c"), MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await[0], "k1=a,k6=r");
}

#[tokio::test]
async fn future_record_is_pending_until_its_period_opens() {
    let (storage, table) = with_history(effective()).await;
    let lines = record("k6", "f", "2024-04-05", "c");
    let report = run(&table, &lines, MARCH).await.expect("the run succeeds");
    assert_eq!((report.outcome, report.pending, report.verdicts.pending), (Outcome::Committed, 1, 1));
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=b,k2=c", "k1=b,k2=c"]);
    let before = objects(&storage).await;
    let report = run(&table, &lines, MARCH).await.expect("the rerun succeeds");
    assert_eq!((report.outcome, report.pending, report.verdicts.duplicate), (Outcome::Unchanged, 1, 1));
    assert_eq!(objects(&storage).await, before);
    let report = run(&table, "", "2024-04-01").await.expect("April opens");
    assert_eq!((report.pending, report.opened, report.verdicts.inserted), (0, 1, 1));
    assert_eq!(states(&storage, &["2024-03", "2024-04"]).await, ["k1=b,k2=c", "k1=b,k2=c,k6=f"]);
    let report = run(&table, "", "2024-04-01").await.expect("the run succeeds");
    assert_eq!((report.outcome, report.opened), (Outcome::Unchanged, 0));
}

const CORRECTION: &str = r#"{"id":"k2","eff":"2024-03-01","was":"2024-02-07","v":"c","op":"u"}"#;

#[tokio::test]
async fn correction_retracts_the_record_that_it_corrects() {
    let (storage, table) = with_history(effective()).await;
    run(&table, CORRECTION, MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=b,k2=c", "k1=b,k2=c"], "without");

    let (storage, table) = with_history(effective().with_retracts("was")).await;
    let report = run(&table, CORRECTION, MARCH).await.expect("the run succeeds");
    assert_eq!(report.commits, 1);
    let corrected = ["k1=a", "k1=b", "k1=b,k2=c"];
    assert_eq!(states(&storage, &MONTHS).await, corrected);
    // A retracted record that arrives again changes nothing.
    let before = objects(&storage).await;
    for lines in [HISTORY, CORRECTION, &format!("{HISTORY}{CORRECTION}")] {
        let report = run(&table, lines, MARCH).await.expect("the rerun succeeds");
        assert_eq!(report.outcome, Outcome::Unchanged, "{lines} {report:?}");
        assert_eq!(objects(&storage).await, before);
    }
    // All records in one run, and a rebuild, have the same result.
    let storage = lab::memory();
    let table = table_of(&storage);
    let all = format!("{HISTORY}{CORRECTION}");
    run(&table, &all, MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, corrected);
    let months = MONTHS.map(|m| effective().calendar.parse(m).expect("the period is valid"));
    table
        .rebuild(&months, changes(&all).expect("the records are valid"), RunMode::Commit)
        .await
        .expect("the rebuild succeeds");
    assert_eq!(states(&storage, &MONTHS).await, corrected);
}

fn table_of(storage: &TableStorage) -> PeriodTable {
    table(storage, spec(), effective().with_retracts("was"))
}

#[tokio::test]
async fn retraction_restores_the_state_before_the_record() {
    let storage = lab::memory();
    let table = table_of(&storage);
    let lines = [record("k1", "a", "2024-01-10", "c"), record("k1", "b", "2024-02-05", "u")].join("\n");
    run(&table, &lines, MARCH).await.expect("the run succeeds");
    let moved = r#"{"id":"k1","eff":"2024-03-05","was":"2024-02-05","v":"b","op":"u"}"#;
    run(&table, moved, MARCH).await.expect("the correction is merged");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a", "k1=a", "k1=b"]);
    // A late record of January also changes February, which has the state of January again.
    run(&table, &record("k1", "a2", "2024-01-20", "u"), MARCH).await.expect("the late record is merged");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a2", "k1=a2", "k1=b"]);
    // A correction of the correction: the date was the fifth of February after all.
    let back = r#"{"id":"k1","eff":"2024-02-05","was":"2024-03-05","v":"b","op":"u","n":2}"#;
    let e = run(&table, back, MARCH).await;
    // Ordered by effective time, this record is older than the correction, so it does not retract it.
    assert!(e.is_ok(), "{e:?}");
    assert_eq!(states(&storage, &MONTHS).await, ["k1=a2", "k1=a2", "k1=b"]);
}

#[tokio::test]
async fn corrections_by_sequence_number_can_be_corrected_again() {
    let storage = lab::memory();
    let spec = biscuit_apply::MergeSpec::new(["id"], ["n"]).expect("the spec is valid");
    let table = lab::table(&storage, spec, effective().with_retracts("was"));
    let line = |n: u32, v: &str, eff: &str, was: &str| {
        let was = if was.is_empty() { "null".to_owned() } else { format!("\"{was}\"") };
        format!(r#"{{"id":"k1","n":{n},"eff":"{eff}","was":{was},"v":"{v}","op":"u"}}"#)
    };
    let all = [
        line(1, "a", "2024-01-10", ""),
        line(2, "b", "2024-02-05", ""),
        line(3, "b", "2024-03-05", "2024-02-05"),
        line(4, "b", "2024-02-05", "2024-03-05"),
    ];
    let want = [["k1=a", "k1=a", "k1=a"], ["k1=a", "k1=b", "k1=b"], ["k1=a", "k1=a", "k1=b"], ["k1=a", "k1=b", "k1=b"]];
    for (line, want) in all.iter().zip(want) {
        run(&table, line, MARCH).await.expect("the run succeeds");
        assert_eq!(states(&storage, &MONTHS).await, want, "{line}");
    }
    // In any order, and with a pending correction that retracts at once.
    for order in [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let storage = lab::memory();
        let spec = biscuit_apply::MergeSpec::new(["id"], ["n"]).expect("the spec is valid");
        let first = effective().calendar.parse("2024-01").expect("the period is valid");
        let table = lab::table(&storage, spec, effective().with_retracts("was").with_first(first));
        for i in order {
            run(&table, &all[i], MARCH).await.expect("the run succeeds");
        }
        assert_eq!(states(&storage, &MONTHS).await, want[3], "{order:?}");
        run(&table, &line(5, "b", "2024-05-01", "2024-02-05"), MARCH).await.expect("the run succeeds");
        assert_eq!(states(&storage, &MONTHS).await, want[0], "{order:?}");
        run(&table, "", "2024-05-02").await.expect("May opens");
        assert_eq!(states(&storage, &["2024-04", "2024-05"]).await, ["k1=a", "k1=b"]);
    }
}

#[tokio::test]
async fn records_before_the_first_period_follow_the_plan() {
    let lines = record("k0", "old", "2023-11-20", "c");
    let (storage, table) = with_history(effective()).await;
    let before = objects(&storage).await;
    let e = run(&table, &lines, MARCH).await.expect_err("it is before the first period");
    assert_eq!((e.code(), e.kind()), ("BeforeFirstPeriod", ErrorKind::Data));
    assert!(e.to_string().contains("changes.jsonl") && e.to_string().contains("2023-11"), "{e}");
    assert_eq!(objects(&storage).await, before);

    let (storage, table) = with_history(effective().with_before_first(BeforeFirstPeriod::Clamp)).await;
    run(&table, &lines, MARCH).await.expect("the run succeeds");
    assert_eq!(states(&storage, &MONTHS).await, ["k0=old,k1=a", "k0=old,k1=b,k2=c", "k0=old,k1=b,k2=c"]);

    let (storage, table) = with_history(effective().with_before_first(BeforeFirstPeriod::Extend)).await;
    let report = run(&table, &lines, MARCH).await.expect("the run succeeds");
    assert_eq!(report.commits, 1);
    let five = ["2023-11", "2023-12", "2024-01", "2024-02", "2024-03"];
    let got = states(&storage, &five).await;
    assert_eq!(got, ["k0=old", "k0=old", "k0=old,k1=a", "k0=old,k1=b,k2=c", "k0=old,k1=b,k2=c"]);
    assert_eq!(report.periods[1].files.shared, 1, "what December holds was written for November: {:?}", report.periods);
}

#[tokio::test]
async fn dry_run_reports_the_periods_and_changes_nothing() {
    let (storage, table) = with_history(effective()).await;
    let before = objects(&storage).await;
    let lines = [record("k4", "z", "2024-01-15", "c"), record("k2", "later", "2024-05-01", "u")].join("\n");
    let report = table.run(
        changes(&lines).expect("the records are valid"),
        "2024-05-02".parse().expect("the instant is valid"),
        RunMode::DryRun,
    );
    let report = report.await.expect("the dry run succeeds");
    assert_eq!((report.outcome, report.commits), (Outcome::Planned, 0));
    let keys: Vec<_> =
        report.periods.iter().map(|p| (p.period.as_str(), p.keys, p.carried, p.before, p.after)).collect();
    assert_eq!(
        keys,
        [
            ("2024-01", 1, 0, 1, 2),
            ("2024-02", 1, 1, 2, 3),
            ("2024-03", 1, 1, 2, 3),
            ("2024-04", 1, 1, 2, 3),
            ("2024-05", 2, 1, 2, 3)
        ]
    );
    assert_eq!(objects(&storage).await, before);
    let again = table
        .run(
            changes(HISTORY).expect("the records are valid"),
            MARCH.parse().expect("the instant is valid"),
            RunMode::DryRun,
        )
        .await;
    assert_eq!(again.expect("the dry run succeeds").outcome, Outcome::Unchanged, "there is nothing to do");
}

#[tokio::test]
async fn invalid_dates_name_file_and_row_and_change_nothing() {
    let (storage, table) = with_history(effective()).await;
    let before = objects(&storage).await;
    let good = record("k1", "x", "2024-03-01", "u");
    for (line, code) in [
        (r#"{"id":"k1","eff":null,"v":"x","op":"u"}"#.to_owned(), "NullEffective"),
        (record("k1", "x", "March", "u"), "EffectiveType"),
        (r#"{"id":"k1","v":"x","op":"u"}"#.to_owned(), "NullEffective"),
    ] {
        let e = run(&table, &format!("{good}\n{line}"), MARCH).await.expect_err("the date is invalid");
        assert_eq!(e.code(), code, "{e}");
        assert!(e.to_string().contains("changes.jsonl") && e.to_string().contains('2'), "{e}");
        assert_eq!(objects(&storage).await, before);
    }
    let e = run(&table, &record("k1", "x", "2924-03-01", "u"), "2924-03-01")
        .await
        .expect_err("the run would add too many periods");
    assert_eq!(e.code(), "TooManyPeriods");
}

#[tokio::test]
async fn plan_that_differs_from_the_table_is_refused() {
    let (storage, _) = with_history(effective()).await;
    let mut days = effective();
    days.calendar =
        PeriodCalendar::new("day".parse().expect("the granularity is valid"), "UTC").expect("the calendar is valid");
    let mut zone = effective();
    zone.calendar = PeriodCalendar::new("month".parse().expect("the granularity is valid"), "Asia/Tokyo")
        .expect("the calendar is valid");
    for other in [days, zone, effective().with_column("month"), lab::months(biscuit_partition::PeriodBasis::Ingestion)]
    {
        let e = run(&table(&storage, spec(), other), "", MARCH).await.expect_err("the plan differs");
        assert_eq!(e.code(), "SpecDrift", "{e}");
    }
    let merge = biscuit_apply::Merge::new(lab::dataset(storage), spec(), lab::options()).expect("the merge succeeds");
    let e = merge
        .run(changes(HISTORY).expect("the records are valid"), RunMode::Commit)
        .await
        .expect_err("the table has periods");
    assert_eq!(e.code(), "SpecDrift", "{e}");
}

#[tokio::test]
async fn column_named_like_the_period_column_is_refused() {
    let (storage, table) = with_history(effective()).await;
    let before = objects(&storage).await;
    let line = r#"{"id":"k1","eff":"2024-03-10","v":"x","Period":"Q1","op":"u"}"#;
    let e = run(&table, line, MARCH).await.expect_err("the columns clash");
    assert_eq!(e.code(), "ColumnClash");
    assert!(e.to_string().contains("Period") && e.to_string().contains("changes.jsonl"), "{e}");
    assert_eq!(objects(&storage).await, before);
}

/// Returns an upsert with a column `n` of the given type.
fn of_type(eff: &str, id: &str, n: &str) -> biscuit_change::ChangeRecords {
    let rows = biscuit_testkit::table(&format!("id:string | eff:string | n:{n} | v:string\n {id} | {eff} | 7 | x"));
    let columns = biscuit_change::ChangeColumns::default();
    let (batch, _) =
        biscuit_change::row_changes(&rows, &"rows".into(), vec![1], &columns).expect("the records are valid");
    biscuit_change::ChangeRecords::from_batches(vec![batch])
}

#[tokio::test]
async fn type_widened_by_a_later_commit_is_wide_in_all_periods() {
    let storage = lab::memory();
    let spec = biscuit_apply::MergeSpec::new(["id"], ["eff"]).expect("the spec is valid");
    let table = table(&storage, spec, effective());
    let run = |changes, as_of: &str| table.run(changes, as_of.parse().expect("the instant is valid"), RunMode::Commit);
    run(of_type("2024-01-10", "k1", "int"), "2024-01-31").await.expect("the run of January succeeds");
    // February and March are two commits. The wider type comes with the second.
    let mut both = of_type("2024-02-10", "k2", "int");
    both.batches.extend(of_type("2024-03-10", "k3", "bigint").batches);
    let report = run(both, MARCH).await.expect("the run succeeds");
    assert_eq!((report.commits, report.remarks.widened_columns), (2, vec!["n".to_owned()]));
    let january = files_of(&storage, "2024-01").await[0].0.clone();
    let bytes = storage
        .store
        .get(&january.as_str().into())
        .await
        .expect("the file is readable")
        .bytes()
        .await
        .expect("the bytes are readable");
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).expect("the file is Parquet");
    let n = reader.schema().field_with_name("n").expect("the column exists").data_type().clone();
    assert_eq!(n, datafusion::arrow::datatypes::DataType::Int64);
}

#[tokio::test]
async fn external_files_in_a_new_period_are_refused() {
    let (storage, table) = with_history(effective()).await;
    let march = files_of(&storage, "2024-03").await[0].0.clone();
    storage
        .store
        .copy(&march.as_str().into(), &"lake/t/period=2024-04/part-0.parquet".into())
        .await
        .expect("the copy succeeds");
    let e = run(&table, "", "2024-04-02").await.expect_err("an external file is in the new period");
    assert_eq!(e.code(), "ExternalFiles");
    assert!(e.to_string().contains("period=2024-04/part-0.parquet"), "{e}");
}

#[tokio::test]
async fn first_period_after_the_current_one_is_refused() {
    let storage = lab::memory();
    let june = effective().calendar.parse("2024-06").expect("the period is valid");
    let table = table(&storage, spec(), effective().with_first(june));
    let e = run(&table, HISTORY, MARCH).await.expect_err("the first period is later");
    assert_eq!(e.code(), "InvalidArguments", "{e}");
}
