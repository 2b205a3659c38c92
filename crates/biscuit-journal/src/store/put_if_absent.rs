//! Proof that put-if-absent has exactly one winner in a store.

use biscuit_core::{Error, Result};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use crate::codes;
use crate::options::WriterPolicy;
use crate::store_error;

/// Number of races of a probe, all at once. One race may have one winner by chance.
pub(crate) const ROUNDS: usize = 3;
/// Number of puts that race for one name.
pub(crate) const PUTS: usize = 16;

/// Objects of a probe whether put-if-absent has exactly one winner in a store. The safety of commits rests on it, and
/// there are stores that accept the condition and ignore it.
pub(crate) struct PutIfAbsentProbe(Vec<Path>);

impl PutIfAbsentProbe {
    /// Runs the races, all at once; none with a single writer. Returns their objects, and an error if a race had more
    /// or fewer winners than one.
    pub(crate) async fn run(
        store: &dyn ObjectStore,
        state: &Path,
        writers: WriterPolicy,
        writer_id: &str,
    ) -> (Self, Result<()>) {
        let rounds = if writers == WriterPolicy::One { 0 } else { ROUNDS };
        let objects: Vec<Path> =
            (0..rounds).map(|round| state.clone().join("probe").join(format!("{writer_id}-{round}"))).collect();
        let races = objects.iter().map(|path| async move {
            match race_puts(store, path).await {
                Ok(1) => Ok(()),
                Ok(won) => Err(Error::new(
                    codes::NO_PUT_IF_ABSENT,
                    format!(
                        "this store let {won} of {PUTS} writers create the same object, so two runs could both commit; use another store, or promise a single writer (`--single-writer`)"
                    ),
                )),
                Err(e) => Err(store_error("probe put-if-absent at", path, e)),
            }
        });
        let shown = join_all(races).await.into_iter().collect();
        (Self(objects), shown)
    }

    /// Deletes the objects.
    pub(crate) async fn clean(&self, store: &dyn ObjectStore) -> Result<()> {
        let deletes = self.0.iter().map(|path| async move {
            match store.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(store_error("delete", path, e)),
            }
        });
        join_all(deletes).await.into_iter().collect()
    }
}

/// Puts an object if absent, many times at once. Returns the number of puts that were told that they had created it.
pub(crate) async fn race_puts(store: &dyn ObjectStore, path: &Path) -> object_store::Result<usize> {
    let puts = (0..PUTS).map(|i| async move {
        let put = store.put_opts(path, i.to_string().into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    });
    let answers: Vec<bool> = join_all(puts).await.into_iter().collect::<object_store::Result<_>>()?;
    Ok(answers.into_iter().filter(|won| *won).count())
}
