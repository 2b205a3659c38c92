//! How the input of an output becomes its rows: the contract and the reader of each source, the query, and the
//! finisher.

use std::collections::BTreeSet;
use std::sync::Arc;

use biscuit_bookmark::SourceObject;
use biscuit_core::{Error, Result};
use biscuit_schema::{Contract, ContractCompliance, DatasetLayer, ExtraColumns, OnError};
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::output_run::OutputRun;
use crate::read::choose::ChosenInput;
use crate::read::infer::{InferScope, infer_columns};
use crate::read::source::{ReadTask, SourceReader, TaskQueue};
use crate::report::counts::{OutputReport, SourceReport};
use crate::shape::columns::AddedColumns;
use crate::shape::encrypted::{WritableTable, encrypt_files};
use crate::shape::finisher::RowFinisher;
use crate::shape::query::{QuerySource, SourceQuery};
use crate::shape::treatment::TreatedSource;
use crate::spec::{OutputMode, SourceFormat};
use crate::write::writer::SourceRows;

/// The rows of an output, made from some objects of its sources.
pub(crate) struct OutputRows<'a> {
    pub(crate) output: &'a OutputRun<'a>,
    pub(crate) chosen: &'a [ChosenInput],
    /// Objects of each source that the rows are made from.
    pub(crate) objects: &'a [Vec<SourceObject>],
    pub(crate) readings: Vec<Arc<SourceReader>>,
    pub(crate) finish: Arc<RowFinisher>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) contract: Option<Contract>,
    pub(crate) table: WritableTable,
    /// Treatment of personal data, one for each source.
    pub(crate) guards: Vec<Arc<TreatedSource>>,
}

impl<'a> OutputRows<'a> {
    /// Decides how the objects of each source become the rows of the output. `earlier` are treatments of sources that
    /// the output has read already in this run. Conflicting types are added to the report.
    pub(crate) async fn prepare(
        output: &'a OutputRun<'a>,
        chosen: &'a [ChosenInput],
        objects: &'a [Vec<SourceObject>],
        earlier: Vec<Arc<TreatedSource>>,
        report: &mut OutputReport,
    ) -> Result<Self> {
        let own = output.contract(output.spec.contract.as_ref())?;
        if let Some(layer) = own.as_ref().and_then(|c| c.layer).filter(|l| *l == DatasetLayer::Raw)
            && output.spec.mode != OutputMode::Append
        {
            let message =
                format!("the contract of `{}` declares the layer {layer:?}, so its mode must be `append`", output.name);
            return Err(Error::new(biscuit_dataset::codes::RAW_LAYER, message.replace("Raw", "raw")));
        }
        // Without a commit, the types of the table are only in its files. A mode that replaces the table ignores them.
        let known = match output.spec.mode {
            OutputMode::Replace => output.snapshot.known_schema()?,
            _ => Some(output.snapshot.current_schema().await?),
        };
        let known = known.filter(|s| !s.fields().is_empty());
        // A treated column has another type in the table than in the source, so the table does not tell the type in
        // the source.
        let treated = match &known {
            Some(known) => output.treated(known)?,
            None => BTreeSet::new(),
        };
        let added = AddedColumns::new(&output.spec.audit, output.spec.derive.clone(), output.run);
        // The table adds the column that names the period.
        let period = if output.spec.mode == OutputMode::Snapshot { Some(output.periods()?.column) } else { None };
        let made = treated.iter().chain(&period).map(String::as_str);
        let names: BTreeSet<&str> = added.names().chain(made).collect();
        let known = known.as_ref().filter(|_| output.spec.sql.is_none()).map(|s| schema_without(s, &names));
        let mut guards = earlier;
        let mut readings = Vec::new();
        for (input, objects) in chosen.iter().zip(objects) {
            let contract = contract_of(output, input, objects, known.as_ref(), report).await?;
            readings.push(Arc::new(new_reader(output, input, &contract, own.as_ref(), &mut guards).await?));
        }
        check_classes(output, chosen, &guards, own.as_ref())?;
        let coercion = own.as_ref().map(|c| output.coercion(chosen, c, &added)).transpose()?;
        let compliance = ContractCompliance::new(own.as_ref().unwrap_or(&Contract::default()), output.run.start)?;
        // Without a query and a contract of the output, the source's contract names the partition columns.
        let declared = match (&own, readings.as_slice(), &output.spec.sql) {
            (Some(own), ..) => own.partition_by.clone(),
            (None, [one], None) => one.coercion.contract().partition_by.clone(),
            _ => vec![],
        };
        let partition_by = match output.spec.partition_by.as_slice() {
            [] => declared,
            columns => columns.to_vec(),
        };
        // Without a contract of the output, the `on_error` of the source's contract applies.
        let policy = own.as_ref().or(readings.first().map(|reading| reading.coercion.contract())).map(|c| c.on_error);
        let quarantines = policy == Some(OnError::Quarantine);
        let folders = if quarantines { partition_by.clone() } else { vec![] };
        let finish = Arc::new(
            RowFinisher::new(added, coercion, compliance).with_folders(folders).of_query(output.spec.sql.is_some()),
        );
        let sources: Vec<_> = readings.iter().map(|reading| (reading.schema.clone(), reading.keeps_extra())).collect();
        let table = encrypt_files(output, &guards, &sources, own.as_ref()).await?;
        Ok(Self { output, chosen, objects, readings, finish, partition_by, contract: own, table, guards })
    }

