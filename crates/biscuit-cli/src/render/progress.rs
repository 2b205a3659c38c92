use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use biscuit_core::{mask_secrets, printable, printable_lines};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::{Layer, layer};

/// The bar of this process: there is one only where standard error is a terminal.
fn bar() -> &'static ProgressBar {
    static BAR: OnceLock<ProgressBar> = OnceLock::new();
    BAR.get_or_init(|| {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    })
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Steps of work as the crates tell them: events of this target, with `done` and `all`.
const TARGET: &str = "biscuit::progress";

/// Shows the steps of work that the crates tell.
pub(crate) struct ProgressSteps;

/// Lets steps pass where somebody sees the bar.
pub(crate) fn is_wanted() -> FilterFn {
    FilterFn::new(|metadata| metadata.target() == TARGET && std::io::stderr().is_terminal())
}

impl<S: Subscriber> Layer<S> for ProgressSteps {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut step = ProgressStep::default();
        event.record(&mut step);
        show(&step.name, step.done, step.all);
    }
}

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

/// Shows a step of work of which `done` of `all` parts are done; 0 where nobody knows how many there are.
fn show(step: &str, done: usize, all: usize) {
    let bar = bar();
    bar.set_message(printable(step).into_owned());
    if all > 0 {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg} [{bar:30}] {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    } else {
        bar.set_style(spinner());
    }
}

/// Takes the bar away, before the report is printed.
pub(crate) fn finish() {
    bar().finish_and_clear();
}

/// Where logs go: standard error, above the bar if there is one, without secrets and without marks that a terminal obeys.
pub(crate) fn above_the_bar() -> impl Write {
    AboveTheBar
}

struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let lines = String::from_utf8_lossy(text);
        let lines = mask_secrets(&lines);
        // Where nobody reads it there is nobody to tell.
        let _ = bar().suspend(|| std::io::stderr().lock().write_all(printable_lines(&lines).as_bytes()));
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}
