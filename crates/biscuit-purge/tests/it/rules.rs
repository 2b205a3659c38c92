//! Rules: from a listing to a plan.

use std::collections::HashSet;
use std::time::Duration;

use biscuit_core::Instant;
use biscuit_purge::{
    AllowedDeletes, KeepReason, ListedObject, ObjectListing, ProtectedTable, PurgeDecision, PurgePlan, PurgeRules,
    VersionKind,
};

fn at(seconds: f64) -> Instant {
    Instant::from_micros((seconds * 1e6) as i64)
}

fn file(key: &str, modified: f64) -> ListedObject {
    let mut file = ListedObject::new(key, 10, Some("\"e\"".to_owned()));
    file.modified = Some(at(modified));
    file
}

fn listing(files: &[ListedObject]) -> ObjectListing {
    files.iter().cloned().collect()
}

fn kept(plan: &PurgePlan) -> Vec<(String, KeepReason)> {
    let keep = |(o, d): (ListedObject, PurgeDecision)| {
        if let PurgeDecision::Keep(reason) = d { Some((o.listed.path, reason)) } else { None }
    };
    plan.objects().filter_map(keep).collect()
}

fn deleted(plan: &PurgePlan) -> Vec<String> {
    plan.deletes().map(|o| o.listed.path).collect()
}

/// A table with two live files, which are old.
fn table() -> ProtectedTable {
    let files = HashSet::from(["lake/t/1".to_owned(), "lake/t/2".to_owned()]);
    let mut table = ProtectedTable::new("lake/t", "lake/.biscuit/t");
    table.files = files;
    table
}

#[test]
fn only_objects_that_are_certainly_before_the_cutoff_are_deleted() {
    let mut unknown = file("t/unknown", 0.0);
    unknown.modified = None;
    let files = [
        file("t/old", 99.0),
        // A whole second counts as its last instant, which is after the cutoff.
        file("t/perhaps", 100.0),
        file("t/exact", 100.3),
        file("t/newer", 100.6),
        file("t/after", 200.0),
        unknown,
        file("t/folder/", 1.0),
    ];
    let plan = PurgeRules::older_than("t", at(100.5), at(200.0)).plan(listing(&files)).unwrap();
    assert_eq!(deleted(&plan), ["t/old", "t/exact"]);
    let because = |key: &str, reason| (key.to_owned(), reason);
    assert_eq!(
        kept(&plan),
        [
            because("t/perhaps", KeepReason::Newer),
            because("t/newer", KeepReason::Newer),
            because("t/after", KeepReason::AfterListing),
            because("t/unknown", KeepReason::NoTime),
            because("t/folder/", KeepReason::Folder),
        ]
    );
    assert_eq!((plan.summary().objects, plan.summary().bytes), (2, 20));
}

// X01: only times of the store are compared.
#[test]
fn host_clock_that_is_ahead_does_not_delete_newer_objects() {
    // The job means "older than now", and its clock is five seconds ahead of the store. The time of the marker
    // counts.
    let marker = at(1_000.0);
    let files = [file("t/old", 900.0), file("t/own", 1_001.0), file("t/same-second", 1_000.0)];
    let plan = PurgeRules::older_than("t", marker, marker).plan(listing(&files)).unwrap();
    assert_eq!(deleted(&plan), ["t/old"]);
}

// X02, X03, X04.
#[test]
fn object_that_was_not_listed_before_the_job_is_kept_whatever_its_time() {
    let start = listing(&[file("t/old", 100.0), file("t/own", 100.0)]);
    let rules = PurgeRules::existed_before("t").with_outputs(["t/own".to_owned(), "t/new".to_owned()]);
    let plan = rules.plan(start).unwrap();
    // `t/new` has the same second as `t/old`, and an upload that began before the job has an older time. Neither is
    // in the listing.
    assert_eq!(deleted(&plan), ["t/old"]);
    assert_eq!(kept(&plan), [("t/own".to_owned(), KeepReason::Own)]);
}

// X09.
#[test]
fn a_job_that_wrote_nothing_deletes_nothing() {
    let start = listing(&[file("t/old", 100.0)]);
    assert_eq!(PurgeRules::existed_before("t").plan(start.clone()).unwrap_err().code(), "NothingWritten");
    let mut allow = AllowedDeletes::default();
    allow.empty = true;
    assert_eq!(deleted(&PurgeRules::existed_before("t").allowing(allow).plan(start).unwrap()), ["t/old"]);
}

