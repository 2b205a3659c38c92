//! Checks of rows against the rules of a contract.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use biscuit_core::Instant;
use biscuit_schema::checks::CheckSeverity;
use biscuit_schema::{Contract, ContractCompliance};

fn contract(checks: &str) -> Contract {
    let columns = "
        [[columns]]
        name = 'id'
        type = 'bigint'
        [[columns]]
        name = 'mail'
        type = 'string'
        [[columns]]
        name = 'day'
        type = 'date'
    ";
    Contract::from_toml(&format!(
        "{}\n{columns}\n{}",
        checks.split("---").next().unwrap_or_default(),
        checks.split("---").nth(1).unwrap_or_default()
    ))
    .expect("the contract is valid")
}

fn rows(ids: Vec<Option<i64>>, mails: Vec<Option<&str>>) -> RecordBatch {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![19_000; ids.len()]));
    let (ids, mails): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(ids)), Arc::new(StringArray::from(mails)));
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("mail", mails, true), ("day", days, true)])
        .expect("the batch is valid")
}

fn place(row: usize) -> (String, u64) {
    ("a.jsonl".to_owned(), row as u64 + 1)
}

fn now() -> Instant {
    // 19,001 days after 1970.
    Instant::from_micros(19_001 * 86_400_000_000)
}

/// Quarantined rows with the code of the broken rule.
type Aside = Vec<(usize, &'static str)>;

/// Returns the quarantined rows, and the broken rules or the error that stops the run.
fn run(checks: &str, batches: &[RecordBatch]) -> (Aside, Result<Vec<String>, String>) {
    let mut compliance = ContractCompliance::new(&contract(checks), now()).expect("the checks are valid");
    let mut aside = Vec::new();
    for batch in batches {
        aside.extend(
            compliance
                .check(batch, &place)
                .expect("the rows have the columns of the checks")
                .into_iter()
                .map(|r| (r.row, r.code.name())),
        );
    }
    let said =
        compliance.finish().map(|f| f.into_iter().map(|f| format!("{} {} {}", f.code, f.rows, f.rule)).collect());
    (aside, said.map_err(|e| e.to_string()))
}

fn two() -> RecordBatch {
    rows(vec![Some(1), Some(2)], vec![Some("a@x"), None])
}

#[test]
fn duplicate_grain_stops_the_run() {
    let (_, said) = run("grain = ['id']", &[two(), rows(vec![Some(3), Some(2)], vec![None, None])]);
    assert_eq!(said.unwrap_err(), "NotUnique: 1 rows break the rule: `id` is unique (a.jsonl, row 2)");
    assert!(run("grain = ['id', 'mail']", &[two(), rows(vec![Some(2)], vec![Some("b")])]).1.is_ok());
    // A null is not equal to another null.
    assert!(run("grain = ['mail']", &[rows(vec![Some(1), Some(2)], vec![None, None])]).1.is_ok());
}

#[test]
fn key_is_unique_unless_the_contract_has_an_order() {
    let twice = [rows(vec![Some(1), Some(1)], vec![None, None])];
    assert!(run("key = ['id']", &twice).1.is_err());
    assert!(run("key = ['id']\norder = ['day']", &twice).1.is_ok());
}

#[test]
fn rows_are_quarantined_or_counted_by_severity() {
    let checks = "---
        [[checks]]
        rule = 'range'
        column = 'id'
        min = 2
        max = '10'
        severity = 'quarantine'
        [[checks]]
        rule = 'not-null'
        column = 'mail'
        severity = 'warn'
        [[checks]]
        rule = 'pattern'
        column = 'mail'
        pattern = '^[^@]+@[^@]+$'
        severity = 'quarantine'
    ";
    let batch = rows(
        vec![Some(1), Some(2), Some(11), None, Some(3)],
        vec![None, Some("a@x"), Some("b"), Some("c@y"), Some("d")],
    );
    let (aside, said) = run(checks, &[batch]);
    assert_eq!(aside, [(0, "OutOfRange"), (2, "OutOfRange"), (4, "PatternMismatch")]);
    assert_eq!(
        said.unwrap(),
        [
            "OutOfRange 2 `id` is from 2 to 10",
            "NullNotAllowed 1 `mail` is not null",
            "PatternMismatch 2 `mail` matches ^[^@]+@[^@]+$",
        ]
    );
}

#[test]
fn rules_about_all_rows_are_checked_at_the_end() {
    let set = "---
        [[checks]]
        rule = 'one-of'
        column = 'mail'
        values = ['a@x', 'b']
    ";
    assert!(run(set, &[two()]).1.is_ok());
    assert!(run(set, &[rows(vec![Some(1)], vec![Some("c")])]).1.unwrap_err().starts_with("NotInSet: 1 rows"));
    let count = "---
        [[checks]]
        rule = 'rows'
        min = 3
    ";
    assert_eq!(
        run(count, &[two()]).1.unwrap_err(),
        "RowCount: the rows break the rule: the number of rows is at least 3"
    );
    assert!(run(count, &[two(), two()]).1.is_ok());
    let fresh = |within: &str| format!("---\n[[checks]]\nrule = 'fresh'\ncolumn = 'day'\nwithin = '{within}'\n");
    assert!(run(&fresh("1d"), &[two()]).1.is_ok());
    assert_eq!(
        run(&fresh("23h"), &[two()]).1.unwrap_err(),
        "NotFresh: the rows break the rule: the newest `day` is at most 23h old"
    );
    assert!(run(&fresh("1d"), &[]).1.is_err());
}

#[test]
fn invalid_checks_are_refused_with_the_contract() {
    for (check, said) in [
        ("rule = 'range'\ncolumn = 'none'\nmin = 1", "`none` is named in a check, but is not a column"),
        ("rule = 'range'\ncolumn = 'id'", "the range of `id` has no bound; set `min` or `max`"),
        ("rule = 'pattern'\ncolumn = 'mail'\npattern = '['", "the pattern of `mail` is not a regular expression"),
        ("rule = 'fresh'\ncolumn = 'day'\nwithin = '3'", "`3` is not a duration"),
    ] {
        let text = format!(
            "[[columns]]\nname='id'\ntype='bigint'\n[[columns]]\nname='mail'\ntype='string'\n[[columns]]\nname='day'\ntype='date'\n[[checks]]\n{check}\n"
        );
        let e = Contract::from_toml(&text).unwrap_err();
        assert!(e.message().contains(said), "{e}");
    }
    let of_type = contract("---\n[[checks]]\nrule = 'range'\ncolumn = 'id'\nmin = 'x'\n");
    let e = ContractCompliance::new(&of_type, now()).unwrap_err();
    assert_eq!(e.message(), "`x` in a check of column `id` is not of that type");
    assert!(CheckSeverity::Warn < CheckSeverity::Fail);
}
