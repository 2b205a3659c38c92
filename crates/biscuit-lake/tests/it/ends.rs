//! The end of the process: one JSON object in every case, and signals that work at any time. Also options of merges.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::binary::Folder;

const MERGE: &str = "merge --target lake/t --format rows --key id --order seq --changes";

fn biscuit(f: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biscuit"));
    command.current_dir(f.path()).env_remove("RUST_LOG");
    command
}

#[test]
fn json_output_is_one_object_for_every_wrong_command_line() {
    let f = Folder::new();
    let cases: [(&[&str], i32); 12] = [
        (&["--json"], 2),
        (&["--json", "no-such-command"], 2),
        (&["no-such-command", "--json"], 2),
        (&["show", "--json"], 2),
        (&["show", "t", "--json=yes"], 2),
        (&["show", "t", "--limit", "--json"], 2),
        (&["show", "t", "--limit", "-1", "--json"], 2),
        (&["show", "t", "--json", "--json"], 2),
        (&["show", "t", "--json", "--report", "ftp://x/y"], 2),
        (&["--version", "--json"], 0),
        (&["--help", "--json"], 0),
        (&["merge", "--help", "--json"], 0),
    ];
    for (words, code) in cases {
        let ran = f.run_with(words);
        assert_eq!(ran.code, code, "{words:?}: {}{}", ran.out, ran.err);
        assert!(ran.json().is_object(), "{words:?}");
    }
    let refused = f.run_with(&["show", "t", "--json", "--report", "ftp://x/y"]).json();
    assert_eq!(
        (&refused["error"]["code"], &refused["report_error"]["code"]),
        (&"NoTable".into(), &"InvalidUrl".into())
    );
}

#[test]
fn invalid_environment_variable_is_a_usage_error() {
    let f = Folder::new();
    for threads in ["0", "many", "", "1000000"] {
        let out = biscuit(&f)
            .args(["show", "t", "--json"])
            .env("TOKIO_WORKER_THREADS", threads)
            .output()
            .expect("the binary starts");
        let error: Value = serde_json::from_slice(&out.stdout).expect("the object is valid");
        assert_eq!((out.status.code(), &error["error"]["code"]), (Some(2), &"InvalidEnvironment".into()), "{threads}");
    }
}

#[cfg(unix)]
#[test]
fn argument_that_is_not_utf8_is_a_usage_error() {
    use std::os::unix::ffi::OsStrExt;
    let f = Folder::new();
    let word = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let out = biscuit(&f).arg("show").arg(word).arg("--json").output().expect("the binary starts");
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(serde_json::from_slice::<Value>(&out.stdout).is_ok_and(|v| v["error"]["kind"] == "usage"));
}

#[cfg(target_os = "linux")]
#[test]
fn full_standard_output_is_reported_as_cannot_print() {
    let f = Folder::new();
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").expect("the device is opened"));
    let help = biscuit(&f).arg("--help").stdout(full()).output().expect("the binary starts");
    assert_eq!(help.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&help.stderr).contains("CannotPrint"));
    // If neither output can be written, the exit code is all that remains.
    let both = biscuit(&f).args(["show", "t"]).stdout(full()).stderr(full()).status().expect("the binary starts");
    assert_eq!(both.code(), Some(2));
}

#[cfg(unix)]
fn fifo(f: &Folder, name: &str) {
    let path = f.path().join(name);
    std::fs::create_dir_all(path.parent().expect("the path has a parent")).expect("the folder can be created");
    assert!(Command::new("mkfifo").arg(path).status().expect("the command `mkfifo` runs").success());
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("the command `kill` runs");
    assert!(sent.success(), "the process had ended already");
}

/// The input is a pipe without a writer: the run ends by the signal or not at all.
#[cfg(unix)]
#[test]
fn signal_ends_a_run_that_waits_for_its_input() {
    let f = Folder::new();
    fifo(&f, "pipes/a.jsonl");
    f.write("j.toml", "name='q'\n[sources.s]\nurl='pipes/a.jsonl'\nformat='json'\ncontract.columns=[{name='id',type='int'}]\n[target]\nurl='lake/q'\nmode='append'\n");
    let commands = [format!("{MERGE} pipes/a.jsonl"), "run j.toml".to_owned()];
    for command in &commands {
        for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
            let words = command.split_whitespace().chain(["--json"]);
            let mut started = biscuit(&f);
            started.args(words).env("RUST_LOG", "biscuit=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = started.spawn().expect("the binary starts");
            // The first line of the log reports that the handlers are installed. After that the run blocks on the pipe.
            let log = child.stderr.as_mut().expect("the process has a pipe");
            BufReader::new(log).read_line(&mut String::new()).expect("the line is read");
            send(signal, &child);
            let out = child.wait_with_output().expect("the process ends");
            assert_eq!(out.status.code(), Some(code), "{command}: {}", String::from_utf8_lossy(&out.stderr));
            let error: Value = serde_json::from_slice(&out.stdout).expect("the object is valid");
            assert_eq!(error["error"]["code"], "Interrupted", "{command}");
        }
    }
}

