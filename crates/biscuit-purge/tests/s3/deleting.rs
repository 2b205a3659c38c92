//! Deletes with the S3 API: conditions, batches, retries and outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use biscuit_purge::{
    DeleteCondition, DeleteCounts, DeleteItem, DeleteOptions, DeleteOutcome, ListedObject, ListedVersions,
    ObjectListing, PurgePlan, PurgeStore, S3Store, VersionKind, carry_out, manifest_line,
};

use crate::bucket::{Bucket, etag};

fn keys(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("t/{i:05}")).collect()
}

async fn plan(store: &S3Store, prefix: &str) -> PurgePlan {
    let listing: ObjectListing = store.list(prefix, ListedVersions::Current).await.expect("the listing succeeds");
    PurgePlan::exact(prefix, &listing).expect("the plan is valid")
}

/// Carries out a plan and returns the counts and the lines of the manifest.
async fn go(store: &S3Store, plan: &PurgePlan) -> (DeleteCounts, Vec<String>) {
    let mut lines = Vec::new();
    let mut pace = DeleteOptions::default();
    pace.pause = Duration::from_millis(1);
    let mut each = |item: DeleteItem<'_>, answer: DeleteOutcome| lines.push(manifest_line(item, &answer));
    let done = carry_out(store, plan, &pace, &mut each).await;
    (done, lines)
}

#[tokio::test]
async fn probe_finds_out_whether_deletes_are_conditional() {
    for (batches, single, want) in [
        (true, true, DeleteCondition::InBatches),
        (false, true, DeleteCondition::OneByOne),
        (false, false, DeleteCondition::LookedAt),
    ] {
        let bucket = Bucket::default();
        bucket.world(|w| (w.conditional_batches, w.conditional_single) = (batches, single));
        let store = bucket.store();
        assert_eq!(store.condition(), DeleteCondition::LookedAt, "a store counts as unconditional before it is probed");
        let look = store.probe("lake/.biscuit/t/probe").await.expect("the probe succeeds");
        assert_eq!((look.condition, store.condition()), (want, want));
        assert_eq!(look.now.to_string(), "2024-02-29T12:00:00Z");
        assert_eq!(bucket.world(|w| w.objects.len()), 0, "the marker was deleted");
    }
}

#[tokio::test]
async fn store_that_refuses_all_batches_does_not_count_as_conditional() {
    let bucket = Bucket::default();
    bucket.world(|w| (w.no_batches, w.conditional_single) = (true, true));
    let store = bucket.store();
    assert_eq!(store.probe("probe").await.expect("the probe succeeds").condition, DeleteCondition::OneByOne);
    bucket.world(|w| w.objects.insert("t/a".to_owned(), etag(1)));
    let plan = plan(&store, "t").await;
    assert_eq!(go(&store, &plan).await.0.deleted, 1);
}

// X05: 412.
#[tokio::test]
async fn object_that_was_overwritten_after_the_listing_is_kept_and_reported() {
    for (batches, single) in [(true, true), (false, true), (false, false)] {
        let bucket = Bucket::with(keys(3));
        bucket.world(|w| (w.conditional_batches, w.conditional_single) = (batches, single));
        let store = bucket.store();
        store.probe("probe").await.expect("the probe succeeds");
        let plan = plan(&store, "t").await;
        bucket.world(|w| w.objects.insert("t/00001".to_owned(), etag(2)));
        let (done, lines) = go(&store, &plan).await;
        assert_eq!((done.deleted, &done.kept), (2, &BTreeMap::from([("changed", 1)])), "{batches} {single}");
        assert!(!done.is_complete());
        assert_eq!(bucket.world(|w| w.objects.keys().cloned().collect::<Vec<_>>()), ["t/00001"]);
        assert_eq!(
            lines[1],
            r#"{"etag":"\"00000000000000000000000000000001\"","key":"t/00001","modified":"2024-02-29T12:00:00Z","outcome":"kept","reason":"changed","size":3,"storage_class":"STANDARD"}"#
        );
    }
}

