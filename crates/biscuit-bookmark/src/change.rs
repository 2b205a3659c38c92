//! Changes of a bookmark that are committed together with the output, and the output that they replace.

use biscuit_core::Result;
use biscuit_journal::TableCommit;
use bytes::Bytes;
use serde_json::Value;

/// Change of a bookmark, to be committed together with the output.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a bookmark moves only with a commit"]
pub struct BookmarkUpdate {
    /// State files by name; none removes the name.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Properties by name; null removes the name.
    pub properties: Vec<(String, Value)>,
}

impl BookmarkUpdate {
    /// Adds the change of the bookmark to a change of the table.
    ///
    /// # Errors
    /// Errors of the store while the state files are staged.
    pub async fn apply(self, replace: &mut TableCommit<'_>) -> Result<()> {
        for (name, content) in self.state {
            match content {
                Some(content) => replace.with_state(&name, content).await?,
                None => replace.without_state(&name),
            }
        }
        self.properties.into_iter().for_each(|(name, value)| replace.with_property(&name, value));
        Ok(())
    }
}

/// Output of earlier runs that the rows of a selection replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplacedOutput {
    /// Numbers of the replaced runs.
    pub runs: Vec<u64>,
    /// Files that these runs wrote, relative to the table.
    pub files: Vec<String>,
}