// X10.
#[test]
fn sibling_in_the_listing_is_an_error_and_is_not_deleted() {
    let e = PurgeRules::older_than("t", at(9.0), at(9.0)).plan(listing(&[file("t_backup/a", 1.0)])).unwrap_err();
    assert_eq!(e.code(), "OutsidePrefix");
}

// X11.
#[test]
fn object_of_an_excluded_storage_class_is_kept_with_its_reason() {
    let mut cold = file("t/cold", 1.0);
    cold.storage_class = Some("GLACIER".to_owned());
    let files = listing(&[cold, file("t/warm", 1.0), file("t/new", 99.0)]);
    let plan = |class: &str| {
        PurgeRules::older_than("t", at(9.0), at(99.0)).excluding_storage_class(class).plan(files.clone()).unwrap()
    };
    assert_eq!(deleted(&plan("glacier")), ["t/warm"]);
    assert_eq!(kept(&plan("glacier"))[0], ("t/cold".to_owned(), KeepReason::StorageClass));
    assert_eq!(deleted(&plan("STANDARD")), ["t/cold"], "an object without a class counts as STANDARD");
}

// X12.
#[test]
fn object_within_its_grace_is_kept_although_it_was_replaced() {
    let start = listing(&[file("t/old", 100.0), file("t/young", 4_000.0)]);
    let now = at(5_000.0);
    let rules = PurgeRules::existed_before("t").with_outputs(["t/new".to_owned()]);
    let rules = rules.keeping_newer_than(now).with_grace(Duration::from_secs(3_600));
    let plan = rules.plan(start).unwrap();
    assert_eq!(deleted(&plan), ["t/old"]);
    assert_eq!(kept(&plan), [("t/young".to_owned(), KeepReason::Newer)]);
}

// X13.
#[test]
fn same_listing_makes_the_same_plan() {
    let files = listing(&[file("t/a", 1.0), file("t/b", 2.0), file("t/c", 99.0)]);
    let plan = || PurgeRules::older_than("t", at(9.0), at(99.0)).plan(files.clone()).unwrap();
    assert_eq!(plan(), plan());
    let lines: Vec<String> = plan().json_lines().collect();
    let again = PurgePlan::from_json_lines("t", "dry-run.jsonl", &lines.join("\n")).unwrap();
    assert!(again.deletes().eq(plan().deletes()));
}

#[test]
fn empty_prefix_and_bucket_root_are_refused_unless_allowed() {
    let files = listing(&[file("a", 1.0), file("b", 99.0)]);
    for prefix in ["", "/"] {
        let rules = PurgeRules::older_than(prefix, at(9.0), at(99.0));
        assert_eq!(rules.plan(files.clone()).unwrap_err().code(), "EmptyPrefix");
        let mut allow = AllowedDeletes::default();
        allow.bucket_root = true;
        assert_eq!(deleted(&rules.allowing(allow).plan(files.clone()).unwrap()), ["a"]);
    }
}

#[test]
fn plan_by_time_never_deletes_live_files() {
    let files = listing(&[file("lake/t/1", 1.0), file("lake/t/2", 1.0), file("lake/t/_temporary/x", 1.0)]);
    let rules = PurgeRules::older_than("lake/t", at(9.0), at(99.0)).protecting(table());
    let e = rules.plan(files.clone()).unwrap_err();
    assert_eq!(e.code(), "LiveFiles");
    assert!(e.message().contains("2 of the objects") && e.message().contains("lake/t/1"), "{e}");
    // Even if the overlap is allowed, live files are kept.
    let mut allow = AllowedDeletes::default();
    (allow.overlap, allow.empty) = (true, true);
    let plan = rules.allowing(allow).plan(files).unwrap();
    assert_eq!(deleted(&plan), ["lake/t/_temporary/x"]);
    assert!(kept(&plan).iter().all(|(_, reason)| *reason == KeepReason::Live));
}

#[test]
fn folders_around_inside_and_beside_a_table_are_distinguished() {
    let files = listing(&[]);
    let plan = |prefix: &str, allow| {
        PurgeRules::older_than(prefix, at(9.0), at(99.0))
            .protecting(table())
            .allowing(allow)
            .plan(files.clone())
            .map(drop)
    };
    for overlapping in ["lake", "lake/t/day=1", "lake/.biscuit", "lake/.biscuit/t", "lake/.biscuit/t/staging"] {
        assert_eq!(plan(overlapping, AllowedDeletes::default()).unwrap_err().code(), "OverlapsTable", "{overlapping}");
        let mut allow = AllowedDeletes::default();
        allow.overlap = true;
        plan(overlapping, allow).unwrap();
    }
    for other in ["lake/t", "lake/t_backup", "lake/.biscuit/t2", "lake/tt"] {
        plan(other, AllowedDeletes::default()).unwrap();
    }
}

