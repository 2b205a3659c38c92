//! The DataFusion table provider over the files of one snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::async_reader::AsyncFileReader;

use crate::files::data_file::OpenFile;
use crate::files::guarded_source::GuardedSource;
use crate::files::reader::FileReader;

/// The files of one snapshot as a table of DataFusion.
#[derive(Debug)]
pub(crate) struct TableFiles {
    schema: SchemaRef,
    files: Vec<OpenFile>,
    store: Arc<dyn ObjectStore>,
    url: ObjectStoreUrl,
    partition_columns: usize,
}

impl TableFiles {
    /// Creates the table. The last `partition_columns` columns of `schema` come from the paths.
    pub(crate) fn new(
        schema: SchemaRef,
        files: Vec<OpenFile>,
        store: Arc<dyn ObjectStore>,
        partition_columns: usize,
    ) -> Self {
        // Each snapshot reads through its own store, and a session finds a store by its URL. So each snapshot needs a
        // unique URL.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let url = ObjectStoreUrl::parse(format!("biscuit://snapshot-{n}")).expect("the text is a valid URL");
        Self { schema, files, store, url, partition_columns }
    }

    fn first_partition_column(&self) -> usize {
        self.schema.fields().len() - self.partition_columns
    }

    /// Returns whether a filter depends on partition columns only, so that the path of a file decides it.
    fn by_path(&self, filter: &Expr) -> bool {
        let first = self.first_partition_column();
        let columns = filter.column_refs();
        !columns.is_empty()
            && !filter.is_volatile()
            && columns.iter().all(|c| self.schema.index_of(&c.name).is_ok_and(|i| i >= first))
    }

    fn partition_values(&self, file: &OpenFile) -> Result<Vec<ScalarValue>> {
        let fields = &self.schema.fields()[self.first_partition_column()..];
        fields
            .iter()
            .zip(&file.file.partition)
            .map(|(f, (_, value))| to_scalar(value.as_deref(), f.data_type()))
            .collect()
    }

    /// Returns the files that match filters on partition columns, with their partition values.
    fn choose_files(&self, state: &dyn Session, filters: &[&Expr]) -> Result<Vec<(&OpenFile, Vec<ScalarValue>)>> {
        let mut files = self.files.iter().map(|f| Ok((f, self.partition_values(f)?))).collect::<Result<Vec<_>>>()?;
        let Some(filter) = conjunction(filters.iter().map(|f| (*f).clone())) else { return Ok(files) };
        if files.is_empty() {
            return Ok(files);
        }
        // Partition pruning: evaluate the filter on a batch with one row of partition values for each file.
        let first = self.first_partition_column();
        let schema = Arc::new(Schema::new(self.schema.fields()[first..].to_vec()));
        let columns =
            (0..self.partition_columns).map(|i| ScalarValue::iter_to_array(files.iter().map(|(_, v)| v[i].clone())));
        let batch = RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?;
        let expr = state.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
        let keep = expr.evaluate(&batch)?.into_array(files.len())?;
        let keep = datafusion::common::cast::as_boolean_array(&keep)?.clone();
        let mut row = 0;
        files.retain(|_| {
            row += 1;
            is_true(&keep, row - 1)
        });
        Ok(files)
    }
}

/// Reader factory for files whose footers were read. They are not read again, and keys of encrypted files are known.
#[derive(Debug)]
struct OpenedFiles(HashMap<Path, FileReader>);

impl ParquetFileReaderFactory for OpenedFiles {
    fn create_reader(
        &self,
        _: usize,
        file: PartitionedFile,
        _: Option<usize>,
        _: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = &file.object_meta.location;
        let reader = self.0.get(path).cloned();
        let reader = reader.ok_or_else(|| DataFusionError::Internal(format!("`{path}` was not opened")))?;
        Ok(Box::new(reader))
    }
}

fn is_true(array: &BooleanArray, row: usize) -> bool {
    array.is_valid(row) && array.value(row)
}

fn to_scalar(value: Option<&str>, t: &DataType) -> Result<ScalarValue> {
    match value {
        None => ScalarValue::try_from(t),
        Some(text) => ScalarValue::try_from_array(&cast(&StringArray::from(vec![text]), t)?, 0),
    }
}

#[async_trait]
impl TableProvider for TableFiles {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |f: &&Expr| match self.by_path(f) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        state.runtime_env().register_object_store(self.url.as_ref(), self.store.clone());
        let (by_path, others): (Vec<&Expr>, Vec<&Expr>) = filters.iter().partition(|f| self.by_path(f));
        let first = self.first_partition_column();
        let data = Arc::new(Schema::new(self.schema.fields()[..first].to_vec()));
        let folders = self.schema.fields()[first..].to_vec();
        let table = TableSchema::builder(data).with_table_partition_cols(folders).build();
        let files = self.choose_files(state, &by_path)?;
        let columns = |c: &usize| (*c < first).then(|| self.schema.field(*c).name().as_str());
        let all: Vec<usize> = (0..first).collect();
        for (file, _) in &files {
            let checked = file.check_keys(projection.unwrap_or(&all).iter().filter_map(columns));
            checked.map_err(|e| DataFusionError::External(Box::new(e)))?;
        }
        let readers = files.iter().map(|(file, _)| (file.file.object.clone(), file.reader().clone())).collect();
        let mut source = ParquetSource::new(table).with_parquet_file_reader_factory(Arc::new(OpenedFiles(readers)));
        // The Parquet library fails for a file whose page index it cannot decrypt completely.
        if files.iter().any(|(file, _)| file.is_closed()) {
            source = source.with_enable_page_index(false);
        }
        if let Some(filter) = conjunction(others.into_iter().cloned()) {
            let schema = DFSchema::try_from(self.schema.clone())?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let groups = state.config().target_partitions().max(1);
        let mut split: Vec<Vec<PartitionedFile>> = vec![vec![]; groups];
        for (i, (file, values)) in files.into_iter().enumerate() {
            let mut part = PartitionedFile::new(file.file.object.to_string(), file.size());
            part.object_meta.location = file.file.object.clone();
            part.partition_values = values;
            // The schema of the file, with its own time units. The engine casts to the types of the table.
            part.arrow_schema = Some(file.metadata().schema().clone());
            split[i % groups].push(part);
        }
        let groups = split.into_iter().filter(|g| !g.is_empty()).map(FileGroup::new).collect();
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(GuardedSource::new(Arc::new(source))))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
