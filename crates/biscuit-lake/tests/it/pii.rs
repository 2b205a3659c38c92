//! `biscuit pii`, `biscuit forget`, and `[pii]` of jobs. No byte that is written or printed contains a treated value.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine as _};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::binary::Folder;

const POLICY: &str = r#"
keys = "keys.toml"
store = "tokens.redb"
subject = "id"

[columns]
ssn = "tokenize"
name = { encrypt = { key = "subject" } }
email = "encrypt"
bio = "redact"
phone = { partial = { last = 4 } }
"#;

const ROWS: &str = r#"{"id":1,"ssn":"123-45-6789","name":"Ann Canary","email":"ann.canary@example.com","bio":"write to ann.canary@example.com","phone":"+1 212-555-0100"}
{"id":2,"ssn":"234-56-7890","name":"Ben Canary","email":"ben.canary@example.com","bio":"nothing here","phone":"+1 212-555-0101"}
{"id":3,"ssn":"123-45-6789","name":"Ann Canary","email":null,"bio":"","phone":"n/a"}
"#;

fn with_keys() -> Folder {
    let f = Folder::new();
    let ran = f.run("pii keygen keys.toml");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    f.write("policy.toml", POLICY);
    f.write("customers.jsonl", ROWS);
    f
}

#[test]
fn key_files_are_created_and_rotated_but_never_replaced() {
    let f = with_keys();
    let first = std::fs::read_to_string(f.path().join("keys.toml")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(f.path().join("keys.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = f.run("pii keygen keys.toml");
    assert_eq!(again.code, 2);
    assert_eq!(
        again.err,
        "error: FileExists: `keys.toml` already exists and is not replaced; use `--rotate` to add keys to it\n"
    );
    assert_eq!(std::fs::read_to_string(f.path().join("keys.toml")).unwrap(), first);
    let rotated = f.run("pii keygen keys.toml --rotate --json");
    assert_eq!(rotated.json()["current"], 2);
    let second = std::fs::read_to_string(f.path().join("keys.toml")).unwrap();
    let old = first.lines().find(|line| line.starts_with("1 = ")).unwrap();
    assert!(second.contains(old), "the old root key remains");
    assert!(!f.path().join("keys.toml.new").exists());
}

#[test]
fn other_files_beside_a_key_file_are_not_changed() {
    let f = with_keys();
    f.write("keys.toml.new", "# the only copy of other keys");
    let ran = f.run("pii keygen keys.toml --rotate --json");
    assert_eq!((ran.code, &ran.json()["current"]), (0, &2.into()), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(f.path().join("keys.toml.new")).unwrap(), "# the only copy of other keys");
    let names = |f: &Folder| f.files("").into_iter().map(|(path, ..)| path).collect::<Vec<_>>();
    let before = names(&f);
    std::fs::create_dir(f.path().join("folder")).unwrap();
    for words in ["pii keygen keys.toml", "pii keygen folder", "pii keygen s3://bucket/keys.toml"] {
        assert_eq!(f.run(words).code, 2, "{words}");
    }
    assert_eq!(names(&f), before, "no temporary file remains");
}

#[test]
fn concurrent_key_rotations_lose_no_key() {
    let f = with_keys();
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let at = f.path().to_owned();
            std::thread::spawn(move || {
                let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_biscuit"));
                command
                    .args(["pii", "keygen", "keys.toml", "--rotate"])
                    .current_dir(at)
                    .output()
                    .expect("the binary starts")
            })
        })
        .collect();
    for thread in threads {
        let ran = thread.join().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let text = std::fs::read_to_string(f.path().join("keys.toml")).unwrap();
    let roots = text.split("[roots.keys]").nth(1).unwrap();
    assert_eq!(roots.lines().filter(|line| line.contains(" = ")).count(), 7, "{} lines", text.lines().count());
    assert!(text.contains("current = 7"));
}

#[test]
fn report_replaces_an_earlier_report_and_nothing_else() {
    let f = with_keys();
    let scan = "pii scan customers.jsonl --report";
    assert_eq!(f.run(&format!("{scan} report.json")).code, 0);
    assert_eq!(f.run(&format!("{scan} report.json")).code, 0, "a report is replaced");
    let keys = std::fs::read(f.path().join("keys.toml")).unwrap();
    std::fs::create_dir(f.path().join("folder")).unwrap();
    assert_eq!(f.run("pii apply customers.jsonl clean/t --policy policy.toml").code, 0);
    let before = f.files("");
    for place in ["keys.toml", "customers.jsonl", "folder", "clean/t/r.json", "clean/.biscuit/t/r.json"] {
        let ran = f.run(&format!("{scan} {place}"));
        assert!(ran.code == 2 && ran.err.contains("the report cannot be written"), "{place}: {}", ran.err);
    }
    assert_eq!(f.files(""), before);
    assert_eq!(std::fs::read(f.path().join("keys.toml")).unwrap(), keys);
    let asked = "pii detokenize --policy policy.toml --columns ssn --who t --reason w --token tok_0 --audit keys.toml";
    let ran = f.run(asked);
    assert!(ran.err.contains("NoAudit"), "{}", ran.err);
    assert_eq!(std::fs::read(f.path().join("keys.toml")).unwrap(), keys);
}

#[test]
fn columns_are_scanned_treated_and_revealed_with_a_reason() {
    let f = with_keys();
    let scan = f.run("pii scan customers.jsonl --json");
    assert_eq!(scan.code, 0, "{}", scan.err);
    let found: Vec<(String, String)> = scan.json()["columns"].as_array().unwrap().iter().map(text_of).collect();
    for (column, entity) in
        [("ssn", "US_SSN"), ("email", "EMAIL_ADDRESS"), ("bio", "EMAIL_ADDRESS"), ("phone", "PHONE_NUMBER")]
    {
        assert!(found.contains(&(column.into(), entity.into())), "{column}: {found:?}");
    }
    let scan = f.run("pii scan customers.jsonl");
    assert!(scan.out.starts_with("3 rows: ") && !scan.out.contains("anary"), "{}", scan.out);

    let applied = f.run("pii apply customers.jsonl clean/customers --policy policy.toml --json");
    assert_eq!(applied.code, 0, "{}", applied.err);
    assert_eq!(applied.json()["pii"]["ssn"]["values"], 3);
    let mut rows: Vec<Value> = f.rows("clean/customers").iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!((&rows[0]["bio"], &rows[0]["phone"]), (&"write to <EMAIL_ADDRESS>".into(), &"+* ***-***-0100".into()));
    assert_eq!(rows[0]["ssn"], rows[2]["ssn"], "equal values have equal tokens");
    let token = rows[0]["ssn"].as_str().unwrap().to_owned();

    let asked = "pii detokenize --policy policy.toml --columns ssn --audit audit.jsonl --who tests";
    let none = f.run(&format!("{asked} --token {token}"));
    assert_eq!(none.code, 2, "without a reason: {}", none.out);
    let ran = f.run(&format!("{asked} --reason ticket-7 --token {token}"));
    assert_eq!(ran.out, format!("{token}  123-45-6789\n"), "{}", ran.err);
    let unknown = f.run(&format!("{asked} --reason ticket-7 --token tok_0"));
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.starts_with("error: UnknownToken: column `ssn`: "), "{}", unknown.err);
    let whole = "pii detokenize clean/customers --policy policy.toml --columns ssn,name,email --audit audit.jsonl --who tests --reason ticket-8 --out back.parquet";
    let ran = f.run(whole);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, "3 rows written to back.parquet; 0 values are null, since their subjects were forgotten\n");
    let back = f.run("pii scan back.parquet --json").json()["columns"].to_string();
    assert!(back.contains("US_SSN") && back.contains("EMAIL_ADDRESS"), "{back}");
    let audit = std::fs::read_to_string(f.path().join("audit.jsonl")).unwrap();
    assert_eq!(audit.lines().count(), 2 + 3, "{audit}");
    assert!(!audit.contains("anary") && !audit.contains("6789"), "{audit}");
    let column = f.run(
        "pii detokenize clean/customers --policy policy.toml --columns bio --audit a --who t --reason w --out x.parquet",
    );
    assert_eq!(column.code, 2);
    assert!(column.err.starts_with("error: NoWayBack: column `bio`"), "{}", column.err);
}

