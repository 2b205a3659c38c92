//! Control characters are escaped in names, cells and messages, so that data cannot control a terminal.

use crate::binary::Folder;

/// An escape sequence, a C1 control, an override of text direction, and a line end.
const MARKS: &str = "a\u{1b}[31mb\u{9b}1mc\u{202e}d\ne";
const SHOWN: &str = r"a\u{1b}[31mb\u{9b}1mc\u{202e}d\ne";

fn is_clean(text: &str) -> bool {
    !text.contains(['\u{1b}', '\u{9b}', '\u{202e}'])
}

#[test]
fn control_characters_are_escaped_in_tables_and_unchanged_in_json() {
    let f = Folder::new();
    let json = serde_json::json!({"id": 1, "seq": 1, MARKS: MARKS, "tab": "x\ty"});
    f.write("c.jsonl", format!("{json}\n"));
    let ran = f.run("merge --target lake/t --format rows --key id --order seq --changes c.jsonl");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = f.run("show lake/t").out;
    assert!(is_clean(&text) && text.matches(SHOWN).count() == 2 && text.contains(r"x\ty"), "{text}");
    assert_eq!(text.lines().count(), 5, "a row is a line: {text}");
    let shown: serde_json::Value =
        serde_json::from_str(f.run("show lake/t --json").out.trim()).expect("the row is valid");
    assert_eq!(shown[MARKS], MARKS);
    for command in ["history lake/t", "schema show lake/t", "schema check lake/t", "verify lake/t"] {
        let ran = f.run(command);
        assert!(is_clean(&ran.out) && is_clean(&ran.err), "{command}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn control_characters_are_escaped_in_messages_and_logs() {
    let f = Folder::new();
    let error = f.run_with(&["show", &format!("lake/{MARKS}")]);
    assert!(is_clean(&error.err) && error.err.contains(SHOWN), "{}", error.err);
    assert!(error.err.lines().all(|l| l.starts_with("error: ") || l.starts_with("  because: ")), "{}", error.err);
    let usage = f.run_with(&["show", "t", &format!("--{MARKS}")]);
    assert!(usage.code == 2 && is_clean(&usage.err), "{}", usage.err);
    f.write(&format!("in/{}.jsonl", "a\u{202e}b"), "{\"id\":null,\"seq\":1}\n");
    let logs = f.run("merge --target lake/t --format rows --key id --order seq --changes in");
    assert!(logs.code == 3 && logs.err.contains("reading changes") && is_clean(&logs.err), "{}", logs.err);
}
