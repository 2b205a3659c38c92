//! The context of a run: the table as it was read, and everything that is fixed before the first record is decided.

use std::sync::Arc;

use biscuit_change::BadRows;
use biscuit_core::{Error, ObjectRef, Result};
use biscuit_dataset::internal::{FolderSpelling, check_partition_columns};
use biscuit_dataset::{OpenFile, ParquetOptions, TableVersion, WriteMode};
use biscuit_merge::MergeSpec;
use biscuit_merge::internal::{RecordOrder, schema_without, schema_without_null_columns};
use biscuit_schema::merge_schemas;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use serde_json::Value;

use crate::changes::intake::InputSummary;
use crate::changes::log_epochs::LOG_SERVERS;
use crate::merge_report::MergeReport;
use crate::options::MergeOptions;
use crate::periods::period_state::PeriodStates;
use crate::setup::MergeSetup;
use crate::state::forgotten_keys::ErasedKeys;
use crate::state::key_segment::KeySegments;
use crate::table::open_files::OpenFiles;
use crate::table::stored_spec::check_drift;
use crate::table::truncate_marks::{TRUNCATED, parse_marks};

/// Everything that a run knows between reading the table and writing to it. Nothing of it changes while records are
/// decided.
pub(crate) struct TableContext {
    pub(crate) snapshot: TableVersion,
    pub(crate) spec: Arc<MergeSpec>,
    /// Options of the merge, with the encryption of the table's files.
    pub(crate) options: MergeOptions,
    /// Periods of a table of periodic snapshots.
    pub(crate) periods: Option<Arc<PeriodStates>>,
    /// Schema of the table after the run, partition columns last.
    pub(crate) target: SchemaRef,
    /// Schema of files: without partition columns, whose values are in the path.
    pub(crate) data: SchemaRef,
    pub(crate) partition_by: Vec<String>,
    pub(crate) spelling: FolderSpelling,
    /// New value of the property with the log servers.
    pub(crate) log_servers: Option<Value>,
    pub(crate) segments: KeySegments,
    pub(crate) forgotten: Arc<ErasedKeys>,
    /// Truncate marks before the run, by number of the period: the order at or before which everything is deleted
    /// from this period on. A table without periods has its mark under 0.
    pub(crate) marks: Vec<(i64, RecordOrder)>,
    /// Memory pool and runtime of the run.
    pub(crate) session: Arc<TaskContext>,
}

impl TableContext {
    /// Prepares a run: checks the specification against the table, reads footers, key metadata and erased keys, and
    /// determines the common schema of records and table. Returns the opened files, too; those of a table with
    /// periods are opened with their periods.
    pub(crate) async fn prepare(
        setup: &MergeSetup,
        snapshot: TableVersion,
        session: Arc<TaskContext>,
        taken: &InputSummary,
        report: &mut MergeReport,
    ) -> Result<(Self, OpenFiles)> {
        check_drift(&snapshot.observed.head.properties, &setup.spec, setup.period_column())?;
        let partition_by = partition_columns(setup, &snapshot)?;
        let (files, has) = open_known(setup, &snapshot).await?;
        let (snapshot, parquet) = snapshot.for_writing(&setup.options.parquet, &files).await?;
        check_encryption(setup, &parquet, &partition_by)?;
        let files = if setup.periods.is_some() { vec![] } else { files };
        let target = target_schema(setup, &has, taken, &partition_by)?;
        let comes = |name: &str| taken.columns.iter().any(|(schema, _)| schema.index_of(name).is_ok());
        snapshot.check_encrypted(&|name| target.index_of(name).is_ok() || comes(name))?;
        if !has.fields().is_empty() {
            let new = target.fields().iter().filter(|f| has.index_of(f.name()).is_err());
            report.remarks.added_columns = new.map(|f| f.name().clone()).collect();
            let wider = |f: &&Arc<Field>| has.field_with_name(f.name()).is_ok_and(|h| h.data_type() != f.data_type());
            report.remarks.widened_columns = target.fields().iter().filter(wider).map(|f| f.name().clone()).collect();
        }
        let journal = setup.dataset.journal();
        let observed = &snapshot.observed;
        let segments = KeySegments::of_observed(journal, observed, parquet.encryption.as_ref()).await?;
        let forgotten = Arc::new(ErasedKeys::load(journal, &observed.head).await?);
        let partition_by: Vec<String> = partition_by.into_iter().filter(|n| target.index_of(n).is_ok()).collect();
        let data = target.fields().iter().filter(|f| !partition_by.contains(f.name()));
        let context = Self {
            spec: setup.spec.clone(),
            options: setup.options.clone().with_parquet(parquet),
            periods: setup.periods.clone(),
            data: Arc::new(Schema::new(data.cloned().collect::<Vec<_>>())),
            target,
            partition_by,
            spelling: snapshot.folder_spelling()?,
            log_servers: log_servers(&snapshot, taken)?,
            marks: parse_marks(snapshot.observed.head.properties.get(TRUNCATED))?,
            snapshot,
            segments,
            forgotten,
            session,
        };
        Ok((context, OpenFiles::without_periods(files)))
    }

    /// Returns a file of the table version as the journal observed it.
    pub(crate) fn observed_file(&self, listed: usize) -> &ObjectRef {
        &self.snapshot.files()[listed].listed
    }
}

