use biscuit_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::commit::staged::staged_error;
use crate::journal::Journal;
use crate::log::layout::POINTER;
use crate::log::record::{self, FORMAT, JournalObject, is_relative};
use crate::{default_state_root, store_error};

/// In the default place of every table with a journal: where its state root is.
#[derive(Serialize, Deserialize)]
struct StateRootPointer {
    format: u32,
    state: String,
    /// The table whose pointer it is: a copy of a table has the pointer of the one it was copied from.
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

fn place(journal: &Journal) -> Path {
    default_state_root(&journal.table).join(POINTER)
}

/// The state root that the table's pointer names; none for a table that was never committed to.
async fn named(journal: &Journal) -> Result<Option<Path>> {
    let path = place(journal);
    let bytes = match journal.storage.store.get(&path).await {
        Ok(found) => found.bytes().await.map_err(|e| store_error("read", &path, e))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(store_error("read", &path, e)),
    };
    let pointer: StateRootPointer = record::parse(&bytes, path.as_ref())?;
    if let Some(table) = pointer.table.filter(|table| *table != journal.table.as_ref()) {
        let message = format!(
            "`{path}` belongs to the table `{table}`, not to `{}`: a copy of a table without its state is a table of external files",
            journal.table
        );
        return Err(Error::usage("StateRootMismatch", message));
    }
    let (table, state) = (&journal.table, Path::from(pointer.state.as_str()));
    if !is_relative(&pointer.state) || table.prefix_matches(&state) || state.prefix_matches(table) {
        let message = format!("`{path}` names no state root that the table can have; nothing was changed");
        return Err(Error::data("UnreadableRecord", message));
    }
    Ok(Some(state))
}

/// Refuses a run that names another state root than the one the table has.
pub(crate) async fn check(journal: &Journal) -> Result<()> {
    match named(journal).await? {
        Some(has) if has != journal.state => {
            let message = format!("the state root of `{}` is `{has}`, not `{}`", journal.table, journal.state);
            Err(Error::usage("StateRootMismatch", message))
        }
        _ => Ok(()),
    }
}

/// Claims the table for this state root: of two runs that name different ones, one wins. Answers whether this call did it.
pub(crate) async fn claim(journal: &Journal, writer_id: &str) -> Result<bool> {
    let path = place(journal);
    let pointer = record::to_bytes(&StateRootPointer {
        format: FORMAT,
        state: journal.state.to_string(),
        table: Some(journal.table.to_string()),
    })?;
    match journal.create(&path, pointer.into(), 0, writer_id).await {
        Ok(()) => {
            // Up to the folder that holds `.biscuit`: the first commit may have made it.
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

/// Takes a claim back that came to no version.
pub(crate) async fn withdraw(journal: &Journal) -> Result<()> {
    let path = place(journal);
    if journal.head().await?.version > 0 {
        return Ok(());
    }
    match journal.storage.store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(store_error("delete", &path, e)),
    }
}

impl Journal {
    /// The same journal with the state root that the table's pointer names, if it has one.
    pub async fn follow_pointer(self) -> Result<Self> {
        match named(&self).await? {
            None => Ok(self),
            Some(root) => Ok(self.with_state_root(root)),
        }
    }
}
