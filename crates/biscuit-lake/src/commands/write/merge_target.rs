//! The target of a merge: the table, and where its key and order come from.
//!
//! Key and order come from the first of: options, contract, records, and the table itself. [`MergeTarget`] does this
//! for `merge`, `snapshot` and `quarantine retry`.

use std::time::Instant;

use biscuit_apply::internal::stored_spec;
use biscuit_apply::{
    BufferedChanges, ChangeFiles, ChangeFormat, KeyAndOrderColumns, KeyAndOrderSources, Merge, MergeOptions, MergeRun,
    MergeSpec,
};
use biscuit_core::{Error, Result};
use biscuit_dataset::internal::check_input;
use biscuit_dataset::{Dataset, OpenLocation, TableVersion};
use biscuit_journal::{DivergedPolicy, ExternalFiles, JournalOptions, WriterPolicy};
use biscuit_schema::Contract;
use datafusion::arrow::datatypes::SchemaRef;

use crate::args::merge::{ChangeFormatName, ExternalFilesName, MergeArgs};
use crate::args::merge_options::{format_with, merge_options, merge_spec, read_contract};
use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;

/// Maximum number of times that a table is observed because other runs replace its files.
const OBSERVATIONS: usize = 8;

/// Target of a merge: the table with its contract, its recorded key and order, and the format of the changes.
pub(crate) struct MergeTarget {
    contract: Option<Contract>,
    pub(crate) dataset: Dataset,
    /// The version of the table when it was opened, and when that was.
    version: TableVersion,
    observed: Instant,
    /// Key and order of the earlier merges of this table.
    made: Option<KeyAndOrder>,
    pub(crate) format: ChangeFormat,
}

impl MergeTarget {
    /// Opens the target.
    pub(crate) async fn open(args: &MergeArgs, context: &CommandContext) -> Result<Self> {
        Self::open_with(args, false, context).await
    }

    /// Opens the target. With `hard_links`, equal files may be stored once under several names.
    pub(crate) async fn open_with(args: &MergeArgs, hard_links: bool, context: &CommandContext) -> Result<Self> {
        let contract = read_contract(args)?;
        let (dataset, version) = observe_target(args, hard_links, context).await?;
        let observed = Instant::now();
        // Rows and DMS files are read with the types that the table already has.
        let (version, columns) = match args.format {
            ChangeFormatName::Rows | ChangeFormatName::Dms => {
                let (version, columns) = with_columns(&dataset, version).await?;
                (version, Some(columns))
            }
            ChangeFormatName::Debezium => (version, None),
        };
        let spec = stored_spec(&version.observed.head.properties)?;
        let format = format_with(args, contract.as_ref(), columns)?;
        Ok(Self { contract, dataset, version, observed, made: spec.map(|spec| (spec.key, spec.order)), format })
    }

    /// Lets a run commit on the version that was observed when the table was opened, if its input is read soon after that.
    pub(crate) fn on_observed<'a>(&self, run: MergeRun<'a>) -> MergeRun<'a> {
        run.on_recent(self.version.clone(), self.observed)
    }

    /// Begins to read records whose key or period is not known yet.
    pub(crate) fn buffer(&self, args: &MergeArgs) -> BufferedChanges {
        BufferedChanges::new(&merge_options(args, self.contract.as_ref()))
    }

    /// Returns the merge, or `None` if there are no records and the table has no recorded key and order.
    pub(crate) fn prepare_merge(&self, args: &MergeArgs, declared: DeclaredMerge<'_>) -> Result<Option<Merge>> {
        let made = self.spec_and_options(args, declared)?;
        made.map(|(spec, options)| Merge::new(self.dataset.clone(), spec, options)).transpose()
    }

    /// Returns specification and options of the merge, or `None` if there are no records and nothing is recorded.
    ///
    /// # Errors
    /// `InvalidArguments` if there are records, but no key or no order.
    pub(crate) fn spec_and_options(
        &self,
        args: &MergeArgs,
        declared: DeclaredMerge<'_>,
    ) -> Result<Option<(MergeSpec, MergeOptions)>> {
        let mut sources = KeyAndOrderSources::default()
            .with_contract(self.contract.as_ref())
            .with_records(&self.format, declared.key, declared.order)
            .with_table(self.made.clone());
        sources.options = KeyAndOrderColumns { key: args.key.clone(), order: args.order.clone() };
        let columns = sources.resolve();
        if let Some(what) = columns.missing_option() {
            if declared.is_empty {
                return Ok(None);
            }
            let message = format!("the {what} is unknown; name its columns with --{what} or in a contract");
            return Err(Error::new(biscuit_core::codes::INVALID_ARGUMENTS, message));
        }
        let KeyAndOrderColumns { key, order } = columns;
        Ok(Some((merge_spec(args, key, order)?, merge_options(args, self.contract.as_ref()))))
    }
}

