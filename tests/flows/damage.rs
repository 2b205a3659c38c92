//! Short runs of the programs `corrupt`, which damages inputs, and `soak`, which runs processes on one table at the
//! same time. CI runs longer ones.

use std::process::Command;

/// Returns the path of the `biscuit` command. It is built beside the programs of this package when the tests of the
/// whole workspace are built.
pub(crate) fn command(program: &str) -> std::path::PathBuf {
    let biscuit = std::path::Path::new(program).with_file_name("biscuit");
    assert!(biscuit.exists(), "the command `biscuit` is not built: run `cargo test --workspace`");
    biscuit
}

fn run(program: &str, words: &str) {
    let folder = tempfile::tempdir().expect("the folder is created");
    let out =
        Command::new(program).args(words.split(' ')).arg("--work").arg(folder.path()).output().expect("it starts");
    let stdout = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{stdout}{}", String::from_utf8_lossy(&out.stderr));
    println!("{stdout}");
}

#[test]
fn decoders_refuse_damaged_inputs_within_limits_of_time_and_memory() {
    run(env!("CARGO_BIN_EXE_corrupt"), "--inputs 190 --seed 1");
}

#[test]
fn commands_refuse_damaged_inputs_and_leave_tables_unchanged() {
    let program = env!("CARGO_BIN_EXE_corrupt");
    command(program);
    run(program, "--commands 45 --seed 1");
}

#[test]
fn reads_while_writers_are_killed_are_committed_versions() {
    let program = env!("CARGO_BIN_EXE_soak");
    command(program);
    run(program, "--seconds 4 --seed 1");
}
