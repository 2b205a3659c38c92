//! The progress bar on standard error, and the writer of logs that keeps the two apart.
//!
//! The crates report steps as `tracing` events. This layer shows them only if standard error is a terminal.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use biscuit_core::internal::printable_lines;
use biscuit_core::{mask_secrets, printable};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::{Layer, layer};

/// Returns the bar of the process. It is hidden unless standard error is a terminal.
fn progress_bar() -> &'static ProgressBar {
    static BAR: OnceLock<ProgressBar> = OnceLock::new();
    BAR.get_or_init(|| {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(spinner_style());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    })
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Target of the events that report steps of work, with the fields `done` and `all`.
const TARGET: &str = "biscuit::progress";

/// Layer that shows the steps of work on the bar.
pub(crate) struct ProgressSteps;

/// Returns a filter that accepts steps of work if the bar is visible.
pub(crate) fn is_wanted() -> FilterFn {
    FilterFn::new(|metadata| metadata.target() == TARGET && std::io::stderr().is_terminal())
}

impl<S: Subscriber> Layer<S> for ProgressSteps {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut step = ProgressStep::default();
        event.record(&mut step);
        show_step(&step.name, step.done, step.all);
    }
}

/// Step of work, as collected from the fields of an event.
#[derive(Default)]
struct ProgressStep {
    name: String,
    done: usize,
    all: usize,
}

impl Visit for ProgressStep {
    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        match field.name() {
            "done" => self.done = value,
            "all" => self.all = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.name = format!("{value:?}");
        }
    }
}

/// Shows a step with `done` of `all` parts done. If `all` is 0, the number of parts is unknown.
fn show_step(step: &str, done: usize, all: usize) {
    let bar = progress_bar();
    bar.set_message(printable(step).into_owned());
    if all > 0 {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg} [{bar:30}] {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    } else {
        bar.set_style(spinner_style());
    }
}

/// Removes the bar, before the report is printed.
pub(crate) fn finish() {
    progress_bar().finish_and_clear();
}

/// Returns the writer of logs: standard error, above the bar, with secrets masked and control characters escaped.
pub(crate) fn log_writer() -> impl Write {
    AboveTheBar
}

struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let lines = String::from_utf8_lossy(text);
        let lines = mask_secrets(&lines);
        // A failure is ignored, since there is no other place to report it.
        let _ = progress_bar().suspend(|| std::io::stderr().lock().write_all(printable_lines(&lines).as_bytes()));
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}
