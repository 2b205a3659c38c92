//! `biscuit purge`, `doctor` and `lifecycle`.

use std::fs::File;
use std::time::{Duration, UNIX_EPOCH};

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --op op --changes";

/// Creates a table of eight files, one of which a second merge with the options `hold` has replaced.
fn merged(hold: &str) -> Folder {
    let f = Folder::new();
    let row = |n| format!("{{\"id\":{n},\"seq\":1,\"day\":\"d{n}\",\"v\":\"a\",\"op\":\"c\"}}\n");
    f.write("c.jsonl", (1..=8).map(row).collect::<String>());
    assert_eq!(f.run(&format!("{MERGE} c.jsonl --partition-by day")).code, 0);
    f.write("d.jsonl", r#"{"id":1,"seq":2,"day":"d1","v":"b","op":"u"}"#);
    assert_eq!(f.run(&format!("{MERGE} d.jsonl {hold}")).code, 0);
    f
}

/// Sets the modification time of a file to some years ago.
fn age(f: &Folder, name: &str) {
    let then = UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    File::options()
        .write(true)
        .open(f.path().join(name))
        .expect("the file is opened")
        .set_modified(then)
        .expect("the time of the file is set");
}

fn names(f: &Folder, below: &str) -> Vec<String> {
    let root = f.path().join(below);
    let name = |path: std::path::PathBuf| {
        path.strip_prefix(&root).expect("the path is below the prefix").to_string_lossy().into_owned()
    };
    f.files(below).into_iter().map(|(path, ..)| name(path)).collect()
}

#[test]
fn live_files_of_a_table_are_not_purged_by_age() {
    let f = merged("--retention 1s");
    let before = f.files("lake/t");
    assert_eq!(before.len(), 9, "eight live files and one retained file");
    std::thread::sleep(Duration::from_millis(50));
    let refused = f.run("purge lake/t --older-than 0s");
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("LiveFiles: 9 of the objects"), "{}", refused.err);
    assert_eq!(f.run("purge lake/t --before 2999-01-01").code, 2, "not even for an instant in the future");
    assert_eq!(f.files("lake/t").len(), 9);

    let held = f.run("purge lake/t --retained --grace 1h --json").json();
    assert_eq!((held["outcome"].as_str(), held["plan"]["kept"]["retained"].as_u64()), (Some("unchanged"), Some(1)));
    std::thread::sleep(Duration::from_millis(2_100));
    let plan = f.run("purge lake/t --retained --dry-run --json").json();
    assert_eq!((plan["outcome"].as_str(), plan["plan"]["objects"].as_u64()), (Some("planned"), Some(1)));
    assert_eq!(f.files("lake/t").len(), 9, "a dry run deletes nothing");
    let done = f.run("purge lake/t --retained --json").json();
    assert_eq!((done["outcome"].as_str(), done["deleted"].as_u64()), (Some("purged"), Some(1)));
    assert_eq!((names(&f, "lake/t").len(), f.rows("lake/t").len()), (8, 8));
    assert_eq!(f.run("purge lake/t --retained --json").json()["outcome"], "unchanged");
    assert_eq!(f.run("verify lake/t").code, 0);
}

#[test]
fn without_retention_there_are_no_retained_files_to_purge() {
    let f = merged("");
    let before = f.files("lake/t");
    assert_eq!(before.len(), 8);
    assert_eq!(f.run("purge lake/t --retained --json").json()["outcome"], "unchanged");
    assert_eq!(f.files("lake/t"), before);
    let e = f.run("purge lake/nothing --retained");
    assert!(e.code == 2 && e.err.contains("NothingThere"), "{}", e.err);
    f.write("lake/junk/a", "x");
    let e = f.run("purge lake/junk --retained");
    assert!(e.code == 2 && e.err.contains("NoJournal"), "{}", e.err);
}

