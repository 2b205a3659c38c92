//! Cases of the merge contract as data: `tests/data/reduction.json`. A case has current rows, one or more runs of
//! change records, and the expected rows or the code of an error.
//!
//! A case with one run is reduced by `merge_and_retain_last`, with its records in any order and in any batches. Every
//! case is also run with memory, from run to run.

use arrow::array::RecordBatch;
use biscuit_core::Result;
use biscuit_merge::{
    ChangeColumns, IgnoreNull, MergeSpec, OrderAuthority, RecordVerdicts, ReductionReport, TiePolicy, TombstonePolicy,
    merge_and_retain_last,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::memory::Memory;
use crate::rows::{batch, objects};

/// A case of the contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    title: String,
    #[serde(default)]
    config: Config,
    current: Vec<Value>,
    runs: Vec<Vec<Value>>,
    /// Rows after the last run: current rows in their order, then new rows sorted by key.
    expect: Option<Vec<Value>>,
    /// Code of the error of the last run.
    error: Option<String>,
    /// Sum of the verdicts of all runs; verdicts that are not named are 0.
    verdicts: Option<Value>,
    /// Keys and orders of all tombstones.
    tombstones: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    duplicate_target_keys: u64,
}

/// Settings of the merge. Default: the key `id`, ordered by `seq`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    key: Option<Vec<String>>,
    order: Option<Vec<String>>,
    #[serde(default)]
    op_rank: Vec<String>,
    #[serde(default)]
    ignore_null: Vec<String>,
    #[serde(default)]
    drop: Vec<String>,
    tombstones: Option<String>,
    ties: Option<String>,
    authority: Option<String>,
}

impl Config {
    fn spec(&self) -> MergeSpec {
        let columns = |names: &Option<Vec<String>>, default: &str| names.clone().unwrap_or(vec![default.to_owned()]);
        let spec =
            MergeSpec::new(columns(&self.key, "id"), columns(&self.order, "seq")).expect("the specification is valid");
        let mut spec = spec
            .with_op_rank(&self.op_rank)
            .with_ignore_null(IgnoreNull::named(&self.ignore_null))
            .with_drop_columns(self.drop.clone());
        for (setting, known) in [(&self.tombstones, "forget"), (&self.ties, "fail"), (&self.authority, "reload")] {
            assert!(setting.as_deref().is_none_or(|value| value == known), "{setting:?} is not {known}");
        }
        if self.tombstones.is_some() {
            spec = spec.with_tombstones(TombstonePolicy::Forget);
        }
        if self.ties.is_some() {
            spec = spec.with_ties(TiePolicy::Fail);
        }
        if self.authority.is_some() {
            spec = spec.with_authority(OrderAuthority::Reload);
        }
        spec
    }
}

impl Case {
    fn check_verdicts(&self, verdicts: &RecordVerdicts) {
        let Some(want) = &self.verdicts else { return };
        let got = serde_json::to_value(verdicts).expect("verdicts are plain data");
        for (name, count) in got.as_object().expect("the counts are an object") {
            assert_eq!(count, want.get(name).unwrap_or(&0.into()), "{}: {name}", self.title);
        }
        let total: u64 = want
            .as_object()
            .expect("the counts are an object")
            .values()
            .map(|n| n.as_u64().expect("the rows are counted"))
            .sum();
        assert_eq!(verdicts.total(), total, "{}: an unknown verdict is named", self.title);
    }

    /// Reduces the only run, delivered in these batches. Returns the report; `None` if the case expects an error.
    fn reduce(&self, batches: &[Vec<Value>]) -> Option<ReductionReport> {
        let current: Vec<RecordBatch> = if self.current.is_empty() { vec![] } else { vec![batch(&self.current)] };
        let batches: Vec<RecordBatch> = batches.iter().map(|rows| batch(rows)).collect();
        let columns = ChangeColumns::default().with_op("op");
        let merged = merge_and_retain_last(&current, &batches, &self.config.spec(), &columns);
        let (rows, report) = self.expected(merged)?;
        assert_eq!(objects(&rows), *self.expect.as_ref().expect("the rows are readable"), "{}", self.title);
        self.check_verdicts(&report.verdicts);
        assert_eq!(report.verdicts.total(), report.records, "{}", self.title);
        assert_eq!(report.rows.duplicate_target_keys, self.duplicate_target_keys, "{}", self.title);
        Some(report)
    }

