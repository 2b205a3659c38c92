//! Checks of rows against a contract before anything is written.
//!
//! Each check has a state that is updated batch by batch. Rules about all rows are decided at the end.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use biscuit_core::{Error, ErrorCode, Instant, Result, remove_quoted_text};
use regex::Regex;
use serde::{Serialize, Serializer};
use twox_hash::XxHash64;

use crate::contract::check::{CheckRule, CheckSeverity, CheckValue, ContractCheck, parse_within};
use crate::types::union::column_index;
use crate::values::coercion::RefusedRow;
use crate::values::convert::convert;
use crate::{Contract, codes};

/// Checks whether rows comply with a contract before they are written: batch by batch, and then as a whole.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use biscuit_core::Instant;
/// use biscuit_schema::{Contract, ContractCompliance};
///
/// let contract = Contract::from_toml(r#"
///     key = ["id"]
///     [[columns]]
///     name = "id"
///     type = "bigint"
///     [[checks]]
///     rule = "range"
///     column = "id"
///     min = 1
///     severity = "quarantine"
/// "#)?;
/// let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 0, 7]));
/// let rows = RecordBatch::try_from_iter([("id", ids)])?;
///
/// let mut compliance = ContractCompliance::new(&contract, Instant::from_micros(0))?;
/// let refused = compliance.check(&rows, &|row| ("a.parquet".to_owned(), row as u64 + 1))?;
/// assert_eq!((refused[0].row, refused[0].code.name()), (1, "OutOfRange"));
///
/// let e = compliance.finish().unwrap_err(); // the key 7 occurs twice
/// assert_eq!((e.code(), e.row()), ("NotUnique", Some(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ContractCompliance {
    checks: Vec<RunningCheck>,
    rows: u64,
    now: Instant,
}

/// Result of a check that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckFinding {
    /// Rule in words.
    pub rule: String,
    /// Code of the error for rows that break the rule, serialized as its name.
    #[serde(serialize_with = "code_name")]
    pub code: ErrorCode,
    /// Consequence of the broken rule.
    pub severity: CheckSeverity,
    /// Number of rows that do not comply; 1 for a rule about all rows.
    pub rows: u64,
    /// File and row, from 1, of the first row that does not comply.
    pub first: Option<(String, u64)>,
}

/// Check and its state up to the last batch.
#[derive(Debug)]
struct RunningCheck {
    check: ContractCheck,
    state: CheckState,
    broken: u64,
    first: Option<(String, u64)>,
}

/// State of a check: values of the contract in the type of the column, and what was seen in the rows.
#[derive(Debug)]
enum CheckState {
    Nothing,
    Seen(HashSet<u128>),
    Bounds(Option<ArrayRef>, Option<ArrayRef>),
    Values(ArrayRef),
    Regex(Regex),
    Newest(Option<i64>),
}

impl ContractCompliance {
    /// Creates the checks of a contract: the declared ones, uniqueness of its grain, and uniqueness of its key. With
    /// an order, a key may have several records and is not checked. `now` is the start of the run, for rules about
    /// freshness.
    ///
    /// # Errors
    /// `InvalidContract` for a bound or value that does not have the type of its column.
    pub fn new(contract: &Contract, now: Instant) -> Result<Self> {
        let mut all = contract.checks.clone();
        let grain = (!contract.grain.is_empty()).then(|| contract.grain.clone());
        let key = (!contract.key.is_empty() && contract.order.is_empty()).then(|| contract.key.clone());
        for columns in grain.into_iter().chain(key) {
            let rule = CheckRule::Unique { columns };
            if all.iter().all(|c| c.rule != rule) {
                all.push(ContractCheck::new(rule));
            }
        }
        let checks = all.into_iter().map(|check| RunningCheck::new(check, contract)).collect::<Result<_>>()?;
        Ok(Self { checks, rows: 0, now })
    }

    /// Checks a batch. `place` returns file and row of a row of the batch. Returns the rows to quarantine, ascending,
    /// each once.
    ///
    /// # Errors
    /// `MissingColumn` if the rows do not have the column of a check.
    pub fn check(&mut self, batch: &RecordBatch, place: &dyn Fn(usize) -> (String, u64)) -> Result<Vec<RefusedRow>> {
        let mut refused: Vec<RefusedRow> = Vec::new();
        for running in &mut self.checks {
            let broken = running.broken_rows(batch)?;
            if let Some(first) = broken.first() {
                running.first.get_or_insert_with(|| place(*first));
            }
            running.broken += broken.len() as u64;
            if running.check.severity == CheckSeverity::Quarantine {
                let column = running.check.rule.columns().first().copied().unwrap_or_default().to_owned();
                let code = running.check.rule.code();
                let message: Arc<str> =
                    format!("the row breaks the rule: {}", describe_rule(&running.check.rule)).into();
                let row = |row| RefusedRow { row, column: column.clone(), code, message: message.clone() };
                refused.extend(broken.into_iter().map(row));
            }
        }
        // The sort is stable, so the first broken check of a row in the order of the contract remains.
        refused.sort_by_key(|r| r.row);
        refused.dedup_by_key(|r| r.row);
        self.rows += (batch.num_rows() - refused.len()) as u64;
        Ok(refused)
    }