    /// Returns the tasks of each source.
    async fn tasks(&self) -> Result<Vec<Vec<ReadTask>>> {
        let mut tasks = Vec::new();
        for ((chosen, reading), objects) in self.chosen.iter().zip(&self.readings).zip(self.objects) {
            tasks.push(reading.plan_tasks(&chosen.to_files(objects)?).await?);
        }
        Ok(tasks)
    }

    /// Plans the query of the output, if it has one.
    pub(crate) async fn query(&self) -> Result<Option<SourceQuery>> {
        let Some(sql) = &self.output.spec.sql else { return Ok(None) };
        let tasks = self.tasks().await?;
        let mut sources = Vec::new();
        for ((chosen, reading), tasks) in self.chosen.iter().zip(&self.readings).zip(tasks) {
            let source_file = self.output.job.sources[&chosen.source].source_file.as_deref();
            sources.push(QuerySource { name: &chosen.source, reading, source_file, tasks });
        }
        SourceQuery::plan(sql, sources, self.output.parallelism).await.map(Some)
    }

    /// Returns the number of threads for the input. Each thread writes its own files, so small input uses few
    /// threads.
    fn workers(&self) -> usize {
        let bytes: u64 = self.objects.iter().flatten().map(|o| o.listed.size).sum();
        self.output.parallelism.min(usize::try_from(bytes / WORTH + 1).unwrap_or(1))
    }

    /// Returns the rows of the only source of an output without a query.
    pub(crate) async fn only_source(&self) -> Result<SourceRows<'_>> {
        let [tasks] = <[Vec<ReadTask>; 1]>::try_from(self.tasks().await?)
            .map_err(|_| Error::internal("the output has several sources without a query"))?;
        Ok(SourceRows {
            reading: &self.readings[0],
            source_file: self.output.job.sources[&self.chosen[0].source].source_file.as_deref(),
            queue: TaskQueue::new(tasks),
            finish: &self.finish,
            workers: self.workers(),
        })
    }
}