#[test]
fn state_of_a_table_is_kept_whatever_is_allowed() {
    let files = listing(&[
        file("lake/.biscuit/t/journal/1.json", 1.0),
        file("lake/.biscuit/t/staging/0-a/x", 1.0),
        file("lake/junk", 1.0),
    ]);
    let mut allow = AllowedDeletes::default();
    (allow.overlap, allow.empty) = (true, true);
    let plan =
        PurgeRules::older_than("lake", at(9.0), at(99.0)).protecting(table()).allowing(allow).plan(files).unwrap();
    assert_eq!(deleted(&plan), ["lake/junk"]);
    assert!(kept(&plan).iter().all(|(_, reason)| *reason == KeepReason::State));
}

#[test]
fn plan_that_leaves_nothing_is_refused_unless_allowed() {
    let files = listing(&[file("t/a", 1.0), file("t/_SUCCESS", 1.0), file("t/folder/", 1.0)]);
    let rules = PurgeRules::older_than("t", at(9.0), at(99.0));
    let e = rules.plan(files.clone()).unwrap_err();
    assert_eq!(
        (e.code(), e.message()),
        ("WouldEmpty", "all 1 objects below `t` would be deleted; nothing was deleted; allow `empty` to go on")
    );
    let mut allow = AllowedDeletes::default();
    allow.empty = true;
    assert_eq!(deleted(&rules.allowing(allow).plan(files).unwrap()), ["t/a", "t/_SUCCESS"]);
}

#[test]
fn keys_that_are_equal_after_decoding_stop_the_plan() {
    let files = listing(&[file("t/a%2Fb", 1.0), file("t/a/b", 99.0)]);
    let rules = PurgeRules::older_than("t", at(9.0), at(99.0));
    assert_eq!(rules.plan(files.clone()).unwrap_err().code(), "LooksAlike");
    let mut allow = AllowedDeletes::default();
    allow.lookalikes = true;
    assert_eq!(deleted(&rules.allowing(allow).plan(files).unwrap()), ["t/a%2Fb"]);
}

fn version(key: &str, modified: f64, form: VersionKind, id: &str) -> ListedObject {
    let mut v = file(key, modified);
    (v.form, v.version) = (form, Some(id.to_owned()));
    v
}

fn versions_of(plan: &PurgePlan) -> Vec<String> {
    plan.deletes().map(|o| format!("{} {}", o.key(), o.version.as_deref().expect("a version"))).collect()
}

#[test]
fn age_of_an_old_version_counts_from_its_replacement() {
    let files = listing(&[
        version("t/a", 50.0, VersionKind::Current, "3"),
        version("t/a", 5.0, VersionKind::Noncurrent, "2"),
        version("t/a", 1.0, VersionKind::Noncurrent, "1"),
        // The object was deleted a moment ago, so this version is the only copy.
        version("t/b", 60.0, VersionKind::DeleteMarker, "2"),
        version("t/b", 1.0, VersionKind::Noncurrent, "1"),
        version("t/c", 3.0, VersionKind::DeleteMarker, "1"),
    ]);
    let plan = PurgeRules::older_than("t", at(9.0), at(99.0)).plan(files).unwrap();
    assert_eq!(versions_of(&plan), ["t/a 1", "t/c 1"]);
}

#[test]
fn delete_marker_is_kept_over_a_version_that_is_kept() {
    let mut cold = version("t/a", 1.0, VersionKind::Noncurrent, "1");
    cold.storage_class = Some("GLACIER".to_owned());
    let files =
        [version("t/a", 3.0, VersionKind::DeleteMarker, "2"), cold, version("t/new", 60.0, VersionKind::Current, "1")];
    let plan = |class: &str| {
        PurgeRules::older_than("t", at(9.0), at(99.0)).excluding_storage_class(class).plan(listing(&files)).unwrap()
    };
    assert_eq!(versions_of(&plan("GLACIER")), Vec::<String>::new());
    assert_eq!(
        kept(&plan("GLACIER"))[0],
        ("t/a".to_owned(), KeepReason::HidesOlder),
        "without the marker the old version would be current again"
    );
    assert_eq!(versions_of(&plan("OTHER")), ["t/a 2", "t/a 1"]);
}
