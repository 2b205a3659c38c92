//! Writes the files of one unit: prepares row groups concurrently, and appends them in their order.

use std::pin::pin;
use std::sync::Arc;

use biscuit_core::{Error, Result};
use datafusion::execution::memory_pool::MemoryLimit;
use futures::{Stream, StreamExt, TryStreamExt, poll, stream};

use crate::encode::output::FileOutput;
use crate::encode::threads::{ReservedMemory, UnitResources};
use crate::encode::unit_target::{ReadyRowGroup, UnitTarget};
use crate::plan::choice::{GroupPlan, NoSpliceReason, RewriteChoice, choose_rewrite, plan_groups};
use crate::plan::unit::RewriteUnit;
use crate::sort::sorted_groups;

/// Writes the new files of a unit, and returns the output, which the caller has to finish. Row groups are prepared
/// concurrently and written in their order. Returns `None` if the unit is kept.
///
/// # Errors
/// `MemoryExhausted` if not even one row group fits into the memory budget; the errors of the sources and of the
/// store.
pub(crate) async fn write(
    number: usize,
    unit: Arc<RewriteUnit>,
    shared: Arc<UnitResources>,
) -> Result<Option<FileOutput>> {
    let choice = choose_rewrite(&unit);
    if choice == RewriteChoice::Keep {
        return Ok(None);
    }
    if choice == RewriteChoice::Rewrite(NoSpliceReason::Damaged) {
        let message = format!(
            "`{}` cannot be read as Parquet: its footer points to a column chunk outside of the file",
            unit.name()
        );
        return Err(Error::new(biscuit_schema::codes::UNREADABLE_PARQUET, message));
    }
    let target = Arc::new(UnitTarget::new(unit, shared, choice).await?);
    let mut out = FileOutput::new(target.clone(), number);
    if target.unit.sort_by.is_empty() {
        write_groups(&target, choice, &mut out).await?;
    } else {
        write_sorted(&target, &mut out).await?;
    }
    Ok(Some(out))
}

async fn write_groups(target: &Arc<UnitTarget>, choice: RewriteChoice, out: &mut FileOutput) -> Result<()> {
    let plans = plan_groups(&target.unit, choice);
    // Row groups reserve memory before they are prepared. If it may run out, all of them form one stream and reserve
    // in output order: otherwise a row group could wait for memory that is held by one that must be written after it,
    // which is a deadlock. If there is enough for all units that are written at a time, copied row groups form a stream
    // of their own, so that encoding starts before the copies in front of it are written.
    let limited = match target.shared.context.memory_pool().memory_limit() {
        MemoryLimit::Infinite => false,
        MemoryLimit::Finite(limit) => {
            let needed = plans.iter().map(|plan| target.estimate_memory(plan)).fold(0, usize::saturating_add);
            needed > limit / (4 * target.shared.cores.number())
        }
        _ => true,
    };
    let aside = |plan: &&GroupPlan| plan.copy && !limited;
    let mut copied = pin!(make_groups(target, plans.iter().filter(aside).cloned().collect()));
    let mut others = pin!(make_groups(target, plans.iter().filter(|plan| !aside(plan)).cloned().collect()).peekable());
    for plan in &plans {
        // Polling once starts the jobs of the encoded row groups, also while copied ones are written.
        let _ = poll!(others.as_mut().peek());
        let next = if aside(&plan) { copied.next().await } else { others.next().await };
        let (group, held) = next.ok_or_else(|| Error::internal("a row group is missing"))??;
        out.append_group(group).await?;
        drop(held);
    }
    Ok(())
}

/// Returns the row groups in the order of `plans`. Some of them are prepared ahead.
fn make_groups(
    target: &Arc<UnitTarget>,
    plans: Vec<GroupPlan>,
) -> impl Stream<Item = Result<(ReadyRowGroup, ReservedMemory)>> {
    let held = stream::iter(plans).then({
        let target = target.clone();
        move |plan| {
            let target = target.clone();
            async move { target.reserve_memory(&plan).await.map(|held| (plan, held)) }
        }
    });
    let (target, cores) = (target.clone(), target.shared.cores.number());
    let jobs = held.map(move |held| {
        let target = target.clone();
        async move {
            let (plan, held) = held?;
            // A task of its own makes progress while another row group is written.
            let task = tokio::spawn(async move { target.make_group(&plan).await });
            let ready =
                task.await.map_err(|e| Error::internal("the task of a row group was cut off").with_source(e))??;
            Ok((ready, held))
        }
    });
    // One job more than there are cores fetches its bytes while the others are encoded.
    jobs.buffered(cores + 1)
}

/// Sorts all rows, in memory or beyond the limit on disk, and encodes them one row group at a time.
async fn write_sorted(target: &Arc<UnitTarget>, out: &mut FileOutput) -> Result<()> {
    let rows = sorted_groups(&target.unit, &target.shared, target.max_rows())?;
    let jobs = rows.map_ok(|rows| {
        let target = target.clone();
        async move {
            let task = tokio::spawn(async move { target.encode_rows(rows).await });
            task.await.map_err(|e| Error::internal("the task of a row group was cut off").with_source(e))?
        }
    });
    let mut ready = pin!(jobs.try_buffered(target.shared.cores.number()));
    while let Some(group) = ready.try_next().await? {
        out.append_group(group).await?;
    }
    Ok(())
}
