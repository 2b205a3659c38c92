//! Four writers and two readers work on one table with the `biscuit` command, and are killed at random. Every read
//! must be one committed version, and not older than the commits that were reported before it began. Every failure
//! must say what to do.
//!
//! Each merge of a writer sets all its rows, in several partitions, to the next number. So a read shows the progress
//! of each writer, and whether all rows are from one version.
//!
//! `soak --seconds 120 --seed 1 --biscuit target/debug/biscuit`

mod history;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::history::{Counters, History, WRITERS, not_in_a_row};

const READERS: usize = 2;
/// Number of rows of a writer. They are in `PARTITIONS` partitions and change their partition with every merge.
const ROWS: u64 = 9;
const PARTITIONS: u64 = 3;
/// Minimum number of merges of each writer, even on a slow machine.
const LEAST: u64 = 4;
/// On average, one of this many merges is killed.
const KILLED: u64 = 4;

fn main() -> ExitCode {
    let options: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .chunks(2)
        .filter_map(|p| Some((p[0].clone(), p.get(1)?.clone())))
        .collect();
    let number = |name: &str, default: u64| options.get(name).map_or(Ok(default), |n| n.parse::<u64>());
    let (Ok(seconds), Ok(seed)) = (number("--seconds", 10), number("--seed", 1)) else {
        eprintln!("soak: --seconds and --seed are numbers");
        return ExitCode::from(2);
    };
    let this = std::env::current_exe().expect("the path of this program is known");
    let biscuit = options.get("--biscuit").map_or_else(|| this.with_file_name("biscuit"), PathBuf::from);
    let biscuit = std::fs::canonicalize(&biscuit).unwrap_or_else(|e| panic!("{}: {e}", biscuit.display()));
    let folder = options
        .get("--work")
        .map_or_else(|| std::env::temp_dir().join(format!("soak-{}", std::process::id())), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("the folder is created");
    let until = Instant::now() + Duration::from_secs(seconds);
    let soak = Soak { biscuit, folder, until, writing: AtomicUsize::new(WRITERS), observations: Mutex::default() };
    soak.run(seed);
    let observed = soak.observations.into_inner().expect("no thread has panicked");
    observed.ends.iter().for_each(|(how, times)| println!("{times:6}  {how}"));
    observed.wrong.iter().for_each(|wrong| println!("WRONG: {wrong}"));
    println!("{} different states were read in {seconds} s, seed {seed}", observed.states.len());
    if observed.wrong.is_empty() {
        std::fs::remove_dir_all(&soak.folder).expect("the working folder is removed");
    }
    ExitCode::from(u8::from(!observed.wrong.is_empty()))
}

struct Soak {
    biscuit: PathBuf,
    folder: PathBuf,
    until: Instant,
    /// Number of writers that have not ended. Readers end after them.
    writing: AtomicUsize,
    observations: Mutex<Observations>,
}

#[derive(Default)]
struct Observations {
    history: History,
    /// States that readers saw.
    states: Vec<Counters>,
    /// Number of commands by their ends.
    ends: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

/// Exit code and output of a command, or `None` if it was killed.
struct Ended(Option<(i32, Vec<Value>)>);

impl Soak {
    fn observe<T>(&self, with: impl FnOnce(&mut Observations) -> T) -> T {
        with(&mut self.observations.lock().expect("no thread has panicked"))
    }

    fn run(&self, seed: u64) {
        // Readers need a table, so the first merges come before them.
        let begun = (0..WRITERS).all(|writer| self.merge(writer, 1, None));
        assert!(begun, "nothing disturbs the first merges");
        std::thread::scope(|threads| {
            for writer in 0..WRITERS {
                threads.spawn(move || self.write(writer, &mut Random(seed * 1000 + writer as u64)));
            }
            for _ in 0..READERS {
                threads.spawn(|| self.read_again_and_again());
            }
        });
        self.end();
    }

    /// Merges one number after the other. If a run gave no answer, its number is merged again.
    fn write(&self, writer: usize, random: &mut Random) {
        let mut counter = 2;
        let slow = self.until + Duration::from_secs(300);
        while Instant::now() < if counter < LEAST { slow } else { self.until } {
            if random.below(8) == 0 {
                let words = [
                    "recover lake/t --json",
                    "compact lake/t --json",
                    "recover lake/t --fence --json",
                    "verify lake/t --json",
                ];
                self.command(words[random.below(4) as usize], None);
            }
            let kill = (random.below(KILLED) == 0).then(|| Duration::from_millis(random.below(400)));
            if self.merge(writer, counter, kill) {
                counter += 1;
            } else {
                // Pauses for a random time, so that the losers of a race do not meet again.
                std::thread::sleep(Duration::from_millis(random.below(50)));
            }
        }
        // A last merge settles the number of a run that gave no answer.
        let patience = Instant::now() + Duration::from_secs(60);
        while !self.merge(writer, counter, None) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(random.below(200)));
        }
        self.writing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Merges a number. Returns whether the rows have it now.
    fn merge(&self, writer: usize, counter: u64, kill: Option<Duration>) -> bool {
        let row = |row: u64| {
            let (id, partition) = (writer as u64 * 100 + row, (row + counter) % PARTITIONS);
            format!("{{\"id\":{id},\"n\":{counter},\"p\":\"p{partition}\"}}\n")
        };
        let name = format!("changes-{writer}.jsonl");
        std::fs::write(self.folder.join(&name), (0..ROWS).map(row).collect::<String>()).expect("the file is written");
        let words =
            format!("merge --target lake/t --format rows --key id --order n --partition-by p --json --changes {name}");
        match self.command(&words, kill).0 {
            Some((0, report)) => {
                let report = report.first().cloned().unwrap_or_default();
                let version = report["version"].as_u64().filter(|_| report["outcome"] == "committed");
                self.observe(|observed| observed.history.committed(writer, counter, version));
                true
            }
            _ => false,
        }
    }

    fn read_again_and_again(&self) {
        let mut before = Counters::default();
        while self.writing.load(Ordering::Relaxed) > 0 {
            let answered = self.observe(|observed| observed.history.answered);
            let Some((0, rows)) = self.command("show lake/t --json", None).0 else { continue };
            let seen = match counters(&rows) {
                Ok(seen) => seen,
                Err(wrong) => {
                    self.observe(|observed| observed.wrong.push(wrong));
                    continue;
                }
            };
            let older = |than: &Counters| seen.iter().zip(than).any(|(now, then)| now < then);
            self.observe(|observed| {
                if older(&before) || older(&answered) {
                    observed
                        .wrong
                        .push(format!("{seen:?} was read after {before:?}, and {answered:?} was committed before"));
                }
                if !observed.states.contains(&seen) {
                    observed.states.push(seen);
                }
            });
            before = seen;
        }
    }

    /// Runs a command and counts how it ended. An end that no command may have is recorded as wrong.
    fn command(&self, words: &str, kill: Option<Duration>) -> Ended {
        let what = words.split(' ').next().unwrap_or_default();
        let mut child = Command::new(&self.biscuit)
            .args(words.split(' '))
            .current_dir(&self.folder)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        if let Some(after) = kill {
            std::thread::sleep(after);
            // The process may have ended already.
            drop(child.kill());
        }
        let out = child.wait_with_output().expect("the command can be waited for");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        let error_code =
            lines.first().map(|v| v["error"]["code"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
        let Some(code) = out.status.code() else {
            self.observe(|s| *s.ends.entry(format!("{what}: killed")).or_default() += 1);
            return Ended(None);
        };
        let expected = code == 0 || (matches!(code, 4 | 5) && lines.len() == 1);
        self.observe(|s| {
            *s.ends.entry(format!("{what}: exit code {code} {error_code}")).or_default() += 1;
            if !expected {
                let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
                s.wrong.push(format!(
                    "{words}: exit code {code}: {} {stderr}",
                    text.chars().take(600).collect::<String>()
                ));
            }
        });
        Ended(Some((code, lines)))
    }

    /// Checks the end: the table is sound and has the last numbers, and the states that were read are of one history.
    fn end(&self) {
        self.command("recover lake/t --fence --json", None);
        let sound = self.command("verify lake/t --json", None);
        let shown = self.command("show lake/t --json", None);
        self.observe(|observed| {
            let report = sound.0.and_then(|(_, report)| report.into_iter().next()).unwrap_or_default();
            let clean = ["orphan_files", "external"].iter().all(|of| report[of].as_array().is_none_or(Vec::is_empty));
            if report["outcome"] != "sound" || !clean {
                observed.wrong.push(format!("the table is not sound: {report}"));
            }
            let last = shown.0.map(|(_, rows)| counters(&rows));
            if last != Some(Ok(observed.history.answered)) {
                observed.wrong.push(format!("the last rows are {last:?}, not {:?}", observed.history.answered));
            }
            let torn: Vec<String> = observed.states.iter().filter_map(|seen| observed.history.check(seen)).collect();
            observed.wrong.extend(torn.into_iter().chain(not_in_a_row(&observed.states)));
            if observed.states.is_empty() {
                observed.wrong.push("no read has succeeded".to_owned());
            }
        });
    }
}

/// Returns the number of each writer. All rows of a writer must have the same number.
fn counters(rows: &[Value]) -> Result<Counters, String> {
    let mut of: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for row in rows {
        let (Some(id), Some(n)) = (row["id"].as_u64(), row["n"].as_u64()) else {
            return Err(format!("not a row: {row}"));
        };
        of.entry(id / 100).or_default().push(n);
    }
    let mut seen = Counters::default();
    for (writer, numbers) in of {
        if numbers.len() as u64 != ROWS || numbers.iter().any(|n| *n != numbers[0]) {
            return Err(format!("the rows of writer {writer} have the numbers {numbers:?}"));
        }
        seen[writer as usize] = numbers[0];
    }
    Ok(seen)
}

/// Random number generator SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
