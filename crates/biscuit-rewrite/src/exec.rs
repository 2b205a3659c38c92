//! The DataFusion operator that rewrites units, and the function that runs it in this process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use biscuit_core::Result;
use biscuit_dataset::internal::engine_error;
use biscuit_journal::FileStager;
use biscuit_journal::record::PublishedFile;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as EngineResult, internal_err};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions, collect_partitioned,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::encode::threads::{EncodeThreads, UnitResources};
use crate::encode::write::write;
use crate::plan::unit::{RewriteUnit, WrittenUnit};

/// DataFusion operator that rewrites units.
///
/// Each input row names a unit by its number; each output row describes a staged file. The units of one input
/// partition are written one after the other. The row groups of a unit are encoded on all free cores. A file becomes
/// durable while the row groups of the next unit are encoded.
///
/// The memory of row groups is reserved in the memory pool of the session. When the pool is used up, fewer row groups
/// are encoded at a time.
#[derive(Debug)]
pub struct RewriteUnitsExec {
    input: Arc<dyn ExecutionPlan>,
    units: Arc<Vec<Arc<RewriteUnit>>>,
    stager: FileStager,
    cores: Arc<EncodeThreads>,
    /// Number of finished units, for progress messages.
    done: Arc<AtomicUsize>,
    properties: Arc<PlanProperties>,
}

impl RewriteUnitsExec {
    /// Creates an operator that rewrites `units` on `cores` cores. The first column of `input`, a `UInt32`, contains
    /// the numbers of the units.
    pub fn new(input: Arc<dyn ExecutionPlan>, units: Vec<RewriteUnit>, stager: FileStager, cores: usize) -> Self {
        let units = Arc::new(units.into_iter().map(Arc::new).collect());
        Self::with_input(input, units, stager, Arc::new(EncodeThreads::new(cores)))
    }

    fn with_input(
        input: Arc<dyn ExecutionPlan>,
        units: Arc<Vec<Arc<RewriteUnit>>>,
        stager: FileStager,
        cores: Arc<EncodeThreads>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(written_schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, units, stager, cores, done: Arc::default(), properties: Arc::new(properties) }
    }
}

impl DisplayAs for RewriteUnitsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RewriteUnitsExec: units={}, cores={}", self.units.len(), self.cores.number())
    }
}

impl ExecutionPlan for RewriteUnitsExec {
    fn name(&self) -> &'static str {
        "RewriteUnitsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // `spread` has already balanced the units over the partitions by cost.
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("RewriteUnitsExec must have exactly one input");
        };
        Ok(Arc::new(Self::with_input(input, self.units.clone(), self.stager.clone(), self.cores.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let shared = Arc::new(UnitResources { stager: self.stager.clone(), context, cores: self.cores.clone() });
        let (units, done) = (self.units.clone(), self.done.clone());
        let numbers = input.map(|batch| batch.and_then(|b| unit_numbers(&b)));
        let numbers = numbers.map_ok(|n| stream::iter(n).map(EngineResult::Ok)).try_flatten();
        let all = units.len();
        let failed = |e| DataFusionError::External(Box::new(e));
        // `and_then` encodes one unit after the other. `try_buffered(2)` below lets the upload of finished files
        // overlap with the encoding of the next unit, for at most two units at a time.
        let files = numbers.and_then(move |number| {
            let (unit, shared) = (units.get(number).cloned(), shared.clone());
            async move {
                let Some(unit) = unit else { return internal_err!("unit {number} does not exist") };
                write(number, unit, shared).await.map_err(failed)
            }
        });
        let written = files.map_ok(move |files| {
            let done = done.clone();
            async move {
                let written = match files {
                    Some(files) => files.finish().await.map_err(failed)?,
                    None => vec![],
                };
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(target: "biscuit::progress", done, all, "writing files");
                batch_of(&written)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(written_schema(), written.try_buffered(2))))
    }
}

fn unit_numbers(batch: &RecordBatch) -> EngineResult<Vec<usize>> {
    match batch.column(0).as_primitive_opt::<UInt32Type>() {
        Some(numbers) if numbers.null_count() == 0 => Ok(numbers.values().iter().map(|n| *n as usize).collect()),
        _ => internal_err!("the first input column of RewriteUnitsExec must be a UInt32 unit number without nulls"),
    }
}

/// Schema of the output rows, one for each staged file.
fn written_schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::UInt64, false);
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        Field::new("unit", DataType::UInt32, false),
        text("path"),
        text("staged"),
        number("size"),
        text("checksum"),
        number("rows"),
        number("copied"),
        number("encoded"),
    ]))
}

