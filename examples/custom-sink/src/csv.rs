//! A sink for CSV files. The journal makes it safe against crashes and second writers.

use biscuit_core::{CommitId, Error, Outcome, Result, Run, Sink, WriteReceipt, async_trait};
use biscuit_journal::{Journal, ObservedTable, StagedFile, TableCommit};

use crate::codes::EMPTY_SHOP;
use crate::{Day, Sale};

/// Writes the sales of each day as one CSV file below `day=<day>/`, and replaces the earlier files of that day.
#[derive(Debug)]
pub struct CsvSink(Journal);

impl CsvSink {
    /// Creates a sink for the folder of this journal.
    pub fn new(journal: Journal) -> Self {
        Self(journal)
    }

    /// Writes the file to the staging folder, where no reader looks, and checks its content.
    async fn stage(table_commit: &TableCommit<'_>, day: &Day) -> Result<StagedFile> {
        let mut writer = table_commit.writer(&format!("day={}", day.day), "csv");
        writer.write("shop,cents\n".into()).await?;
        for (row, sale) in (1..).zip(&day.sales) {
            writer.write(line(sale, row, day)?.into()).await?;
        }
        let staged = writer.finish().await?;
        let lines = table_commit.read_back(&staged).await?.iter().filter(|b| **b == b'\n').count();
        if lines != day.sales.len() + 1 {
            return Err(Error::internal(format!("`{}` has {lines} lines", staged.object())));
        }
        Ok(staged.with_rows(day.sales.len() as u64))
    }

    async fn replace(&self, observed: &ObservedTable, commit: &CommitId, day: &Day) -> Result<(u64, Outcome)> {
        let mut table_commit = self.0.begin_commit(observed);
        table_commit.with_commit_id(commit);
        match Self::stage(&table_commit, day).await {
            Ok(file) => table_commit.publish(file),
            Err(e) => {
                table_commit.abandon().await?;
                return Err(e);
            }
        }
        let folder = format!("day={}/", day.day);
        observed.files.iter().filter(|f| f.path.starts_with(&folder)).for_each(|f| table_commit.remove(f));
        let committed = table_commit.commit().await?;
        Ok((committed.version, committed.outcome))
    }
}

/// Returns a line of CSV. The name of a shop is quoted if it has a comma, a quote or a line break.
fn line(sale: &Sale, row: u64, day: &Day) -> Result<String> {
    if sale.shop.is_empty() {
        return Err(Error::new(EMPTY_SHOP, "the shop of a sale is empty").with_column("shop").at(&day.day, row));
    }
    let shop = match sale.shop.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", sale.shop.replace('"', "\"\"").replace(['\n', '\r'], " ")),
        false => sale.shop.clone(),
    };
    Ok(format!("{shop},{}\n", sale.cents))
}

#[async_trait]
impl Sink<Day> for CsvSink {
    async fn write(&self, _: &Run, commit: &CommitId, day: Day) -> Result<WriteReceipt> {
        let observed = self.0.observe().await?;
        let rows = day.sales.len() as u64;
        let receipt = |version, outcome| {
            let place = format!("{} version {version}", self.0.table());
            WriteReceipt::new(commit.clone(), outcome, rows, place)
        };
        // An attempt that committed before has the same commit id: nothing is staged again.
        if let Some(version) = observed.head.version_of_commit(commit) {
            return Ok(receipt(version, Outcome::Unchanged));
        }
        // A day without sales must not delete existing files: it may be the result of missing input.
        if day.sales.is_empty() {
            return Ok(receipt(observed.head.version, Outcome::Unchanged));
        }
        let (version, outcome) = self.replace(&observed, commit, &day).await?;
        Ok(receipt(version, outcome))
    }
}
