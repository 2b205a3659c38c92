//! The answer of a command: report, rows or error, as text or as one JSON object, and the exit code.
//!
//! Everything that is printed passes through here, so that secrets are masked and control characters are escaped.

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

use biscuit_core::codes::INVALID_ARGUMENTS;
use biscuit_core::internal::printable_lines;
use biscuit_core::{Error, ErrorKind, mask_secrets, printable};
use biscuit_dataset::OpenLocation;
use biscuit_journal::store_error;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::codes::CANNOT_PRINT;
use crate::environment::context::CommandContext;
use crate::{process::panics, render::own_files, render::progress};

/// Result of a command, before it is rendered.
#[derive(Debug)]
pub(crate) enum CommandOutput {
    /// A report, as one JSON object and as lines of text, with its exit code.
    Report { json: Value, text: String, exit: u8 },
    /// Rows of a table, as text and as JSON lines.
    Rows { json_lines: String, text: String },
}

/// Exit code of a command that is done with exceptions, or that met a conflict: another run may help.
pub(crate) const AGAIN: u8 = 4;
/// Exit code for invalid data and for diverged tables.
pub(crate) const BAD_DATA: u8 = 3;

/// Returns the exit code for a kind of error.
pub(crate) fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Data => BAD_DATA,
        ErrorKind::Conflict => AGAIN,
        ErrorKind::Unavailable => 5,
        ErrorKind::Denied => 6,
        ErrorKind::Interrupted => 130,
        _ => 1,
    }
}

/// Answer that is ready to be printed, with its exit code.
#[derive(Debug)]
pub(crate) struct RenderedOutput {
    json: Value,
    text: String,
    /// JSON lines that are printed instead of the object.
    rows: Option<String>,
    failed: bool,
    wants_json: bool,
    exit: u8,
}

/// Prepares the answer: adds the costs, masks secrets, and escapes control characters in text. `stopped` is the exit
/// code of the signal that stopped the command.
pub(crate) fn render_answer(
    answer: biscuit_core::Result<CommandOutput>,
    wants_json: bool,
    context: &CommandContext,
    stopped: Option<u8>,
) -> RenderedOutput {
    progress::finish();
    let (mut json, text, rows, mut exit) = match answer {
        Ok(CommandOutput::Report { json, text, exit }) => (json, display_text(&text), None, exit),
        // Rows are not masked: they contain data of the table, not secrets of the process.
        Ok(CommandOutput::Rows { json_lines, text }) => {
            (json!({}), printable_lines(&text).into_owned(), Some(json_lines), 0)
        }
        Err(e) => (error_json(&e, context.show_values), error_text(&e, context.show_values), None, exit_code(e.kind())),
    };
    // A signal decides the exit code, since a scheduler tells a stopped run from a failed run by it.
    if let Some(code) = stopped {
        exit = code;
    }
    let failed = json.get("error").is_some();
    if let (Value::Object(json), Value::Object(costs)) = (&mut json, context.costs()) {
        json.extend(costs);
    }
    // Last, so that everything that was added above is masked as well.
    mask_json(&mut json);
    RenderedOutput { json, text, rows, failed, wants_json, exit }
}

impl RenderedOutput {
    /// Returns the report as a JSON object.
    pub(crate) fn json(&self) -> &Value {
        &self.json
    }

    /// Adds the error of writing the report file, if there was one, and prints it to standard error.
    ///
    /// An exit code other than 0 is kept, since the error of the command matters more.
    pub(crate) fn with_report_result(&mut self, written: biscuit_core::Result<()>) {
        let Err(e) = written else { return };
        write_to_stderr(&format!("error: the report cannot be written: {}\n", printable(&e.to_string())));
        self.exit = if self.exit == 0 { exit_code(e.kind()) } else { self.exit };
        if let Value::Object(json) = &mut self.json {
            json.insert("report_error".to_owned(), error_json(&e, false)["error"].take());
        }
    }

    /// Prints the answer and returns the exit code.
    pub(crate) fn print(self) -> u8 {
        let text = match (self.rows, self.wants_json, self.failed) {
            (Some(json_lines), true, _) => json_lines,
            (None, true, _) => format!("{}\n", self.json),
            (_, false, true) => {
                write_to_stderr(&self.text);
                return self.exit;
            }
            (_, false, false) => self.text,
        };
        write_to_stdout(&text, self.exit)
    }
}

/// Prints an error that occurred outside of a command, such as a panic, and returns its exit code.
pub(crate) fn print_error(e: &Error, json: bool, show_values: bool) -> ExitCode {
    progress::finish();
    if json {
        let mut json = error_json(e, show_values);
        mask_json(&mut json);
        return write_to_stdout(&format!("{json}\n"), exit_code(e.kind())).into();
    }
    write_to_stderr(&error_text(e, show_values));
    exit_code(e.kind()).into()
}