/// Returns the contract of the rows of a source. `known` has the types of the output's columns, for rows without
/// a query.
async fn contract_of(
    output: &OutputRun<'_>,
    chosen: &ChosenInput,
    objects: &[SourceObject],
    known: Option<&SchemaRef>,
    report: &mut OutputReport,
) -> Result<Contract> {
    let spec = &output.job.sources[&chosen.source];
    match output.contract(spec.contract.as_ref())? {
        // Columns that the contract does not declare but keeps get types from their values.
        Some(mut contract) if contract.extra == ExtraColumns::Keep && spec.format != SourceFormat::Parquet => {
            let files = chosen.to_files(objects)?;
            let (found, _) =
                infer_columns(&files, spec.format, &spec.text(), spec.rules.as_ref(), None, None, InferScope::All)
                    .await?;
            let own = |name: &str| {
                let is = |n: &String| n.eq_ignore_ascii_case(name);
                contract.columns.iter().any(|c| is(&c.name) || c.reading.renamed_from.iter().any(is))
            };
            let more: Vec<_> = found.columns.into_iter().filter(|c| !own(&c.name)).collect();
            contract.columns.extend(more);
            Ok(contract)
        }
        Some(contract) => Ok(contract),
        None => {
            let files = chosen.to_files(objects)?;
            let file = spec.source_file.as_deref();
            let known = known.map(|known| schema_without(known, &file.into_iter().collect()));
            let keys = output.snapshot.dataset_encryption();
            let (contract, conflicts) = infer_columns(
                &files,
                spec.format,
                &spec.text(),
                spec.rules.as_ref(),
                known.as_ref(),
                keys,
                InferScope::All,
            )
            .await?;
            conflicts.iter().for_each(|c| tracing::warn!("{c}"));
            let source: &mut SourceReport = report.sources.entry(chosen.source.clone()).or_default();
            source.conflicts = conflicts;
            Ok(contract)
        }
    }
}

/// Creates the reader of a source, which also treats personal data.
async fn new_reader(
    output: &OutputRun<'_>,
    chosen: &ChosenInput,
    contract: &Contract,
    own: Option<&Contract>,
    guards: &mut Vec<Arc<TreatedSource>>,
) -> Result<SourceReader> {
    let spec = &output.job.sources[&chosen.source];
    let keys = output.snapshot.dataset_encryption().cloned();
    let reading = SourceReader::new(spec.format, spec.text(), contract, output.run.start)?.with_keys(keys);
    // Without a query and a contract of the source, the rows are those of the output, so the classes of the
    // output's contract apply.
    let declared = match (&spec.contract, &output.spec.sql) {
        (None, None) => own.unwrap_or(contract),
        _ => contract,
    };
    let Some(guard) = output.guard_for(Some(declared))? else { return Ok(reading) };
    guards.push(guard.clone());
    reading.with_guard(guard).await
}

/// Checks that the policy names only existing columns, and covers every column with a class.
///
/// # Errors
/// Errors of [`check_all_seen`](crate::shape::treatment::check_all_seen); `UntreatedClass` for a column of the output
/// whose class no source treats.
fn check_classes(
    output: &OutputRun<'_>,
    chosen: &[ChosenInput],
    guards: &[Arc<TreatedSource>],
    own: Option<&Contract>,
) -> Result<()> {
    output.check_policy(chosen, guards, None)?;
    let Some(own) = own.filter(|_| !guards.is_empty() && output.spec.sql.is_none()) else { return Ok(()) };
    let is_named = |name: &str| guards.iter().any(|guard| guard.names_column(name));
    match own.columns.iter().find(|c| c.pii.is_some() && !is_named(&c.name)) {
        Some(column) => {
            let message = format!(
                "column `{}` has a class in the output's contract but not in the source's contract; add the class there",
                column.name
            );
            Err(Error::new(biscuit_pii::codes::UNTREATED_CLASS, message).with_column(&column.name))
        }
        None => Ok(()),
    }
}

/// Bytes of input for each additional thread.
const WORTH: u64 = 32 << 20;

/// Returns the schema without the named columns.
fn schema_without(schema: &SchemaRef, names: &BTreeSet<&str>) -> SchemaRef {
    let fields = schema.fields().iter().filter(|f| !names.contains(f.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
