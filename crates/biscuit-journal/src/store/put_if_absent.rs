//! Proof that put-if-absent has exactly one winner in a store.

use std::time::Duration;

use biscuit_core::{Clock, Error, Instant, Result, SystemClock};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::log::record::FORMAT;
use crate::options::WriterPolicy;
use crate::store::storage::TableStorage;
use crate::{codes, default_state_root, store_error};

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

/// Name of the object that remembers a probe, in the folder of state roots.
const REMEMBERED: &str = "put-if-absent.json";

/// Maximum difference between the time in the object, which is that of the host, and the time when it was written, on the
/// clock of the store. S3 refuses requests of hosts whose clocks differ more. An object that was copied to another store later
/// is younger than its content says, so that it does not vouch for that store.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(15 * 60);

/// A probe that has succeeded.
#[derive(Serialize, Deserialize)]
struct RememberedProbe {
    format: u32,
    /// When it succeeded, by the clock of the host.
    at: String,
}

/// Returns the path of the object that remembers the probe of the store of a table.
pub(crate) fn remembered_path(table: &Path) -> Path {
    let root = default_state_root(table);
    let mut folder: Vec<_> = root.parts().collect();
    folder.pop();
    Path::from_iter(folder).join(REMEMBERED)
}

/// Whether a probe has succeeded before in the store of a table: for a table in the same folder. A disk is always probed.
pub(crate) async fn is_remembered(storage: &TableStorage, table: &Path) -> bool {
    if !storage.durability.is_immediate() {
        return false;
    }
    let found = async {
        let got = storage.store.get(&remembered_path(table)).await.ok()?;
        let written = got.meta.last_modified.timestamp_micros();
        let probe: RememberedProbe = serde_json::from_slice(&got.bytes().await.ok()?).ok()?;
        let difference = probe.at.parse::<Instant>().ok()?.as_micros().abs_diff(written);
        Some(probe.format == FORMAT && u128::from(difference) <= CLOCK_DIFFERENCE.as_micros())
    };
    found.await.unwrap_or(false)
}

/// Remembers that a probe has succeeded, so that further tables in this folder need none. If that fails, they are probed.
pub(crate) async fn remember(storage: &TableStorage, table: &Path) {
    if !storage.durability.is_immediate() {
        return;
    }
    let probe = RememberedProbe { format: FORMAT, at: SystemClock.now().to_string() };
    if let Ok(bytes) = serde_json::to_vec(&probe)
        && let Err(e) = storage.store.put(&remembered_path(table), bytes.into()).await
    {
        tracing::debug!("the probe of the store could not be remembered: {e}");
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
