use std::sync::Arc;

use biscuit_core::{Error, Result};
use biscuit_dataset::internal::engine_error;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::codes;
use crate::read::source::{ReadTask, SourceReader, divide_tasks};
use crate::shape::source_table::source_table;

/// A planned SQL query over sources.
pub(crate) struct SourceQuery {
    ctx: SessionContext,
    frame: DataFrame,
}

/// A source that a query can read as a table.
pub(crate) struct QuerySource<'a> {
    pub(crate) name: &'a str,
    pub(crate) reading: &'a Arc<SourceReader>,
    pub(crate) source_file: Option<&'a str>,
    pub(crate) tasks: Vec<ReadTask>,
}

impl SourceQuery {
    /// Plans a query.
    ///
    /// # Errors
    /// `InvalidSql` if the query cannot be planned: unknown tables or columns, types that do not match, or a
    /// statement other than a query.
    pub(crate) async fn plan(sql: &str, sources: Vec<QuerySource<'_>>, parallelism: usize) -> Result<Self> {
        let config = SessionConfig::new().with_target_partitions(parallelism).with_information_schema(false);
        let ctx = SessionContext::new_with_config(config);
        for source in sources {
            let parts = divide_tasks(source.tasks, parallelism);
            let table = source_table(source.reading, source.source_file, parts)?;
            let registered = ctx.register_table(source.name, Arc::new(table));
            registered.map_err(planning_error)?;
        }
        // A query must not change anything, neither tables nor files.
        let options = datafusion::execution::context::SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let frame = ctx.sql_with_options(sql, options).await.map_err(planning_error)?;
        Ok(Self { ctx, frame })
    }

    /// Returns the columns of the result.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(self.frame.schema().as_arrow().clone())
    }

    /// Returns the physical plan, line by line.
    pub(crate) async fn explain(&self) -> Result<Vec<String>> {
        let plan = self.frame.clone().create_physical_plan().await.map_err(planning_error)?;
        Ok(displayable(plan.as_ref()).indent(false).to_string().lines().map(str::to_owned).collect())
    }

    /// Starts the query. Returns the streams of its partitions, which run in parallel.
    pub(crate) async fn run(self) -> Result<Vec<SendableRecordBatchStream>> {
        let plan = self.frame.create_physical_plan().await.map_err(planning_error)?;
        execute_stream_partitioned(plan, self.ctx.task_ctx()).map_err(planning_error)
    }
}

/// Converts a planning error. Errors about the query itself quote only the query, names and types. Other errors may
/// quote values of rows, which `engine_error` hides.
fn planning_error(e: DataFusionError) -> Error {
    use DataFusionError as D;
    let about = |what: &str| format!("cannot plan the query: {what}");
    match e {
        D::SQL(..) | D::Plan(_) | D::SchemaError(..) | D::NotImplemented(_) => {
            Error::new(codes::INVALID_SQL, about(&e.strip_backtrace()))
        }
        D::Context(_, inner) | D::Diagnostic(_, inner) => planning_error(*inner),
        D::Collection(mut all) if !all.is_empty() => planning_error(all.swap_remove(0)),
        e => match engine_error("the query", e) {
            e if e.is(biscuit_dataset::codes::UNREADABLE_ROWS) => {
                let what = e.message().rsplit_once(": ").map_or("", |(_, what)| what).to_owned();
                Error::new(codes::INVALID_SQL, about(&what)).with_source(e)
            }
            e => e,
        },
    }
}
