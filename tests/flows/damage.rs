//! Short forms of the drivers that damage inputs, and that let processes work on one table beside each other. CI runs longer ones.

use std::process::Command;

/// The `biscuit` command, where it is built beside this package's programs: tests of the whole workspace build it.
fn has_command(program: &str) -> bool {
    let there = std::path::Path::new(program).with_file_name("biscuit").exists();
    if !there {
        println!("skipped: the command `biscuit` is not built");
    }
    there
}

fn run(program: &str, words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let out =
        Command::new(program).args(words.split(' ')).arg("--work").arg(folder.path()).output().expect("it starts");
    let message = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{message}{}", String::from_utf8_lossy(&out.stderr));
    println!("{message}");
}

#[test]
fn decoders_refuse_damaged_inputs_in_time_and_memory() {
    run(env!("CARGO_BIN_EXE_corrupt"), "--inputs 190 --seed 1");
}

#[test]
fn commands_refuse_damaged_inputs_and_leave_the_tables_as_they_were() {
    let program = env!("CARGO_BIN_EXE_corrupt");
    if has_command(program) {
        run(program, "--commands 45 --seed 1");
    }
}

#[test]
fn reads_beside_writers_that_are_killed_are_committed_versions() {
    let program = env!("CARGO_BIN_EXE_soak");
    if has_command(program) {
        run(program, "--seconds 4 --seed 1");
    }
}
