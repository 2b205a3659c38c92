//! Rebuilds periods without biscuit-partition: for each period, oldest first, it merges the rows of the period with
//! all changes up to its end, keeps the newest record of each key, and encodes all rows again. `benches/periods.py`
//! compares it with `biscuit snapshot`.
//!
//! Usage: `naive TABLE CHANGES PERIOD...`, for months in UTC of the table that the benchmark creates.

use biscuit_apply::{MergeSpec, merge_frames};
use biscuit_change::ChangeColumns;
use biscuit_dataset::{Dataset, Location, WriteMode, WriteOptions};
use biscuit_journal::JournalOptions;
use biscuit_partition::{Granularity, PeriodCalendar};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, table, changes, periods @ ..] = args.as_slice() else {
        return Err("usage: naive TABLE CHANGES PERIOD...".into());
    };
    let dataset = Dataset::new(Location::parse(table)?, JournalOptions::default());
    let spec = MergeSpec::new(["o_orderkey"], ["effective_date"])?;
    let columns = ChangeColumns::default().with_delete_column("_deleted");
    let calendar = PeriodCalendar::new(Granularity::Month, "UTC")?;
    for period in periods {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let end =
            ScalarValue::TimestampMicrosecond(Some(calendar.parse(period)?.end().as_micros()), Some("UTC".into()));
        let before = ctx.read_parquet(changes.as_str(), ParquetReadOptions::default()).await?;
        let before = before.filter(col("effective_date").lt(lit(end)))?;
        let snapshot = dataset.observe().await?;
        let folder = Some(period.clone());
        let of_period = snapshot.clone().only(|f| f.partition.first().is_some_and(|(_, value)| *value == folder));
        let current = of_period.load(&ctx).await?.drop_columns(&["period"])?;
        let (merged, _) = merge_frames(current, before, &spec, &columns).await?;
        let merged = merged.with_column("period", lit(period.as_str()))?;
        let options = WriteOptions::default().with_partition_by(["period"]);
        snapshot.write(merged, WriteMode::ReplacePartitions, &options).await?;
    }
    Ok(())
}
