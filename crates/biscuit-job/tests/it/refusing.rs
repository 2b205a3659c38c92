//! Runs that are refused, and rows that are quarantined: raw tables, guards, checks, contracts, and clashes.

use biscuit_bookmark::ReadMode;
use biscuit_job::{JobSpec, RunOptions};

use crate::appending::{EVENTS, event};
use crate::lab::Lab;

fn raw() -> String {
    let contract = "[target.contract]\nlayer = 'raw'\nextra = 'keep'\ncolumns = [{name = 'id', type = 'bigint'}]\n";
    format!("{EVENTS}{contract}")
}

#[tokio::test]
async fn raw_table_accepts_only_appends() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    lab.run(&raw()).await.unwrap();
    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z")).await;
    lab.run(&raw()).await.unwrap();
    lab.put("raw/events/3.json", event(3, "2024-03-01T10:00:00Z")).await;
    for mode in ["replace", "replace-partitions"] {
        // The property of the table decides, whatever the contract of this job declares.
        let e = lab.run(&EVENTS.replace("'append'", &format!("'{mode}'"))).await.unwrap_err();
        assert_eq!(e.code(), "RawLayer", "{mode}");
    }
    let merge = EVENTS.replace("'append'", "'merge'\nkey = ['id']\norder = ['at']");
    assert_eq!(lab.run(&merge).await.unwrap_err().code(), "RawLayer");
    let e = lab.run_with(&raw(), &RunOptions::default().with_rebuild(["day=2024-03-01"])).await.unwrap_err();
    assert_eq!(e.code(), "RawLayer");
    // If there is no table yet, the contract decides.
    let e = lab.run(&raw().replace("'append'", "'replace'").replace("lake/events", "lake/new")).await.unwrap_err();
    assert_eq!(e.code(), "RawLayer");
    assert_eq!(lab.column("lake/events", "id").await, ["1", "2"]);
}

#[tokio::test]
async fn bad_rows_beyond_the_maximum_stop_the_run() {
    let lab = Lab::new();
    let mut text: String = (0..2000).map(|n| event(n, "2024-03-01T10:00:00Z")).collect();
    text.push_str("{\"id\":null}\n");
    lab.put("raw/events/1.json", text.clone()).await;
    let job = EVENTS.replace("columns = [", "on_error = 'quarantine'\ncolumns = [");
    let report = lab.run(&job).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (2000, 1));
    let losses = &report.outputs[0].sources["events"].read.as_ref().unwrap().coercion.columns["id"];
    assert_eq!(losses.refused["NullNotAllowed"], 1);
    lab.put("raw/events/2.json", event(9000, "2024-03-01T10:00:00Z") + "{\"id\":null}\n").await;
    let e = lab.run(&job).await.unwrap_err();
    assert_eq!(
        (e.code(), e.message()),
        (
            "TooManyQuarantined",
            "1 of 2 rows (50.00 percent) would be quarantined; the maximum is 0.1 percent (`max_quarantined`)"
        )
    );
    assert_eq!(lab.column("lake/events", "id").await.len(), 2000);
}

#[tokio::test]
async fn checks_apply_before_anything_is_written() {
    let lab = Lab::new();
    let contract = "
        [target.contract]
        grain = ['id']
        extra = 'keep'
        columns = [{name = 'id', type = 'bigint'}, {name = 'v', type = 'string'}]
        [[target.contract.checks]]
        rule = 'range'
        column = 'id'
        max = 100
        severity = 'quarantine'
        [[target.contract.checks]]
        rule = 'rows'
        min = 1
    ";
    let job = format!("{EVENTS}max_quarantined = 50.0\n{contract}");
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(101, "2024-03-01T10:00:00Z")).await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (1, 1));
    assert_eq!(report.outputs[0].findings[0].first, Some(("/raw/events/1.json".to_owned(), 2)));
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/events")).await.unwrap();
    assert_eq!(refused[0].refused.raw, event(101, "2024-03-01T10:00:00Z").into_bytes());
    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z") + &event(2, "2024-03-01T10:00:00Z")).await;
    let e = lab.run(&job).await.unwrap_err();
    assert_eq!((e.code(), e.file(), e.row()), ("NotUnique", Some("/raw/events/2.json"), Some(2)));
    assert_eq!(lab.column("lake/events", "id").await, ["1"]);
}