#[tokio::test]
async fn every_object_of_a_batch_has_its_condition() {
    let bucket = Bucket::with(keys(2));
    bucket.world(|w| w.conditional_batches = true);
    let store = bucket.store();
    store.probe("probe").await.expect("the probe succeeds");
    bucket.world(|w| w.batches.clear());
    let plan = plan(&store, "t").await;
    go(&store, &plan).await;
    let body = bucket.world(|w| w.batches.join(""));
    assert_eq!(body.matches("<ETag>").count(), 2, "{body}");
    assert!(!body.contains("<Quiet>true"), "the answer must contain successes too: {body}");
}

// X08.
#[tokio::test]
async fn access_denied_on_three_keys_is_reported_and_the_others_are_deleted() {
    let bucket = Bucket::with(keys(2_500));
    bucket.world(|w| {
        w.conditional_batches = true;
        for key in ["t/00000", "t/01000", "t/02499"] {
            w.errors.insert(key.to_owned(), vec!["AccessDenied"; 9]);
        }
    });
    let store = bucket.store();
    store.probe("probe").await.expect("the probe succeeds");
    bucket.world(|w| w.batches.clear());
    let plan = plan(&store, "t").await;
    let (done, lines) = go(&store, &plan).await;
    assert_eq!(bucket.world(|w| w.batches.len()), 3, "denied deletes are not repeated");
    assert_eq!(
        (done.deleted, done.batches, &done.failed),
        (2_497, 3, &BTreeMap::from([("AccessDenied".to_owned(), 3)]))
    );
    assert!(!done.is_complete());
    let of = |outcome: &str| lines.iter().filter(|l| l.contains(&format!("\"outcome\":\"{outcome}\""))).count();
    assert_eq!((of("deleted"), of("failed")), (2_497, 3));
    assert!(lines[0].contains("\"code\":\"AccessDenied\""), "{}", lines[0]);
    assert_eq!(bucket.world(|w| w.objects.len()), 3);
}

// X15: S3 answers with AccessDenied for a locked object; other stores have a code of their own.
#[tokio::test]
async fn locked_object_is_reported_and_not_retried() {
    let bucket = Bucket::with(keys(2));
    bucket.world(|w| {
        w.errors.insert("t/00000".to_owned(), vec!["ObjectLocked"; 99]);
    });
    let store = bucket.store();
    let plan = plan(&store, "t").await;
    let (done, _) = go(&store, &plan).await;
    assert_eq!((done.deleted, done.batches, &done.failed), (1, 1, &BTreeMap::from([("ObjectLocked".to_owned(), 1)])));
}

#[tokio::test]
async fn deletes_that_a_busy_store_refuses_are_repeated_without_the_others() {
    let bucket = Bucket::with(keys(3));
    bucket.world(|w| {
        w.errors.insert("t/00001".to_owned(), vec!["SlowDown", "InternalError"]);
        w.errors.insert("t/00002".to_owned(), vec!["SlowDown"; 99]);
    });
    let store = bucket.store();
    let plan = plan(&store, "t").await;
    let (done, _) = go(&store, &plan).await;
    assert_eq!((done.deleted, &done.failed), (2, &BTreeMap::from([("SlowDown".to_owned(), 1)])));
    let asked = bucket.world(|w| w.batches.iter().map(|b| b.matches("<Key>").count()).collect::<Vec<_>>());
    assert_eq!(asked, [3, 2, 2, 1, 1, 1], "each attempt repeats only the failed deletes");
}

#[tokio::test]
async fn key_that_is_missing_in_the_answer_counts_as_failed() {
    let bucket = Bucket::with(keys(2));
    bucket.world(|w| w.silent.push("t/00001".to_owned()));
    let store = bucket.store();
    let plan = plan(&store, "t").await;
    let (done, _) = go(&store, &plan).await;
    assert_eq!((done.deleted, &done.failed), (1, &BTreeMap::from([("NoAnswer".to_owned(), 1)])));
}

