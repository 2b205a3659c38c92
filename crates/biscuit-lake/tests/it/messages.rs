//! No message or log contains values of rows unless `--show-values` is given, including messages of libraries.
//!
//! The tests put a canary into the data, and look for it in everything that the command prints.

use std::process::Command;

use crate::binary::Folder;

const CANARY: &str = "SECRETVALUE4711";
/// Canary for places that need a number.
const NUMBER: &str = "47114711";

/// Runs `biscuit` with backtraces and the log level `log`. Returns the exit code and everything that it printed.
fn output(f: &Folder, words: &[&str], log: &str) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_biscuit"))
        .args(words)
        .current_dir(f.path())
        .env("RUST_LOG", log)
        .env("RUST_BACKTRACE", "full")
        .output()
        .expect("the binary starts");
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code().expect("the process has an exit code"), text)
}

/// Asserts that a command fails because of its data or settings, and that its output has no value, as text and as
/// JSON.
fn tells_no_value(f: &Folder, what: &str, words: &[&str]) {
    for (format, log) in [(None, "error"), (Some("--json"), "trace")] {
        let words: Vec<&str> = words.iter().copied().chain(format).collect();
        let (code, text) = output(f, &words, log);
        assert!(code == 2 || code == 3, "{what}: {code}: {text}");
        assert!(!text.to_uppercase().contains(CANARY), "{what}: {text}");
        assert!(!text.contains(NUMBER), "{what}: {text}");
    }
}

const JOB: &str = "name='q'\n[sources.s]\nurl='in'\nformat='json'\n[target]\nurl='lake/q'\nmode='append'\n[transform]\nsql='select * from s'\n";

#[test]
fn error_of_a_query_contains_no_value() {
    let f = Folder::new();
    f.write("in/a.json", format!("{{\"id\":1,\"note\":\"{CANARY}\",\"n\":{NUMBER}}}\n"));
    f.write("j.toml", JOB);
    let queries = [
        "select cast(note as int) as x from s",
        "select cast(note as date) as x from s",
        "select cast(note as decimal(5,2)) as x from s",
        "select cast(n as tinyint) as x from s",
        "select to_timestamp(note) as x from s",
        "select to_date(note) as x from s",
        "select to_timestamp(note, '%Y') as x from s",
        "select arrow_cast(note, 'Date32') as x from s",
        "select arrow_cast(note, 'Timestamp(Nanosecond, None)') as x from s",
        "select arrow_cast(note, 'Interval(MonthDayNano)') as x from s",
        "select cast(note as interval) as x from s",
        "select regexp_like('a', note || '(') as x from s",
        "select regexp_replace('a', note || '(', 'b') as x from s",
        "select regexp_count('a', note || '(') as x from s",
        "select decode(note || '!', 'base64') as x from s",
        "select decode(note || '!', 'hex') as x from s",
        "select encode(note, note) as x from s",
        "select date_trunc(note, now()) as x from s",
        "select date_part(note, now()) as x from s",
        "select extract(year from cast(note as timestamp)) as x from s",
        "select to_char(now(), note || '%Q') as x, cast(note as int) as y from s",
        "select array_element([1], cast(note as bigint)) as x from s",
        "select count(*) as x from s group by cast(note as int)",
        "select id from s order by cast(note as int)",
        "select id from s where cast(note as boolean)",
        "select a.id from s a join s b on cast(a.note as int) = b.id",
        "select sum(cast(note as double)) over () as x from s",
        "select chr(n * 100000) as x from s",
        "select repeat(note, cast(note as bigint)) as x from s",
        "select n * 9223372036854775807 as x, cast(note as int) as y from s",
        "select id from s where id = (select cast(note as int) from s)",
        "select make_date(n, n, n) as x from s",
    ];
    for query in queries {
        let set = format!("transform.sql={query}");
        let words = ["run", "j.toml", "--set", &set];
        let (code, text) = output(&f, &words, "error");
        // Some functions return null or text instead of an error. The value must not be in the logs all the same.
        if code == 0 {
            assert!(!text.contains(CANARY), "{query}: {text}");
            std::fs::remove_dir_all(f.path().join("lake")).expect("the table exists");
            continue;
        }
        tells_no_value(&f, query, &words);
    }
    let asked = ["run", "j.toml", "--set", "transform.sql=select cast(note as int) as x from s", "--show-values"];
    let (_, text) = output(&f, &asked, "error");
    assert!(text.contains(CANARY), "--show-values shows the value: {text}");
    let (_, text) = output(&f, &asked[..4], "error");
    assert!(text.contains("--show-values") && text.contains("cannot be converted"), "{text}");
}

