//! `biscuit run` and `biscuit impact`: raw files to clean tables by a job file.

use crate::binary::Folder;

const JOB: &str = r#"
name = "orders"

[sources.orders]
url = "raw/orders"
format = "json"
contract = "orders.toml"

[target]
url = "lake/orders"
mode = "append"
partition_by = ["day"]
derive.day = { from = "at", as = "date" }
audit.processing_datetime = "etl_processing_datetime"
"#;

const CONTRACT: &str = r#"
[[columns]]
name = "id"
type = "bigint"
nullable = false

[[columns]]
name = "at"
type = "timestamp"

[[columns]]
name = "zip"
type = "string"
"#;

fn order(id: u32, at: &str) -> String {
    format!("{{\"id\":{id},\"at\":\"{at}\",\"zip\":\"02134\",\"more\":1}}\n")
}

fn with_job() -> Folder {
    let f = Folder::new();
    f.write("jobs/orders.job.toml", JOB);
    f.write("jobs/orders.toml", CONTRACT);
    f.write("raw/orders/1.json", order(1, "2024-03-01T10:00:00Z") + &order(2, "2024-03-02T10:00:00Z"));
    f
}

const RUN: &str = "run jobs/orders.job.toml";

#[test]
fn job_reads_each_file_once_and_reports_what_changed() {
    let f = with_job();
    let ran = f.run(&format!("{RUN} --run-id monday"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "committed: orders in ",
        "  orders  lake/orders: committed, version 1",
        "    source      orders: 1 of 1 files, ",
        "    dropped     orders: more",
        "    rows        2 in 2 files, 0 files replaced",
        "    partitions  changed day=2024-03-01, day=2024-03-02",
    ] {
        assert!(ran.out.contains(line), "{line}\n{}", ran.out);
    }
    let before = f.files("lake");
    assert_eq!(f.run(&format!("{RUN} --json")).json()["outcome"], "unchanged");
    assert_eq!(f.files("lake"), before);
    f.write("raw/orders/2.json", order(3, "2024-03-01T23:00:00Z"));
    let report = f.run(&format!("{RUN} --json --run-id tuesday --attempt 2")).json();
    assert_eq!(report["outputs"][0]["partitions"], serde_json::json!(["day=2024-03-01"]));
    assert_eq!((report["run_id"].as_str(), report["attempt"].as_u64()), (Some("tuesday"), Some(2)));
    assert_eq!(f.rows("lake/orders --columns id").len(), 3);
    let shown = f.run("bookmark show lake/orders").out;
    assert!(shown.contains("tuesday, attempt 2  1 files"), "{shown}");
}

#[test]
fn dry_run_prints_the_plan_and_set_changes_single_values() {
    let f = with_job();
    let plan = f.run(&format!("{RUN} --dry-run"));
    for line in
        ["planned: orders", "read 1 files of `orders`", "/raw/orders/1.json", "append to the table, partitioned by day"]
    {
        assert!(plan.out.contains(line), "{line}\n{}", plan.out);
    }
    assert!(!f.path().join("lake").exists());
    let ran = f.run(&format!("{RUN} --set target.url=lake/other --set sources.orders.limit_files=1"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(f.rows("lake/other --columns id").len(), 2);
    for (set, message) in [
        ("--set target.mode=appendix", "unknown variant `appendix`"),
        ("--set target.colour=red", "unknown field `colour`"),
        ("--set nothing", "write PATH=VALUE"),
    ] {
        let ran = f.run(&format!("{RUN} {set}"));
        assert!(ran.code == 2 && ran.err.contains(message), "{set}: {} {}", ran.code, ran.err);
    }
    let ran = f.run("run nowhere.toml");
    assert!(ran.code == 2 && ran.err.contains("cannot read `nowhere.toml`"), "{}", ran.err);
}

#[test]
fn invalid_rows_are_reported_with_file_row_and_column_and_change_nothing() {
    let f = with_job();
    f.write("raw/orders/2.json", order(3, "2024-03-01T10:00:00Z") + "{\"id\":\"x\"}\n");
    let ran = f.run(&format!("{RUN} --json"));
    assert_eq!(ran.code, 3);
    let error = &ran.json()["error"];
    assert_eq!(
        (error["code"].as_str(), error["column"].as_str(), error["row"].as_u64()),
        (Some("Unparseable"), Some("id"), Some(2))
    );
    assert!(error["file"].as_str().is_some_and(|file| file.ends_with("/raw/orders/2.json")), "{error}");
    let ran = f.run(&format!("{RUN} --set sources.orders.contract.on_error=quarantine"));
    assert!(ran.code == 2 && ran.err.contains("a prefix of it is a value"), "{}", ran.err);
    f.write("jobs/orders.toml", format!("on_error = \"quarantine\"\n{CONTRACT}"));
    let ran = f.run(&format!("{RUN} --set target.max_quarantined=50"));
    assert!(
        ran.out.contains("    quarantine  1 rows; use `biscuit quarantine list` to list them"),
        "{} {}",
        ran.out,
        ran.err
    );
    let listed = f.run("quarantine list lake/orders").out;
    assert!(listed.contains("Unparseable"), "{listed}");
}

#[test]
fn impact_lists_partitions_and_rebuild_replaces_exactly_these() {
    let f = with_job();
    f.run(&format!("{RUN} --run-id monday"));
    f.write("raw/orders/2.json", order(3, "2024-03-02T12:00:00Z"));
    f.run(&format!("{RUN} --run-id tuesday"));
    assert_eq!(f.run("impact lake/orders --input raw/orders/1.json").out, "day=2024-03-01\nday=2024-03-02\n");
    assert_eq!(f.run("impact lake/orders --run tuesday").out, "day=2024-03-02\n");
    assert_eq!(f.run("impact lake/orders --input raw/orders/9.json").code, 2);
    let rows = f.rows("lake/orders --columns id,at");
    let before = f.files("lake/orders");
    let ran = f.run(&format!("{RUN} --rebuild day=2024-03-02"));
    assert!(ran.out.contains("rows        2 in 1 files, 2 files replaced"), "{} {}", ran.out, ran.err);
    assert_eq!(f.rows("lake/orders --columns id,at"), rows);
    let after = f.files("lake/orders");
    let gone: Vec<_> = before.iter().filter(|b| !after.contains(b)).collect();
    assert_eq!(gone.len(), 2, "{before:?} {after:?}");
}

#[test]
fn raw_table_refuses_merge_and_purge() {
    let f = with_job();
    f.write("jobs/raw.toml", format!("layer = \"raw\"\nextra = \"keep\"\n{CONTRACT}"));
    let ran = f.run(&format!("{RUN} --set target.contract=raw.toml"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    f.write("changes.jsonl", "{\"id\":1,\"n\":1}\n");
    let merge = f.run("merge --target lake/orders --format rows --key id --order n --changes changes.jsonl");
    assert!(merge.code == 2 && merge.err.contains("RawLayer"), "{}", merge.err);
    let purge = f.run("purge lake/orders --older-than 0s");
    assert!(purge.code == 2 && purge.err.contains("RawLayer"), "{}", purge.err);
    assert_eq!(f.rows("lake/orders --columns id").len(), 2);
}

/// A job that merges `raw` into `lake/t`, with settings of the source and the target, and further tables.
fn merge_job(source: &str, target: &str, more: &str) -> String {
    format!(
        "name = 't'
        [sources.s]
        url = 'raw'
        {source}
        [sources.s.contract]
        columns = [
            {{name = 'id', type = 'bigint'}}, {{name = 'seq', type = 'bigint'}},
            {{name = 'op', type = 'string'}}, {{name = 'note', type = 'string'}},
        ]
        [target]
        url = 'lake/t'
        mode = 'merge'
        key = ['id']
        order = ['seq']
        {target}
        {more}"
    )
}

/// Three records of each of 20,000 keys; the last one of every tenth key is a delete.
fn change_records() -> String {
    let record = |i: u32| match i {
        40_000.. if i.is_multiple_of(10) => format!("{{\"id\":{},\"seq\":{i},\"op\":\"d\"}}\n", i % 20_000),
        _ => format!("{{\"id\":{},\"seq\":{i},\"op\":\"u\",\"note\":\"a note, number {i}\"}}\n", i % 20_000),
    };
    (0..60_000).map(record).collect()
}

const SPILLED: &str = "exceed the memory budget";

#[test]
fn merges_of_jobs_keep_their_memory_budget_and_the_rows_are_right() {
    let text = change_records();
    for job in [
        merge_job("format = 'json'", "op = 'op'", ""),
        merge_job("format = 'json'", "op = 'op'", "[transform]\nsql = 'SELECT * FROM s'"),
        merge_job("format = 'rows'\nop = 'op'", "", ""),
    ] {
        let run = |memory: &str| {
            let f = Folder::new();
            f.write("raw/1.jsonl", &text);
            f.write("t.job.toml", &job);
            let ran = f.run(&format!("run t.job.toml --json --memory {memory}"));
            assert_eq!(ran.code, 0, "{}\n{job}", ran.err);
            let rows = ran.json()["outputs"][0]["merge"]["rows"].clone();
            (rows, ran.err.contains(SPILLED), f)
        };
        let ((rows, on_disk, small), (want, on_disk_with_more, large)) = (run("8MB"), run("1GB"));
        assert!(on_disk && !on_disk_with_more, "{job}");
        assert_eq!((&rows["after"], &rows), (&serde_json::json!(18_000), &want));
        assert_eq!(small.rows("lake/t"), large.rows("lake/t"));
    }
}

#[test]
fn snapshots_of_jobs_keep_their_memory_budget_and_the_rows_are_right() {
    let text = change_records();
    let job = merge_job("format = 'rows'\nop = 'op'", "granularity = 'month'", "");
    let job = job.replace("mode = 'merge'", "mode = 'snapshot'");
    let run = |memory: &str| {
        let f = Folder::new();
        f.write("raw/1.jsonl", &text);
        f.write("t.job.toml", &job);
        let ran = f.run(&format!("run t.job.toml --json --memory {memory} --as-of 2024-03-15"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        (ran.json()["outputs"][0]["merge"]["periods"].clone(), ran.err.contains(SPILLED), f)
    };
    let ((periods, on_disk, small), (want, on_disk_with_more, large)) = (run("8MB"), run("1GB"));
    assert!(on_disk && !on_disk_with_more);
    assert_eq!((&periods[0]["after"], &periods), (&serde_json::json!(18_000), &want));
    assert_eq!(small.rows("lake/t"), large.rows("lake/t"));
}

#[test]
fn values_of_a_column_that_a_policy_misspells_are_not_spilled() {
    let text = change_records();
    for (column, is_known) in [("note", true), ("noet", false)] {
        let f = Folder::new();
        f.write("raw/1.jsonl", &text);
        let policy = format!("[pii]\ncolumns = {{ {column} = 'remove' }}");
        f.write("t.job.toml", merge_job("format = 'rows'\nop = 'op'", "", &policy));
        let ran = f.run("run t.job.toml --memory 8MB");
        assert_eq!((ran.code == 0, ran.err.contains(SPILLED)), (is_known, is_known), "{}", ran.err);
        assert_eq!(ran.err.contains("UnknownColumn"), !is_known, "{}", ran.err);
    }
}

#[test]
fn record_of_a_raw_file_has_a_maximum_that_can_be_raised() {
    let note = "n".repeat(9 << 20);
    let files = [
        ("json", format!("{{\"id\":1,\"note\":\"short\"}}\n{{\"id\":2,\"note\":\"{note}\"}}\n")),
        ("csv", format!("id,note\n1,short\n2,{note}\n")),
    ];
    for (format, text) in &files {
        let f = Folder::new();
        f.write("raw/1", text);
        for (max, code) in [(8 << 20, 3), (10 << 20, 0)] {
            f.write(
                "t.job.toml",
                format!(
                    "name = 't'\n[sources.s]\nurl = 'raw'\nformat = '{format}'\nmax_record = {max}\n\
                     [sources.s.contract]\ncolumns = [{{name = 'id', type = 'bigint'}}, {{name = 'note', type = 'string'}}]\n\
                     [target]\nurl = 'lake/t'\nmode = 'replace'\n"
                ),
            );
            let ran = f.run("run t.job.toml --json");
            assert_eq!(ran.code, code, "{format} {max}: {}{}", ran.out, ran.err);
            if code != 0 {
                let error = ran.json()["error"].clone();
                assert_eq!(
                    (&error["code"], error["row"].as_u64()),
                    (&"TooLarge".into(), Some(if *format == "csv" { 3 } else { 2 }))
                );
                assert!(error["message"].as_str().is_some_and(|m| m.contains("max_record")), "{error}");
            }
        }
        assert_eq!(f.rows("lake/t --columns id").len(), 2);
    }
}
