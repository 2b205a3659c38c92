//! One case for a command: damages a file of a working folder, runs commands, and judges how they end and what they
//! change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::build::build;
use crate::child::{self, MOST_MEMORY, Ran};
use crate::finding::Finding;
use crate::kinds::{After, Kind};
use crate::random::Random;
use crate::stand::{Files, Stand};

/// Working folders for inputs of commands. Each is built when it is first needed.
#[derive(Debug)]
pub(crate) struct Stands {
    work: PathBuf,
    biscuit: PathBuf,
    all: BTreeMap<&'static str, Stand>,
}

impl Stands {
    pub(crate) fn new(work: &Path, biscuit: &Path) -> Self {
        Self { work: work.to_owned(), biscuit: biscuit.to_owned(), all: BTreeMap::new() }
    }

    /// Damages one file of a working folder and runs commands on it.
    pub(crate) fn try_input(&mut self, kind: &Kind, seed: u64, number: u64) -> Option<Finding> {
        let biscuit = self.biscuit.clone();
        let stand = self.stand(kind.stand);
        let mut random = Random::of_input(seed, kind.name, number);
        let files = stand.matching(kind.files);
        assert!(!files.is_empty(), "{}: no file of the working folder matches {}", kind.name, kind.files);
        let file = (*random.pick(&files)).to_owned();
        let (mut bytes, other) = (stand.read(&file), stand.read(random.pick::<&str>(&files)));
        let size = bytes.len();
        kind.layer.damage(&mut bytes, &other, &mut random);
        if kind.after == After::KeepSize {
            bytes.resize(size, 0);
        }
        let mends = kind.after == After::Mend && !random.once_in(8);
        let case = Case { kind, stand, biscuit: &biscuit, damaged: (&file, &bytes, mends) };
        case.put_damage();
        let found = case.commands(&file, &mut random);
        stand.restore();
        found.map(|(symptom, details)| Finding { kind: kind.name.to_owned(), number, symptom, details, input: bytes })
    }

    fn stand(&mut self, name: &'static str) -> &Stand {
        let (work, biscuit) = (&self.work, &self.biscuit);
        self.all.entry(name).or_insert_with(|| {
            let root = work.join(name);
            std::fs::create_dir_all(&root).expect("a folder to work in");
            build(name, &root, biscuit);
            Stand::new(&root)
        })
    }
}

/// Sets size and checksum of a state file in the records of the journal to its present ones, so that the damage is
/// not found by the checksum.
fn mend(stand: &Stand, file: &str, bytes: &[u8]) {
    let Some((state, relative)) = file.split_once("/state/") else { return };
    let relative = format!("state/{relative}");
    for name in stand.matching(&format!("{state}/journal/*")) {
        let Ok(mut value) = serde_json::from_slice::<Value>(&stand.read(name)) else { continue };
        if mend_in(&mut value, &relative, bytes) {
            stand.replace(name, value.to_string().as_bytes());
        }
    }
}

fn mend_in(value: &mut Value, path: &str, bytes: &[u8]) -> bool {
    match value {
        Value::Object(fields) if fields.get("path").is_some_and(|p| p == path) && fields.contains_key("checksum") => {
            fields.insert("size".to_owned(), bytes.len().into());
            fields.insert("checksum".to_owned(), format!("crc32:{:08x}", crc32fast::hash(bytes)).into());
            true
        }
        Value::Object(fields) => fields.values_mut().fold(false, |any, v| mend_in(v, path, bytes) | any),
        Value::Array(items) => items.iter_mut().fold(false, |any, v| mend_in(v, path, bytes) | any),
        _ => false,
    }
}

struct Case<'a> {
    kind: &'a Kind,
    stand: &'a Stand,
    biscuit: &'a Path,
    /// The file, its bytes, and whether the records were adapted to it.
    damaged: (&'a str, &'a [u8], bool),
}