    /// Checks the rules about all rows, after all batches were checked, and returns the broken rules.
    ///
    /// # Errors
    /// Code of the first broken check that stops the run. The message names all such checks.
    pub fn finish(mut self) -> Result<Vec<CheckFinding>> {
        let (rows, now) = (self.rows, self.now);
        self.checks.iter_mut().for_each(|c| c.at_end(rows, now));
        let broken = self.checks.iter().filter(|c| c.broken > 0);
        let findings: Vec<CheckFinding> = broken.map(RunningCheck::finding).collect();
        let of_all = |f: &CheckFinding| matches!(f.code, codes::ROW_COUNT | codes::NOT_FRESH);
        // A rule about all rows has no rows to quarantine, so it stops the run.
        let stops = |f: &&CheckFinding| {
            f.severity == CheckSeverity::Fail || (f.severity == CheckSeverity::Quarantine && of_all(f))
        };
        let failed: Vec<&CheckFinding> = findings.iter().filter(stops).collect();
        let Some(first) = failed.first() else { return Ok(findings) };
        let messages: Vec<String> = failed.iter().map(|f| f.text()).collect();
        let e = Error::new(first.code, messages.join("; "));
        Err(match &first.first {
            Some((file, row)) => e.at(file, *row),
            None => e,
        })
    }
}

fn code_name<S: Serializer>(code: &ErrorCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(code.name())
}

impl CheckFinding {
    fn text(&self) -> String {
        match self.first {
            Some(_) => format!("{} rows break the rule: {}", self.rows, self.rule),
            None => format!("the rows break the rule: {}", self.rule),
        }
    }
}

/// Returns a rule in words.
fn describe_rule(rule: &CheckRule) -> String {
    let between = |min: &Option<String>, max: &Option<String>| match (min, max) {
        (Some(a), Some(b)) => format!("from {a} to {b}"),
        (Some(a), None) => format!("at least {a}"),
        (None, b) => format!("at most {}", b.as_deref().unwrap_or_default()),
    };
    match rule {
        CheckRule::NotNull { column } => format!("`{column}` is not null"),
        CheckRule::Unique { columns } => {
            format!("{} is unique", columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", "))
        }
        CheckRule::Range { column, min, max } => {
            format!(
                "`{column}` is {}",
                between(&min.as_ref().map(CheckValue::text), &max.as_ref().map(CheckValue::text))
            )
        }
        CheckRule::OneOf { column, values } => {
            format!("`{column}` is one of {}", values.iter().map(CheckValue::text).collect::<Vec<_>>().join(", "))
        }
        CheckRule::Pattern { column, pattern } => format!("`{column}` matches {pattern}"),
        CheckRule::Rows { min, max } => {
            format!("the number of rows is {}", between(&min.map(|n| n.to_string()), &max.map(|n| n.to_string())))
        }
        CheckRule::Fresh { column, within } => format!("the newest `{column}` is at most {within} old"),
    }
}

impl RunningCheck {
    fn new(check: ContractCheck, contract: &Contract) -> Result<Self> {
        let value = |column: &str, values: &[CheckValue]| {
            let Some(c) = contract.column(column) else {
                return Err(Error::internal("a check names a column that the contract does not have"));
            };
            // Values of checks are converted like values of rows, so that both have the same type and rounding rules.
            let texts: ArrayRef = Arc::new(values.iter().map(|v| Some(v.text())).collect::<StringArray>());
            let made = convert(column, &texts, c.column_type.arrow(), &c.reading)?;
            match made.faults.first() {
                None => Ok(made.array),
                Some((at, fault)) => {
                    let message =
                        format!("`{}` in a check of column `{column}` {}", values[*at].text(), fault.reason());
                    Err(Error::new(codes::INVALID_CONTRACT, message).with_column(column))
                }
            }
        };
        let state = match &check.rule {
            CheckRule::NotNull { .. } | CheckRule::Rows { .. } => CheckState::Nothing,
            CheckRule::Unique { .. } => CheckState::Seen(HashSet::new()),
            CheckRule::Range { column, min, max } => {
                let bound =
                    |b: &Option<CheckValue>| b.as_ref().map(|b| value(column, std::slice::from_ref(b))).transpose();
                CheckState::Bounds(bound(min)?, bound(max)?)
            }
            CheckRule::OneOf { column, values } => CheckState::Values(value(column, values)?),
            CheckRule::Pattern { column, pattern } => CheckState::Regex(Regex::new(pattern).map_err(|e| {
                Error::new(
                    codes::INVALID_CONTRACT,
                    format!(
                        "the pattern of `{column}` is not a regular expression: {}",
                        remove_quoted_text(&e.to_string())
                    ),
                )
                .with_source(e)
            })?),
            CheckRule::Fresh { .. } => CheckState::Newest(None),
        };
        Ok(Self { check, state, broken: 0, first: None })
    }