/// Standard output is a full pipe that is not read.
#[cfg(unix)]
#[test]
fn signal_ends_a_process_whose_output_is_not_read() {
    let f = Folder::new();
    let line = |i: u32| format!("{{\"id\":{i},\"seq\":1,\"v\":\"{i:0100}\"}}\n");
    f.write("c.jsonl", (0..20_000).map(line).collect::<String>());
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 0);
    let mut child =
        biscuit(&f).args(["show", "lake/t", "--json"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    // The first byte shows that printing has begun. Two megabytes do not fit into the buffer of the pipe.
    let mut output = child.stdout.take().expect("the process has a pipe");
    output.read_exact(&mut [0]).expect("the byte is read");
    send("-TERM", &child);
    assert_eq!(child.wait().expect("the process ends").code(), Some(143));
}

#[test]
fn decompressed_size_of_a_file_can_be_limited() {
    let f = Folder::new();
    f.write("a.jsonl", "{\"id\":1,\"seq\":1}\n{\"id\":2,\"seq\":1}\n");
    let refused = f.run(&format!("{MERGE} a.jsonl --max-decompressed 20 --json"));
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (3, &"TooLarge".into()), "{}", refused.err);
    assert!(!f.path().join("lake").exists());
    f.write("m.toml", "name = \"m\"\n[sources.s]\nurl = \"a.jsonl\"\nformat = \"rows\"\nmax_decompressed = 20\n[target]\nurl = \"lake/m\"\nmode = \"merge\"\nkey = [\"id\"]\norder = [\"seq\"]\n");
    let refused = f.run("run m.toml --json");
    assert_eq!(refused.code, 3, "{}{}", refused.out, refused.err);
    assert!(refused.out.contains("TooLarge"), "{}", refused.out);
    assert_eq!(f.run(&format!("{MERGE} a.jsonl --max-decompressed 1GB")).code, 0);
}

#[test]
fn reload_replaces_newer_rows_and_keeps_rows_without_a_record() {
    let f = Folder::new();
    f.write("a.jsonl", "{\"id\":1,\"seq\":5,\"v\":\"old\"}\n{\"id\":2,\"seq\":5,\"v\":\"kept\"}\n");
    f.write("b.jsonl", "{\"id\":1,\"seq\":1,\"v\":\"loaded\"}\n");
    assert_eq!(f.run(&format!("{MERGE} a.jsonl")).code, 0);
    assert!(f.run(&format!("{MERGE} b.jsonl")).out.contains("late 1"));
    assert_eq!(f.run(&format!("{MERGE} b.jsonl --reload")).code, 0);
    let rows = f.rows("lake/t").concat();
    assert!(rows.contains("loaded") && rows.contains("kept") && !rows.contains("old"), "{rows}");
}

#[test]
fn reload_with_delete_missing_deletes_rows_without_a_record() {
    let f = Folder::new();
    f.write("a.jsonl", "{\"id\":1,\"seq\":5,\"v\":\"old\"}\n{\"id\":2,\"seq\":5,\"v\":\"gone\"}\n{\"id\":3,\"seq\":7,\"v\":\"same\"}\n");
    f.write("b.jsonl", "{\"id\":1,\"seq\":1,\"v\":\"loaded\"}\n{\"id\":3,\"seq\":1,\"v\":\"same\"}\n");
    assert_eq!(f.run(&format!("{MERGE} a.jsonl")).code, 0);
    let late = f.run(&format!("{MERGE} b.jsonl"));
    assert!(late.out.contains("LATE") && late.out.contains("--reload"), "{}", late.out);
    assert_eq!(f.run(&format!("{MERGE} b.jsonl --delete-missing")).code, 2, "--delete-missing needs --reload");
    f.write("empty.jsonl", "null\n");
    let empty = f.run(&format!("{MERGE} empty.jsonl --reload --delete-missing --json"));
    assert_eq!((empty.code, &empty.json()["error"]["code"]), (3, &"NotWhole".into()), "{}", empty.out);
    let ran = f.run(&format!("{MERGE} b.jsonl --reload --delete-missing"));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let rows = f.rows("lake/t").concat();
    assert!(rows.contains("loaded") && rows.contains("same") && !rows.contains("gone"), "{rows}");
    // A late record of a deleted key does not restore the row.
    f.write("c.jsonl", "{\"id\":2,\"seq\":4,\"v\":\"gone\"}\n");
    assert_eq!(f.run(&format!("{MERGE} c.jsonl")).code, 0);
    assert!(!f.rows("lake/t").concat().contains("gone"));
}