/// Key and order that the reader of the records named.
#[derive(Clone, Copy)]
pub(crate) struct DeclaredMerge<'a> {
    pub(crate) key: &'a [String],
    pub(crate) order: &'a [String],
    /// Whether there are no records, or none has been read yet.
    pub(crate) is_empty: bool,
}

impl<'a> DeclaredMerge<'a> {
    /// No records.
    pub(crate) const NOTHING: Self = Self { key: &[], order: &[], is_empty: true };

    /// Returns what these records declare.
    pub(crate) fn from_records(changes: &'a BufferedChanges) -> Self {
        let rest = changes.rest();
        let is_empty = changes.is_empty() && rest.refused.is_empty();
        Self { key: &rest.key, order: &rest.order, is_empty }
    }
}

/// Refuses input that contains files of the table.
///
/// # Errors
/// `InputOverlapsTable`.
pub(crate) async fn check_inputs(places: &[String], target: &str, context: &CommandContext) -> Result<()> {
    let target = context.stores.open(target).await?;
    for place in places {
        check_input(place, &target, &*context.stores).await?;
    }
    Ok(())
}

/// Returns the files at the places that the command names.
pub(crate) fn listed_files(
    places: &[String],
    format: ChangeFormat,
    args: &MergeArgs,
    context: &CommandContext,
) -> ChangeFiles {
    let files = ChangeFiles::new(places, format)
        .with_opener(context.stores.clone())
        .with_other_formats(context.stores.other_formats());
    if args.allow_empty { files.with_allow_empty() } else { files }
}

/// Opens the table with the policies of the options, and observes it for a change.
async fn observe_target(
    args: &MergeArgs,
    hard_links: bool,
    context: &CommandContext,
) -> Result<(Dataset, TableVersion)> {
    let external = match args.external_files {
        ExternalFilesName::Adopt => ExternalFiles::Adopt,
        ExternalFilesName::Fail => ExternalFiles::Fail,
        ExternalFilesName::Ignore => ExternalFiles::Ignore,
    };
    let writers = if args.single_writer { WriterPolicy::One } else { WriterPolicy::Many };
    let diverged = if args.adopt { DivergedPolicy::Adopt } else { DivergedPolicy::Fail };
    let mut options = JournalOptions::default()
        .with_external_files(external)
        .with_writers(writers)
        .with_diverged(diverged)
        .with_retention(args.retention);
    options.hard_links = hard_links;
    context.observe(&TableArgs { url: args.target.clone(), state: args.state.clone() }, options).await
}

/// Returns the columns of a version. If another run replaces its files meanwhile, the table is observed again.
async fn with_columns(dataset: &Dataset, mut version: TableVersion) -> Result<(TableVersion, SchemaRef)> {
    for _ in 1..OBSERVATIONS {
        let e = match version.current_schema().await {
            Ok(columns) => return Ok((version, columns)),
            Err(e) => dataset.journal().explain_error(e, &version.observed.head).await,
        };
        if !e.is(biscuit_core::codes::CONFLICT) {
            return Err(e);
        }
        version = dataset.observe().await?;
    }
    let columns = version.current_schema().await?;
    Ok((version, columns))
}

/// Key and order of the merges of a table.
type KeyAndOrder = (Vec<String>, Vec<String>);
