use biscuit_core::Result;
use biscuit_journal::TableCommit;
use bytes::Bytes;
use serde_json::Value;

/// What a commit has to make true for the bookmark to move.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a bookmark moves only with a commit"]
pub struct BookmarkUpdate {
    /// State files by name; none drops the name.
    pub state: Vec<(String, Option<Bytes>)>,
    /// Facts by name; null drops the name.
    pub properties: Vec<(String, Value)>,
}

impl BookmarkUpdate {
    /// Puts it into a change of the table.
    ///
    /// # Errors
    /// Those of the store, which stages the state files.
    pub async fn apply(self, replace: &mut TableCommit<'_>) -> Result<()> {
        for (name, content) in self.state {
            match content {
                Some(content) => replace.with_state(&name, content).await?,
                None => replace.without_state(&name),
            }
        }
        self.properties.into_iter().for_each(|(name, value)| replace.with_properties(&name, value));
        Ok(())
    }
}