#[test]
fn folder_without_a_journal_is_purged_by_age_and_its_sibling_is_not() {
    let f = Folder::new();
    for name in ["old-1", "old-2", "new"] {
        f.write(&format!("lake/junk/{name}"), "x");
        f.write(&format!("lake/junk_backup/{name}"), "x");
    }
    for name in ["junk/old-1", "junk/old-2", "junk_backup/old-1"] {
        age(&f, &format!("lake/{name}"));
    }
    let plan = f.run("purge lake/junk --older-than 30d --dry-run --manifest plan.jsonl --json").json();
    assert_eq!((plan["outcome"].as_str(), plan["plan"]["objects"].as_u64()), (Some("planned"), Some(2)));
    assert_eq!(plan["delete"].as_array().map(Vec::len), Some(2));
    assert!(plan["caveats"][0].as_str().expect("the report has a caveat").contains("no conditional delete"));
    assert_eq!(names(&f, "lake/junk").len(), 3, "a dry run deletes nothing");
    assert!(!f.path().join("lake/.biscuit").exists(), "a dry run leaves no folder");
    let table = f.run("purge lake/junk --older-than 30d --dry-run").out;
    assert!(table.contains("junk/old-1") && table.contains("planned: 2 objects, 2 bytes to delete"), "{table}");

    // The stored plan decides: objects that have changed or aged since the dry run are kept.
    f.write("lake/junk/old-2", "y");
    age(&f, "lake/junk/new");
    let done = f.run("purge lake/junk --plan plan.jsonl --manifest done.jsonl --json");
    assert_eq!(done.code, 4, "run again: {}", done.err);
    let report = done.json();
    assert_eq!((report["deleted"].as_u64(), report["kept"]["changed"].as_u64()), (Some(1), Some(1)));
    assert_eq!(names(&f, "lake/junk"), ["new", "old-2"]);
    let manifest = std::fs::read_to_string(f.path().join("done.jsonl")).expect("the manifest is readable");
    assert!(manifest.contains("\"outcome\":\"deleted\"") && manifest.contains("\"reason\":\"changed\""), "{manifest}");
    assert_eq!(names(&f, "lake/junk_backup").len(), 3);

    // A plan that was written by hand cannot delete objects of a state root either.
    f.write("c.jsonl", r#"{"id":1,"seq":1,"v":"a","op":"c"}"#);
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 0);
    let record = f.path().join("lake/.biscuit/t/journal/00000000000000000001.json");
    let key = record.to_string_lossy();
    let size = std::fs::metadata(&record).expect("the record exists").len();
    f.write(
        "evil.jsonl",
        format!("{{\"key\":\"{}\",\"size\":{size},\"action\":\"delete\"}}", key.trim_start_matches('/')),
    );
    let e = f.run("purge lake --plan evil.jsonl");
    assert!(e.code == 2 && e.err.contains("LiveFiles") && record.exists(), "{}", e.err);

    let e = f.run("purge lake/junk_backup/old-1 --plan plan.jsonl");
    assert!(e.code == 2 && e.err.contains("OutsidePrefix"), "{}", e.err);
}

#[test]
fn emptying_a_folder_and_overlapping_a_table_have_to_be_allowed() {
    let f = merged("");
    f.write("lake/junk/a", "x");
    age(&f, "lake/junk/a");
    let refused = |words: &str, code: &str| {
        let ran = f.run(words);
        assert!(ran.code == 2 && ran.err.contains(code), "{words}: {}", ran.err);
    };
    refused("purge lake/junk --older-than 1d", "WouldEmpty");
    refused("purge lake --older-than 1d", "OverlapsTable");
    refused("purge lake/t/day=d1 --older-than 0s", "OverlapsTable");
    refused("purge lake/.biscuit/t --older-than 0s", "OverlapsTable");
    refused("purge lake/.biscuit/t/journal --older-than 0s --allow empty", "OverlapsTable");
    refused("purge lake/junk --older-than 1d --also success", "--also needs --orphans");
    refused("purge lake/junk --retained --versions", "--versions");
    refused("purge lake/junk", "required");
    assert_eq!(f.run("purge lake --older-than 1d --allow overlap --json").json()["deleted"], 1);
    assert_eq!((names(&f, "lake/t").len(), f.rows("lake/t").len()), (8, 8));
    assert_eq!(f.run("purge lake --older-than 0s --allow overlap,empty --json").json()["deleted"], 0);
    assert_eq!(f.rows("lake/t").len(), 8);
    assert_eq!(f.run("history lake/t --json").json()["versions"].as_array().map(Vec::len), Some(2));
}