#[test]
fn error_of_a_contract_contains_no_value() {
    let f = Folder::new();
    f.write("in/a.json", format!("{{\"id\":1,\"note\":\"{CANARY}\"}}\n"));
    f.write("in.csv/a.csv", format!("id,note\n1,{CANARY}\n"));
    for t in [
        "int",
        "tinyint",
        "double",
        "boolean",
        "date",
        "timestamp",
        "decimal(5,2)",
        "binary",
        "array<int>",
        "struct<a:int>",
    ] {
        for (format, url) in [("json", "in"), ("csv", "in.csv")] {
            if format == "csv" && t.contains('<') {
                continue;
            }
            let contract = format!(
                "[sources.s.contract]\ncolumns=[{{name='id',type='int'}},{{name='note',type='{t}',on_error='fail'}}]\n"
            );
            f.write("j.toml", format!("name='q'\n[sources.s]\nurl='{url}'\nformat='{format}'\n{contract}[target]\nurl='lake/q'\nmode='append'\n"));
            let (code, text) = output(&f, &["run", "j.toml"], "error");
            if code == 0 {
                // Every text is a valid value of the type binary.
                assert_eq!(t, "binary", "{format}: {text}");
                std::fs::remove_dir_all(f.path().join("lake")).expect("the table exists");
                continue;
            }
            tells_no_value(&f, &format!("{t} in {format}"), &["run", "j.toml"]);
        }
    }
}

