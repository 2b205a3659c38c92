//! `--bookmark` and `biscuit bookmark`: each input file is read once.

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order n --op op --changes raw --bookmark orders";

fn record(id: u32, n: u32) -> String {
    format!("{{\"id\":{id},\"n\":{n},\"op\":\"c\"}}\n")
}

/// A table after three runs that have read one file each.
fn three_runs() -> Folder {
    let f = Folder::new();
    for n in 1..=3 {
        f.write(&format!("raw/{n}.jsonl"), record(n, 1));
        let ran = f.run(&format!("{MERGE} --run-id run{n}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("bookmark    orders reads 1 of "), "{}", ran.out);
    }
    f
}

#[test]
fn each_file_is_read_once_and_a_run_without_new_files_changes_nothing() {
    let f = three_runs();
    f.write("raw/_SUCCESS", "");
    let before = f.files("lake");
    let ran = f.run(&format!("{MERGE} --json")).json();
    assert_eq!((ran["outcome"].as_str(), ran["records"].as_u64()), (Some("unchanged"), Some(0)));
    let counts = &ran["bookmark"]["counts"];
    assert_eq!((counts["known"].as_u64(), counts["ignored"]["hidden"].as_u64()), (Some(3), Some(1)));
    assert_eq!(f.files("lake"), before);
    // An overwritten file is read again as a whole.
    f.write("raw/2.jsonl", record(2, 1) + &record(4, 1));
    let ran = f.run(&format!("{MERGE} --json")).json();
    assert_eq!((ran["records"].as_u64(), ran["verdicts"]["inserted"].as_u64()), (Some(2), Some(1)));
    assert_eq!(ran["bookmark"]["counts"]["overwritten"], 1);
}

#[test]
fn dry_runs_replays_and_other_modes_remember_nothing() {
    let f = three_runs();
    f.write("raw/4.jsonl", record(4, 1));
    for (words, records) in [
        ("--dry-run", 1),
        ("--bookmark-mode read-only", 1),
        ("--bookmark-mode full", 4),
        ("--after run1 --through run3", 2),
        ("--job-bookmark-from 1 --job-bookmark-to 2", 1),
        ("--replay-input raw/2.jsonl", 1),
        ("--modified-after 1970-01-01 --modified-through 1970-01-02", 0),
    ] {
        let ran = f.run(&format!("{MERGE} {words} --json")).json();
        assert_eq!(ran["records"], records, "{words}: {ran}");
    }
    // The merges above changed the table but remembered nothing: the file is still new.
    let ran = f.run(&format!("{MERGE} --json")).json();
    assert_eq!(ran["records"], 1, "{ran}");
}

#[test]
fn invalid_bookmark_options_are_reported() {
    let f = three_runs();
    for (words, code, message) in [
        ("--after run1", 2, "a replay needs both ends"),
        ("--after run1 --through run9", 2, "the bookmark `orders` has no run with the id `run9`"),
        ("--after 1 --through 2 --replay-input raw/1.jsonl", 2, "replay runs, a time range or named files"),
        (
            "--replay-input raw/none.jsonl",
            3,
            "no longer exist; use `--allow-missing`, or `allow_missing` of the source, to replay the rest",
        ),
    ] {
        let ran = f.run(&format!("{MERGE} {words}"));
        assert_eq!(ran.code, code, "{words}: {}", ran.err);
        assert!(ran.err.contains(message), "{words}: {}", ran.err);
    }
    let ran = f.run("merge --target lake/t --format rows --changes raw --limit-files 3");
    assert!(ran.code == 2 && ran.err.contains("--bookmark <NAME>"), "{}", ran.err);
    let ran = f.run("bookmark reset lake/t --bookmark none");
    assert!(ran.code == 2 && ran.err.contains("the table has no bookmark `none` yet"), "{}", ran.err);
    let ran = f.run("merge --target lake/t --format rows --key id --order n --changes nowhere --bookmark other");
    assert!(ran.code == 2 && ran.err.contains("there are no objects at `/"), "{}", ran.err);
}

#[test]
fn new_bookmark_of_a_table_with_bookmarks_is_logged() {
    let f = three_runs();
    let ran = f.run(&MERGE.replace("orders", "renamed"));
    assert!(ran.err.contains("the bookmark `renamed` is new and reads all objects"), "{}", ran.err);
}

#[test]
fn show_and_explain_report_what_was_read_and_why() {
    let f = three_runs();
    f.write("raw/4.jsonl", record(4, 1));
    f.write("raw/empty.jsonl", "");
    let shown = f.run("bookmark show lake/t");
    for line in ["orders: 3 runs, newest input modified ", "      2  run2  1 files, 24 bytes\n"] {
        assert!(shown.out.contains(line), "{line}\n{}", shown.out);
    }
    let reason = |name: &str| f.run(&format!("bookmark explain lake/t raw/{name} --bookmark orders")).out;
    assert!(
        reason("2.jsonl").ends_with("/raw/2.jsonl: run 2 (run2) read it, and it has not changed since\n"),
        "{}",
        reason("2.jsonl")
    );
    assert!(reason("4.jsonl").contains("it is new"));
    assert!(reason("empty.jsonl").contains("it is empty"));
    assert!(reason("none.jsonl").contains("it is not in the source"));
    let none = f.run("bookmark show lake/other");
    assert!(none.code == 2 && none.err.contains("NoTable"), "{}", none.err);
    assert_eq!(f.run(&MERGE.replace("lake/t", "lake/other").replace("--bookmark orders", "")).code, 0);
    assert_eq!(f.run("bookmark show lake/other").out, "the table has no bookmark\n");
}

#[test]
fn reset_rewind_and_set_to_now_change_the_bookmark_but_no_file_of_the_table() {
    let f = three_runs();
    let parquet = |f: &Folder| f.files("lake/t");
    let before = parquet(&f);
    let records =
        |f: &Folder| f.run(&format!("{MERGE} --bookmark-mode read-only --dry-run --json")).json()["records"].clone();
    let plan = f.run("bookmark rewind lake/t --bookmark orders --to run1 --dry-run");
    assert_eq!(plan.out, "planned: orders rewound: the next run reads again what was read after run run1\n");
    assert_eq!(records(&f), 0);
    assert_eq!(f.run("bookmark rewind lake/t --bookmark orders --to run1").code, 0);
    assert_eq!(records(&f), 2);
    assert_eq!(f.run("bookmark reset lake/t --bookmark orders").code, 0);
    assert_eq!(records(&f), 3);
    f.write("raw/4.jsonl", record(4, 1));
    let now = f.run("bookmark set-to-now lake/t --bookmark orders");
    assert_eq!(now.code, 0, "{}", now.err);
    assert_eq!(records(&f), 0);
    assert_eq!(parquet(&f), before);
    // A table without a version can begin with the files that are added from now on.
    let fresh = f.run("bookmark set-to-now lake/fresh --bookmark b --input raw");
    assert_eq!(fresh.code, 0, "{}", fresh.err);
    let fresh = f.run(&format!("{} --json", MERGE.replace("lake/t", "lake/fresh").replace("orders", "b"))).json();
    assert_eq!(fresh["records"], 0);
}

#[test]
fn snapshot_with_a_bookmark_reads_each_file_once() {
    let f = Folder::new();
    let snapshot = "snapshot --dataset lake/p --format rows --key id --order n --op op --by ingestion --granularity month \
                    --changes raw --bookmark b --json --as-of";
    f.write("raw/1.jsonl", record(1, 1));
    assert_eq!(f.run(&format!("{snapshot} 2024-01-15")).json()["records"], 1);
    f.write("raw/2.jsonl", record(2, 1));
    // Three periods are opened, each in its own commit. The last commit changes the bookmark.
    let ran = f.run(&format!("{snapshot} 2024-04-15")).json();
    assert_eq!((ran["records"].as_u64(), ran["commits"].as_u64()), (Some(1), Some(3)));
    let before = f.files("lake");
    let again = f.run(&format!("{snapshot} 2024-04-15")).json();
    assert_eq!((again["records"].as_u64(), again["outcome"].as_str()), (Some(0), Some("unchanged")));
    assert_eq!(f.files("lake"), before);
}

#[test]
fn file_limit_spreads_the_input_over_several_runs() {
    let f = Folder::new();
    (1..=5).for_each(|n| f.write(&format!("raw/{n}.jsonl"), record(n, 1)));
    let read: Vec<u64> = (0..4)
        .map(|_| {
            f.run(&format!("{MERGE} --limit-files 2 --json")).json()["records"].as_u64().expect("the value is a number")
        })
        .collect();
    assert_eq!(read, [2, 2, 1, 0]);
}