    /// Returns a result without error; `None` if it is the expected error.
    fn expected<T>(&self, result: Result<T>) -> Option<T> {
        match (result, &self.error) {
            (Ok(value), None) => Some(value),
            (Err(e), Some(code)) => {
                assert_eq!(e.code(), code, "{}: {e}", self.title);
                None
            }
            (Ok(_), Some(code)) => panic!("{}: expected {code}", self.title),
            (Err(e), None) => panic!("{}: {e}", self.title),
        }
    }

    /// Runs all runs, one after the other, with what is remembered of the keys.
    fn remember(&self) {
        let mut memory = Memory::new(&self.config.spec(), &batch(&self.current)).expect("the rows are valid");
        let mut verdicts = RecordVerdicts::default();
        for records in &self.runs {
            let Some(own) = self.expected(memory.run(&[batch(records)])) else { return };
            verdicts.add(&own);
        }
        self.check_verdicts(&verdicts);
        let sorted = |mut rows: Vec<Value>| {
            rows.sort_by_key(ToString::to_string);
            rows
        };
        let want = self.expect.clone().expect("the rows are readable");
        assert_eq!(sorted(memory.rows().expect("the rows are readable")), sorted(want), "{}", self.title);
        if let Some(tombstones) = &self.tombstones {
            assert_eq!(memory.tombstones(), *tombstones, "{}", self.title);
        }
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/reduction.json")).expect("the cases are valid");
    assert_eq!(cases.len(), 58);
    for case in &cases {
        let is_one = case.expect.is_some() != case.error.is_some();
        assert!(is_one, "{}: a case expects either rows or an error", case.title);
    }
    cases
}

/// Returns all permutations of some records; a case has at most six.
fn permutations(records: &[Value]) -> Vec<Vec<Value>> {
    let mut all = vec![vec![]];
    for record in records {
        let inserted =
            |others: &Vec<Value>, at: usize| [&others[..at], std::slice::from_ref(record), &others[at..]].concat();
        all = all.iter().flat_map(|others| (0..=others.len()).map(move |at| inserted(others, at))).collect();
    }
    all
}

#[test]
fn every_case_holds_for_any_order_of_its_records_in_any_two_batches() {
    for case in cases().iter().filter(|case| case.runs.len() == 1) {
        let report = case.reduce(&case.runs);
        for records in permutations(&case.runs[0]) {
            for at in 0..=records.len() {
                let (first, second) = records.split_at(at);
                assert_eq!(case.reduce(&[first.to_vec(), second.to_vec()]), report, "{}", case.title);
            }
        }
    }
}

#[test]
fn every_case_holds_from_run_to_run_if_states_are_remembered() {
    cases().iter().for_each(Case::remember);
}

#[test]
fn late_record_restores_a_deleted_row_of_an_earlier_call() {
    // The function remembers nothing: this is why tables have tombstones.
    let (spec, columns) = (Config::default().spec(), ChangeColumns::default().with_op("op"));
    let current = batch(&[json!({"id": 1, "seq": 17, "v": "ACTIVE"})]);
    let delete = batch(&[json!({"id": 1, "seq": 20, "v": null, "op": "d"})]);
    let late = batch(&[json!({"id": 1, "seq": 18, "v": "SUSPENDED", "op": "u"})]);
    let (rows, _) = merge_and_retain_last(&[current], &[delete], &spec, &columns).expect("a delete");
    assert_eq!(objects(&rows), Vec::<Value>::new());
    assert_eq!(rows[0].schema().fields().len(), 3, "an empty result has the columns of the rows");
    let (rows, report) = merge_and_retain_last(&rows, &[late], &spec, &columns).expect("an update");
    assert_eq!(objects(&rows), [json!({"id": 1, "seq": 18, "v": "SUSPENDED"})]);
    assert_eq!(report.verdicts.inserted, 1);
}