/// Refuses options that would store columns outside of files that the files encrypt: keys and orders are in key
/// metadata, partition columns in paths.
fn check_encryption(setup: &MergeSetup, parquet: &ParquetOptions, partition_by: &[String]) -> Result<()> {
    let Some(encryption) = &parquet.encryption else { return Ok(()) };
    encryption.check_clear("a key column", &setup.spec.key)?;
    encryption.check_clear("an order column", &setup.spec.order)?;
    encryption.check_clear("a partition column", partition_by)?;
    if setup.options.bad_rows == BadRows::Fail { Ok(()) } else { check_sealed(&setup.options) }
}

/// Refuses to quarantine records of a table with encrypted columns in plain text.
pub(crate) fn check_sealed(options: &MergeOptions) -> Result<()> {
    if !options.sealed {
        let message = "cannot quarantine: the table encrypts columns in its Parquet files, and the quarantine would store them in plain text; use `--bad-rows fail`, or merge in a job with a `[pii]` section, which seals records";
        return Err(Error::new(biscuit_dataset::codes::ENCRYPTED_COLUMN, message));
    }
    Ok(())
}

/// Returns the opened files and the schema of the table. For a table with periods, the period column is left out,
/// and files are opened only if their schema is not known otherwise.
async fn open_known(setup: &MergeSetup, snapshot: &TableVersion) -> Result<(Vec<OpenFile>, SchemaRef)> {
    let Some(periods) = &setup.periods else {
        let files = snapshot.open_for_change(snapshot.files().to_vec()).await?;
        let has = snapshot.schema(&files)?;
        return Ok((files, has));
    };
    let (files, has) = match snapshot.known_schema()? {
        Some(known) => (vec![], known),
        None => {
            let files = snapshot.open_files().await?;
            let has = snapshot.schema(&files)?;
            (files, has)
        }
    };
    let rest: Vec<_> = has.fields().iter().filter(|f| *f.name() != periods.column).cloned().collect();
    Ok((files, Arc::new(Schema::new(rest))))
}

/// Returns the partition columns of the table, without the period column. Configured columns must equal them.
fn partition_columns(setup: &MergeSetup, snapshot: &TableVersion) -> Result<Vec<String>> {
    if let Some(periods) = &setup.periods {
        let has: Vec<String> = snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect();
        let rest = match setup.options.partition_by.is_empty() {
            true => has.into_iter().filter(|n| *n != periods.column).collect(),
            false => setup.options.partition_by.clone(),
        };
        let all: Vec<String> = std::iter::once(periods.column.clone()).chain(rest.iter().cloned()).collect();
        snapshot.check_partitioning(&all, WriteMode::Append)?;
        return Ok(rest);
    }
    if setup.options.partition_by.is_empty() {
        return Ok(snapshot.partition_columns().iter().map(|(n, _)| n.clone()).collect());
    }
    snapshot.check_partitioning(&setup.options.partition_by, WriteMode::Append)?;
    Ok(setup.options.partition_by.clone())
}

/// Returns the schema of the table after the run: its columns, then the new columns of the records, then the
/// partition columns.
fn target_schema(
    setup: &MergeSetup,
    has: &SchemaRef,
    taken: &InputSummary,
    partition_by: &[String],
) -> Result<SchemaRef> {
    if let Some(name) = setup.spec.drop_columns.iter().find(|c| has.index_of(c).is_ok()) {
        return Err(Error::new(
            biscuit_core::codes::INVALID_ARGUMENTS,
            format!(
                "the column `{name}` cannot be dropped, because the table stores it; remove it from the columns to drop"
            ),
        ));
    }
    let mut schema = has.clone();
    for (columns, file) in &taken.columns {
        let stored = schema_without(columns, &setup.spec.drop_columns);
        if let Some(periods) = &setup.periods
            && let Some(field) = stored.fields().iter().find(|f| f.name().eq_ignore_ascii_case(&periods.column))
        {
            let message = format!(
                "the records have a column `{}`, which is the period column of the table; rename or drop it in the records",
                field.name()
            );
            return Err(Error::new(biscuit_change::codes::COLUMN_CLASH, message).in_file(&**file));
        }
        schema = Arc::new(merge_schemas(&schema, &stored, &format!("`{file}`"))?);
    }
    let is_folder = |f: &Arc<Field>| partition_by.contains(f.name());
    let mut fields: Vec<_> =
        schema_without_null_columns(&schema).fields().iter().filter(|f| !is_folder(f)).cloned().collect();
    for name in partition_by {
        match schema.field_with_name(name) {
            Ok(f) if *f.data_type() == DataType::Null => {
                fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
            }
            Ok(f) => fields.push(Arc::new(f.clone())),
            Err(e) if taken.writes => {
                let message = format!("the records do not have the partition column `{name}`");
                return Err(Error::new(biscuit_schema::codes::MISSING_COLUMN, message).with_source(e));
            }
            // Deletes alone need no partition columns.
            Err(_) => {}
        }
    }
    if taken.writes {
        check_partition_columns(fields.iter().map(|f| f.name().as_str()), partition_by)?;
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the new property with the log servers. It must still have the value from which the epochs of the records
/// were computed.
fn log_servers(snapshot: &TableVersion, taken: &InputSummary) -> Result<Option<Value>> {
    let Some(epochs) = &taken.epochs else { return Ok(None) };
    if !epochs.is_of(snapshot.observed.head.properties.get(LOG_SERVERS)) {
        let message = "another run has added log servers since the records were read; run again";
        return Err(Error::new(biscuit_core::codes::CONFLICT, message));
    }
    epochs.to_property().map(Some)
}
