//! `biscuit snapshot` and `biscuit periods`: tables with one full copy per period.

use crate::binary::Folder;

const SNAPSHOT: &str = "snapshot --dataset lake/t --format rows --key id --order eff --op op --by effective --effective-column eff \
                        --granularity month --changes";

const HISTORY: &str = r#"{"id":"k1","eff":"2024-01-10","v":"a","op":"c"}
{"id":"k1","eff":"2024-02-05","v":"b","op":"u"}
{"id":"k2","eff":"2024-02-07","v":"c","op":"c"}
"#;
const LATE: &str = r#"{"id":"k4","eff":"2024-01-15","v":"z","op":"c"}
{"id":"k2","eff":"2024-05-01","v":"later","op":"u"}
"#;

fn with_history() -> Folder {
    let f = Folder::new();
    f.write("h.jsonl", HISTORY);
    let ran = f.run(&format!("{SNAPSHOT} h.jsonl --as-of 2024-03-15"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    f.write("late.jsonl", LATE);
    f
}

#[test]
fn late_records_reach_their_periods_and_the_report_explains_why() {
    let f = with_history();
    let plan = f.run(&format!("{SNAPSHOT} late.jsonl --as-of 2024-03-20 --dry-run"));
    assert_eq!(plan.code, 0, "{}", plan.err);
    let lines = [
        "planned: version 3, 2 records as of 2024-03-20T00:00:00Z, current period 2024-03",
        "  records     inserted 1, pending 1",
        "  pending     1 record for periods that are not open yet",
        "  2024-01     1 key with records in this period; 1 to 2 rows; inserted 1; removed 1, written 1",
        "  2024-02     1 key carried from earlier periods; 2 to 3 rows; inserted 1; removed 1, written 1",
        "  2024-03     1 key carried from earlier periods; 2 to 3 rows; inserted 1; removed 1, shared 1",
    ];
    for line in lines {
        assert!(plan.out.contains(line), "{line}\n{}", plan.out);
    }
    let before = f.files("lake");
    // Options that the table already has need not be given again.
    let short = "snapshot --dataset lake/t --format rows --op op --changes late.jsonl --as-of 2024-03-20 --json";
    let done = f.run(short).json();
    assert_eq!(
        (done["outcome"].as_str(), done["commits"].as_u64(), done["pending"].as_u64()),
        (Some("committed"), Some(1), Some(1))
    );
    assert_ne!(f.files("lake"), before);
    let before = f.files("lake");
    assert_eq!(f.run(short).json()["outcome"], "unchanged");
    assert_eq!(f.files("lake"), before);
    assert_eq!(
        f.rows("lake/t --as-of 2024-01-31 --columns id,v"),
        [r#"{"id":"k1","v":"a"}"#, r#"{"id":"k4","v":"z"}"#]
    );
    // Without changes, April and May are opened.
    let opened = f.run("snapshot --dataset lake/t --format rows --as-of 2024-05-02 --json").json();
    assert_eq!((opened["opened"].as_u64(), opened["commits"].as_u64()), (Some(1), Some(2)));
    assert_eq!(f.run("verify lake/t --json").json()["outcome"], "sound");
}

#[test]
fn correction_of_a_date_retracts_the_corrected_record() {
    let f = with_history();
    f.write("fix.jsonl", r#"{"id":"k2","eff":"2024-03-01","was":"2024-02-07","v":"c","op":"u"}"#);
    let ran = f.run(&format!("{SNAPSHOT} fix.jsonl --as-of 2024-03-15 --retracts was"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(f.rows("lake/t --as-of 2024-02-29 --columns id"), [r#"{"id":"k1"}"#]);
    assert_eq!(f.rows("lake/t --as-of 2024-03-31 --columns id").len(), 2);
    // From then on the table has the column of retractions.
    assert_eq!(f.run(&format!("{SNAPSHOT} h.jsonl --as-of 2024-03-15 --json")).json()["outcome"], "unchanged");
}

#[test]
fn periods_are_drawn_as_text_and_html() {
    let f = with_history();
    f.run(&format!("{SNAPSHOT} late.jsonl --as-of 2024-05-20"));
    let drawn = f.run("periods lake/t --html periods.html");
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    assert!(
        drawn.out.starts_with("lake/t: 5 periods, granularity month (UTC), by effective time in `eff`\n"),
        "{}",
        drawn.out
    );
    let april = drawn.out.lines().find(|l| l.starts_with("2024-04")).expect("April exists");
    assert!(april.contains("░") && !april.contains("█"), "April shares its files with March: {april}");
    assert_eq!(f.run("periods lake/t --html periods.html").code, 0, "a page is replaced by a newer one");
    let page = std::fs::read_to_string(f.path().join("periods.html")).expect("the page is readable");
    assert!(page.contains("<th>2024-03</th>") && !page.contains("http"), "the page has no external resources");
    let json = f.run("periods lake/t --json").json();
    assert_eq!((json["periods"][3]["rows"].as_u64(), json["periods"][3]["shared"].as_u64()), (Some(3), Some(1)));
    assert_eq!(json["periods"][0]["last"]["changed"], 1);
}

#[test]
fn missing_and_conflicting_options_are_reported() {
    let f = with_history();
    let cases = [
        ("snapshot --dataset lake/new --format rows --key id --order eff --changes h.jsonl", 2, "add --granularity"),
        (
            "snapshot --dataset lake/new --format rows --key id --order eff --granularity month --changes h.jsonl",
            2,
            "--by",
        ),
        ("snapshot --dataset lake/t --format rows --granularity day --changes h.jsonl", 2, "SpecDrift"),
        (
            "snapshot --dataset lake/t --format rows --op op --as-of 2024-03-15 --changes old.jsonl",
            3,
            "BeforeFirstPeriod",
        ),
        ("snapshot --dataset lake/t --format rows --zone Mars/Base --changes h.jsonl", 2, "UnknownZone"),
        ("merge --target lake/t --format rows --key id --order eff --op op --changes h.jsonl", 2, "biscuit snapshot"),
        ("show lake/t --as-of 2025-01-01", 2, "it has the periods 2024-01 to 2024-03"),
        ("periods lake/none", 2, "NoPeriods"),
    ];
    f.write("old.jsonl", r#"{"id":"k0","eff":"2023-12-31","v":"old","op":"c"}"#);
    let before = f.files("lake");
    for (command, code, message) in cases {
        let ran = f.run(command);
        assert_eq!(ran.code, code, "{command}: {}", ran.err);
        assert!(ran.err.contains(message), "{command}: {}", ran.err);
    }
    assert_eq!(f.files("lake"), before);
}

#[test]
fn records_beyond_the_memory_budget_reach_their_periods() {
    // Three records of each key, in three months; the newest of every tenth key is a delete.
    let record = |i: u32| {
        let (id, month) = (i % 10_000, i / 10_000 + 1);
        let op = if month == 3 && i.is_multiple_of(10) { "d" } else { "u" };
        let note = if op == "u" { format!("a note of some length, number {i}") } else { String::new() };
        format!("{{\"id\":\"k{id}\",\"eff\":\"2024-0{month}-1{}\",\"v\":\"{note}\",\"op\":\"{op}\"}}\n", i % 9)
    };
    let text: String = (0..30_000).map(record).collect();
    let run = |memory: &str| {
        let f = Folder::new();
        f.write("h.jsonl", &text);
        let ran = f.run(&format!("{SNAPSHOT} h.jsonl --as-of 2024-04-15 --memory {memory} --json"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        (ran.json()["periods"].clone(), ran.err.contains("exceed the memory budget"), f)
    };
    let ((periods, on_disk, small), (want, on_disk_with_more, large)) = (run("8MB"), run("1GB"));
    assert!(on_disk && !on_disk_with_more);
    let after: Vec<_> = (0..4).map(|n| periods[n]["after"].as_u64()).collect();
    assert_eq!((after, &periods), (vec![Some(10_000), Some(10_000), Some(9_000), Some(9_000)], &want));
    for month in ["2024-01", "2024-02", "2024-03"] {
        let rows = |f: &Folder| f.rows(&format!("lake/t --as-of {month}-28"));
        assert_eq!(rows(&small), rows(&large));
    }
}