impl Case<'_> {
    fn put_damage(&self) {
        let (file, bytes, mends) = self.damaged;
        self.stand.replace(file, bytes);
        if mends {
            mend(self.stand, file, bytes);
        }
    }

    /// Runs two commands of the kind. Returns the symptom and the output of a command that behaves wrongly.
    fn commands(&self, file: &str, random: &mut Random) -> Option<(String, String)> {
        let all = self.kind.commands;
        let (one, two) = (random.below(all.len()), random.below(all.len()));
        let chosen = if one == two { vec![one] } else { vec![one.min(two), one.max(two)] };
        chosen.into_iter().find_map(|at| self.command(&all[at].replace("{file}", file)))
    }

    fn command(&self, words: &str) -> Option<(String, String)> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let before = self.stand.now();
        let ran = child::run(self.biscuit, &words, &self.stand.root);
        let after = self.stand.now();
        let wrong = process_is_wrong(&ran).or_else(|| self.files_are_wrong(&ran, &before, &after));
        let transcript = |ran: &Ran| {
            let short = |text: &str| text.chars().take(4000).collect::<String>();
            format!(
                "biscuit {}\nexit code {:?}, {} bytes\n{}\n{}",
                ran.words,
                ran.code,
                ran.peak,
                short(&ran.out),
                short(&ran.err)
            )
        };
        if let Some(symptom) = wrong {
            return Some((format!("{}: {symptom}", command_of(&words)), transcript(&ran)));
        }
        let keys = words.iter().position(|w| *w == "--file-keys").map_or(vec![], |at| words[at..at + 2].to_vec());
        for table in after.committed(&before).into_iter().map(table_of) {
            let verify = || {
                child::run(self.biscuit, &[&["verify", &table, "--json"], keys.as_slice()].concat(), &self.stand.root)
            };
            let verified = verify();
            if verified.code == Some(0) || needs_keys(&verified) {
                continue;
            }
            // Files that were damaged before are not changes of the command.
            self.stand.restore();
            self.put_damage();
            if verify().code == Some(0) {
                let symptom = format!("{}: committed, and the table is not sound", command_of(&words));
                return Some((symptom, transcript(&ran) + "\n" + &transcript(&verified)));
            }
            return None;
        }
        None
    }

    /// Returns the damaged file as TOML, if it is a job or a policy.
    fn settings(&self) -> Option<toml::Value> {
        let (file, bytes, _) = self.damaged;
        let text = std::str::from_utf8(bytes).ok().filter(|_| file.ends_with(".toml"))?;
        text.parse::<toml::Table>().ok().map(toml::Value::Table)
    }

    fn files_are_wrong(&self, ran: &Ran, before: &Files, after: &Files) -> Option<String> {
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_default();
        let below = |name: &str, folder: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let settings = self.settings();
        let (target, files) =
            (settings.as_ref().and_then(target_of_job), settings.as_ref().map(texts).unwrap_or_default());
        let may_change = |name: &str| {
            let known = self.kind.tables.iter().any(|(table, state)| below(name, table) || below(name, state));
            let named = target.iter().any(|(table, state)| below(name, table) || below(name, state));
            known || named || files.iter().any(|file| file == name) || is_written_beside(name)
        };
        let outside = after.changed(before, |name| !may_change(name));
        if let Some(name) = outside.first() {
            let what = name.split('/').next().unwrap_or_default();
            return Some(format!("a file outside of the table was written or deleted: {what}"));
        }
        if report.get("error").is_none() || self.kind.after == After::Unfinished {
            return None;
        }
        let code = report["error"]["code"].as_str().unwrap_or_default();
        let committed = after.committed(before);
        if !committed.is_empty() && ran.words.starts_with("snapshot ") {
            // The command opens periods in separate commits, each of which is complete.
            return None;
        }
        if !committed.is_empty() {
            return Some(format!("failed with {code}, and there is a new version"));
        }
        let of_table = |name: &str| {
            self.kind.tables.iter().any(|(table, _)| below(name, table))
                && !name.contains(".biscuit/")
                && !is_written_beside(name)
        };
        (!after.changed(before, of_table).is_empty())
            .then(|| format!("failed with {code}, and files of the table have changed"))
    }
}

/// Returns the table of a job file and its state root, where the job may write.
fn target_of_job(job: &toml::Value) -> Option<(String, String)> {
    let table = job.get("target")?.get("url")?.as_str()?.trim_end_matches('/');
    let state = match table.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/.biscuit/{name}"),
        None => format!(".biscuit/{table}"),
    };
    Some((table.to_owned(), state))
}

/// Returns all texts in the settings. Among them are the files of tokens and keys, which commands may write.
fn texts(settings: &toml::Value) -> Vec<String> {
    match settings {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Array(items) => items.iter().flat_map(texts).collect(),
        toml::Value::Table(fields) => fields.iter().flat_map(|(_, value)| texts(value)).collect(),
        _ => vec![],
    }
}

/// Returns the table of a state root.
fn table_of(state: &str) -> String {
    match state.strip_prefix(".biscuit/") {
        Some(table) => table.to_owned(),
        None if state == "state/m" => "lake/m".to_owned(),
        None => state.replace("/.biscuit/", "/"),
    }
}

/// Options with keys, for a table whose files encrypt columns.
fn needs_keys(ran: &Ran) -> bool {
    ran.out.contains("\"NoFileKeys\"")
}

/// Whether commands write this file beside tables: reports, keys, tokens, audit files.
fn is_written_beside(name: &str) -> bool {
    ["keys.toml", "tokens.redb", "audit.jsonl", "back.parquet"].contains(&name)
}

fn command_of(words: &[&str]) -> String {
    words
        .iter()
        .take(2)
        .filter(|w| !w.contains('/') && !w.contains('.') && !w.starts_with('-'))
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the symptom of a process that ended wrongly, or printed something wrong.
fn process_is_wrong(ran: &Ran) -> Option<String> {
    if ran.timed_out {
        return Some("the process does not end within 20 s".to_owned());
    }
    if ran.peak > MOST_MEMORY {
        return Some("the process uses more than 1 GiB of memory".to_owned());
    }
    let panic = ran.err.find("panicked at ").map(|at| ran.err[at..].lines().next().unwrap_or_default());
    if let Some(panic) = panic {
        return Some(format!("{panic}, exit code {}", ran.code.unwrap_or(-1)));
    }
    let Some(code) = ran.code else { return Some("a signal ended the process".to_owned()) };
    if !matches!(code, 0 | 2..=6) {
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_default();
        let message = report["error"]["message"].as_str().unwrap_or_default().chars().take(60).collect::<String>();
        return Some(format!("exit code {code}: {message}"));
    }
    if !ran.words.contains("--json") {
        return None;
    }
    let is_object = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|v| v.is_object());
    let (lines, objects) = (ran.out.lines().count(), ran.out.lines().filter(|line| is_object(line)).count());
    let rows = code == 0 && ran.words.starts_with("show ");
    (lines != objects || (lines != 1 && !rows))
        .then(|| format!("{lines} lines and {objects} JSON objects, exit code {code}"))
}
