//! `biscuit periods`: draws the periods of a table, as text and as an HTML page.

use std::fmt::Write;
use std::path::Path;

use biscuit_core::Result;
use biscuit_journal::JournalOptions;
use biscuit_partition::report::PeriodStatus;
use biscuit_partition::{PeriodBasis, PeriodTable};
use clap::Args;
use serde_json::json;

use crate::args::table::TableArgs;
use crate::environment::context::CommandContext;
use crate::render::output::CommandOutput;
use crate::render::own_files::{self, ExistingFile};

/// Options of `biscuit periods`.
#[derive(Debug, Args)]
pub(crate) struct PeriodsArgs {
    #[command(flatten)]
    table: TableArgs,

    /// Also write the chart to this file, as a self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
}

pub(crate) async fn run(args: &PeriodsArgs, context: &CommandContext) -> Result<CommandOutput> {
    let dataset = context.open(&args.table, JournalOptions::default()).await?;
    let snapshots = PeriodTable::open(dataset).await?;
    let states = snapshots.states().await?;
    let periods = snapshots.layout();
    let by = match &periods.by {
        PeriodBasis::Ingestion => "by ingestion".to_owned(),
        PeriodBasis::Effective(column) => format!("by effective time in `{column}`"),
    };
    let calendar = &periods.calendar;
    let title = format!(
        "{}: {} periods, granularity {} ({}), {by}",
        args.table.url,
        states.len(),
        calendar.granularity(),
        calendar.zone()
    );
    if let Some(path) = &args.html {
        let page = render_html(&title, &states);
        own_files::write(Path::new(path), page.as_bytes(), ExistingFile::Replace)?;
    }
    let layout = json!({
        "granularity": calendar.granularity().to_string(),
        "zone": calendar.zone(),
        "column": periods.column,
        "by": by,
        "periods": states,
    });
    Ok(CommandOutput::Report { json: layout, text: render_svg(&title, &states), exit: 0 })
}

/// Width of the longest bar in characters.
const BAR: u64 = 24;

/// Renders one bar per period. Its length is the number of rows.
///
/// The share of bytes in files of its own is full; the share of bytes in files of the period before is light.
fn render_svg(title: &str, states: &[PeriodStatus]) -> String {
    let maximum = states.iter().map(|s| s.rows).max().unwrap_or(0).max(1);
    let width = states.iter().map(|s| s.period.len()).max().unwrap_or(0).max("period".len());
    let mut out = format!("{title}\n\n");
    let mut line = |text: String| writeln!(out, "{}", text.trim_end()).expect("writing to a String cannot fail");
    let bar_width = BAR as usize;
    line(format!(
        "{:<width$}  {:<bar_width$}  {:>12}  {:>9}  {:>9}  {:>6}  {:>6}  {:>9}  {:>7}",
        "period", "█ own  ░ shared", "rows", "changed", "carried", "copied", "files", "MiB", "version"
    ));
    for s in states {
        let (length, own, l) = (s.rows * BAR / maximum, own_share(s), s.last);
        // A period with rows has at least one character.
        let length = if s.rows > 0 { length.max(1) } else { 0 };
        let full = ((length as f64) * own).ceil() as usize;
        let bar: String = "█".repeat(full) + &"░".repeat(length as usize - full);
        line(format!(
            "{:<width$}  {bar:<bar_width$}  {:>12}  {:>9}  {:>9}  {:>6}  {:>6}  {:>9.1}  {:>7}",
            s.period,
            s.rows,
            l.changed,
            l.carried,
            l.copied,
            s.files,
            s.bytes as f64 / f64::from(1 << 20),
            l.version
        ));
    }
    line(String::new());
    line(
        "changed rows, carried keys and copied files are those of the last version that changed the period".to_owned(),
    );
    out
}

/// Returns the share of bytes that are not in files of the period before.
fn own_share(s: &PeriodStatus) -> f64 {
    if s.bytes == 0 { 1.0 } else { s.own_bytes as f64 / s.bytes as f64 }
}

/// Renders the chart as an HTML page without external resources.
fn render_html(title: &str, states: &[PeriodStatus]) -> String {
    let maximum = states.iter().map(|s| s.rows).max().unwrap_or(0).max(1) as f64;
    let mut rows = String::new();
    for s in states {
        let (l, width) = (s.last, 100.0 * s.rows as f64 / maximum);
        let own = width * own_share(s);
        let note = format!(
            "from {} to {}; {} of {} files are shared with the period before",
            s.start, s.end, s.shared, s.files
        );
        write!(
            rows,
            "<tr title=\"{}\"><th>{}</th><td class=bar><i style=\"width:{own:.2}%\"></i><b style=\"width:{:.2}%\"></b></td>",
            escape_html(&note),
            escape_html(&s.period),
            width - own
        )
        .expect("writing to a String cannot fail");
        for n in [s.rows, l.changed, l.carried, l.copied, s.files, s.bytes >> 20, l.version] {
            write!(rows, "<td>{n}</td>").expect("writing to a String cannot fail");
        }
        rows.push_str("</tr>\n");
    }
    let title = escape_html(title);
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>{title}</title>\n<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }}
h1 {{ font-size: 18px }} table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: 3px 10px; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
tbody th {{ text-align: left; font-weight: 600 }} tr:hover {{ background: #f2f4f7 }}
td.bar {{ width: 40%; text-align: left }} .bar i, .bar b {{ display: inline-block; height: 14px; vertical-align: middle }}
.bar i {{ background: #2458b3 }} .bar b {{ background: #b9c9e8 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181d; color: #dde }} tr:hover {{ background: #23262e }} .bar b {{ background: #3a4968 }} }}
</style>\n<h1>{title}</h1>\n<table><thead><tr><th style=\"text-align:left\">period<th style=\"text-align:left\">rows: dark in files of its own, light in files shared with the period before
<th>rows<th>changed<th>carried<th>copied<th>files<th>MiB<th>version</tr></thead>\n<tbody>\n{rows}</tbody></table>
<p>Changed rows, carried keys and copied files are those of the last version that changed the period.</p></html>\n"
    )
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