fn batch_of(written: &[WrittenUnit]) -> EngineResult<RecordBatch> {
    let number =
        |f: fn(&WrittenUnit) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(written.iter().map(f))) };
    let text =
        |f: fn(&WrittenUnit) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(written.iter().map(f))) };
    let units = written.iter().map(|w| u32::try_from(w.unit).expect("there are fewer than 2^32 units"));
    let columns = vec![
        Arc::new(UInt32Array::from_iter_values(units)) as ArrayRef,
        text(|w| &w.file.path),
        text(|w| &w.file.staged),
        number(|w| w.file.size),
        text(|w| &w.file.checksum),
        number(|w| w.file.rows.unwrap_or(0)),
        number(|w| w.copied),
        number(|w| w.encoded),
    ];
    Ok(RecordBatch::try_new(written_schema(), columns)?)
}

fn written_of(batch: &RecordBatch) -> Vec<WrittenUnit> {
    let text = |column: usize, row| batch.column(column).as_string::<i32>().value(row).to_owned();
    let number = |column: usize, row| batch.column(column).as_primitive::<UInt64Type>().value(row);
    let one = |row| {
        let mut file = PublishedFile::new(text(1, row), text(2, row), number(3, row), text(4, row));
        file.rows = Some(number(5, row));
        WrittenUnit {
            unit: batch.column(0).as_primitive::<UInt32Type>().value(row) as usize,
            file,
            copied: number(6, row),
            encoded: number(7, row),
        }
    };
    (0..batch.num_rows()).map(one).collect()
}

/// Rewrites `units` in this process on the `target_partitions` of the session of `context`, and returns the staged
/// files, ordered by unit.
///
/// The staged files become part of the table only when the caller publishes them with a table commit.
///
/// # Errors
/// `MemoryExhausted` if the memory pool of `context` has no room for one row group; the errors of the source files
/// and of the store.
pub async fn rewrite_units(
    units: Vec<RewriteUnit>,
    stager: &FileStager,
    context: Arc<TaskContext>,
) -> Result<Vec<WrittenUnit>> {
    let cores = context.session_config().target_partitions();
    let schema = Arc::new(Schema::new(vec![Field::new("unit", DataType::UInt32, false)]));
    let row = |unit: u32| {
        RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt32Array::from(vec![unit]))])
            .expect("a column of numbers fits its schema")
    };
    let partitions: Vec<Vec<RecordBatch>> =
        spread_units(&units, cores).into_iter().map(|numbers| numbers.into_iter().map(row).collect()).collect();
    let failed = |e| engine_error("the files to rewrite", e);
    let input = MemorySourceConfig::try_new_exec(&partitions, schema.clone(), None).map_err(failed)?;
    let plan = Arc::new(RewriteUnitsExec::new(input, units, stager.clone(), cores));
    let done = collect_partitioned(plan, context).await.map_err(failed)?;
    let mut written: Vec<WrittenUnit> = done.iter().flatten().flat_map(written_of).collect();
    written.sort_by(|a, b| (a.unit, &a.file.path).cmp(&(b.unit, &b.file.path)));
    Ok(written)
}

/// Assigns units to partitions, and returns the unit numbers of each partition.
///
/// Greedy longest-processing-time-first scheduling: the units are taken in descending order of cost, each by the
/// partition with the lowest total so far.
fn spread_units(units: &[RewriteUnit], partitions: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(units[i].estimate_cost()), i));
    let mut out = vec![(0_u64, vec![]); partitions.clamp(1, units.len().max(1))];
    for i in order {
        let least_loaded = out.iter_mut().min_by_key(|(cost, _)| *cost).expect("there is a partition");
        least_loaded.0 += units[i].estimate_cost().max(1);
        least_loaded.1.push(u32::try_from(i).expect("there are fewer than 2^32 units"));
    }
    out.into_iter().map(|(_, numbers)| numbers).collect()
}