#[test]
fn moved_state_root_is_recognised_by_its_journal() {
    let f = Folder::new();
    f.write("c.jsonl", r#"{"id":1,"seq":1,"v":"a","op":"c"}"#);
    assert_eq!(f.run(&format!("{MERGE} c.jsonl --state states/t")).code, 0);
    f.write("states/old", "x");
    age(&f, "states/old");
    let e = f.run("purge states --older-than 1d");
    assert!(e.code == 2 && e.err.contains("OverlapsTable"), "{}", e.err);
    assert_eq!(f.run("purge states --older-than 1d --allow overlap,empty --json").json()["deleted"], 1);
    assert_eq!(f.rows("lake/t").len(), 1);
}

#[test]
fn leftovers_are_deleted_and_job_markers_only_on_request() {
    let f = merged("");
    for name in ["_temporary/0/part", ".spark-staging-1/part", "_SUCCESS", "day=d1_$folder$", "_temporary/0/young"] {
        f.write(&format!("lake/t/{name}"), "x");
        if !name.contains("young") {
            age(&f, &format!("lake/t/{name}"));
        }
    }
    f.write("lake/t/day=d1/biscuit-00000000000000aa-00000.parquet", "orphan file");
    f.write("lake/.biscuit/t/staging/0-00000000000000bb/x.parquet.staged", "dead");
    f.write("lake/.biscuit/t/staging/2-00000000000000cc/x.parquet.staged", "perhaps alive");
    let plan = f.run("purge lake/t --orphans --dry-run --json").json();
    assert_eq!((plan["plan"]["objects"].as_u64(), plan["plan"]["kept"]["newer"].as_u64()), (Some(4), Some(1)));
    let done = f.run("purge lake/t --orphans --json").json();
    assert_eq!((done["outcome"].as_str(), done["deleted"].as_u64()), (Some("purged"), Some(4)));
    let left: Vec<String> = names(&f, "lake/t").into_iter().filter(|n| !n.contains("biscuit-")).collect();
    assert_eq!(left, ["_SUCCESS", "_temporary/0/young", "day=d1_$folder$"]);
    assert_eq!(names(&f, "lake/.biscuit/t/staging"), ["2-00000000000000cc/x.parquet.staged"]);
    let done = f.run("purge lake/t --orphans --also success,folders --json").json();
    assert_eq!(done["deleted"], 2);
    assert_eq!((f.rows("lake/t").len(), f.run("verify lake/t").code), (8, 0));
}

#[test]
fn doctor_reports_capabilities_of_a_disk_and_leaves_no_object() {
    let f = merged("");
    let before = f.files("lake");
    let seen = f.run("doctor lake/t --json");
    assert_eq!(seen.code, 0, "{}", seen.err);
    let seen = seen.json();
    assert_eq!(seen["outcome"], "this store is safe for many writers");
    let checks = seen["checks"].as_array().expect("the report has checks");
    let ok = |what: &str| checks.iter().find(|c| c["check"] == what).expect("the report has the check")["ok"].as_bool();
    assert_eq!(
        (ok("put if absent"), ok("conditional put"), ok("conditional delete")),
        (Some(true), Some(false), Some(false))
    );
    assert!(checks.iter().all(|c| !c["needed_for"].as_str().expect("the value is a text").is_empty()));
    assert_eq!(f.files("lake"), before);
    let text = f.run("doctor lake/t").out;
    assert!(text.contains("put if absent             yes   the commit"), "{text}");
    let e = f.run("doctor lake/t --policy merge");
    assert!(e.code == 2 && e.err.contains("IAM policies need a table on S3"), "{}", e.err);
}

#[test]
fn iam_policies_are_printed_without_a_request_to_the_store() {
    let f = Folder::new();
    let words = "doctor s3://b/lake/t --policy purge --endpoint-url http://127.0.0.1:9 --region us-east-1 --state s3://b/states/t";
    let ran = f.run(words);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let policy: serde_json::Value = serde_json::from_str(&ran.out).expect("the policy is valid");
    let text = policy.to_string();
    assert!(text.contains("arn:aws:s3:::b/lake/t/*") && text.contains("arn:aws:s3:::b/states/t/*"), "{text}");
    assert!(text.contains("s3:DeleteObject") && !text.contains("s3:DeleteObjectVersion"), "{text}");
    let e = f.run(&words.replace("policy purge", "policy nothing"));
    assert!(
        e.code == 2 && e.err.contains("unknown command `nothing`; use one of adopt, bookmark, compact"),
        "{}",
        e.err
    );
}

#[test]
fn lifecycle_needs_a_bucket() {
    let f = merged("");
    let e = f.run("lifecycle plan lake/t");
    assert!(e.code == 2 && e.err.contains("NotOnS3"), "{}", e.err);
    assert_eq!(f.run("lifecycle apply lake/t --staging-days 3").code, 2, "fewer days than the minimum");
}

#[test]
fn stored_plan_does_not_delete_files_that_became_part_of_a_table() {
    let f = Folder::new();
    f.write("c.jsonl", r#"{"id":1,"seq":1,"v":"a","op":"c"}"#);
    assert_eq!(f.run("merge --target other/t --format rows --key id --order seq --op op --changes c.jsonl").code, 0);
    let file = f.files("other/t").remove(0).0;
    std::fs::create_dir_all(f.path().join("lake/t")).expect("the folder can be created");
    std::fs::copy(file, f.path().join("lake/t/part-0.parquet")).expect("the file can be copied");
    age(&f, "lake/t/part-0.parquet");
    assert_eq!(f.run("purge lake --older-than 30d --allow empty --dry-run --manifest plan.jsonl").code, 0);
    // A merge adopts the file.
    f.write("d.jsonl", r#"{"id":2,"seq":1,"v":"b","op":"c"}"#);
    assert_eq!(f.run(&format!("{MERGE} d.jsonl --retention 1h")).code, 0);
    let rows = f.rows("lake/t");
    let e = f.run("purge lake --plan plan.jsonl");
    assert!(e.code == 2 && e.err.contains("LiveFiles"), "{}", e.err);
    assert_eq!((rows.len(), f.rows("lake/t")), (2, rows));
}

#[test]
fn unwritable_manifest_is_reported_before_anything_is_deleted() {
    let f = Folder::new();
    for name in ["old", "new"] {
        f.write(&format!("junk/{name}"), "x");
    }
    age(&f, "junk/old");
    f.write("file", "no folder");
    let e = f.run("purge junk --older-than 1d --manifest file/manifest.jsonl");
    assert!(e.code != 0 && e.err.contains("manifest"), "{}", e.err);
    let e = f.run("purge junk --older-than 1d --manifest junk/manifest.jsonl");
    assert!(e.code == 2 && e.err.contains("inside the purged folder"), "{}", e.err);
    assert_eq!(names(&f, "junk"), ["new", "old"]);
}

#[test]
fn nothing_is_purged_by_age_while_a_version_is_unfinished() {
    let f = merged("");
    std::fs::remove_file(f.path().join("lake/.biscuit/t/journal/00000000000000000002.done"))
        .expect("the mark is removed");
    f.write("lake/t/_temporary/x", "x");
    for words in ["purge lake/t --older-than 0s --allow overlap", "purge lake --older-than 0s --allow overlap"] {
        let e = f.run(words);
        assert!(e.code == 4 && e.err.contains("Unfinished"), "{words}: {}", e.err);
    }
    assert_eq!(f.rows("lake/t").len(), 8);
}

#[cfg(unix)]
#[test]
fn targets_of_links_are_not_purged() {
    let f = merged("");
    f.write("scratch/old", "x");
    f.write("scratch/new", "x");
    age(&f, "scratch/old");
    std::os::unix::fs::symlink(f.path().join("lake/t"), f.path().join("scratch/current"))
        .expect("the link can be created");
    std::thread::sleep(Duration::from_millis(50));
    let done = f.run("purge scratch --older-than 0s --allow empty --json").json();
    assert_eq!(done["deleted"], 2, "{done}");
    assert_eq!(f.rows("lake/t").len(), 8);
    // A link to a table is that table.
    let e = f.run("purge scratch/current --older-than 0s");
    assert!(e.code == 2 && e.err.contains("LiveFiles"), "{}", e.err);
    let e = f.run("purge nowhere/t --older-than 1d");
    assert!(e.code == 2 && e.err.contains("NothingThere") && !f.path().join("nowhere").exists(), "{}", e.err);
}

#[test]
fn table_with_the_name_of_a_temporary_folder_is_not_a_leftover() {
    let f = Folder::new();
    f.write("c.jsonl", r#"{"id":1,"seq":1,"op":"c"}"#);
    assert_eq!(
        f.run("merge --target lake/_temporary --format rows --key id --order seq --op op --changes c.jsonl").code,
        0
    );
    f.write("lake/_temporary/_temporary/0/part-0", "left by a job");
    f.write("lake/other/_temporary/0/part-0", "left by a job");
    let (rows, left) =
        (f.rows("lake/_temporary"), ["lake/_temporary/_temporary/0/part-0", "lake/other/_temporary/0/part-0"]);
    left.iter().for_each(|name| age(&f, name));
    std::thread::sleep(Duration::from_millis(50));
    let ran = f.run("purge lake --orphans --grace 0s --json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(f.rows("lake/_temporary"), rows);
    assert_eq!(f.run("verify lake/_temporary").code, 0);
    for name in left {
        assert!(!f.path().join(name).exists(), "{name}");
    }
}

#[test]
fn pointer_to_a_moved_state_root_is_never_purged() {
    let f = Folder::new();
    f.write("c.jsonl", r#"{"id":1,"seq":1,"op":"c"}"#);
    let merge = "merge --target lake/t --format rows --key id --order seq --op op --changes c.jsonl";
    assert_eq!(f.run(&format!("{merge} --state states/t")).code, 0);
    let pointer = f.path().join("lake/.biscuit/t/root.json");
    assert!(pointer.exists());
    std::thread::sleep(Duration::from_millis(1_100));
    f.write("lake/raw/a.json", "{}");
    age(&f, "lake/raw/a.json");
    for folder in ["lake", "lake/.biscuit", "lake/.biscuit/t", "lake/t", "states", "states/t"] {
        for words in
            ["--before 2999-01-01 --allow empty", "--before 2999-01-01 --allow empty,overlap", "--orphans --grace 0s"]
        {
            f.run(&format!("purge {folder} {words}"));
            assert!(pointer.exists(), "{folder} {words}");
            assert_eq!(f.rows("lake/t").len(), 1, "{folder} {words}");
        }
    }
    // A plan that was made before the state root moved there.
    f.write(
        "plan.jsonl",
        format!(
            "{{\"key\":\"{}\",\"size\":1,\"action\":\"delete\"}}\n",
            pointer.to_string_lossy().trim_start_matches('/')
        ),
    );
    let ran = f.run("purge lake --plan plan.jsonl");
    assert!(ran.code == 2 && ran.err.contains("LiveFiles"), "{}", ran.err);
    assert!(pointer.exists());
}
