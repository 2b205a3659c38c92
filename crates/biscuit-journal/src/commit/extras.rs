//! What a commit makes true in addition to the files of the table: state files, properties and the id of the run.

use bytes::Bytes;
use serde_json::Value;

/// Part of a commit in addition to the files of the table: state files, properties and the id of the run.
///
/// Whoever computes a part of it (the bookmark of the input, the quarantine, the state of merges, the caller of a run)
/// returns it as a value, and [`TableCommit::with_extras`](crate::TableCommit::with_extras) adds it to a change. All of
/// it takes effect in the one commit of that change.
///
/// ```
/// use std::sync::Arc;
///
/// use biscuit_journal::{CommitExtras, Journal, JournalOptions, TableStorage};
/// use object_store::{memory::InMemory, path::Path};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> biscuit_core::Result<()> {
/// let storage = TableStorage::durable(Arc::new(InMemory::new()));
/// let journal = Journal::new(storage, Path::from("lake/orders"), JournalOptions::default());
/// let mut extras = CommitExtras::default();
/// extras.put_state("bookmark", "7".into());
/// extras.set_property("owner", "sales".into());
///
/// let observed = journal.observe().await?;
/// let mut change = journal.begin_commit(&observed);
/// change.with_extras(extras).await?;
/// change.commit().await?;
///
/// let head = journal.head().await?;
/// assert_eq!(journal.read_state(&head, &head.state["bookmark"]).await?, "7");
/// assert_eq!(head.properties["owner"], "sales");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
#[must_use = "extras take effect only with a commit"]
pub struct CommitExtras {
    /// Content of state files by name, in the order in which they are applied; `None` removes the file.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Properties by name, in the order in which they are set; null removes the property.
    pub properties: Vec<(String, Value)>,
    /// Id that the scheduler gave the run, for the history.
    pub run: Option<String>,
}

impl CommitExtras {
    /// Writes the content of the state file `name`, which replaces an older state file of that name.
    pub fn put_state(&mut self, name: impl Into<String>, content: Bytes) {
        self.state.push((name.into(), Some(content)));
    }

    /// Removes the state file `name`. A file that does not exist is not a change.
    pub fn remove_state(&mut self, name: impl Into<String>) {
        self.state.push((name.into(), None));
    }

    /// Sets the property `name`; null removes it.
    pub fn set_property(&mut self, name: impl Into<String>, value: Value) {
        self.properties.push((name.into(), value));
    }

    /// Sets the id that the scheduler gave the run. Default: none.
    pub fn with_run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Adds `other` after what is there. A state file or property that both have gets the content of `other`.
    pub fn extend(&mut self, other: Self) {
        self.state.extend(other.state);
        self.properties.extend(other.properties);
        self.run = other.run.or(self.run.take());
    }

    /// Returns whether no state file and no property is changed. The id of a run alone is not a change.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty() && self.properties.is_empty()
    }
}
