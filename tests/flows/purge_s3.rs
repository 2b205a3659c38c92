//! Purges on a server with the S3 API (`BISCUIT_TEST_S3`, see `s3.rs`): behaviour that depends on the protocol and on
//! the clock of the store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, ObjectLockLegalHold, ObjectLockLegalHoldStatus,
    VersioningConfiguration,
};
use biscuit_aws::{AwsEnvironment, AwsOptions};
use biscuit_purge::lifecycle::{LifecycleDays, lifecycle_rules, plan_lifecycle};
use biscuit_purge::{
    DeleteCondition, DeleteCounts, DeleteItem, DeleteOptions, DeleteOutcome, KeepReason, ListedVersions, ObjectListing,
    ProtectedTable, PurgePlan, PurgeRules, PurgeStore, S3Store, VersionKind, carry_out, manifest_line,
};
use futures::{StreamExt, stream};

use crate::s3::endpoint;

const BUCKET: &str = "biscuit-test";

/// A bucket of the server, and a prefix for one test.
struct Server {
    client: Client,
    store: S3Store,
    prefix: String,
}

async fn client() -> Client {
    let aws = AwsEnvironment::new(AwsOptions::default().with_endpoint_url(endpoint()));
    let settings = aws.bucket(BUCKET).await.expect("the settings are valid");
    let config = aws_sdk_s3::config::Builder::from(&settings.config)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    Client::from_conf(config.build())
}

impl Server {
    async fn new(test: &str) -> Self {
        Self::of(test, BUCKET).await
    }