#[tokio::test]
async fn output_contract_keeps_added_columns_and_locates_rows_in_their_files() {
    let lab = Lab::new();
    let contract = "audit = {run_id = 'run'}\n[target.contract]\ncolumns = [{name = 'id', type = 'tinyint'}]\n";
    let job = EVENTS.replace("columns = [", "on_error = 'quarantine'\ncolumns = [") + contract;
    let at = "2024-03-01T10:00:00Z";
    lab.put("raw/events/1.json", event(1, at)).await;
    let planned = lab.run_with(&job, &RunOptions::default().with_dry_run(biscuit_job::DryRun::Plan)).await.unwrap();
    let columns = "write columns id tinyint, source_file string, run string, day date";
    assert!(planned.outputs[0].plan.iter().any(|l| l == columns), "{:?}", planned.outputs[0].plan);
    for extra in ["drop", "refuse"] {
        // The source has the columns `at` and `v`, which the output's contract does not declare.
        let of = job.replace("[target.contract]", &format!("[target.contract]\nextra = '{extra}'"));
        let ran = lab.run(&of.replace("lake/events", &format!("lake/{extra}"))).await;
        match extra {
            "drop" => assert_eq!(ran.unwrap().outputs[0].partitions, ["day=2024-03-01"]),
            _ => assert_eq!(
                ran.unwrap_err().message(),
                "the contract does not have `at`, `v`; add the columns, or set `extra` to `drop` or `keep` (/raw/events/1.json)"
            ),
        }
    }
    let rows = lab.rows("lake/drop").await;
    assert_eq!(rows.lines().next().unwrap().trim(), "id:tinyint | source_file:string | run:string | day:date");
    // The source's contract quarantines the second line. The third line does not fit the output's contract.
    lab.put("raw/events/2.json", event(2, at) + "{\"id\":\"x\"}\n" + &event(300, at)).await;
    let e = lab.run(&job.replace("lake/events", "lake/drop")).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        "Overflow: a value of column `id` (tinyint) is outside of the range of that type (/raw/events/2.json, row 3)"
    );
}

#[tokio::test]
async fn source_checks_hold_for_a_query_that_reads_the_source_twice() {
    let lab = Lab::new();
    let job = EVENTS
        .replace("columns = [", "grain = ['id']\nchecks = [{rule = 'range', column = 'id', max = 100, severity = 'quarantine'}]\ncolumns = [")
        .replace("[target]", "[transform]\nsql = 'SELECT a.id, a.at, a.v FROM events a JOIN events b ON a.id = b.id'\n[target]\nmax_quarantined = 50.0");
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z") + &event(101, "2024-03-01T10:00:00Z")).await;
    let report = lab.run(&job).await.unwrap();
    assert_eq!((report.outputs[0].rows, report.outputs[0].quarantined), (1, 1));
    assert_eq!(report.outputs[0].findings[0].rows, 1);
    let refused = biscuit_apply::quarantined_records(&lab.dataset("lake/events")).await.unwrap();
    assert_eq!((refused[0].refused.row, refused[0].refused.code.as_str()), (2, "OutOfRange"));
    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z") + &event(2, "2024-03-01T10:00:00Z")).await;
    let e = lab.run(&job).await.unwrap_err();
    assert_eq!((e.code(), e.row()), ("NotUnique", Some(2)));
}

#[tokio::test]
async fn types_without_a_common_type_are_refused_before_the_write() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    lab.run(EVENTS).await.unwrap();
    lab.put("raw/events/2.json", event(2, "2024-03-01T10:00:00Z")).await;
    let other = EVENTS.replace("{name = 'id', type = 'bigint', nullable = false}", "{name = 'id', type = 'string'}");
    let e = lab.run(&other).await.unwrap_err();
    assert_eq!(
        (e.code(), e.message()),
        (
            "NoCommonType",
            "column `id` is bigint so far and string in the rows of `events`: no type holds the values of both without loss"
        )
    );
    assert_eq!(lab.column("lake/events", "id").await, ["1"]);
}

#[tokio::test]
async fn column_clashes_and_shared_bookmarks_are_errors() {
    let lab = Lab::new();
    lab.put("raw/events/1.json", event(1, "2024-03-01T10:00:00Z")).await;
    let clash = EVENTS.replace("source_file = 'source_file'", "source_file = 'v'");
    assert_eq!(lab.run(&clash).await.unwrap_err().code(), "ColumnClash");
    let two = "
        name = 'j'
        [sources.a]
        url = 'raw/events'
        format = 'json'
        bookmark = 'x'
        [sources.b]
        url = 'raw/events'
        format = 'json'
        bookmark = 'x'
        [target]
        url = 'lake/j'
        mode = 'append'
        sql = 'SELECT id FROM a UNION ALL SELECT id FROM b'
    ";
    let e = lab.run(two).await.unwrap_err();
    assert_eq!(
        (e.code(), e.message()),
        ("InvalidJob", "sources `a` and `b` use the same bookmark; give each source its own")
    );
    let e = JobSpec::from_toml(&two.replace("sql =", "zql ="), &[]).unwrap_err();
    assert!(e.message().contains("zql"), "{e}");
    let replay = RunOptions::default().with_mode(ReadMode::Full);
    assert_eq!(lab.run_with(EVENTS, &replay).await.unwrap_err().code(), "InvalidArguments");
}
