//! Runs the command that the command line names.

use biscuit_core::Result;

use crate::args::command::Command;
use crate::commands::inspect::{doctor, explain, history, schema, show, verify};
use crate::commands::maintain::{forget, lifecycle, purge, quarantine, recover};
use crate::commands::write::{adopt, compact, merge, periods, run, snapshot};
use crate::commands::{bookmark, pii};
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;

/// Dispatches to the implementation of the command.
pub(crate) async fn dispatch(command: &Command, context: &CommandContext) -> Result<CommandOutput> {
    match command {
        Command::Merge(args) => merge::run(args, context).await,
        Command::Snapshot(args) => snapshot::run(args, context).await,
        Command::Periods(args) => periods::run(args, context).await,
        Command::Quarantine(command) => quarantine::run(command, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Impact(args) => run::run_impact(args, context).await,
        Command::Schema(command) => schema::run(command, context).await,
        Command::Bookmark(command) => bookmark::run(command, context).await,
        Command::Pii(command) => pii::run(command, context).await,
        Command::Forget(args) => forget::run(args, context).await,
        Command::Recover(args) => recover::run(args, context).await,
        Command::Adopt(args) => adopt::run(args, context).await,
        Command::Compact(args) => compact::run(args, context).await,
        Command::Purge(args) => purge::run(args, context).await,
        Command::Lifecycle(command) => lifecycle::run(command, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::History(args) => history::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Explain(args) => explain::run(args),
    }
}
