//! A plan that an earlier dry run has stored.

use biscuit_core::{Error, Result};
use biscuit_purge::{ListedVersions, ProtectedTable, PurgePlan};

use crate::purge::planned::{PlanSource, PlannedPurge};
use crate::purge::target::TargetFolder;

/// Reads a plan from JSON lines and compares it with the tables as they are now.
pub(crate) async fn plan_stored(folder: &TargetFolder, name: &str, content: &[u8]) -> Result<PlannedPurge> {
    let place = &folder.place;
    place.check_allowed(&folder.allow)?;
    let text = std::str::from_utf8(content).map_err(|e| {
        let message = format!("`{name}` is not UTF-8 text; use a manifest of `purge --dry-run`");
        Error::new(biscuit_purge::codes::UNREADABLE_PLAN, message).with_source(e)
    })?;
    let plan = PurgePlan::from_json_lines(place.prefix(), name, text)?;
    let own = folder.own_table().await?;
    let look = place.store().probe(&folder.scratch(own.as_ref())).await?;
    // Tables are looked for both ways: the plan does not show tables that were created since, and the listing
    // does not show objects that only the plan names. As for a plan by age, the journals are read after the
    // listing.
    let (listing, planned) =
        (place.store().list(place.prefix(), ListedVersions::Current).await?, plan.deletes().collect());
    let tables = folder.tables(own.as_ref(), &[&listing, &planned]).await?;
    folder.refuse_raw_tables(&tables).await?;
    refuse_files_of_tables(&plan, &tables)?;
    Ok(PlannedPurge::new(vec![plan], look.condition, PlanSource::Stored))
}

/// Refuses a plan that deletes a file or the state of a table.
fn refuse_files_of_tables(plan: &PurgePlan, tables: &[ProtectedTable]) -> Result<()> {
    for object in plan.deletes() {
        let of = |t: &&ProtectedTable| t.files.contains(object.key()) || t.has_state(object.key());
        if let Some(table) = tables.iter().find(of) {
            let whose = if table.root.is_empty() { &table.state } else { &table.root };
            let message = format!(
                "`{}` belongs to the table `{whose}`; nothing was deleted. Use `--retained` or `--orphans` to delete unused files of a table",
                object.key()
            );
            return Err(Error::new(biscuit_purge::codes::LIVE_FILES, message));
        }
    }
    Ok(())
}
