//! Change files that the caller has chosen.

use std::sync::Arc;

use biscuit_apply::{ChangeFiles, ChangeFormat, FoundFile};
use biscuit_change::RowsOptions;
use biscuit_core::ErrorKind;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

#[tokio::test]
async fn files_that_changed_after_they_were_found_are_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("raw/a.jsonl");
    store.put(&path, "{\"id\":1,\"op\":\"c\"}\n".into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let found =
        FoundFile { name: "mem://raw/a.jsonl".into(), store: store.clone(), path, size: meta.size, etag: meta.e_tag };
    let files = || ChangeFiles::found(vec![found.clone()], ChangeFormat::Rows(RowsOptions::default().with_op("op")));
    assert_eq!(files().changes().await.unwrap().len(), 1);
    assert_eq!(
        ChangeFiles::found(vec![], ChangeFormat::Rows(RowsOptions::default())).changes().await.unwrap().len(),
        0
    );

    store.put(&found.path, "{\"id\":2,\"op\":\"c\"}\n".into()).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputChanged", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
    store.delete(&found.path).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputGone", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
}
