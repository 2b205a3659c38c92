//! Error codes as text and as Markdown.

use std::fmt::Write;

use biscuit_core::{ErrorCode, ErrorKind};

/// Lists of codes with the names of their crates.
pub(crate) type CodeLists = &'static [(&'static str, &'static [ErrorCode])];

/// Kinds with what they mean for the caller, in the order of the documentation.
const KINDS: [(ErrorKind, &str, &str); 7] = [
    (ErrorKind::Usage, "Usage", "The job or its arguments are wrong. Change them."),
    (
        ErrorKind::Data,
        "Data",
        "The data is invalid, or the table does not match its journal. Another run would fail in the same way.",
    ),
    (ErrorKind::Conflict, "Conflict", "Another run was first. Run again."),
    (ErrorKind::Unavailable, "Unavailable", "A store or a service did not respond, even after retries. Run again."),
    (
        ErrorKind::Denied,
        "Denied",
        "A store or a service refused the request. Permissions, keys or settings have to be changed.",
    ),
    (ErrorKind::Interrupted, "Interrupted", "The run was asked to stop before its commit."),
    (ErrorKind::Internal, "Internal", "Biscuit has a defect."),
];

/// Renders one code with its cause and its remedy.
pub(crate) fn text_of(owner: &str, code: ErrorCode, exit: u8) -> String {
    let (kind, cause, remedy) = (code.kind().name(), code.cause(), code.remedy());
    format!("{code}: {kind}, exit code {exit}, of {owner}\n  cause: {cause}\n  remedy: {remedy}\n")
}

/// Renders all codes, by crate, one in a line.
pub(crate) fn list(lists: CodeLists) -> String {
    let mut text = String::new();
    for (owner, codes) in lists {
        let _ = writeln!(text, "{owner}");
        for code in *codes {
            let _ = writeln!(text, "  {code:<24}  {:<11}  {}", code.kind().name(), code.cause());
        }
    }
    text
}

/// Renders all codes as a document, by kind and name. `exit` returns the exit code of a kind.
pub(crate) fn render_markdown(lists: CodeLists, exit: impl Fn(ErrorKind) -> u8) -> String {
    let mut text = String::from(
        "# Error codes\n\n<!-- Made by `biscuit explain --markdown > docs/error-codes.md`; a test of biscuit-lake checks it. -->\n\n\
         Every error has a code, which is stable, and every code has one kind, which decides the exit code of the\n\
         command. Reports have both as `code` and `kind`; `biscuit explain CODE` prints an entry of this page. In Rust,\n\
         each code is a constant in the module `codes` of its crate, and `Error::is` compares.\n",
    );
    for (kind, title, meaning) in KINDS {
        let mut codes: Vec<(&str, &str, ErrorCode)> = lists
            .iter()
            .flat_map(|(owner, list)| list.iter().map(|code| (code.name(), *owner, *code)))
            .filter(|(.., code)| code.kind() == kind)
            .collect();
        codes.sort_unstable_by_key(|(name, ..)| *name);
        let _ = writeln!(text, "\n## {title}\n\n{meaning} Exit code {}.\n", exit(kind));
        text.push_str("| code | cause | remedy | crate |\n| --- | --- | --- | --- |\n");
        for (name, owner, code) in codes {
            let _ = writeln!(text, "| `{name}` | {} | {} | {owner} |", code.cause(), code.remedy());
        }
    }
    text
}