    fn finding(&self) -> CheckFinding {
        CheckFinding {
            rule: describe_rule(&self.check.rule),
            code: self.check.rule.code(),
            severity: self.check.severity,
            rows: self.broken,
            first: self.first.clone(),
        }
    }

    fn broken_rows(&mut self, batch: &RecordBatch) -> Result<Vec<usize>> {
        let columns: Vec<ArrayRef> = self
            .check
            .rule
            .columns()
            .into_iter()
            .map(|name| Ok(batch.column(column_index(batch.schema_ref(), name, "the checked rows")?).clone()))
            .collect::<Result<_>>()?;
        let Some(column) = columns.first() else { return Ok(vec![]) };
        // A comparison with null is null and not false, so nulls comply with all rules except `not-null`.
        let false_rows = |mask: BooleanArray| -> Vec<usize> {
            (0..mask.len()).filter(|i| mask.is_valid(*i) && !mask.value(*i)).collect()
        };
        Ok(match &mut self.state {
            CheckState::Nothing => (0..column.len()).filter(|i| column.is_null(*i)).collect(),
            CheckState::Seen(seen) => find_repeated_rows(&columns, seen)?,
            CheckState::Bounds(min, max) => {
                let mut rows: Vec<usize> = Vec::new();
                let one = |bound: &ArrayRef| arrow::array::Scalar::new(bound.clone());
                if let Some(min) = min {
                    rows.extend(false_rows(cmp::gt_eq(column, &one(min)).map_err(internal_error)?));
                }
                if let Some(max) = max {
                    rows.extend(false_rows(cmp::lt_eq(column, &one(max)).map_err(internal_error)?));
                }
                rows.sort_unstable();
                rows.dedup();
                rows
            }
            CheckState::Values(values) => {
                // The list of a contract is short, so each of its values is compared with the whole column at once.
                let mut found = vec![false; column.len()];
                for at in 0..values.len() {
                    let one = arrow::array::Scalar::new(values.slice(at, 1));
                    let is = cmp::eq(column, &one).map_err(internal_error)?;
                    found.iter_mut().enumerate().for_each(|(i, f)| *f |= is.is_valid(i) && is.value(i));
                }
                (0..column.len()).filter(|i| column.is_valid(*i) && !found[*i]).collect()
            }
            CheckState::Regex(regex) => {
                let texts = cast(column, &DataType::Utf8).map_err(internal_error)?;
                let texts = texts.as_string::<i32>();
                (0..texts.len()).filter(|i| texts.is_valid(*i) && !regex.is_match(texts.value(*i))).collect()
            }
            CheckState::Newest(newest) => {
                let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(internal_error)?;
                *newest = (*newest).max(max(micros.as_primitive::<TimestampMicrosecondType>()));
                vec![]
            }
        })
    }

    fn at_end(&mut self, rows: u64, now: Instant) {
        let broken = match (&self.check.rule, &self.state) {
            (CheckRule::Rows { min, max }, _) => min.is_some_and(|n| rows < n) || max.is_some_and(|n| rows > n),
            (CheckRule::Fresh { within: text, .. }, CheckState::Newest(newest)) => {
                // Without rows there is no newest time, and the rule is broken.
                let oldest = parse_within(text).map(|d| now.saturating_sub(d).as_micros()).unwrap_or(i64::MIN);
                newest.is_none_or(|n| n < oldest)
            }
            _ => return,
        };
        self.broken = u64::from(broken);
    }
}

/// Returns the rows whose values occurred before. Rows are identified by a hash of 128 bits, so that memory does not
/// grow with the size of the values.
fn find_repeated_rows(columns: &[ArrayRef], seen: &mut HashSet<u128>) -> Result<Vec<usize>> {
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal_error)?;
    let rows = converter.convert_columns(columns).map_err(internal_error)?;
    let fingerprint =
        |bytes: &[u8]| u128::from(XxHash64::oneshot(1, bytes)) << 64 | u128::from(XxHash64::oneshot(2, bytes));
    // As in SQL, a null is not equal to another null.
    let has_null = |i: usize| columns.iter().any(|c| c.is_null(i));
    Ok((0..rows.num_rows()).filter(|i| !has_null(*i) && !seen.insert(fingerprint(rows.row(*i).as_ref()))).collect())
}

fn internal_error(e: arrow::error::ArrowError) -> Error {
    Error::internal("cannot check the rows").with_source(e)
}
