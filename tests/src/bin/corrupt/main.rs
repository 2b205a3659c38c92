//! Damages valid inputs of every kind and passes them to Biscuit: to its decoders in processes of this program, and
//! to the `biscuit` command in folders with tables. No input may make it panic, hang, or use more than 1 GiB of
//! memory. A command that fails leaves its tables unchanged, and a command that commits leaves a sound table. One
//! seed decides everything.
//!
//! `corrupt --inputs 40000 --commands 10000 --seed 1 --biscuit target/debug/biscuit`; `--only KIND --number N`
//! repeats a single input.

mod build;
mod bytes;
mod case;
mod child;
mod decoders;
mod finding;
mod kinds;
mod layers;
mod node;
mod random;
mod seeds;
mod stand;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::case::Stands;
use crate::decoders::DECODERS;
use crate::finding::Findings;
use crate::kinds::KINDS;

#[derive(Debug, Default)]
struct Options {
    /// Numbers of inputs for decoders and for commands, over all kinds.
    inputs: u64,
    commands: u64,
    seed: u64,
    only: Option<String>,
    number: Option<u64>,
    biscuit: Option<PathBuf>,
    work: Option<PathBuf>,
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, numbers @ ..] = words.as_slice()
        && flag == "--worker"
    {
        let numbers: Vec<u64> = numbers.iter().filter_map(|n| n.parse().ok()).collect();
        let decoder = DECODERS.iter().find(|d| d.name == name).expect("the parent knows them");
        worker::work(decoder, numbers[0], numbers[1], numbers[2]);
        return ExitCode::SUCCESS;
    }
    match options(&words) {
        Ok(options) => run(&options),
        Err(wrong) => {
            eprintln!("corrupt: {wrong}");
            ExitCode::from(2)
        }
    }
}

fn options(words: &[String]) -> Result<Options, String> {
    let mut options = Options { seed: 1, ..Options::default() };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let number = || value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value}"));
        match name.as_str() {
            "--inputs" => options.inputs = number()?,
            "--commands" => options.commands = number()?,
            "--seed" => options.seed = number()?,
            "--number" => options.number = Some(number()?),
            "--only" => options.only = Some(value.clone()),
            "--biscuit" => options.biscuit = Some(value.into()),
            "--work" => options.work = Some(value.into()),
            "--keep" => options.keep = Some(value.into()),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> ExitCode {
    let work =
        options.work.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("corrupt-{}", std::process::id())));
    let keep = options.keep.clone().unwrap_or_else(|| work.join("found"));
    let mut findings = Findings::new(options.seed, &keep);
    let wanted =
        |name: &str| options.only.as_ref().is_none_or(|only| name == only || name.starts_with(&format!("{only}*")));
    let decoders: Vec<_> = DECODERS.iter().filter(|d| wanted(&format!("decode-{}", d.name))).collect();
    let kinds: Vec<_> = KINDS.iter().filter(|k| wanted(k.name)).collect();
    let share = |all: u64, kinds: usize| match options.number {
        Some(number) => number..number + 1,
        None => 0..all.div_ceil(kinds.max(1) as u64),
    };
    for decoder in &decoders {
        worker::run(decoder, options.seed, share(options.inputs, decoders.len()), &mut findings);
    }
    let numbers = share(options.commands, kinds.len());
    if !kinds.is_empty() && !numbers.is_empty() {
        let biscuit = options.biscuit.clone().unwrap_or_else(default_command);
        let biscuit = std::fs::canonicalize(&biscuit).unwrap_or_else(|e| panic!("{}: {e}", biscuit.display()));
        let mut stands = Stands::new(&absolute(&work), &biscuit);
        // Kinds alternate, so that a run that is stopped has tried all of them.
        for number in numbers.clone() {
            for kind in &kinds {
                if let Some(finding) = stands.try_input(kind, options.seed, number) {
                    findings.add(&finding);
                }
            }
        }
    }
    let tried = share(options.inputs, decoders.len()).count() * decoders.len() + numbers.count() * kinds.len();
    let clean = findings.summary();
    println!("{tried} inputs of {} kinds, seed {}", decoders.len() + kinds.len(), options.seed);
    if clean && options.work.is_none() && work.exists() {
        std::fs::remove_dir_all(&work).expect("the working folder is removed");
    }
    ExitCode::from(u8::from(!clean))
}

/// Returns the path of the command, which was built next to this program.
fn default_command() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program is known");
    this.with_file_name("biscuit")
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::create_dir_all(path).expect("a folder to work in");
    std::fs::canonicalize(path).expect("the path exists")
}