// X17, X18.
#[tokio::test]
async fn unusual_keys_are_deleted_and_missing_objects_are_not_failures() {
    let odd = ["t/a b+c", "t/x%2Fy", "t/ü/€", "t/a&b<c>\"d\"", "t//double", "t/./dot"];
    for conditional in [true, false] {
        let bucket = Bucket::with(odd.iter().map(|k| (*k).to_owned()).chain(["t_backup/a".to_owned()]));
        bucket.world(|w| w.conditional_batches = conditional);
        let store = bucket.store();
        store.probe("probe").await.expect("the probe succeeds");
        let listing = store.list("t", ListedVersions::Current).await.expect("the listing succeeds");
        assert_eq!(listing.len(), odd.len());
        let files = listing.iter().chain([ListedObject::new("t/missing", 1, None)]);
        let (done, _) = go(&store, &PurgePlan::exact("t", files).expect("the plan is valid")).await;
        assert!(done.is_complete(), "{done:?}");
        assert_eq!(done.deleted + done.absent, odd.len() as u64 + 1);
        assert_eq!(bucket.world(|w| w.objects.keys().cloned().collect::<Vec<_>>()), ["t_backup/a"]);
    }
}

#[tokio::test]
async fn objects_are_checked_with_few_listings_in_a_store_without_conditions() {
    let bucket = Bucket::with(keys(2_000));
    let store = bucket.store();
    let plan = plan(&store, "t").await;
    bucket.world(|w| w.lists.clear());
    let (done, _) = go(&store, &plan).await;
    assert_eq!(done.deleted, 2_000);
    let lists = bucket.world(|w| w.lists.len());
    assert!(lists <= 4, "{lists} listings for two batches");
}

#[tokio::test]
async fn deleting_100000_objects_takes_100_requests_several_at_a_time() {
    let bucket = Bucket::with((0..100).flat_map(|day| (0..1_000).map(move |i| format!("t/day={day:02}/{i:05}"))));
    bucket.world(|w| w.conditional_batches = true);
    let store = bucket.store();
    store.probe("probe").await.expect("the probe succeeds");
    let plan = plan(&store, "t").await;
    bucket.world(|w| (w.batches.clear(), w.in_flight = (0, 0)));
    let (done, _) = go(&store, &plan).await;
    assert_eq!((done.deleted, done.batches), (100_000, 100));
    let (requests, maximum) = bucket.world(|w| (w.batches.len(), w.in_flight.1));
    assert!(requests <= 101 && maximum >= 4, "{requests} requests, at most {maximum} in flight");
}

#[tokio::test]
async fn delete_marker_is_deleted_after_all_versions_that_it_hides_or_kept() {
    let bucket = Bucket::default();
    bucket.world(|w| w.errors.insert("t/held".to_owned(), vec!["AccessDenied"; 9]));
    let version = |key: &str, form, id: &str| {
        let mut v = ListedObject::new(key, 1, None);
        (v.form, v.version) = (form, Some(id.to_owned()));
        v
    };
    let files = ["t/free", "t/held"]
        .map(|key| [version(key, VersionKind::DeleteMarker, "2"), version(key, VersionKind::Noncurrent, "1")]);
    let (done, lines) = go(&bucket.store(), &PurgePlan::exact("t", files.concat()).expect("the plan is valid")).await;
    assert_eq!((done.deleted, done.failed.len(), done.kept.get("hides-older")), (2, 1, Some(&1)), "{lines:?}");
    let batches = bucket.world(|w| w.batches.clone());
    assert_eq!(batches.len(), 2);
    assert!(batches[0].contains("<VersionId>1<") && !batches[0].contains("<VersionId>2<"), "{batches:?}");
    assert!(batches[1].contains("t/free") && !batches[1].contains("t/held"), "{batches:?}");
}
