/// Selects whether a run changes the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a run changes something or nothing")]
pub enum RunMode {
    /// Commit the result.
    #[default]
    Commit,
    /// Report what the run would do, and change nothing.
    DryRun,
}
