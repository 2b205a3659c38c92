//! A table of periods in memory, and its contents as read from plain Parquet.

use std::collections::BTreeMap;
use std::sync::Arc;

use biscuit_apply::{MergeOptions, MergeSpec, RunMode};
use biscuit_change::{ChangeRecords, RowsOptions, RowsReader};
use biscuit_core::Result;
use biscuit_dataset::{Dataset, Location};
use biscuit_journal::{JournalOptions, TableStorage};
use biscuit_partition::report::PeriodTableReport;
use biscuit_partition::{PeriodBasis, PeriodCalendar, PeriodPlan, PeriodTable};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Events before March.
pub(crate) const HISTORY: &str = r#"
{"id":"k1","eff":"2024-01-10","v":"a","op":"c"}
{"id":"k1","eff":"2024-02-05","v":"b","op":"u"}
{"id":"k2","eff":"2024-02-07","v":"c","op":"c"}
"#;

pub(crate) fn memory() -> TableStorage {
    TableStorage::durable(Arc::new(InMemory::new()))
}

pub(crate) fn dataset(storage: TableStorage) -> Dataset {
    let location = Location::new(storage, "lake/t", "lake/t").expect("the path is below the root");
    Dataset::new(location, JournalOptions::default())
}

pub(crate) fn months(by: PeriodBasis) -> PeriodPlan {
    PeriodPlan::new(
        PeriodCalendar::new("month".parse().expect("the granularity is valid"), "UTC").expect("the calendar is valid"),
        by,
    )
}

pub(crate) fn effective() -> PeriodPlan {
    months(PeriodBasis::Effective("eff".to_owned()))
}

pub(crate) fn spec() -> MergeSpec {
    MergeSpec::new(["id"], ["eff"]).expect("the spec is valid").with_op_rank(["c", "u", "d"])
}

pub(crate) fn options() -> MergeOptions {
    MergeOptions::default().with_parallelism(1)
}

pub(crate) fn table(storage: &TableStorage, spec: MergeSpec, periods: PeriodPlan) -> PeriodTable {
    table_with(storage, spec, options(), periods)
}

pub(crate) fn table_with(
    storage: &TableStorage,
    spec: MergeSpec,
    options: MergeOptions,
    periods: PeriodPlan,
) -> PeriodTable {
    PeriodTable::new(dataset(storage.clone()), spec, options, periods).expect("the options are valid")
}

/// Returns change records from JSON lines with the column `op`.
pub(crate) fn changes(lines: &str) -> Result<ChangeRecords> {
    let mut reader = RowsReader::new(RowsOptions::default().with_op("op"));
    if !lines.trim().is_empty() {
        reader.read("changes.jsonl", lines.to_owned().into_bytes().into())?;
    }
    reader.finish()
}

pub(crate) async fn run(table: &PeriodTable, lines: &str, as_of: &str) -> Result<PeriodTableReport> {
    let report = table.run(changes(lines)?, as_of.parse().expect("the instant is valid"), RunMode::Commit).await?;
    let verdicts = report.verdicts.total();
    assert_eq!(verdicts, report.records + report.opened, "the verdicts do not add up: {:?}", report.verdicts);
    Ok(report)
}

/// Returns all objects with their ETags.
pub(crate) async fn objects(storage: &TableStorage) -> Vec<(String, Option<String>)> {
    let listed = storage.store.list(None).map_ok(|m| (m.location.to_string(), m.e_tag));
    let mut all: Vec<_> = listed.try_collect().await.expect("the listing succeeds");
    all.sort();
    all
}

/// Returns the data files of one period with their ETags.
pub(crate) async fn files_of(storage: &TableStorage, period: &str) -> Vec<(String, Option<String>)> {
    let folder = format!("lake/t/period={period}/");
    objects(storage).await.into_iter().filter(|(name, _)| name.starts_with(&folder)).collect()
}

/// Returns all rows by period, read from the Parquet files in the folders, sorted.
pub(crate) async fn rows(storage: &TableStorage, columns: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, _) in objects(storage).await {
        let Some(rest) = name.strip_prefix("lake/t/period=") else { continue };
        let (period, _) = rest.split_once('/').expect("the folder exists");
        let bytes = storage
            .store
            .get(&name.as_str().into())
            .await
            .expect("the file is readable")
            .bytes()
            .await
            .expect("the bytes are readable");
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .expect("the file is Parquet")
            .build()
            .expect("the reader opens");
        for batch in reader {
            rows.entry(period.to_owned()).or_default().extend(texts(&batch.expect("the rows are readable"), columns));
        }
    }
    rows.values_mut().for_each(|rows| rows.sort());
    rows
}

/// Returns each row of some columns as text.
pub(crate) fn texts(batch: &RecordBatch, columns: &[&str]) -> Vec<String> {
    let text = |row: usize, column: &&str| {
        let array = batch.column_by_name(column).unwrap_or_else(|| panic!("there is no column {column}"));
        array_value_to_string(array, row).expect("the value can be shown")
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| text(row, c)).collect::<Vec<_>>().join("=")).collect()
}

/// Returns the rows of some periods as `id=v,id=v`, one text for each period.
pub(crate) async fn states(storage: &TableStorage, periods: &[&str]) -> Vec<String> {
    let rows = rows(storage, &["id", "v"]).await;
    periods.iter().map(|p| rows.get(*p).map_or(String::new(), |rows| rows.join(","))).collect()
}