#[test]
fn full_loads_beyond_the_memory_budget_delete_the_rows_without_a_record() {
    let lines = |seq: u32, step: usize| -> String {
        let line = |id: u32| format!("{{\"id\":{id},\"seq\":{seq},\"v\":\"a value of some length, {id} of {seq}\"}}\n");
        (0..40_000).step_by(step).map(line).collect()
    };
    let run = |memory: &str| {
        let f = Folder::new();
        f.write("a.jsonl", lines(1, 1));
        f.write("b.jsonl", lines(2, 2));
        assert_eq!(f.run(&format!("{MERGE} a.jsonl")).code, 0);
        let ran =
            f.run(&format!("{MERGE} b.jsonl --reload --delete-missing --max-deleted 60 --memory {memory} --json"));
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert_eq!(ran.json()["rows"]["deleted"], 20_000);
        (ran.err.contains("exceed the memory budget"), f.rows("lake/t"))
    };
    let ((on_disk, rows), (on_disk_with_more, want)) = (run("8MB"), run("1GB"));
    assert!(on_disk && !on_disk_with_more);
    assert_eq!((rows.len(), &rows), (20_000, &want));
}

#[test]
fn source_table_without_records_is_an_error_unless_empty_is_allowed() {
    let f = Folder::new();
    f.write("d/s/t/LOAD00000001.csv", "id,v\n1,a\n");
    let merge = "merge --target lake/t --changes d --format dms --key id --table s.other --json";
    let none = f.run(merge);
    assert_eq!((none.code, &none.json()["error"]["code"]), (2, &"UnknownTable".into()), "{}", none.out);
    let allowed = f.run(&format!("{merge} --allow-empty"));
    assert_eq!((allowed.code, &allowed.json()["outcome"]), (0, &"unchanged".into()), "{}", allowed.out);
}

#[test]
fn history_shows_run_and_rows_of_each_version() {
    let f = Folder::new();
    f.write("a.jsonl", "{\"id\":1,\"seq\":5}\n");
    f.write("raw/1.jsonl", "{\"id\":1}\n{\"id\":2}\n");
    f.write(
        "j.toml",
        "name = \"j\"\n[sources.s]\nurl = \"raw\"\nformat = \"json\"\n[target]\nurl = \"lake/j\"\nmode = \"append\"\n",
    );
    assert_eq!(f.run(&format!("{MERGE} a.jsonl")).code, 0);
    assert_eq!(f.run("run j.toml --run-id monday").code, 0);
    assert!(f.run("history lake/j").out.contains("monday"));
    for (table, rows) in [("lake/t", "1 (+1 ~0 -0)"), ("lake/j", "2 written")] {
        let shown = f.run(&format!("history {table}"));
        assert!(shown.out.contains(rows), "{}", shown.out);
        let json = f.run(&format!("history {table} --json")).json();
        let version = &json["versions"][0];
        assert_eq!(
            (&version["report"]["outcome"], &version["report"]["version"]),
            (&"committed".into(), &1.into()),
            "{json}"
        );
        assert!(version["at"].as_str().is_some_and(|at| at.starts_with("20")), "{json}");
    }
    assert_eq!(f.run("forget --subject 1 --erase-from lake/t --column id").code, 0);
    assert!(f.run("history lake/t").out.contains("0 (+0 ~0 -1)"), "the history shows the erasure");
}

#[test]
fn durations_need_a_unit() {
    let f = Folder::new();
    for words in ["purge lake --older-than 30", "merge --retention 30"] {
        let ran = f.run(words);
        assert!(ran.code == 2 && ran.err.contains("no unit"), "{words}: {}", ran.err);
    }
}