fn text_of(class: &Value) -> (String, String) {
    (class["column"].as_str().unwrap_or_default().to_owned(), class["entity"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn two_processes_create_the_same_tokens() {
    let f = with_keys();
    let apply = |table: &'static str| {
        let at = f.path().to_owned();
        std::thread::spawn(move || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_biscuit"));
            let words = ["pii", "apply", "customers.jsonl", table, "--policy", "policy.toml"];
            command.args(words).current_dir(at).output().expect("the binary starts")
        })
    };
    // One process at a time can open the store; the other one waits.
    let (one, other) = (apply("clean/a"), apply("clean/b"));
    for ran in [one, other] {
        let ran = ran.join().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let tokens = |table: &str| -> Vec<String> {
        let rows = f.rows(table);
        rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()["ssn"].to_string()).collect()
    };
    assert_eq!(tokens("clean/a"), tokens("clean/b"));
}

#[test]
fn forgotten_subject_is_unreadable_in_every_table_and_remains_so() {
    let f = with_keys();
    for table in ["clean/january", "clean/february"] {
        let ran = f.run(&format!("pii apply customers.jsonl {table} --policy policy.toml"));
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let names = |table: &str, name: &str| {
        let words = format!(
            "pii detokenize {table} --policy policy.toml --columns name --audit audit.jsonl --who t --reason w --out {name} --table-name {} --json",
            table.rsplit('/').next().unwrap_or(table)
        );
        let ran = f.run(&words);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.json()["forgotten"].as_u64().unwrap()
    };
    assert_eq!(names("clean/january", "1.parquet"), 0);
    let dry = f.run("forget --subject 1 --policy policy.toml --dry-run");
    assert_eq!((dry.code, names("clean/january", "2.parquet")), (0, 0), "{}", dry.err);
    let ran = f.run("forget --subject 1 --policy policy.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out,
        "the keys of 1 subjects are deleted, which makes their values unreadable in every table and copy\n"
    );
    assert_eq!((names("clean/january", "3.parquet"), names("clean/february", "4.parquet")), (1, 1));
    let again = f.run("pii apply customers.jsonl clean/march --policy policy.toml --json");
    assert_eq!(again.json()["pii"]["name"]["forgotten"], 1);

    // Rows are erased from a table, and the values of their tokens are deleted.
    let ran =
        f.run("forget --subject 2 --policy policy.toml --erase-from clean/january --column id --tokens ssn --json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!((&ran.json()["erased"]["erased"], &ran.json()["tokens"]["ssn"]), (&1.into(), &1.into()));
    assert_eq!(f.rows("clean/january").len(), 2);
    let rows = f.rows("clean/february");
    let ben: Value = serde_json::from_str(rows.iter().find(|row| row.contains("\"id\":2")).unwrap()).unwrap();
    let token = ben["ssn"].as_str().unwrap();
    let ran = f.run(&format!(
        "pii detokenize --policy policy.toml --columns ssn --audit a --who t --reason w --token {token}"
    ));
    assert_eq!(ran.out, format!("{token}  (forgotten)\n"), "the token still joins but has no value");
    let none = f.run("forget --subject 77 --policy policy.toml --erase-from clean/january --column id --json");
    assert_eq!((none.code, &none.json()["erased"]["erased"]), (0, &0.into()));
    let ran = f.run("forget --subject 2 --erase-from clean/january --column id --tokens ssn");
    assert_eq!(ran.code, 2, "--tokens needs a policy: {}", ran.out);
    f.write("plain.toml", "keys = 'keys.toml'\n[columns]\nssn = 'hash'\n");
    let ran = f.run("forget --subject 2 --policy plain.toml");
    assert!(ran.code == 2 && ran.err.starts_with("error: NothingToForget"), "{}{}", ran.out, ran.err);
    let verified = f.run("verify clean/january");
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

#[test]
fn erasure_covers_retained_files_refuses_old_input_and_lists_what_remains() {
    let f = Folder::new();
    f.write("a.jsonl", r#"{"id":7,"seq":1,"v":"canary-value"}"#);
    f.write("b.jsonl", r#"{"id":7,"seq":2,"v":"x"}"#);
    let merge = "merge --format rows --key id --order seq --target lake/t --changes";
    assert_eq!(f.run(&format!("{merge} a.jsonl")).code, 0);
    assert_eq!(f.run(&format!("{merge} b.jsonl --retention 30d")).code, 0);
    let forget = "forget --subject 7 --erase-from lake/t --column id";
    let ran = f.run(&format!("{forget} --json"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let erased = &ran.json()["erased"];
    assert_eq!((&erased["erased"], &erased["retained_files"], &erased["forgotten"]), (&1.into(), &1.into(), &1.into()));
    let codes: Vec<&str> =
        erased["not_covered"].as_array().unwrap().iter().filter_map(|p| p["code"].as_str()).collect();
    assert_eq!(codes, ["Copies", "RunsUnderWay"]);
    assert!(!ran.out.contains("canary"), "{}", ran.out);
    let again = f.run(&format!("{merge} a.jsonl"));
    assert!(again.code == 0 && again.out.contains("forgotten 1"), "{}{}", again.out, again.err);
    assert_eq!(f.rows("lake/t"), [] as [String; 0]);
    for (path, ..) in f.files("lake") {
        let bytes = bytes_of(&path);
        assert!(!bytes.windows(12).any(|part| part == b"canary-value"), "{}", path.display());
    }
    let ran = f.run(&format!("{forget} --readmit"));
    assert_eq!((ran.code, f.run(&format!("{merge} a.jsonl")).code, f.rows("lake/t").len()), (0, 0, 1), "{}", ran.err);
    for words in [
        "forget --subject 7 --erase-from lake/typo --column id",
        "forget --subject 7 --erase-from lake/typo --column id --dry-run",
    ] {
        let ran = f.run(words);
        assert!(ran.code == 2 && ran.err.starts_with("error: NoTable"), "{}{}", ran.out, ran.err);
    }
    assert!(!f.path().join("lake/typo").exists() && !f.path().join("lake/.biscuit/typo").exists());
}

#[test]
fn subjects_in_a_partition_column_are_erased() {
    let f = Folder::new();
    f.write(
        "a.jsonl",
        "{\"id\":1,\"seq\":1,\"owner\":\"ann\"}\n{\"id\":2,\"seq\":1,\"owner\":\"bob\"}\n{\"id\":3,\"seq\":1}\n",
    );
    let merge = "merge --format rows --key id --order seq --partition-by owner --target lake/t --changes a.jsonl";
    assert_eq!(f.run(merge).code, 0);
    let ran = f.run("forget --subject ann --erase-from lake/t --column owner --json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let erased = &ran.json()["erased"];
    assert_eq!((&erased["erased"], &erased["forgotten"]), (&1.into(), &1.into()), "{erased}");
    assert!(erased["not_covered"].to_string().contains("FolderNames"), "{erased}");
    let rows = f.rows("lake/t");
    assert!(rows.len() == 2 && !rows.concat().contains("ann"), "{rows:?}");
    assert!(f.run(merge).code == 0 && f.rows("lake/t") == rows, "old input does not restore the rows");
    assert_eq!(f.run("verify lake/t").code, 0);
}

#[test]
fn mistakes_in_policies_and_key_files_are_reported() {
    let f = with_keys();
    let message = |words: &str| {
        let ran = f.run(words);
        assert_ne!(ran.code, 0, "{words}: {}", ran.out);
        ran.err
    };
    f.write("bad.toml", "[columns]\nssn = 'sha256'\n");
    let e = message("pii apply customers.jsonl t --policy bad.toml");
    assert!(e.contains("InvalidPolicy") && e.contains("a plain sha256 hides nothing") && e.contains("bad.toml"), "{e}");
    f.write("missing.toml", "keys = 'none.toml'\n[columns]\nssn = 'hash'\n");
    let e = message("pii apply customers.jsonl t --policy missing.toml");
    assert!(e.starts_with("error: InvalidKeyFile: cannot read the key file none.toml"), "{e}");
    f.write("misspelt.toml", "[columns]\nsnn = 'mask'\n");
    let e = message("pii apply customers.jsonl t --policy misspelt.toml");
    assert!(e.starts_with("error: UnknownColumn: [pii] names `snn`, but no source has such a column"), "{e}");
    assert!(!f.path().join("t").exists(), "nothing was written");
}

#[test]
fn quarantined_records_are_sealed_shown_with_a_reason_and_erased() {
    let f = with_keys();
    f.write("job.toml", JOB);
    let row =
        |ssn: &str, age: Value| serde_json::json!({"ssn": ssn, "email": null, "bio": null, "age": age, "note": null});
    let create = |lsn, ssn: &str| event(lsn, "c", &Value::Null, &row(ssn, "none".into()), &serde_json::json!({}));
    let good = event(1, "c", &Value::Null, &row("900-00-0001", 7.into()), &serde_json::json!({}));
    f.write("raw/1.jsonl", good + &create(2, "900-00-0002") + &create(3, "900-00-0003"));
    assert_eq!(f.run("run job.toml").code, 0);
    let shown = f.run("quarantine show lake/customer");
    assert!(shown.out.contains("biscuit-sealed:") && !shown.out.contains("900-00"), "{}", shown.out);
    let asked = "quarantine show lake/customer --policy job.toml --audit audit.jsonl --who t";
    assert_eq!(f.run(asked).code, 2, "without a reason");
    let opened = f.run(&format!("{asked} --reason ticket-9"));
    assert!(opened.out.contains("900-00-0002") && opened.out.contains("900-00-0003"), "{}{}", opened.out, opened.err);
    assert!(std::fs::read_to_string(f.path().join("audit.jsonl")).unwrap().contains("ticket-9"));
    let forget = "forget --subject 900-00-0002 --policy job.toml --erase-from lake/customer --column ssn";
    let dry = f.run(&format!("{forget} --dry-run --json"));
    assert_eq!((dry.code, dry.json()["quarantine"]["discarded"].as_u64()), (0, Some(1)), "{}", dry.err);
    let ran = f.run(forget);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("quarantine: 1 records discarded; the subject of 0 records is unknown"), "{}", ran.out);
    let left = f.run(&format!("{asked} --reason ticket-9"));
    assert!(!left.out.contains("900-00-0002") && left.out.contains("900-00-0003"), "{}", left.out);
    assert_eq!(f.rows("lake/customer").len(), 1);
}

#[test]
fn masking_needs_no_keys_until_a_record_is_quarantined() {
    let f = Folder::new();
    let job = JOB.split("[pii]").next().unwrap().replace(r#", pii = "ssn""#, "");
    let job = job.replace(r#", pii = "email""#, "").replace(r#", pii = "age""#, "");
    f.write("job.toml", format!("{job}[pii]\ncolumns = {{ email = \"mask\", note = \"remove\" }}\n"));
    let row =
        |age: Value| serde_json::json!({"ssn": "900-00-0001", "email": "a@b.c", "bio": null, "age": age, "note": "n"});
    let no_headers = serde_json::json!({});
    f.write("raw/1.jsonl", event(1, "c", &Value::Null, &row(7.into()), &no_headers));
    let ran = f.run("run job.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(f.rows("lake/customer")[0].contains("\"email\":\"*@*.*\""));
    f.write("raw/2.jsonl", event(2, "u", &Value::Null, &row("none".into()), &no_headers));
    let ran = f.run("run job.toml");
    assert!(ran.code == 2 && ran.err.contains("error: NoKeys: cannot quarantine rows"), "{} {}", ran.code, ran.err);
    assert_eq!(f.rows("lake/customer").len(), 1);
}

#[test]
fn columns_are_found_by_their_class_in_the_contract_of_the_job() {
    let f = with_keys();
    let job = r#"
        name = "people"
        [sources.people]
        url = "people.jsonl"
        format = "json"
        contract = "people.contract.toml"
        [target]
        url = "lake/people"
        mode = "append"
        [pii]
        keys = "keys.toml"
        store = "tokens.redb"
        classes = { national_id = "tokenize" }
    "#;
    f.write("people.job.toml", job);
    f.write("people.contract.toml", "[[columns]]\nname = \"id\"\ntype = \"bigint\"\n[[columns]]\nname = \"social\"\ntype = \"string\"\npii = \"national_id\"\n");
    f.write("people.jsonl", "{\"id\":1,\"social\":\"123-45-6789\"}\n{\"id\":2,\"social\":\"234-56-7890\"}\n");
    assert_eq!(f.run("run people.job.toml").code, 0);
    let asked = "--policy people.job.toml --columns social --audit audit.jsonl --who t --reason w --out back.parquet";
    let ran = f.run(&format!("pii detokenize lake/people {asked}"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let forget = "forget --subject 123-45-6789 --policy people.job.toml --erase-from lake/people --column social --tokens social";
    let ran = f.run(&format!("{forget} --json"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!((&ran.json()["erased"]["erased"], &ran.json()["tokens"]["social"]), (&1.into(), &1.into()));
    let again = f.run(&format!("{forget} --json")).json();
    assert_eq!((&again["outcome"], &again["erased"]["erased"]), (&"nothing found".into(), &0.into()));
    assert_eq!(f.rows("lake/people").len(), 1);
    // Without the contract no column has the class, and nothing would be treated.
    f.write("alone.toml", "keys = \"keys.toml\"\nstore = \"tokens.redb\"\nclasses = { national_id = \"tokenize\" }\n");
    let ran = f.run("pii apply people.jsonl clear --policy alone.toml");
    assert!(ran.err.starts_with("error: UnusedClass: "), "{}{}", ran.out, ran.err);
    let ran = f.run("pii apply people.jsonl treated --policy alone.toml --contract people.contract.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
}

const IN_FILES: &str = r#"
keys = "keys.toml"

[columns]
ssn = { tokenize = { kind = "siv" } }
email = { encrypt = { key = "file" } }
phone = { encrypt = { key = "file" } }
"#;

#[test]
fn tables_with_encrypted_columns_need_the_file_keys() {
    let f = with_keys();
    f.write("files.toml", IN_FILES);
    let ran = f.run("pii apply customers.jsonl clean/customers --policy files.toml --json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.json()["pii"]["email"]["values"], 2);
    let ran = f.run("show clean/customers --columns id,name");
    assert!(ran.code == 0 && ran.out.contains("Ann Canary"), "{}{}", ran.out, ran.err);
    let ran = f.run("show clean/customers");
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: NoFileKeys: column `email` is encrypted (Parquet modular"), "{}", ran.err);
    assert!(ran.err.ends_with("  use --file-keys with the key file that the files were written with\n"), "{}", ran.err);
    let ran = f.run("show clean/customers --columns email,phone --file-keys keys.toml");
    assert!(ran.out.contains("ann.canary@example.com") && ran.out.contains("+1 212-555-0101"), "{}", ran.err);

    // `pii detokenize` records the access in the audit file.
    let asked = "pii detokenize clean/customers --policy files.toml --columns ssn,email --audit audit.jsonl --who t --reason w --out back.parquet";
    assert_eq!(f.run(asked).code, 0);
    assert_eq!(std::fs::read_to_string(f.path().join("audit.jsonl")).unwrap().lines().count(), 2);
    assert!(f.run("pii scan back.parquet --json").out.contains("EMAIL_ADDRESS"));

    // Other commands need the keys to write to the table, and write encrypted files.
    f.write(
        "more.jsonl",
        r#"{"op":"u","seq":1,"id":4,"ssn":"siv1_x","name":"Cy","email":"cy.canary@example.com","bio":"","phone":"1"}"#,
    );
    let merge = "merge --target clean/customers --format rows --changes more.jsonl --key id --order seq --op op";
    let ran = f.run(merge);
    assert!(ran.code == 2 && ran.err.contains("NoFileKeys"), "{}{}", ran.out, ran.err);
    let ran = f.run(&format!("{merge} --file-keys keys.toml"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    for words in
        ["compact clean/customers --row-group-rows 2", "forget --subject 2 --erase-from clean/customers --column id"]
    {
        let ran = f.run(words);
        assert!(ran.code == 2 && ran.err.contains("NoFileKeys"), "{words}: {}{}", ran.out, ran.err);
        let ran = f.run(&format!("{words} --file-keys keys.toml"));
        assert_eq!(ran.code, 0, "{words}: {}", ran.err);
    }
    let ran = f.run("show clean/customers --json --file-keys keys.toml");
    assert!(ran.out.lines().count() == 3 && ran.out.contains("cy.canary"), "{}", ran.out);
    for (path, ..) in f.files("clean/customers") {
        let bytes = bytes_of(&path);
        assert!(!bytes.windows(10).any(|w| w == b"+1 212-555"), "{}", path.display());
    }
    let by_value = "forget --subject cy.canary@example.com --policy files.toml --erase-from clean/customers";
    let ran = f.run(&format!("{by_value} --column email --json"));
    assert_eq!((ran.code, ran.json()["erased"]["erased"].as_u64()), (0, Some(1)), "{}{}", ran.out, ran.err);
    let ran = f.run("pii keygen others.toml");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = f.run("show clean/customers --file-keys others.toml");
    assert!(ran.code != 0 && ran.err.contains("CannotUnseal"), "{}{}", ran.out, ran.err);
}

/// Returns the bytes of a file, and for Parquet also the decompressed bytes of its pages.
fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("the file can be read");
    if bytes.starts_with(b"PAR1") {
        let file = std::fs::File::open(path).expect("the file can be opened");
        let reader = SerializedFileReader::new(file).expect("the file is valid Parquet");
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).expect("the row group is readable");
            let clear = |column: &usize| group.metadata().column(*column).crypto_metadata().is_none();
            for column in (0..group.num_columns()).filter(clear) {
                let mut pages = group.get_column_page_reader(column).expect("the pages are readable");
                while let Some(page) = pages.get_next_page().expect("the page is read") {
                    bytes.extend_from_slice(page.buffer());
                }
            }
        }
    }
    bytes
}

const JOB: &str = r#"
name = "customer"

[sources.changes]
url = "raw/*.jsonl"
format = "debezium"
table = "public.customer"

[sources.changes.contract]
on_error = "quarantine"
columns = [
    {name = "ssn", type = "string", nullable = false, pii = "ssn"},
    {name = "email", type = "string", pii = "email"},
    {name = "bio", type = "string"},
    {name = "age", type = "int", pii = "age"},
    {name = "note", type = "string"},
]

[target]
url = "lake/customer"
mode = "merge"
key = ["ssn"]
max_quarantined = 90.0

[pii]
keys = "keys.toml"
store = "tokens.redb"
columns = { bio = "redact", note = "remove" }

[pii.classes]
ssn = "tokenize"
email = "encrypt"
age = "mask"
"#;

/// Returns a line of Debezium. The headers of a key change name the other key.
fn event(lsn: u32, op: &str, before: &Value, after: &Value, headers: &Value) -> String {
    let key = if after.is_null() { &before["ssn"] } else { &after["ssn"] };
    let value = serde_json::json!({
        "before": before, "after": after, "op": op, "ts_ms": lsn,
        "source": {"schema": "public", "table": "customer", "lsn": lsn, "connector": "postgresql", "snapshot": "false"},
    });
    let line =
        serde_json::json!({"topic": "cdc.public.customer", "headers": headers, "key": {"ssn": key}, "value": value});
    format!("{line}\n")
}

#[test]
fn job_writes_and_prints_no_byte_of_treated_values() {
    look_for_canaries(JOB, Some(0));
}

#[test]
fn job_with_encrypted_columns_writes_and_prints_no_byte_of_treated_values() {
    let job = JOB.replace("email = \"encrypt\"", "email = { encrypt = { key = \"file\" } }");
    let job = job.replace("age = \"mask\"", "age = { encrypt = { key = \"file\" } }");
    assert_ne!(job, JOB);
    look_for_canaries(&job, Some(2));
}

/// Runs a job on data with canaries, and looks for them in all output and all files.
///
/// `shown` is the exit code of commands that read all columns without the file keys.
fn look_for_canaries(job: &str, shown: Option<i32>) {
    let f = with_keys();
    f.write("job.toml", job);
    let canaries = [
        "900-00-0001",
        "900-00-0002",
        "900-00-0003",
        "900-00-0009",
        "canary.one@example.com",
        "canary.two@example.com",
        "canary.bio@example.com",
        "1749170201",
        "canary note",
        "canary.moved@example.com",
        "canary-age",
    ];
    let row = |ssn: &str, email: &str, age: Value| serde_json::json!({"ssn": ssn, "email": email, "bio": "mail canary.bio@example.com", "age": age, "note": "canary note"});
    let (none, no_headers) = (Value::Null, serde_json::json!({}));
    let create = |lsn, after: Value| event(lsn, "c", &none, &after, &no_headers);
    let one = row("900-00-0001", "canary.one@example.com", 1_749_170_201.into());
    let two = row("900-00-0002", "canary.two@example.com", 1_749_170_201.into());
    // This age is not a number, so that the record is quarantined.
    let bad = row("900-00-0003", "canary.two@example.com", "canary-age".into());
    f.write("raw/1.jsonl", create(1, one.clone()) + &create(2, two.clone()) + &create(3, bad.clone()));
    let mut printed = String::new();
    let mut run = |words: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_biscuit"));
        let ran = command
            .args(words.split_whitespace())
            .current_dir(f.path())
            .env("RUST_LOG", "trace")
            .output()
            .expect("the binary starts");
        printed.push_str(&String::from_utf8_lossy(&ran.stdout));
        printed.push_str(&String::from_utf8_lossy(&ran.stderr));
        ran.status.code()
    };
    assert_eq!(run("run job.toml --show-values --json"), Some(0));
    // A delete, whose tombstone contains the key; a key change; and a late record of the deleted row.
    let moved = row("900-00-0009", "canary.moved@example.com", 1_749_170_201.into());
    let header = |which: &str, ssn: &str| serde_json::json!({which: {"ssn": ssn}});
    f.write(
        "raw/2.jsonl",
        event(10, "d", &one, &none, &no_headers)
            + &event(11, "d", &two, &none, &header("__debezium.newkey", "900-00-0009"))
            + &event(12, "c", &none, &moved, &header("__debezium.oldkey", "900-00-0002"))
            + &event(5, "u", &none, &one, &no_headers),
    );
    assert_eq!(run("run job.toml --show-values"), Some(0));
    assert_eq!(run("quarantine list lake/customer --show-values"), Some(0));
    assert_eq!(run("show lake/customer"), shown);
    assert_eq!(run("history lake/customer"), Some(0));
    assert_eq!(run("verify lake/customer"), shown);
    assert_eq!(run("verify lake/customer --file-keys keys.toml"), Some(0));
    // A run that fails with `--show-values`.
    f.write("raw/3.jsonl", create(20, bad));
    f.write("strict.toml", job.replace("on_error = \"quarantine\"", "on_error = \"fail\""));
    assert_eq!(run("run strict.toml --show-values"), Some(3));
    let rows = f.run("--file-keys keys.toml show lake/customer --json");
    assert_eq!((rows.code, rows.out.lines().count()), (0, 1), "{}", rows.err);

    let mut files = f.files("lake");
    files.extend(f.files("tokens.redb"));
    files.push((f.path().join("tokens.redb"), 0, std::time::SystemTime::UNIX_EPOCH));
    assert!(files.iter().any(|(path, ..)| path.to_string_lossy().contains("quarantine")), "{files:?}");
    assert!(files.iter().any(|(path, ..)| path.to_string_lossy().contains("keys-")), "tombstones: {files:?}");
    for canary in canaries {
        for form in [canary.to_owned(), BASE64_STANDARD_NO_PAD.encode(canary)] {
            assert!(!printed.contains(&form), "{form} was printed");
            for (path, ..) in &files {
                let bytes = bytes_of(path);
                let there = bytes.windows(form.len()).any(|part| part == form.as_bytes());
                assert!(!there, "{form} is in {}", path.display());
            }
        }
    }
}
