use std::pin::pin;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use datafusion::execution::memory_pool::MemoryLimit;
use futures::{Stream, StreamExt, TryStreamExt, poll, stream};

use crate::encode::output::FileOutput;
use crate::encode::threads::{ReservedMemory, UnitResources};
use crate::encode::unit_target::{ReadyRowGroup, UnitTarget};
use crate::plan::choice::{GroupPlan, NoSpliceReason, RewriteChoice, choose, plan};
use crate::plan::unit::RewriteUnit;
use crate::sort::sorted_groups;

/// Writes the new files of a unit: row groups are worked on at the same time and written in their order. What this answers with has all of
/// them and is yet to be finished; none where the unit stays as it is.
///
/// # Errors
/// `MemoryExhausted` if not even one row group fits into the budget, those of the sources and of the store.
pub(crate) async fn write(
    number: usize,
    unit: Arc<RewriteUnit>,
    shared: Arc<UnitResources>,
) -> Result<Option<FileOutput>> {
    let choice = choose(&unit);
    if choice == RewriteChoice::Keep {
        return Ok(None);
    }
    if choice == RewriteChoice::Rewrite(NoSpliceReason::Damaged) {
        let message =
            format!("`{}` cannot be read as Parquet: a column chunk is not where its footer says", unit.name());
        return Err(Error::data("UnreadableParquet", message));
    }
    let splice = choice == RewriteChoice::Splice;
    let target = Arc::new(UnitTarget::new(unit, shared, choice).await?);
    let mut out = FileOutput::new(target.clone(), number);
    if target.unit.sort_by.is_empty() {
        groups(&target, splice, &mut out).await?;
    } else {
        sorted(&target, &mut out).await?;
    }
    Ok(Some(out))
}

async fn groups(target: &Arc<UnitTarget>, splice: bool, out: &mut FileOutput) -> Result<()> {
    let plans = plan(&target.unit, splice);
    // Where memory is limited, row groups begin one after the other, so that none waits for memory that one behind it holds. Else those
    // that are encoded need not wait until the ones before them are copied.
    let limited = !matches!(target.shared.context.memory_pool().memory_limit(), MemoryLimit::Infinite);
    let aside = |plan: &&GroupPlan| plan.copy && !limited;
    let mut copied = pin!(ready(target, plans.iter().filter(aside).cloned().collect()));
    let mut others = pin!(ready(target, plans.iter().filter(|plan| !aside(plan)).cloned().collect()).peekable());
    for plan in &plans {
        // Has them begin.
        let _ = poll!(others.as_mut().peek());
        let next = if aside(&plan) { copied.next().await } else { others.next().await };
        let (group, held) = next.ok_or_else(|| Error::internal("a row group is missing"))??;
        out.append(group).await?;
        drop(held);
    }
    Ok(())
}

/// Row groups in this order, some of which are worked on at the same time.
fn ready(
    target: &Arc<UnitTarget>,
    plans: Vec<GroupPlan>,
) -> impl Stream<Item = Result<(ReadyRowGroup, ReservedMemory)>> {
    let held = stream::iter(plans).then({
        let target = target.clone();
        move |plan| {
            let target = target.clone();
            async move { target.hold(&plan).await.map(|held| (plan, held)) }
        }
    });
    let (target, cores) = (target.clone(), target.shared.cores.number());
    let jobs = held.map(move |held| {
        let target = target.clone();
        async move {
            let (plan, held) = held?;
            // A task of its own, so that it goes on while another row group is written.
            let task = tokio::spawn(async move { target.ready(&plan).await });
            let ready = task.await.map_err(|e| Error::internal("a row group was cut off").with_source(e))??;
            Ok((ready, held))
        }
    });
    // One more than there are cores: its bytes are fetched while the others are worked on.
    jobs.buffered(cores + 1)
}

/// Sorts all rows, within the session's memory and where that ends on its disk, and encodes them a row group at a time.
async fn sorted(target: &Arc<UnitTarget>, out: &mut FileOutput) -> Result<()> {
    let rows = sorted_groups(&target.unit, &target.shared, target.max_rows())?;
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
