use std::pin::pin;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};

use crate::choose::{Choice, Reason, choose, plan};
use crate::cores::Shared;
use crate::out::Out;
use crate::sort::sorted_groups;
use crate::target::Target;
use crate::unit::{Unit, Written};

/// Writes the new files of a unit: row groups are worked on at the same time and written in their order.
///
/// # Errors
/// `MemoryExhausted` if not even one row group fits into the budget, those of the sources and of the store.
pub(crate) async fn write(number: usize, unit: Arc<Unit>, shared: Arc<Shared>) -> Result<Vec<Written>> {
    let choice = choose(&unit);
    if choice == Choice::Keep {
        return Ok(vec![]);
    }
    if choice == Choice::Rewrite(Reason::Damaged) {
        let message =
            format!("`{}` cannot be read as Parquet: a column chunk is not where its footer says", unit.name());
        return Err(Error::data("UnreadableParquet", message));
    }
    let splice = choice == Choice::Splice;
    let target = Arc::new(Target::new(unit, shared, choice).await?);
    let mut out = Out::new(&target, number);
    if target.unit.sort_by.is_empty() {
        groups(&target, splice, &mut out).await?;
    } else {
        sorted(&target, &mut out).await?;
    }
    out.finish().await
}

async fn groups(target: &Arc<Target>, splice: bool, out: &mut Out<'_>) -> Result<()> {
    let held = stream::iter(plan(&target.unit, splice)).then(|p| {
        // One after the other, so that no row group waits for memory that one behind it holds.
        let target = target.clone();
        async move { target.hold(&p).await.map(|held| (p, held)) }
    });
    let jobs = held.map(|held| {
        let target = target.clone();
        async move {
            let (plan, held) = held?;
            // A task of its own, so that it goes on while another row group is written.
            let task = tokio::spawn(async move { target.ready(&plan).await });
            let ready = task.await.map_err(|e| Error::internal("a row group was cut off").with_source(e))??;
            Ok::<_, Error>((ready, held))
        }
    });
    // One more than there are cores: its bytes are fetched while the others are worked on.
    let mut ready = pin!(jobs.buffered(target.shared.cores.number() + 1));
    while let Some((group, held)) = ready.try_next().await? {
        out.append(group).await?;
        drop(held);
    }
    Ok(())
}

/// Sorts all rows, within the session's memory and where that ends on its disk, and encodes them a row group at a time.
async fn sorted(target: &Arc<Target>, out: &mut Out<'_>) -> Result<()> {
    let rows = sorted_groups(&target.unit, &target.shared, target.most_rows())?;
    let jobs = rows.map_ok(|rows| {
        let target = target.clone();
        async move {
            let task = tokio::spawn(async move { target.encode_rows(rows).await });
            task.await.map_err(|e| Error::internal("a row group was cut off").with_source(e))?
        }
    });
    let mut ready = pin!(jobs.try_buffered(target.shared.cores.number()));
    while let Some(group) = ready.try_next().await? {
        out.append(group).await?;
    }
    Ok(())
}
