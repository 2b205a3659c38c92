//! Large Parquet files of change records, whose row groups are decoded side by side.

use std::collections::VecDeque;
use std::sync::Arc;

use biscuit_change::internal::{DecodedRows, to_stored_types};
use biscuit_core::Result;
use biscuit_dataset::{DataFile, OpenFile};
use biscuit_schema::internal::UuidColumns;
use datafusion::arrow::array::RecordBatch;
use futures::StreamExt;

use crate::changes::change_reader::ChangeReader;
use crate::changes::decoding::{Decoding, DecodingUnit};
use crate::changes::files::ChangeBatchSink;
use crate::changes::found_files::FoundFile;
use crate::changes::task_output::TaskOutput;

/// Number of rows of a larger file that are decoded at a time.
const BATCH: usize = 65_536;

impl FoundFile {
    /// Reads a large Parquet file. Several row groups are decoded at a time, each by a task, and read in the order of
    /// the file, so that numbers of rows are right.
    pub(crate) async fn each_row_group(
        &self,
        max_decompressed: Option<u64>,
        reader: &mut ChangeReader,
        decoding: &mut Decoding,
        take: &mut dyn ChangeBatchSink,
    ) -> Result<()> {
        let data = DataFile::outside_tables(self.listed.clone(), self.object.clone());
        let open = OpenFile::open(self.pinned_store(), data).await.map_err(|e| self.explain_error(e))?;
        take.announce(open.rows());
        let uuids = UuidColumns::of_parquet(open.metadata().schema(), open.metadata().parquet_schema());
        let open = open.with_batch_rows(BATCH);
        let (name, mut first): (Arc<str>, u64) = (self.name().into(), 1);
        let decoded = DecodedRows::new(&name, self.listed.size, max_decompressed);
        let groups = open.metadata().metadata().row_groups();
        let largest = groups.iter().filter_map(|group| usize::try_from(group.total_byte_size()).ok()).max();
        let side_by_side = take.parallel_groups(largest.unwrap_or(0));
        let (mut groups, mut started) = (0..groups.len(), VecDeque::new());
        loop {
            // These tasks decode while the rows before them are processed.
            while started.len() < side_by_side
                && let Some(group) = groups.next()
            {
                started.push_back(decode_group(&open, group).map_err(|e| self.explain_error(e))?);
            }
            let Some(mut group) = started.pop_front() else { return Ok(()) };
            while let Some(rows) = group.next().await.map_err(|e| self.explain_error(e))? {
                decoded.add(&rows)?;
                let rows = to_stored_types(&uuids.to_texts(rows)?, &name)?;
                let count = rows.num_rows() as u64;
                decoding.start(DecodingUnit::Rows(name.clone(), rows, first), reader, take).await?;
                first += count;
            }
        }
    }
}

/// Starts to decode a row group.
fn decode_group(file: &OpenFile, group: usize) -> Result<TaskOutput<RecordBatch>> {
    let mut decoded = file.stream_groups(None, &[group])?;
    Ok(TaskOutput::start(|send| {
        tokio::spawn(async move {
            while let Some(rows) = decoded.next().await {
                let last = rows.is_err();
                if send.send(rows).await.is_err() || last {
                    break;
                }
            }
        })
    }))
}
