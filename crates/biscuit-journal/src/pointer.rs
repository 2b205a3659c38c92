use biscuit_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::journal::Journal;
use crate::record::{self, FORMAT};
use crate::{default_state_root, store_error};

/// In the default place of every table with a journal: where its state root is.
#[derive(Serialize, Deserialize)]
struct Pointer {
    format: u32,
    state: String,
}

fn place(journal: &Journal) -> Path {
    default_state_root(&journal.table).join("root.json")
}

/// Refuses a run that names another state root than the one the table has.
pub(crate) async fn check(journal: &Journal) -> Result<bool> {
    let path = place(journal);
    let bytes = match journal.storage.store.get(&path).await {
        Ok(found) => found.bytes().await.map_err(|e| store_error("read", &path, e))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(false),
        Err(e) => return Err(store_error("read", &path, e)),
    };
    let pointer: Pointer = record::parse(&bytes, path.as_ref())?;
    if pointer.state == journal.state.as_ref() {
        return Ok(true);
    }
    let (has, named) = (&pointer.state, &journal.state);
    Err(Error::usage("StateRootMismatch", format!("the state root of `{}` is `{has}`, not `{named}`", journal.table)))
}

/// Claims the table for this state root: of two runs that name different ones, one wins.
pub(crate) async fn claim(journal: &Journal) -> Result<()> {
    let path = place(journal);
    let pointer = record::to_bytes(&Pointer { format: FORMAT, state: journal.state.to_string() })?;
    match journal.storage.store.put_opts(&path, pointer.into(), PutMode::Create.into()).await {
        Ok(_) => {
            journal.storage.durability.sync_file(&path).await?;
            // Up to the folder that holds `.biscuit`: the first commit may have made it.
            let root = default_state_root(&journal.table);
            let mut parts: Vec<_> = root.parts().collect();
            parts.pop();
            journal.sync_folders(&path, &Path::from_iter(parts)).await
        }
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            check(journal).await.map(drop)
        }
        Err(e) => Err(store_error("write", &path, e)),
    }
}

impl Journal {
    /// The same journal with the state root that the table's pointer names, if it has one.
    pub async fn follow_pointer(self) -> Result<Self> {
        let path = place(&self);
        match self.storage.store.get(&path).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|e| store_error("read", &path, e))?;
                let pointer: Pointer = record::parse(&bytes, path.as_ref())?;
                let root = Path::parse(&pointer.state).map_err(|e| Error::internal("a state root").with_source(e))?;
                Ok(self.with_state_root(root))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(self),
            Err(e) => Err(store_error("read", &path, e)),
        }
    }
}
