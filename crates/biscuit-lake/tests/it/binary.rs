//! Runs `biscuit` in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Temporary folder in which the commands of a test run.
pub(crate) struct Folder(tempfile::TempDir);

/// Result of one command: exit code, standard output and standard error.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Returns standard output as one JSON object. Panics if it is anything else.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be created"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, and creates its folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder can be created");
        std::fs::write(path, content).expect("the file can be written");
    }

    /// Runs `biscuit` with the arguments of a line, separated by spaces.
    pub(crate) fn run(&self, words: &str) -> Ran {
        self.run_with(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `biscuit` with these arguments.
    pub(crate) fn run_with(&self, words: &[&str]) -> Ran {
        let out = Command::new(env!("CARGO_BIN_EXE_biscuit"))
            .args(words)
            .current_dir(self.path())
            .env_remove("RUST_LOG")
            .output()
            .expect("the binary starts");
        let text = |b: Vec<u8>| String::from_utf8(b).expect("the output is UTF-8");
        Ran {
            code: out.status.code().expect("the process exits by itself"),
            out: text(out.stdout),
            err: text(out.stderr),
        }
    }

    /// Returns the rows of a table as sorted JSON lines.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let ran = self.run(&format!("show {table} --json"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        let mut lines: Vec<String> = ran.out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Returns all files below a folder, with their sizes and modification times.
    pub(crate) fn files(&self, below: &str) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        fn walk(at: &Path, all: &mut Vec<(PathBuf, u64, std::time::SystemTime)>) {
            let Ok(entries) = std::fs::read_dir(at) else { return };
            for entry in entries.map(|e| e.expect("the entry is readable")) {
                let meta = entry.metadata().expect("the file exists");
                if meta.is_dir() {
                    walk(&entry.path(), all);
                } else {
                    all.push((entry.path(), meta.len(), meta.modified().expect("the file has a time")));
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.path().join(below), &mut all);
        all.sort();
        all
    }
}
