/// Output of earlier runs that the rows of a selection replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplacedOutput {
    /// Numbers of the replaced runs.
    pub runs: Vec<u64>,
    /// Files that these runs wrote, relative to the table.
    pub files: Vec<String>,
}
