//! Runs the commands of `docs/start.md` as they are written, and compares their output with the document.

use std::path::Path;
use std::process::Command;

use crate::damage::command;

/// Returns the fenced blocks of the document: language and text. Blocks after `<!-- not run -->` are left out.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut open: Option<(String, String)> = None;
    let mut skip = false;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some("")) => {
                let block = open.take().expect("a block is open");
                if !std::mem::take(&mut skip) {
                    blocks.push(block);
                }
            }
            (Some((_, body)), _) => *body += &format!("{line}\n"),
            (None, None) => skip |= line.trim() == "<!-- not run -->",
        }
    }
    blocks
}

/// Whether a printed text matches the text of the document. `…` in a line stands for any text, and a line with only
/// `…` stands for all lines that follow.
fn is_like(printed: &str, written: &str) -> bool {
    /// The lines of a text. Those of a table are sorted, since rows have no order.
    fn sorted(text: &str) -> Vec<&str> {
        let mut lines: Vec<&str> = text.lines().collect();
        if lines.first().is_some_and(|line| line.starts_with("+-")) {
            lines.sort_unstable();
        }
        lines
    }
    let (printed, written) = (sorted(printed), sorted(written));
    let mut lines = printed.iter();
    for wanted in written {
        if wanted == "…" {
            return true;
        }
        let Some(line) = lines.next() else { return false };
        let mut rest = line.trim_end();
        for (i, part) in wanted.split('…').enumerate() {
            match rest.find(part) {
                Some(at) if at == 0 || i > 0 => rest = &rest[at + part.len()..],
                _ => return false,
            }
        }
        if !rest.is_empty() && !wanted.ends_with('…') {
            return false;
        }
    }
    lines.next().is_none()
}

/// Runs the lines of a block in the folder. Returns the output of its last command.
fn run(folder: &Path, block: &str) -> String {
    // Only the output of the last command is compared, so the others print to standard error.
    let commands: Vec<&str> = block.trim_end().lines().collect();
    let last = commands.iter().rposition(|line| line.starts_with("biscuit ")).unwrap_or(0);
    let script: String = commands
        .iter()
        .enumerate()
        .map(
            |(i, line)| {
                if line.starts_with("biscuit ") && i != last { format!("{line} >&2\n") } else { format!("{line}\n") }
            },
        )
        .collect();
    let bin = command(env!("CARGO_BIN_EXE_corrupt"));
    let path = std::env::var("PATH").expect("there is a PATH");
    let path = format!("{}:{path}", bin.parent().expect("it is in a folder").display());
    let out = Command::new("bash").arg("-ec").arg(script).current_dir(folder).env("PATH", path).output();
    let out = out.expect("bash starts");
    assert!(out.status.success(), "{block}{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("the command prints UTF-8")
}

#[test]
fn commands_of_getting_started_print_what_the_document_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is inside of the project");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("examples/customer-state/data");
    std::fs::create_dir_all(&data).expect("a folder can be made");
    for file in std::fs::read_dir(root.join("examples/customer-state/data")).expect("the sample is in the project") {
        let file = file.expect("the folder can be read").path();
        std::fs::copy(&file, data.join(file.file_name().expect("files have names"))).expect("the sample can be copied");
    }
    let text = std::fs::read_to_string(root.join("docs/start.md")).expect("the document is in the project");
    let (mut printed, mut ran, mut compared) = (String::new(), 0, 0);
    for (language, block) in blocks(&text) {
        match language.as_str() {
            "sh" => {
                printed = run(folder.path(), &block);
                ran += 1;
            }
            "text" => {
                assert!(is_like(&printed, &block), "the document shows\n{block}\nand this was printed:\n{printed}");
                compared += 1;
            }
            "toml" => std::fs::write(folder.path().join("orders.job.toml"), block).expect("a file can be written"),
            _ => {}
        }
    }
    assert!(ran >= 8 && compared >= 7, "{ran} blocks ran, {compared} were compared");
}

#[test]
fn ellipsis_stands_for_any_text_and_the_rest_is_compared() {
    assert!(is_like("a 1 b\nc\n", "a … b\nc"));
    assert!(is_like("a\nb\nc\n", "a\n…"));
    assert!(!is_like("a 1 c\n", "a … b"));
    assert!(!is_like("a\nb\n", "a"));
    assert!(!is_like("xa\n", "a"));
}
