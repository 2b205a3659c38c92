use std::sync::Arc;

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{CopyOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode};

async fn read_content(store: &dyn ObjectStore, path: &Path) -> Option<String> {
    let bytes = match store.get(path).await {
        Ok(found) => found.bytes().await.expect("the bytes are read"),
        Err(Error::NotFound { .. }) => return None,
        Err(e) => panic!("a get returns the object or `NotFound`: {e}"),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

async fn list_names(store: &dyn ObjectStore, prefix: &Path) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(prefix)).try_collect().await.expect("the listing succeeds");
    let mut names: Vec<String> = listed.into_iter().map(|m| m.location.to_string()).collect();
    names.sort();
    names
}

/// Checks that a store has the properties that the journal needs: put-if-absent has one winner; reads and listings
/// see a write at once; a prefix ends at a slash; conditions on ETags hold; a copy is complete; a delete may be
/// repeated. The check uses objects below `root` and deletes them at the end.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_testkit::conformance::check_store;
/// use object_store::{ObjectStore, memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// check_store(&store, &Path::from("conformance")).await;
/// # }
/// ```
///
/// # Panics
/// If a requirement is violated.
pub async fn check_store(store: &Arc<dyn ObjectStore>, root: &Path) {
    let at = |name: &str| Path::from(format!("{root}/{name}"));
    let (one, two) = (at("t/one"), at("t/two"));
    store.put(&one, "1".into()).await.expect("the put succeeds");
    assert_eq!(read_content(store, &one).await.as_deref(), Some("1"), "a read sees the last write");
    store.put(&at("t_backup/one"), "other".into()).await.expect("the put succeeds");
    assert_eq!(
        list_names(store, &at("t")).await,
        [one.to_string()],
        "a listing sees the last write, and its prefix ends at a slash"
    );
    store.put(&one, "11".into()).await.expect("the put succeeds");
    let meta = store.head(&one).await.expect("the head succeeds");
    assert_eq!((meta.size, read_content(store, &one).await.as_deref()), (2, Some("11")), "a put replaces the object");
    assert!(meta.e_tag.is_some(), "objects have ETags");

    for round in 0..5 {
        let path = at(&format!("race/{round}"));
        let puts = (0..16).map(|i| store.put_opts(&path, format!("{i}").into(), PutMode::Create.into()));
        let answers = join_all(puts).await;
        let won: Vec<usize> = (0..16).filter(|&i| answers[i].is_ok()).collect();
        assert_eq!(won.len(), 1, "put-if-absent has one winner of 16, in round {round}");
        for e in answers.iter().filter_map(|a| a.as_ref().err()) {
            assert!(
                matches!(e, Error::AlreadyExists { .. } | Error::Precondition { .. }),
                "a loser gets `AlreadyExists` or `Precondition`: {e}"
            );
        }
        let holds = read_content(store, &path).await;
        assert_eq!(holds, Some(won[0].to_string()), "the object has the content of the winner, in round {round}");
    }

    let stale = GetOptions { if_match: Some("\"no such etag\"".to_owned()), ..GetOptions::default() };
    let refused = store.get_opts(&one, stale).await;
    assert!(matches!(refused, Err(Error::Precondition { .. })), "a read with If-Match fails for another ETag");

    store.copy_opts(&one, &two, CopyOptions::new()).await.expect("the copy succeeds");
    assert_eq!(read_content(store, &two).await.as_deref(), Some("11"), "a copy is complete");
    assert_eq!(
        store.head(&one).await.expect("the head succeeds").e_tag,
        meta.e_tag,
        "a copy does not change its source"
    );

    store.delete(&one).await.expect("the delete succeeds");
    assert_eq!(read_content(store, &one).await, None, "a deleted object does not exist");
    assert_eq!(list_names(store, &at("t")).await, [two.to_string()], "a listing does not contain a deleted object");
    match store.delete(&one).await {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(e) => panic!("a delete may be repeated: {e}"),
    }
    let mut gone = store.delete_stream(store.list(Some(root)).map_ok(|m| m.location).boxed());
    while let Some(answer) = gone.next().await {
        answer.expect("the delete succeeds");
    }
    assert!(list_names(store, root).await.is_empty(), "all objects are deleted");
}