#[test]
fn error_of_a_change_file_contains_no_value() {
    let f = Folder::new();
    let contract = |t: &str| {
        format!(
            "columns=[{{name='id',type='int'}},{{name='seq',type='bigint'}},{{name='v',type='{t}'}}]\nkey=['id']\norder=['seq']\n"
        )
    };
    f.write("ints.toml", contract("int"));
    f.write("dates.toml", contract("date"));
    f.write("decimals.toml", contract("decimal(5,2)"));
    f.write("ok.jsonl", "{\"id\":1,\"seq\":1,\"v\":7,\"op\":\"c\"}\n");
    let row = |v: &str| format!("{{\"id\":1,\"seq\":2,\"v\":{v},\"op\":\"u\"}}\n");
    f.write("text.jsonl", row(&format!("\"{CANARY}\"")));
    f.write("big.jsonl", row(&NUMBER.repeat(2)));
    f.write("half.jsonl", format!("{{\"id\":1,\"v\":\"{CANARY}\n"));
    f.write("bare.jsonl", format!("{{\"id\":1,\"v\":{CANARY}}}\n"));
    f.write("escape.jsonl", format!("{{\"id\":1,\"v\":\"{CANARY}\\q\"}}\n"));
    f.write("op.jsonl", format!("{{\"id\":1,\"seq\":2,\"op\":\"{CANARY}\"}}\n"));
    f.write("key.jsonl", format!("{{\"id\":\"{CANARY}\",\"seq\":2,\"op\":\"u\"}}\n"));
    f.write("order.jsonl", format!("{{\"id\":1,\"seq\":\"{CANARY}\",\"op\":\"u\"}}\n"));
    f.write("tie.jsonl", format!("{{\"id\":{NUMBER},\"seq\":2,\"v\":1}}\n{{\"id\":{NUMBER},\"seq\":2,\"v\":2}}\n"));
    f.write("cells.csv", format!("id,seq,v,op\n1,2,{CANARY},u\n"));
    f.write("more.csv", format!("id,seq,v,op\n1,2,3,u,{CANARY}\n"));
    f.write("quote.csv", format!("id,seq,v,op\n1,2,\"{CANARY},u\n"));
    f.write("latin.csv", [b"id,seq,v,op\n1,2,", CANARY.as_bytes(), b"\xff,u\n"].concat());
    f.write("not.parquet", format!("PAR1{CANARY}{CANARY}PAR1"));
    f.write("not.avro", format!("Obj\u{1}{CANARY}{CANARY}"));
    f.write(
        "envelope.jsonl",
        format!("{{\"op\":\"{CANARY}\",\"after\":{{\"id\":1}},\"source\":{{\"lsn\":\"{CANARY}\"}}}}\n"),
    );
    let rows = |file: &str, contract: &str| -> Vec<String> {
        let words = format!(
            "merge --target lake/{contract} --format rows --key id --order seq --op op --schema {contract}.toml --changes {file}"
        );
        words.split_whitespace().map(str::to_owned).collect()
    };
    for contract in ["ints", "dates", "decimals"] {
        for file in [
            "text.jsonl",
            "big.jsonl",
            "half.jsonl",
            "bare.jsonl",
            "escape.jsonl",
            "op.jsonl",
            "key.jsonl",
            "order.jsonl",
            "cells.csv",
            "more.csv",
            "quote.csv",
            "latin.csv",
            "not.parquet",
            "not.avro",
        ] {
            let words = rows(file, contract);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            tells_no_value(&f, &format!("{file} as {contract}"), &words);
        }
    }
    let words = "merge --target lake/e --format debezium --key id --changes envelope.jsonl";
    tells_no_value(&f, "an envelope", &words.split_whitespace().collect::<Vec<_>>());
    let words = "merge --target lake/u --format rows --key id --order seq --changes tie.jsonl";
    tells_no_value(&f, "a tie", &words.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn error_of_a_damaged_table_contains_no_value() {
    let f = Folder::new();
    f.write("lake/t/a.parquet", format!("PAR1{CANARY}{CANARY}PAR1"));
    tells_no_value(&f, "a file that is not Parquet", &["show", "lake/t"]);
    // Values that are not compressed, with a wrong length before them.
    let lines: String = (0..50).map(|i| format!("{{\"id\":{i},\"seq\":1,\"v\":\"{CANARY}{i}\"}}\n")).collect();
    f.write("c.jsonl", lines);
    assert_eq!(
        f.run("merge --target lake/u --format rows --key id --order seq --changes c.jsonl --codec uncompressed").code,
        0
    );
    let file = f.files("lake/u")[0].0.clone();
    let whole = std::fs::read(&file).expect("the file can be read");
    let at = whole.windows(CANARY.len()).position(|w| w == CANARY.as_bytes()).expect("a value is in the clear");
    for (offset, byte) in [(4, 0xff), (1, 0x7f), (0, 0x00)] {
        let mut damaged = whole.clone();
        damaged[at - offset..at].fill(byte);
        damaged[at] = 0xff;
        std::fs::write(&file, damaged).expect("the file can be written");
        let (code, text) = output(&f, &["show", "lake/u"], "trace");
        assert!(code != 0 || text.contains(CANARY), "either an error, or the rows: {text}");
        assert!(code == 0 || !text.contains(CANARY), "{text}");
    }
}

#[test]
fn error_of_a_settings_file_does_not_quote_the_file() {
    let f = Folder::new();
    f.write("j.toml", JOB.replace("format='json'", &format!("format=['{CANARY}']")));
    tells_no_value(&f, "a list as a format", &["run", "j.toml"]);
    f.write("j.toml", format!("{JOB}password = {CANARY}\n"));
    tells_no_value(&f, "a text without quotes", &["run", "j.toml"]);
    let (_, text) = output(&f, &["run", "j.toml"], "error");
    assert!(text.contains("line 10"), "the message has the line: {text}");
    for (name, content) in
        [("c.json", format!("{{\"columns\":\"{CANARY}\"}}")), ("c.toml", format!("columns='{CANARY}'\n"))]
    {
        f.write(name, content);
        f.write("x.jsonl", "{\"id\":1,\"seq\":1}\n");
        let words =
            format!("merge --target lake/t --format rows --key id --order seq --changes x.jsonl --schema {name}");
        tells_no_value(&f, name, &words.split_whitespace().collect::<Vec<_>>());
    }
}
