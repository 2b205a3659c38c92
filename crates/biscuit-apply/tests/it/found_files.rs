//! Change files that the caller has chosen.

use std::sync::Arc;

use biscuit_apply::{ChangeFiles, ChangeFormat, FoundFile};
use biscuit_change::RowsOptions;
use biscuit_core::{ErrorKind, ObjectRef};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

#[tokio::test]
async fn files_that_changed_after_they_were_found_are_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("raw/a.jsonl");
    store.put(&path, "{\"id\":1,\"op\":\"c\"}\n".into()).await.unwrap();
    let meta = store.head(&path).await.unwrap();
    let listed = ObjectRef::new("mem://raw/a.jsonl", meta.size, meta.e_tag);
    let found = FoundFile::new(listed, store.clone(), path);
    let files = || ChangeFiles::found(vec![found.clone()], ChangeFormat::Rows(RowsOptions::default().with_op("op")));
    assert_eq!(files().changes().await.unwrap().len(), 1);
    assert_eq!(
        ChangeFiles::found(vec![], ChangeFormat::Rows(RowsOptions::default())).changes().await.unwrap().len(),
        0
    );

    store.put(&found.object, "{\"id\":2,\"op\":\"c\"}\n".into()).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputChanged", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
    store.delete(&found.object).await.unwrap();
    let e = files().changes().await.unwrap_err();
    assert_eq!((e.code(), e.kind(), e.file()), ("InputGone", ErrorKind::Conflict, Some("mem://raw/a.jsonl")));
}
