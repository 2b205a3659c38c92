//! A DataFusion file source whose errors and panics name the file.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use biscuit_core::catch_panic;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::Stream;
use futures::stream::BoxStream;
use object_store::ObjectStore;

use crate::engine_error::{engine_error, parquet_error};
use crate::files::guarded::{catch_decoder_panic, panic_error};

/// Wraps a file source, so that errors of its decoders name the file, and panics become such errors. The engine
/// decodes in tasks of its own, from which a panic would return without the name of the file.
pub(crate) struct GuardedSource(Arc<dyn FileSource>);

impl GuardedSource {
    pub(crate) fn new(source: Arc<dyn FileSource>) -> Self {
        Self(source)
    }

    fn wrap(source: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self(source))
    }
}

impl FileSource for GuardedSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.0.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        Ok(Box::new(GuardedStep { place: Arc::default(), inner: self.0.create_morselizer(store, config, partition)? }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.0.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Self::wrap(self.0.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.0.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.0.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.0.metrics()
    }

    fn file_type(&self) -> &str {
        self.0.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.0.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        min_size: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        // DataFusion builds the divided scan from the source of the configuration, which is this wrapper.
        self.0.repartitioned(target_partitions, min_size, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let FilterPushdownPropagation { filters, updated_node } = self.0.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation { filters, updated_node: updated_node.map(Self::wrap) })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.0.try_pushdown_sort(order, properties)?.map(Self::wrap))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.0.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(self.0.try_pushdown_projection(projection)?.map(Self::wrap))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.0.apply_expressions(f)
    }
}

/// One of the steps in which the engine reads a file: morselizer, planner, morsel.
#[derive(Debug)]
struct GuardedStep<T: ?Sized> {
    /// Name of the file; empty before it is known.
    place: Arc<str>,
    inner: Box<T>,
}

fn panic_error_at(place: &str, e: biscuit_core::CaughtPanic) -> DataFusionError {
    DataFusionError::External(Box::new(parquet_error(place, panic_error(e))))
}

/// Adds the name of the file to an error of the decoder. Other errors are returned as they are.
fn name_file(place: &str, e: DataFusionError) -> DataFusionError {
    match e {
        e @ (DataFusionError::ParquetError(_) | DataFusionError::ArrowError(..) | DataFusionError::ObjectStore(_)) => {
            DataFusionError::External(Box::new(engine_error(place, e)))
        }
        e => e,
    }
}

fn run_guarded<T>(place: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_panic(decode).unwrap_or_else(|e| Err(panic_error_at(place, e))).map_err(|e| name_file(place, e))
}

impl Morselizer for GuardedStep<dyn Morselizer> {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let place: Arc<str> = file.object_meta.location.as_ref().into();
        let inner = run_guarded(&place, || self.inner.plan_file(file))?;
        Ok(Box::new(GuardedStep { place, inner }))
    }
}

impl MorselPlanner for GuardedStep<dyn MorselPlanner> {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { place, inner } = *self;
        let Some(mut plan) = run_guarded(&place, || inner.plan())? else { return Ok(None) };
        let of = |inner| -> Box<dyn Morsel> { Box::new(GuardedStep { place: place.clone(), inner }) };
        let planner = |place: &Arc<str>, inner| -> Box<dyn MorselPlanner> {
            Box::new(GuardedStep { place: place.clone(), inner })
        };
        let morsels = plan.take_morsels().into_iter().map(of).collect();
        let planners = plan.take_ready_planners().into_iter().map(|inner| planner(&place, inner)).collect();
        let mut guarded_plan = MorselPlan::new().with_morsels(morsels).with_planners(planners);
        if let Some(pending) = plan.take_pending_planner() {
            let place = place.clone();
            guarded_plan.set_pending_planner(async move {
                let inner = catch_decoder_panic(pending).await.unwrap_or_else(|e| Err(panic_error_at(&place, e)));
                inner.map(|inner| planner(&place, inner)).map_err(|e| name_file(&place, e))
            });
        }
        Ok(Some(guarded_plan))
    }
}

impl Morsel for GuardedStep<dyn Morsel> {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { place, inner } = *self;
        match run_guarded(&place, || Ok(inner.into_stream())) {
            Ok(rows) => Box::pin(GuardedMorsel { place, rows: Some(rows) }),
            Err(e) => Box::pin(futures::stream::once(std::future::ready(Err(e)))),
        }
    }
}

struct GuardedMorsel {
    place: Arc<str>,
    /// `None` after the end or an error.
    rows: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl Stream for GuardedMorsel {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let next = match catch_panic(|| rows.as_mut().poll_next(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(next)) => next.map(|rows| rows.map_err(|e| name_file(&self.place, e))),
            Err(e) => Some(Err(panic_error_at(&self.place, e))),
        };
        if !matches!(next, Some(Ok(_))) {
            self.rows = None;
        }
        Poll::Ready(next)
    }
}
