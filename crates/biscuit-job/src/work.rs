//! One output at work: checks that the mode of the run fits the output, and hands the output on to `write/` by its
//! mode.

use biscuit_bookmark::ReadMode;
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::refuse_raw;

use crate::output_run::OutputRun;
use crate::read::choose::ChosenInput;
use crate::report::counts::OutputReport;
use crate::run_options::RunOptions;
use crate::spec::OutputMode;
use crate::write::merge::{merge_changes, merge_rows};
use crate::write::output::write;

/// The work on one output in one run.
pub(crate) struct OutputWork<'a> {
    pub(crate) output: OutputRun<'a>,
    pub(crate) chosen: Vec<ChosenInput>,
    pub(crate) report: OutputReport,
}

impl OutputWork<'_> {
    /// Runs the output in its mode.
    pub(crate) async fn run(self, options: &RunOptions) -> Result<OutputReport> {
        // Values of rows are in the details of an error, which are shown on request. Values of personal data must not
        // be, even then.
        let guard = self.output.guard_for(None)?;
        // The future is large, since a job may use everything. It is on the heap to keep the stack of the thread
        // small.
        Box::pin(self.run_in_mode(options)).await.map_err(|e| match &guard {
            Some(guard) => guard.tag_values(e),
            None => e,
        })
    }

    async fn run_in_mode(self, options: &RunOptions) -> Result<OutputReport> {
        self.check_mode(options)?;
        let reads = self.chosen.iter().any(|c| c.bookmark.is_none() || !c.selection.objects.is_empty());
        let by_bookmark = self.chosen.iter().any(|c| c.bookmark.is_some());
        let new = self.chosen.iter().any(|c| c.bookmark.is_some() && !c.selection.objects.is_empty());
        // A source without a bookmark is read in every run, but alone it does not cause a run if another source has
        // a bookmark and no new objects.
        let nothing = options.rebuild.is_empty() && (!reads || (by_bookmark && !new));
        let Self { output, chosen, mut report } = self;
        if nothing {
            report.add_sources(&chosen, &[])?;
            return Ok(report);
        }
        if output.changes(&chosen).is_some() {
            return Box::pin(merge_changes(&output, &chosen, report, options)).await;
        }
        match output.spec.mode {
            OutputMode::Merge | OutputMode::Snapshot => Box::pin(merge_rows(&output, &chosen, report, options)).await,
            _ => Box::pin(write(&output, chosen, report, options)).await,
        }
    }

    /// Checks that the options of the run fit the mode of the output, and that no input would be lost or stored
    /// twice.
    fn check_mode(&self, options: &RunOptions) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, what.to_owned()));
        let head = &self.output.snapshot.observed.head;
        let appends = self.output.spec.mode == OutputMode::Append;
        if !options.rebuild.is_empty() {
            if !matches!(self.output.spec.mode, OutputMode::Append | OutputMode::ReplacePartitions) {
                return wrong("only outputs with the mode `append` or `replace-partitions` can rebuild partitions");
            }
            if options.mode != ReadMode::Advance {
                return wrong(
                    "a rebuild reads the input of its partitions and cannot be combined with another read mode",
                );
            }
            if self.chosen.iter().all(|c| c.bookmark.is_none()) {
                return wrong("a rebuild needs a bookmark: without one, the input of partitions is not known");
            }
            refuse_raw(head, "rebuilt")?;
        }
        if !appends {
            refuse_raw(head, "replaced or merged into")?;
        }
        if appends && self.chosen.iter().all(|c| c.bookmark.is_none()) {
            return wrong(
                "an output with the mode `append` needs a bookmark; without one, input would be stored twice",
            );
        }
        let remembers = matches!(options.mode, ReadMode::Advance);
        match (self.output.spec.mode, &options.mode) {
            (OutputMode::Append, ReadMode::Full | ReadMode::ReadOnly) if !options.is_dry() => {
                wrong("an output with the mode `append` records what it read; reset or rewind its bookmark instead")
            }
            (OutputMode::ReplacePartitions | OutputMode::Replace, _) if !remembers && !options.is_dry() => wrong(
                "an output that replaces rows always reads all input that reaches it; rebuild partitions, or rewind its bookmark",
            ),
            _ => Ok(()),
        }
    }
}
