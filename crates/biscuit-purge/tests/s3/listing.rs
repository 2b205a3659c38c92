//! Listings with the S3 API.

use biscuit_purge::{ListedVersions, PurgeStore};

use crate::bucket::Bucket;

#[tokio::test]
async fn tree_is_listed_by_folders_without_missing_or_repeated_objects() {
    let mut keys: Vec<String> = vec!["t_backup/x".to_owned(), "t".to_owned(), "t/top".to_owned()];
    for year in 0..3 {
        for day in 0..40 {
            for n in 0..30 {
                keys.push(format!("t/year={year}/day={day}/{n}"));
            }
        }
        keys.push(format!("t/year={year}/direct"));
    }
    let bucket = Bucket::with(keys.clone());
    let listing = bucket.store().list("t", ListedVersions::Current).await.expect("the listing succeeds");
    let mut got: Vec<String> = listing.iter().map(|o| o.listed.path).collect();
    got.sort();
    let mut want: Vec<String> = keys.into_iter().filter(|k| k.starts_with("t/")).collect();
    want.sort();
    assert_eq!(got, want);
    let whole: Vec<String> = bucket.world(|w| w.lists.iter().filter(|q| !q.contains("delimiter")).cloned().collect());
    assert_eq!(whole.len(), 120, "each day has its own listing");
}

#[tokio::test]
async fn flat_folder_is_listed_page_by_page() {
    let bucket = Bucket::with((0..2_500).map(|i| format!("t/{i:05}")));
    let listing = bucket.store().list("/t/", ListedVersions::Current).await.expect("the listing succeeds");
    assert_eq!((listing.len(), listing.bytes()), (2_500, 7_500));
    assert_eq!(bucket.world(|w| w.lists.len()), 3);
}

#[tokio::test]
async fn listing_omits_the_marker_of_its_own_folder_only() {
    let bucket = Bucket::with(["t/", "t/a", "t/b/"].map(str::to_owned));
    let listing = bucket.store().list("t", ListedVersions::Current).await.expect("the listing succeeds");
    assert_eq!(listing.iter().map(|o| o.listed.path).collect::<Vec<_>>(), ["t/a", "t/b/"]);
}