    async fn of(test: &str, bucket: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let client = client().await;
        let prefix = format!("{test}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let store = S3Store::new(client.clone(), bucket);
        store.probe(&format!("{prefix}-probe")).await.expect("the probe succeeds");
        Self { client, store, prefix }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn put(&self, name: &str, text: &str) {
        let put = self.client.put_object().bucket(self.store.bucket()).key(self.key(name));
        put.body(text.to_owned().into_bytes().into()).send().await.expect("the put succeeds");
    }

    async fn list(&self) -> ObjectListing {
        self.store.list(&self.prefix, ListedVersions::Current).await.expect("the listing succeeds")
    }

    /// Returns the existing keys, without the prefix.
    async fn left(&self) -> Vec<String> {
        let strip = |key: String| key[self.prefix.len() + 1..].to_owned();
        let mut left: Vec<String> = self.list().await.iter().map(|o| strip(o.listed.path)).collect();
        left.sort();
        left
    }

    async fn go(&self, plan: &PurgePlan) -> (DeleteCounts, Vec<String>) {
        let mut lines = Vec::new();
        let mut each = |item: DeleteItem<'_>, answer: DeleteOutcome| lines.push(manifest_line(item, &answer));
        let done = carry_out(&self.store, plan, &DeleteOptions::default(), &mut each).await;
        (done, lines)
    }
}

fn existed_before(server: &Server, before: ObjectListing, outputs: &[&str]) -> PurgePlan {
    let outputs: Vec<String> = outputs.iter().map(|name| server.key(name)).collect();
    PurgeRules::existed_before(&server.prefix).with_outputs(outputs).plan(before).expect("the plan is made")
}

// The clock of the store, and no clock at all.
#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn old_and_new_files_of_one_second_are_told_apart_by_the_listing() {
    let s = Server::new("second").await;
    let mut before = ObjectListing::default();
    for _ in 0..20 {
        s.put("old", "x").await;
        before = s.list().await;
        s.put("new", "x").await;
        let times: Vec<_> = s.list().await.iter().map(|o| o.modified).collect();
        if times[0] == times[1] {
            break;
        }
    }
    let now = s.store.probe(&format!("{}-probe", s.prefix)).await.expect("the probe succeeds").now;
    let newest = s.list().await.iter().filter_map(|o| o.modified).max().expect("there are times");
    assert!(newest <= now, "the marker is read on the clock that stamps objects");
    // By time, nothing of this second is deleted, neither the old file nor the new one.
    let plan = PurgeRules::older_than(&s.prefix, newest, newest).plan(s.list().await).expect("the plan is made");
    assert!(plan.is_empty());
    let (done, _) = s.go(&existed_before(&s, before, &["new"])).await;
    assert_eq!((done.deleted, s.left().await), (1, vec!["new".to_owned()]));
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn objects_and_uploads_that_appear_after_the_listing_are_kept() {
    let s = Server::new("upload").await;
    s.put("old", "x").await;
    let key = s.key("late-upload");
    let begun = s.client.create_multipart_upload().bucket(BUCKET).key(&key).send().await.expect("the upload succeeds");
    let id = begun.upload_id().expect("the upload has an id");
    let part = s.client.upload_part().bucket(BUCKET).key(&key).upload_id(id).part_number(1);
    let part = part.body(b"another program".to_vec().into()).send().await.expect("the part is uploaded");
    let uploads =
        s.store.list_uploads(&s.prefix).await.expect("the listing succeeds").expect("S3 lists unfinished uploads");
    assert_eq!((uploads.len(), uploads[0].key.as_str(), uploads[0].begun.is_some()), (1, key.as_str(), true));
    let before = s.list().await;
    s.put("foreign", "x").await;
    s.put("own", "x").await;
    let part = CompletedPart::builder().part_number(1).set_e_tag(part.e_tag().map(str::to_owned)).build();
    let complete = s.client.complete_multipart_upload().bucket(BUCKET).key(&key).upload_id(id);
    complete
        .multipart_upload(CompletedMultipartUpload::builder().parts(part).build())
        .send()
        .await
        .expect("the upload ends");
    let (done, _) = s.go(&existed_before(&s, before, &["own"])).await;
    assert_eq!(done.deleted, 1);
    assert_eq!(s.left().await, ["foreign", "late-upload", "own"]);
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn unfinished_uploads_are_aborted_and_missing_ones_are_absent() {
    let s = Server::new("abort").await;
    s.client.create_multipart_upload().bucket(BUCKET).key(s.key("big")).send().await.expect("the upload succeeds");
    let uploads =
        s.store.list_uploads(&s.prefix).await.expect("the listing succeeds").expect("S3 lists unfinished uploads");
    let plan = PurgePlan::exact(&s.prefix, [])
        .expect("the plan is made")
        .with_uploads(uploads)
        .expect("the uploads are below the prefix");
    assert_eq!(s.go(&plan).await.0.aborted, 1);
    assert!(
        s.store
            .list_uploads(&s.prefix)
            .await
            .expect("the listing succeeds")
            .expect("S3 lists unfinished uploads")
            .is_empty()
    );
    let (again, _) = s.go(&plan).await;
    assert!(again.is_complete() && again.aborted + again.absent == 1, "{again:?}");
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn object_that_was_overwritten_after_the_listing_is_kept_and_named() {
    let s = Server::new("changed").await;
    for name in ["a", "b", "c"] {
        s.put(name, "x").await;
    }
    let plan = existed_before(&s, s.list().await, &["out"]);
    s.put("b", "somebody else's").await;
    let (done, lines) = s.go(&plan).await;
    assert_eq!((done.deleted, done.kept.get("changed")), (2, Some(&1)));
    assert!(!done.is_complete() && lines.iter().any(|l| l.contains("\"reason\":\"changed\"")), "{lines:?}");
    assert_eq!(s.left().await, ["b"]);
    let caveat = s.store.condition().caveat();
    assert_eq!(s.store.condition() == DeleteCondition::LookedAt, caveat.is_some(), "what cannot be guaranteed is said");
}

// Denied deletes are in the tests of biscuit-purge.
#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn many_keys_are_deleted_with_few_requests() {
    let s = Server::new("many").await;
    let names: Vec<String> = (0..1_100).map(|n| format!("day={}/{n:05}", n % 7)).collect();
    stream::iter(&names).for_each_concurrent(16, |name| s.put(name, "x")).await;
    let plan = existed_before(&s, s.list().await, &["out"]);
    let (done, lines) = s.go(&plan).await;
    assert_eq!((done.deleted, done.batches, lines.len()), (1_100, 2, 1_100));
    assert!(s.left().await.is_empty());
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn unusual_keys_are_deleted_literally_and_a_sibling_is_untouched() {
    let s = Server::new("odd").await;
    let odd = ["a b+c", "x%2Fy", "ü/€", "a&b<c>\"d'", "100%", "a=b/c=d%20e"];
    for name in odd {
        s.put(name, "x").await;
    }
    let sibling = format!("{}_backup/a", s.prefix);
    s.client
        .put_object()
        .bucket(BUCKET)
        .key(&sibling)
        .body(b"x".to_vec().into())
        .send()
        .await
        .expect("the put succeeds");
    let listing = s.list().await;
    assert_eq!(listing.len(), odd.len());
    let missing = biscuit_purge::ListedObject::new(s.key("missing"), 1, None);
    let plan = PurgePlan::exact(&s.prefix, listing.iter().chain([missing])).expect("the plan is made");
    let (done, _) = s.go(&plan).await;
    assert!(done.is_complete(), "{done:?}");
    assert_eq!(done.deleted + done.absent, odd.len() as u64 + 1);
    assert!(s.left().await.is_empty());
    s.client.head_object().bucket(BUCKET).key(&sibling).send().await.expect("it is untouched");
}

/// Creates a bucket with versioning.
async fn versioned(test: &str) -> Server {
    let bucket = "biscuit-test-versions";
    let client = client().await;
    let made = client.create_bucket().bucket(bucket).send().await;
    if let Err(e) = made
        && !matches!(e.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists"))
    {
        panic!("{e:?}");
    }
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    client
        .put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(enabled)
        .send()
        .await
        .expect("the versions are listed");
    Server::of(test, bucket).await
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn versions_are_deleted_only_on_request_and_only_if_they_were_listed() {
    let s = versioned("versions").await;
    for text in ["1", "2"] {
        s.put("a", text).await;
    }
    s.put("b", "1").await;
    // Without `versions`, a delete adds a delete marker.
    let plan = PurgePlan::exact(&s.prefix, &s.list().await).expect("the plan is made");
    assert_eq!(s.go(&plan).await.0.deleted, 2);
    assert!(s.left().await.is_empty());
    let all = s.store.list(&s.prefix, ListedVersions::All).await.expect("the versions are listed");
    let of = |form: VersionKind| all.iter().filter(|o| o.form == form).count();
    assert_eq!(
        (of(VersionKind::DeleteMarker), of(VersionKind::Noncurrent), of(VersionKind::Current)),
        (2, 3, 0),
        "all versions exist"
    );
    // Exactly the listed versions are deleted. A version that was written since remains.
    s.put("a", "3").await;
    let plan = PurgePlan::exact(&s.prefix, &all).expect("the plan is made");
    let (done, _) = s.go(&plan).await;
    assert_eq!((done.deleted, done.is_complete()), (5, true), "{done:?}");
    let left = s.store.list(&s.prefix, ListedVersions::All).await.expect("the versions are listed");
    assert_eq!(left.iter().map(|o| (o.listed.path, o.form)).collect::<Vec<_>>(), [(s.key("a"), VersionKind::Current)]);
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn object_under_legal_hold_is_reported_and_kept() {
    let client = client().await;
    let bucket = "biscuit-test-locked";
    let made = client.create_bucket().bucket(bucket).object_lock_enabled_for_bucket(true).send().await;
    if let Err(e) = &made {
        assert!(matches!(e.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")), "{e:?}");
    }
    let s = Server::of("hold", bucket).await;
    for name in ["held", "free"] {
        s.put(name, "x").await;
    }
    let hold = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On).build();
    let held = s.client.put_object_legal_hold().bucket(bucket).key(s.key("held")).legal_hold(hold);
    held.send().await.expect("the object is held");
    let all = s.store.list(&s.prefix, ListedVersions::All).await.expect("the versions are listed");
    let (done, lines) = s.go(&PurgePlan::exact(&s.prefix, &all).expect("the plan is made")).await;
    assert_eq!((done.deleted, done.failed.values().sum::<u64>()), (1, 1), "{done:?}");
    assert_eq!(done.batches, 1, "it is not tried again");
    let line = lines.iter().find(|l| l.contains("\"outcome\":\"failed\"")).expect("there is a failure");
    assert!(line.contains(&s.key("held")) && line.contains("\"code\""), "{line}");
    assert_eq!(s.left().await, ["held"]);
}

// Needs a server with storage classes.
#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn listing_has_storage_classes_and_an_excluded_class_is_kept() {
    let s = Server::new("class").await;
    s.put("a", "x").await;
    let now = s.list().await.iter().filter_map(|o| o.modified).max().expect("there is a time");
    let later = now.saturating_add(Duration::from_secs(60));
    let rules = PurgeRules::older_than(&s.prefix, later, later).excluding_storage_class("STANDARD");
    let plan = rules.plan(s.list().await).expect("the plan is made");
    assert_eq!(
        plan.objects().map(|(_, d)| d).collect::<Vec<_>>(),
        [biscuit_purge::PurgeDecision::Keep(KeepReason::StorageClass)]
    );
}

// Objects of any age need a server whose buckets are folders: `BISCUIT_TEST_S3_DISK` is the folder of its buckets.
#[tokio::test]
#[ignore = "needs an S3 server on a folder: BISCUIT_TEST_S3 and BISCUIT_TEST_S3_DISK"]
async fn objects_of_any_age_are_distinguished_by_the_times_of_the_server() {
    let disk = std::env::var_os("BISCUIT_TEST_S3_DISK").expect("BISCUIT_TEST_S3_DISK is the folder of the server");
    let s = Server::new("aged").await;
    let day = Duration::from_secs(24 * 3600);
    let now = s.store.probe(&format!("{}-probe", s.prefix)).await.expect("the probe succeeds").now;
    let ages = [("day=1/old", 400), ("day=1/at", 30), ("day=2/young", 29), ("day=2/new", 0)];
    for (name, days) in ages {
        s.put(name, name).await;
        let path = std::path::Path::new(&disk).join(BUCKET).join(s.key(name));
        let file = std::fs::File::options().write(true).open(path).expect("the object is a file");
        // A time in whole seconds counts as the last instant of that second.
        let at = now.saturating_sub(day * days + Duration::from_secs(2)).as_micros();
        let since = Duration::from_micros(u64::try_from(at).expect("the time is in this century"));
        file.set_modified(std::time::UNIX_EPOCH + since).expect("the time of the file is set");
    }
    let plan = async |keep: u32, grace: Duration| {
        let rules = PurgeRules::older_than(&s.prefix, now.saturating_sub(day * keep), now).with_grace(grace);
        rules.plan(s.list().await).expect("the plan is made")
    };
    let keys = |plan: &PurgePlan| plan.deletes().map(|o| o.key()[s.prefix.len() + 1..].to_owned()).collect::<Vec<_>>();
    let month = plan(30, Duration::ZERO).await;
    assert_eq!(keys(&month), ["day=1/at", "day=1/old"]);
    assert_eq!(month.emptied_folders().len(), 1);
    assert_eq!(keys(&plan(30, day).await), ["day=1/old"], "with a day of grace");
    assert_eq!(keys(&plan(29, Duration::ZERO).await), ["day=1/at", "day=1/old", "day=2/young"]);
    let (done, lines) = s.go(&month).await;
    assert_eq!((done.deleted, done.is_complete()), (2, true), "{lines:?}");
    assert_eq!(s.left().await, ["day=2/new", "day=2/young"]);
}

/// Creates a bucket for a test of lifecycle rules, since the rules belong to the whole bucket.
async fn ruled(bucket: &str) -> Server {
    let client = client().await;
    let made = client.create_bucket().bucket(bucket).send().await;
    if let Err(e) = &made {
        assert!(matches!(e.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")), "{e:?}");
    }
    client.delete_bucket_lifecycle().bucket(bucket).send().await.expect("the rules are deleted");
    Server::of("rules", bucket).await
}

#[tokio::test]
#[ignore = "needs an S3 server: BISCUIT_TEST_S3"]
async fn lifecycle_rules_are_merged_with_existing_rules_and_written_once() {
    let s = ruled("biscuit-test-rules").await;
    assert_eq!(s.store.lifecycle().await.expect("the rules are readable"), []);
    let (root, state) = ("lake/t", "lake/.biscuit/t");
    let table = ProtectedTable::new(root, state);
    let wanted = lifecycle_rules(root, state, LifecycleDays::default());
    let theirs = plan_lifecycle(&[], &lifecycle_rules("other/t", "other/.biscuit/t", LifecycleDays::default()), &table);
    s.store.put_lifecycle(&[], &theirs).await.expect("the rules are stored");
    let before = s.store.lifecycle().await.expect("the rules are read");
    let plan = plan_lifecycle(&before, &wanted, &table);
    assert_eq!((plan.added.len(), plan.changed.len(), plan.dangers.len()), (3, 0, 0));
    s.store.put_lifecycle(&before, &plan).await.expect("the rules are stored");
    let now = s.store.lifecycle().await.expect("the rules are read");
    assert_eq!(now.len(), 6, "objects of others remain");
    assert!(plan_lifecycle(&now, &wanted, &table).is_empty(), "a second time nothing changes: {now:?}");
    let e = s.store.put_lifecycle(&before, &plan).await.unwrap_err();
    assert_eq!(e.code(), "Conflict", "the rules are others than the plan was made for");
}

/// Needs a server on which a day of lifecycle rules takes seconds (`rgw_lc_debug_interval` of Ceph).
#[tokio::test]
#[ignore = "needs an S3 server whose lifecycle rules run every few seconds: BISCUIT_TEST_S3"]
async fn lifecycle_rules_delete_staged_files_and_never_the_journal_or_the_table() {
    let s = ruled("biscuit-test-executed").await;
    let (root, state) = (s.key("lake/t"), s.key("lake/.biscuit/t"));
    let stay =
        ["lake/t/part-0", "lake/.biscuit/t/journal/1.json", "lake/.biscuit/t/state/0-a/x", "lake/.biscuit/t/root.json"];
    for name in stay {
        s.put(name, "x").await;
    }
    s.put("lake/.biscuit/t/staging/0-a/x", "x").await;
    let mut days = LifecycleDays::default();
    (days.staging, days.noncurrent, days.uploads) = (1, 1, 1);
    let table = ProtectedTable::new(&root, &state);
    let plan = plan_lifecycle(&[], &lifecycle_rules(&root, &state, days), &table);
    s.store.put_lifecycle(&[], &plan).await.expect("the rules are stored");
    for _ in 0..120 {
        if s.left().await.len() == stay.len() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Waits a few more days of the server.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut want: Vec<String> = stay.iter().map(|s| (*s).to_owned()).collect();
    want.sort();
    assert_eq!(s.left().await, want);
}
