//! `biscuit explain`, and the document that is made of the lists of codes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::binary::Folder;

#[test]
fn explain_prints_cause_and_remedy_of_a_code() {
    let f = Folder::new();
    let text = f.run("explain NullKey");
    assert_eq!(text.code, 0, "{}", text.err);
    assert!(text.out.starts_with("NullKey: data, exit code 3, of biscuit-merge\n"), "{}", text.out);
    assert!(text.out.contains("  cause: A key column") && text.out.contains("  remedy: Correct"), "{}", text.out);
    let json = f.run("explain nullkey --json").json();
    assert_eq!((json["code"].as_str(), json["kind"].as_str()), (Some("NullKey"), Some("data")));
    assert_eq!((json["exit_code"].as_u64(), json["crate"].as_str()), (Some(3), Some("biscuit-merge")));
    assert!(json["cause"].as_str().is_some_and(|cause| cause.ends_with('.')), "{json}");
}

#[test]
fn unknown_code_is_a_usage_error_that_names_similar_codes() {
    let f = Folder::new();
    let near = f.run("explain NulKey --json");
    let message = near.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(near.code == 2 && message.contains("`NulKey`") && message.contains("NullKey"), "{message}");
    let far = f.run("explain Zzzzzzzzzzzzzzz");
    assert!(far.code == 2 && far.err.contains("`biscuit explain` lists all codes"), "{}", far.err);
}

#[test]
fn every_list_of_codes_is_explained_and_every_code_has_one_meaning() {
    let f = Folder::new();
    let json = f.run("explain --json").json();
    let codes = json["codes"].as_array().expect("the codes are a list");
    let of = |field: &str| -> Vec<&str> { codes.iter().filter_map(|code| code[field].as_str()).collect() };
    let names: BTreeSet<&str> = of("code").into_iter().collect();
    assert_eq!(names.len(), codes.len(), "a name is in two lists");
    for code in codes {
        let sentence = |field: &str| {
            code[field].as_str().is_some_and(|s| s.ends_with('.') && s.starts_with(|c: char| c.is_ascii_uppercase()))
        };
        assert!(sentence("cause") && sentence("remedy"), "{code}");
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the folder of the crates");
    let folders =
        std::fs::read_dir(crates).expect("the folder can be read").map(|entry| entry.expect("the entry is readable"));
    let with_codes: BTreeSet<String> = folders
        .filter(|entry| entry.path().join("src/codes.rs").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let explained: BTreeSet<String> = of("crate").into_iter().map(str::to_owned).collect();
    assert_eq!(explained, with_codes, "`LISTS` of commands/explain.rs has every crate with codes");
    let text = f.run("explain").out;
    assert!(names.iter().all(|name| text.contains(&format!("  {name} "))), "{text}");
}

#[test]
fn document_of_error_codes_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/error-codes.md");
    let document = std::fs::read_to_string(&path).expect("the document exists");
    let made = Folder::new().run("explain --markdown").out;
    assert!(document == made, "run `cargo run -p biscuit-lake -- explain --markdown > docs/error-codes.md`");
}
