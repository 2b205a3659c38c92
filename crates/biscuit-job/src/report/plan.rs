//! The plan of a dry run, as lines of text.

use biscuit_core::Result;

use crate::run_options::{DryRun, RunOptions};
use crate::shape::rows::OutputRows;
use crate::spec::OutputMode;
use crate::write::writer::plain_schema;

/// Returns the lines of the plan of a dry run.
pub(crate) async fn plan_lines(rows: &OutputRows<'_>, options: &RunOptions) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (chosen, objects) in rows.chosen.iter().zip(rows.objects) {
        let bytes: u64 = objects.iter().map(|o| o.listed.size).sum();
        lines.push(format!("read {} files of `{}`, {bytes} bytes", objects.len(), chosen.source));
        lines.extend(objects.iter().take(20).map(|o| format!("  {}", o.url())));
        if objects.len() > 20 {
            lines.push(format!("  and {} more", objects.len() - 20));
        }
    }
    let query = rows.query().await?;
    let schema = match &query {
        Some(query) => plain_schema(&query.schema()),
        None => {
            let source = &rows.output.job.sources[&rows.chosen[0].source];
            crate::shape::source_table::source_schema(&rows.readings[0], source.source_file.as_deref())
        }
    };
    if let Some(query) = query {
        lines.push("run the query".to_owned());
        lines.extend(query.explain().await?.into_iter().map(|l| format!("  {l}")));
    }
    let schema = rows.finish.schema(&schema)?;
    let columns: Vec<String> =
        schema.fields().iter().map(|f| format!("{} {}", f.name(), type_text(f.data_type()))).collect();
    lines.push(format!("write columns {}", columns.join(", ")));
    let how = match (rows.output.spec.mode, options.rebuild.as_slice()) {
        (_, [_, ..]) => format!("rebuild {}", options.rebuild.join(", ")),
        (OutputMode::Append, _) => "append to the table".to_owned(),
        (OutputMode::ReplacePartitions, _) => {
            "replace each partition that contains new rows, using all its input".to_owned()
        }
        (OutputMode::Replace, _) => "replace the table".to_owned(),
        (OutputMode::Merge, _) => "merge into the table".to_owned(),
        (OutputMode::Snapshot, _) => "merge into the periods of the table".to_owned(),
    };
    let by = if rows.partition_by.is_empty() {
        String::new()
    } else {
        format!(", partitioned by {}", rows.partition_by.join(", "))
    };
    lines.push(format!("{how}{by}"));
    if options.dry_run == DryRun::Plan {
        lines.push(
            "the rows were not read and their values were not checked; use `--dry-run=read` to read them".to_owned(),
        );
    }
    Ok(lines)
}

fn type_text(t: &datafusion::arrow::datatypes::DataType) -> String {
    biscuit_schema::type_name(t).unwrap_or_else(|| t.to_string())
}
