/// Whether a run changes anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunMode {
    /// It commits.
    #[default]
    Commit,
    /// It says what it would do.
    DryRun,
}