/// Masks the secrets in all texts of a JSON value. Names of fields are not masked.
fn mask_json(json: &mut Value) {
    match json {
        Value::String(text) => {
            if let Cow::Owned(masked) = mask_secrets(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_json),
        Value::Object(fields) => fields.values_mut().for_each(mask_json),
        _ => {}
    }
}

/// Returns the text with secrets masked and control characters escaped.
fn display_text(text: &str) -> String {
    printable_lines(&mask_secrets(text)).into_owned()
}

/// Writes the report to the path or URL of `--report`. A local file is replaced as a whole.
pub(crate) async fn write_report(place: &str, json: &Value, context: &CommandContext) -> biscuit_core::Result<()> {
    let location = context.stores.open(place).await?;
    let path = location.path();
    own_files::check_outside(location.storage(), path.as_ref(), place, "report").await?;
    if place.contains("://") && !place.starts_with("file://") {
        let put = location.storage().store.put(path, format!("{json}\n").into()).await;
        return put.map(drop).map_err(|e| store_error("write", path, e));
    }
    let here = place.strip_prefix("file://").unwrap_or(place);
    own_files::check_output(here, "report")?;
    own_files::write(std::path::Path::new(here), format!("{json}\n").as_bytes(), own_files::ExistingFile::Replace)
}

/// Renders an error as lines of text: message, details, causes and places of panics.
fn error_text(e: &Error, show_values: bool) -> String {
    let mut text = String::new();
    let mut line = |line: &str| text.push_str(&format!("{}\n", printable(&mask_secrets(line))));
    line(&format!("error: {e}"));
    if show_values {
        e.details().iter().for_each(|(name, value)| line(&format!("  {name}: {value}")));
    }
    if e.is(biscuit_dataset::codes::NO_FILE_KEYS) {
        line("  use --file-keys with the key file that the files were written with");
    }
    cause_messages(e, show_values).iter().for_each(|cause| line(&format!("  because: {cause}")));
    panic_places(e, show_values).iter().for_each(|place| line(&format!("  at: {place}")));
    if hides_details(e, show_values) {
        line("  use --show-values for details, which may contain values of rows");
    }
    text
}

/// Renders an error as the JSON object `{"error": …}`.
pub(crate) fn error_json(e: &Error, show_values: bool) -> Value {
    let mut error = json!({"kind": e.kind().name(), "code": e.code(), "message": e.message()});
    let place = [
        ("column", e.column().map(Value::from)),
        ("file", e.file().map(Value::from)),
        ("row", e.row().map(Value::from)),
    ];
    for (name, value) in place.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        error[name] = value;
    }
    if show_values && !e.details().is_empty() {
        error["details"] = e.details().iter().map(|(k, v)| ((*k).to_owned(), Value::String(v.clone()))).collect();
    }
    for (name, texts) in [("causes", cause_messages(e, show_values)), ("places", panic_places(e, show_values))] {
        if !texts.is_empty() {
            error[name] = json!(texts);
        }
    }
    if hides_details(e, show_values) {
        error["show_values"] = json!("shows details, which may contain values of rows");
    }
    json!({ "error": error })
}

/// Returns the messages of the causes. A cause that may contain values of rows is included only with `--show-values`.
fn cause_messages(e: &Error, show_values: bool) -> Vec<String> {
    let mut causes = Vec::new();
    let quoting = e.quoting_source().filter(|_| show_values);
    let mut at = std::error::Error::source(e).or(quoting);
    while let Some(cause) = at {
        let text = cause.to_string();
        // Some libraries repeat the message of their source.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        let quoting = cause.downcast_ref::<Error>().and_then(Error::quoting_source).filter(|_| show_values);
        at = cause.source().or(quoting);
    }
    causes
}

/// Returns the places of the panics that caused an internal error.
fn panic_places(e: &Error, show_values: bool) -> Vec<String> {
    if e.kind() != ErrorKind::Internal {
        return vec![];
    }
    let place = |d: panics::ThreadPanic| if show_values { format!("{}: {}", d.place, d.message) } else { d.place };
    panics::recorded_panics().into_iter().map(place).collect()
}

/// Returns whether the error has details that only `--show-values` shows.
fn hides_details(e: &Error, show_values: bool) -> bool {
    !show_values && (e.quoting_source().is_some() || !e.details().is_empty())
}

/// Prints the answer to a command line without a command: an error, or the text of `--help` or `--version`.
pub(crate) fn print_usage(e: &clap::Error) -> ExitCode {
    let asked = !e.use_stderr();
    // The options are not parsed in this case, so that `--json` is looked for among the words.
    let words = || std::env::args_os().skip(1).take_while(|word| word != "--");
    let wants_json = words().any(|word| word == "--json" || word.to_string_lossy().starts_with("--json="));
    let message = display_text(&e.render().to_string());
    if !wants_json {
        if asked {
            return write_to_stdout(&message, 0).into();
        }
        write_to_stderr(&message);
        return ExitCode::from(2);
    }
    if asked {
        return write_to_stdout(&format!("{}\n", json!({ "text": message.trim_end() })), 0).into();
    }
    let message = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    let message = message.trim_start_matches("error: ");
    let error = json!({"error": {"kind": "usage", "code": INVALID_ARGUMENTS.name(), "message": message}});
    write_to_stdout(&format!("{error}\n"), 2).into()
}

/// Writes to standard error. A failure is ignored, since there is no other place to report it.
fn write_to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to standard output and returns the exit code. A reader that closed the pipe, such as `head`, is not a
/// failure.
fn write_to_stdout(text: &str, exit: u8) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            write_to_stderr(&format!("error: {CANNOT_PRINT}: standard output cannot be written: {e}\n"));
            if exit == 0 { exit_code(ErrorKind::Unavailable) } else { exit }
        }
        _ => exit,
    }
}
