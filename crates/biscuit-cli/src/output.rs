use std::io::Write;
use std::process::ExitCode;

use biscuit_core::{Error, ErrorKind};
use biscuit_dataset::OpenLocation;
use biscuit_journal::store_error;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::args::Cli;
use crate::context::Context;
use crate::progress;
use crate::signals::Signal;

/// What a command has to say.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A report, as one JSON object and as lines of text; `ran_again` if the command ended with exceptions.
    Report { json: Value, text: String, exit: u8 },
    /// Rows: text, or JSON lines.
    Rows { json_lines: String, text: String },
}

/// Done, with exceptions that another run may take care of.
pub(crate) const AGAIN: u8 = 4;
/// Bad data was found.
pub(crate) const BAD_DATA: u8 = 3;

pub(crate) fn code(kind: ErrorKind) -> u8 {
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

/// Prints the answer, writes the report where it is wanted, and says how the process ends.
pub(crate) async fn finish(
    answer: biscuit_core::Result<Answer>,
    cli: &Cli,
    context: &Context,
    signal: Option<Signal>,
) -> ExitCode {
    progress::finish();
    let (mut json, text, rows, mut exit) = match answer {
        Ok(Answer::Report { json, text, exit }) => (json, text, None, exit),
        Ok(Answer::Rows { json_lines, text }) => (json!({}), text, Some(json_lines), 0),
        Err(e) => (error_json(&e, context.show_values), error_text(&e, context.show_values), None, code(e.kind())),
    };
    if let Some(signal) = signal {
        exit = signal.code();
    }
    let failed = json.get("error").is_some();
    if let (Value::Object(json), Value::Object(costs)) = (&mut json, context.costs()) {
        json.extend(costs);
    }
    if let Some(place) = &cli.report
        && let Err(e) = write_report(place, &json, context).await
    {
        eprintln!("error: the report could not be written: {e}");
        exit = if exit == 0 { code(e.kind()) } else { exit };
    }
    match (rows, cli.json, failed) {
        (Some(json_lines), true, _) => print(&json_lines),
        (None, true, _) => print(&format!("{json}\n")),
        (_, false, true) => eprint!("{text}"),
        (_, false, false) => print(&text),
    }
    ExitCode::from(exit)
}

async fn write_report(place: &str, json: &Value, context: &Context) -> biscuit_core::Result<()> {
    let location = context.stores.open(place).await?;
    let put = location.storage().store.put(location.path(), format!("{json}\n").into()).await;
    put.map(drop).map_err(|e| store_error("write", location.path(), e))
}

fn error_text(e: &Error, show_values: bool) -> String {
    let mut text = format!("error: {e}\n");
    if show_values {
        e.details().iter().for_each(|(name, value)| text.push_str(&format!("  {name}: {value}\n")));
    }
    if e.code() == "NoFileKeys" {
        text.push_str("  --file-keys names the key file that it was written with\n");
    }
    causes(e).iter().for_each(|cause| text.push_str(&format!("  because: {cause}\n")));
    text
}

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
    let causes = causes(e);
    if !causes.is_empty() {
        error["causes"] = json!(causes);
    }
    json!({ "error": error })
}

/// Causes of failures that are about the store; those of bad data may quote it.
fn causes(e: &Error) -> Vec<String> {
    if matches!(e.kind(), ErrorKind::Data) && e.code() != "NotFound" {
        return vec![];
    }
    let mut causes = Vec::new();
    let mut at = std::error::Error::source(e);
    while let Some(cause) = at {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        at = cause.source();
    }
    causes
}

/// A command line that could not be read; also what `--help` and `--version` print.
pub(crate) fn usage(e: &clap::Error) -> ExitCode {
    let asked = !e.use_stderr();
    if !asked && std::env::args().any(|a| a == "--json") {
        let message = e.to_string();
        let message = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
        let message = message.trim_start_matches("error: ");
        print(&format!("{}\n", json!({"error": {"kind": "usage", "code": "InvalidArguments", "message": message}})));
        return ExitCode::from(2);
    }
    match e.print() {
        Ok(()) if asked => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

pub(crate) fn internal(what: &str, e: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: Internal: {what}: {e}");
    ExitCode::from(1)
}

/// Writes to standard output; a reader that has seen enough and left is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        tracing::debug!("standard output was closed");
    }
}
