use biscuit_core::Error;
use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::{Listed, Plan, store_error};

/// Why a listed object was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Its size or its ETag is not the listed one: somebody wrote to it since.
    Changed,
}

/// What became of every object of a plan.
#[derive(Debug, Default)]
pub struct Report {
    /// Deleted now.
    pub deleted: Vec<Path>,
    /// Not there any more.
    pub absent: Vec<Path>,
    /// Kept, with the reason.
    pub kept: Vec<(Path, Kept)>,
    /// Not deleted because the store answered with an error.
    pub failed: Vec<(Path, Error)>,
}

enum Outcome {
    Deleted,
    Absent,
    Kept(Kept),
}

/// Carries out a plan, several objects in flight; one failure does not stop the others.
pub async fn execute(store: &dyn ObjectStore, plan: &Plan) -> Report {
    let mut report = Report::default();
    let one = |f| async move { delete_one(store, f).await }.boxed();
    let deletes: Vec<_> =
        plan.files().iter().map(|f: &Listed| one(f).map(|outcome| (f.path.clone(), outcome))).collect();
    let mut done = stream::iter(deletes).buffered(8);
    while let Some((path, outcome)) = done.next().await {
        tracing::debug!(%path, "delete");
        match outcome {
            Ok(Outcome::Deleted) => report.deleted.push(path),
            Ok(Outcome::Absent) => report.absent.push(path),
            Ok(Outcome::Kept(why)) => report.kept.push((path, why)),
            Err(e) => report.failed.push((path.clone(), store_error("delete", &path, e))),
        }
    }
    report
}

async fn delete_one(store: &dyn ObjectStore, file: &Listed) -> object_store::Result<Outcome> {
    let now = match store.head(&file.path).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => return Ok(Outcome::Absent),
        Err(e) => return Err(e),
    };
    if now.size != file.size || (file.etag.is_some() && now.e_tag != file.etag) {
        return Ok(Outcome::Kept(Kept::Changed));
    }
    match store.delete(&file.path).await {
        Ok(()) => Ok(Outcome::Deleted),
        Err(object_store::Error::NotFound { .. }) => Ok(Outcome::Absent),
        Err(e) => Err(e),
    }
}
