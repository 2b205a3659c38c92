//! The pointer of a table: `root.json` in its default state root names the state root that the table has.
//!
//! The pointer is created if absent before the first commit. So of two runs that name different state roots for a new
//! table, one wins, and the other is refused with `StateRootMismatch`.

use biscuit_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::commit::staged::staged_error;
use crate::log::journal_store::JournalStore;
use crate::log::layout::POINTER;
use crate::log::record::{self, FORMAT, JournalObject, is_relative};
use crate::{codes, default_state_root, store_error};

/// Content of a pointer.
#[derive(Serialize, Deserialize)]
struct StateRootPointer {
    format: u32,
    state: String,
    /// Table that the pointer belongs to. A copy of a table together with its state has the pointer of the original:
    /// it is refused, because it would write to the state of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<String>,
}

impl JournalObject for StateRootPointer {
    fn table_paths(&self) -> Vec<&str> {
        vec![]
    }

    fn state_paths(&self) -> Vec<&str> {
        vec![]
    }
}

fn pointer_path(journal: &JournalStore) -> Path {
    default_state_root(&journal.table).join(POINTER)
}

/// Returns the state root that the pointer of the table names; none for a table without a commit.
async fn read_pointer(journal: &JournalStore) -> Result<Option<Path>> {
    let path = pointer_path(journal);
    let bytes = match journal.storage.store.get(&path).await {
        Ok(found) => found.bytes().await.map_err(|e| store_error("read", &path, e))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(store_error("read", &path, e)),
    };
    let pointer: StateRootPointer = record::parse(&bytes, path.as_ref())?;
    if let Some(table) = pointer.table.filter(|table| *table != journal.table.as_ref()) {
        let message = format!(
            "`{path}` belongs to the table `{table}`, not to `{}`; copy a table without its state root, so that its files are external files of the copy",
            journal.table
        );
        return Err(Error::new(codes::STATE_ROOT_MISMATCH, message));
    }
    let (table, state) = (&journal.table, Path::from(pointer.state.as_str()));
    if !is_relative(&pointer.state) || table.prefix_matches(&state) || state.prefix_matches(table) {
        let message = format!("`{path}` does not name a valid state root of the table; nothing was changed");
        return Err(Error::new(codes::UNREADABLE_RECORD, message));
    }
    Ok(Some(state))
}

/// Refuses a run that names a different state root than the pointer of the table.
pub(crate) async fn check(journal: &JournalStore) -> Result<()> {
    match read_pointer(journal).await? {
        Some(has) if has != journal.state => {
            let message = format!("the state root of `{}` is `{has}`, not `{}`", journal.table, journal.state);
            Err(Error::new(codes::STATE_ROOT_MISMATCH, message))
        }
        _ => Ok(()),
    }
}

/// Claims the table for the state root of this journal: of two runs that name different ones, one wins. Returns true
/// if this call created the pointer, and false if the pointer existed with the same state root.
pub(crate) async fn claim(journal: &JournalStore, writer_id: &str) -> Result<bool> {
    let path = pointer_path(journal);
    let pointer = record::to_bytes(&StateRootPointer {
        format: FORMAT,
        state: journal.state.to_string(),
        table: Some(journal.table.to_string()),
    })?;
    match journal.create(&path, pointer.into(), 0, writer_id).await {
        Ok(()) => {
            // Syncs up to the folder that contains `.biscuit`, because the first commit may have created both.
            let root = default_state_root(&journal.table);
            let mut parts: Vec<_> = root.parts().collect();
            parts.pop();
            journal.sync_folders(&path, &Path::from_iter(parts)).await?;
            Ok(true)
        }
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            check(journal).await?;
            Ok(false)
        }
        Err(e) => Err(staged_error("write", &path, e)),
    }
}

/// Deletes the pointer of a claim that was refused, unless a version was committed under it.
pub(crate) async fn withdraw_claim(journal: &JournalStore) -> Result<()> {
    let path = pointer_path(journal);
    if journal.head().await?.version > 0 {
        return Ok(());
    }
    match journal.storage.store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(store_error("delete", &path, e)),
    }
}

/// Returns the state root that the pointer of the table names, or the present one if there is no pointer.
pub(crate) async fn followed(journal: &JournalStore) -> Result<Path> {
    Ok(read_pointer(journal).await?.unwrap_or_else(|| journal.state.clone()))
}
