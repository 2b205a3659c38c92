//! Deletes objects from the state root of a table.

use biscuit_core::Result;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::log::layout::run_folder;
use crate::store::storage::TableStorage;
use crate::store_error;

/// Lists the objects below a folder.
pub(crate) async fn list_below(storage: &TableStorage, folder: &Path) -> Result<Vec<Path>> {
    let listed = storage.store.list(Some(folder)).map_ok(|object| object.location).try_collect();
    listed.await.map_err(|e| store_error("list", folder, e))
}

/// Deletes everything that one change wrote below the state root before its commit.
pub(crate) async fn delete_run(storage: &TableStorage, state: &Path, base: u64, writer_id: &str) -> Result<()> {
    for kind in ["staging", "state"] {
        delete_below(storage, state, &run_folder(state, kind, base, writer_id), |_| true).await?;
        let (own, root) = (format!("{base}-{writer_id}"), state.clone().join(kind));
        storage.durability.remove_folders(&root, &|name: &str| name == own).await?;
    }
    Ok(())
}

/// Deletes the objects below a folder of the state root that `which` selects. Returns the number of deleted objects.
pub(crate) async fn delete_below(
    storage: &TableStorage,
    state: &Path,
    folder: &Path,
    which: impl Fn(&Path) -> bool,
) -> Result<u64> {
    let listed = list_below(storage, folder).await?;
    delete_all(storage, state, listed.into_iter().filter(|p| which(p)).collect()).await
}

/// Deletes objects. An object that no longer exists is not an error, because several processes may clean at once.
pub(crate) async fn delete_all(storage: &TableStorage, state: &Path, paths: Vec<Path>) -> Result<u64> {
    let mut deleted = 0;
    let mut answers = storage.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(_) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("clean", state, e)),
        }
    }
    Ok(deleted)
}
