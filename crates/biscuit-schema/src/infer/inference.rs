//! Inference of column types from rows of CSV and JSON, and from schemas of files.
//!
//! Each column has a shape, and each value joins its own shape to the shape of its column. Parts of an input can be
//! inferred separately and appended.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use biscuit_core::Result;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::infer::json_names::JsonFields;
use crate::types::common::plain_type;
use crate::types::common::written_type;
use crate::types::limits::MAX_FIELDS;
use crate::types::limits::is_too_deep;
use crate::values::iso::{iso_date, iso_date_time};
use crate::{Contract, codes, common_type, type_name};

/// Infers the columns of a table from its rows or from samples of them: text cells, JSON objects, or schemas. Text
/// that looks like a number stays text if the number would lose something: `02134`, `+49170`, or more digits than a
/// bigint has.
///
/// ```
/// use biscuit_schema::SchemaInference;
///
/// let mut inference = SchemaInference::default();
/// inference.add_texts("a.csv", 2, [("zip", "02134"), ("n", "7"), ("day", "2024-02-29")]);
/// inference.add_texts("a.csv", 3, [("zip", "10115"), ("n", "x"), ("day", "")]);
/// let inferred = inference.finish().unwrap();
/// let types: Vec<_> = inferred.contract.columns.iter().map(|c| c.hive_type().unwrap().to_string()).collect();
/// assert_eq!(types, ["string", "string", "date"]);
/// assert_eq!(
///     inferred.conflicts[0].to_string(),
///     "`n` is bigint at a.csv, row 2, and string at a.csv, row 3: the column is text"
/// );
/// ```
#[derive(Debug, Clone, Default)]
pub struct SchemaInference {
    columns: Vec<LearnedColumn>,
    /// Index in `columns` of each name.
    at: HashMap<String, usize>,
    rows: u64,
    /// Whether dates and times remain text.
    without_times: bool,
}

/// Result of an inference.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InferredSchema {
    /// Contract with the columns in the order of their first occurrence. All columns are nullable.
    pub contract: Contract,
    /// Columns with values of several types.
    pub conflicts: Vec<TypeConflict>,
    /// Number of rows that were read.
    pub rows: u64,
}

/// Column that has values of two types without a common type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TypeConflict {
    /// The column; fields of structs follow after points, as in `s.a`.
    pub column: String,
    /// Type up to this point, and the place of its first occurrence.
    pub first: (String, String),
    /// Other type, and its place.
    pub other: (String, String),
}

impl std::fmt::Display for TypeConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((a, at), (b, there)) = (&self.first, &self.other);
        write!(f, "`{}` is {a} at {at}, and {b} at {there}: the column is text", self.column)
    }
}

#[derive(Debug, Clone)]
struct LearnedColumn {
    name: String,
    shape: LearnedShape,
    at: String,
    conflict: Option<TypeConflict>,
}

#[derive(Debug, Clone, PartialEq)]
enum LearnedShape {
    Unknown,
    Of(DataType),
    /// Bigint with values that a double does not hold exactly.
    Wide,
    List(Box<Self>),
    Struct(Vec<(String, Self)>),
    /// Digits that would lose something as a number, such as a leading zero. Other numbers of the column become text
    /// as well, and this is not a conflict.
    Code,
    Text,
}

impl SchemaInference {
    /// Leaves dates and times as text, because a later file may write them in another format. Default: they become
    /// dates and timestamps.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        self.without_times = true;
        self
    }

    /// Reads a row of text cells, as in CSV. An empty cell is null.
    pub fn add_texts<'a>(&mut self, file: &str, row: u64, cells: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.rows += 1;
        cells.into_iter().for_each(|(name, cell)| self.add_text(file, row, name, cell));
    }

    /// Reads a row from the text of a JSON object. Text that is not a JSON object, or is nested too deep, is skipped.
    /// Text in quotes is never a number. Numbers are typed by their digits, whatever their size.
    pub fn add_json(&mut self, file: &str, row: u64, object: &str) {
        self.rows += 1;
        if is_too_deep(object.as_bytes()) {
            return;
        }
        let Ok(JsonFields(fields)) = serde_json::from_str(object) else { return };
        for (name, value) in &fields {
            self.add_json_value(file, row, name, value.get());
        }
    }

    /// Reads one value of a JSON object.
    pub fn add_json_value(&mut self, file: &str, row: u64, name: &str, value: &str) {
        self.add_shape(name, of_json(value, !self.without_times), || format!("{file}, row {row}"));
    }

    /// Reads one text cell.
    pub fn add_text(&mut self, file: &str, row: u64, name: &str, cell: &str) {
        let times = !self.without_times;
        let shape = if cell.is_empty() { LearnedShape::Unknown } else { of_text(cell, true, times) };
        self.add_shape(name, shape, || format!("{file}, row {row}"));
    }

    /// Adds what another inference has learned from later rows.
    pub fn append(&mut self, other: Self) {
        self.rows += other.rows;
        for learned in other.columns {
            let conflict = learned.conflict;
            let known = self.at.get(&learned.name).is_some_and(|at| self.columns[*at].conflict.is_some());
            self.add_shape(&learned.name, learned.shape, || learned.at.clone());
            if let (Some(conflict), Some(at), false) = (conflict, self.at.get(&learned.name), known) {
                // A conflict inside of the other part remains. If the parts begin with the same type, the value that
                // conflicts is the one that the other part has found.
                match &mut self.columns[*at].conflict {
                    Some(own) if own.column == conflict.column && own.first.0 == conflict.first.0 => {
                        own.other = conflict.other;
                    }
                    own => _ = own.get_or_insert(conflict),
                }
            }
        }
    }

    /// Adds the schema of a file that has one.
    pub fn add_schema(&mut self, file: &str, rows: u64, schema: &Schema) {
        self.rows += rows;
        for field in schema.fields() {
            self.add_shape(field.name(), of_type(&written_type(&plain_type(field.data_type()))), || file.to_owned());
        }
    }

    fn add_shape(&mut self, name: &str, shape: LearnedShape, at: impl Fn() -> String) {
        let Some(known) = self.at.get(name).map(|at| &mut self.columns[*at]) else {
            // One column more than the limit is recorded, so that `finish` reports the error and memory is bounded.
            if self.columns.len() > MAX_FIELDS {
                return;
            }
            self.at.insert(name.to_owned(), self.columns.len());
            self.columns.push(LearnedColumn { name: name.to_owned(), shape, at: at(), conflict: None });
            return;
        };
        // A null does not determine the type. The first value with a type decides the place that a conflict names.
        if shape == LearnedShape::Unknown {
            return;
        }
        if known.shape == LearnedShape::Unknown {
            (known.shape, known.at) = (shape, at());
            return;
        }
        // Only the first conflict of a column is kept.
        let mut clash = None;
        let joined = known.shape.join_shape(&shape, name, &mut clash);
        if let (Some((column, first, other)), None) = (clash, &known.conflict) {
            known.conflict = Some(TypeConflict { column, first: (first, known.at.clone()), other: (other, at()) });
        }
        known.shape = joined;
    }

    /// Returns the type of the values up to this point: `Null` for a column without a value, `None` for an unknown
    /// name.
    pub fn type_of(&self, name: &str) -> Option<DataType> {
        let learned = &self.columns[*self.at.get(name)?];
        Some(if learned.shape == LearnedShape::Unknown { DataType::Null } else { learned.shape.arrow() })
    }

    /// Returns the spelling of a column name in the rows, found in any letter case, or `None` if no row has the
    /// column.
    pub fn find_spelling(&self, name: &str) -> Option<&str> {
        let known = || self.columns.iter().map(|c| c.name.as_str());
        known().find(|own| *own == name).or_else(|| known().find(|own| own.eq_ignore_ascii_case(name)))
    }

    /// Returns the conflicts up to this point: columns with values of types that have no common type.
    pub fn conflicts(&self) -> impl Iterator<Item = &TypeConflict> {
        self.columns.iter().filter_map(|c| c.conflict.as_ref())
    }

    /// Returns the contract and the conflicts.
    ///
    /// # Errors
    /// `InvalidContract` for two names that differ only in letter case; `TooManyColumns`, `TooDeep`.
    pub fn finish(self) -> Result<InferredSchema> {
        let fields: Vec<Field> = self.columns.iter().map(|c| Field::new(&c.name, c.shape.arrow(), true)).collect();
        let contract = Contract::from_arrow(&Schema::new(fields)).map_err(|e| {
            // An unsupported type comes from the schema of a file, which the error names.
            let at = e.column().filter(|_| e.is(codes::UNKNOWN_TYPE)).and_then(|column| self.at.get(column));
            match at {
                Some(at) => e.in_file(&self.columns[*at].at),
                None => e,
            }
        })?;
        let conflicts = self.columns.into_iter().filter_map(|c| c.conflict).collect();
        Ok(InferredSchema { contract, conflicts, rows: self.rows })
    }
}

/// Returns the shape of a text. `numbers` is false for JSON text in quotes, which is never a number.
fn of_text(text: &str, numbers: bool, times: bool) -> LearnedShape {
    let of = LearnedShape::Of;
    if numbers {
        if is_whole(text) {
            return whole_number_shape(text).unwrap_or(LearnedShape::Code);
        }
        if is_decimal(text) {
            return if is_exact(text) { of(DataType::Float64) } else { LearnedShape::Code };
        }
        if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'.')) && text.parse::<f64>().is_ok() {
            return LearnedShape::Code;
        }
        if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            return of(DataType::Boolean);
        }
    }
    // A cheap filter for most texts. Dates with a signed year are not inferred.
    if times && text.len() >= 10 && text.as_bytes()[0].is_ascii_digit() {
        if text.len() == 10 && iso_date(text).is_some() {
            return of(DataType::Date32);
        }
        if let Some((_, zone)) = iso_date_time(text) {
            return of(DataType::Timestamp(TimeUnit::Microsecond, zone.map(|_| "UTC".into())));
        }
    }
    LearnedShape::Text
}

/// Returns whether a text is a whole number in canonical form, without a leading zero or sign that a number would
/// lose.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // `-0` is not a whole number: an integer would lose the sign.
    plain && (digits == "0" && text == "0" || !digits.starts_with('0'))
}

/// Returns whether a text is a number with a fraction or an exponent, without a leading zero that a number would
/// lose.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let number = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    number
        && !leading
        && digits.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && digits.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Returns the shape of a whole number, or `None` if it does not fit in a bigint. A double holds all integers up to
/// 2^53.
fn whole_number_shape(text: &str) -> Option<LearnedShape> {
    let n: i64 = text.parse().ok()?;
    Some(if n.unsigned_abs() <= 1 << 53 { LearnedShape::Of(DataType::Int64) } else { LearnedShape::Wide })
}

/// Returns whether a double shows a number with a fraction as it was written. 17 significant digits are sufficient to
/// distinguish two doubles.
fn is_exact(text: &str) -> bool {
    let digits = text.split(['e', 'E']).next().unwrap_or(text).bytes().filter(u8::is_ascii_digit);
    let significant = digits.skip_while(|b| *b == b'0').count();
    significant <= 17
}

/// Returns the shape of a JSON value, given its complete text.
fn of_json(value: &str, times: bool) -> LearnedShape {
    match value.as_bytes().first() {
        Some(b't' | b'f') => LearnedShape::Of(DataType::Boolean),
        Some(b'"') => {
            serde_json::from_str::<String>(value).map_or(LearnedShape::Text, |text| of_text(&text, false, times))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
            let join = |a: LearnedShape, b: &&RawValue| a.join_shape(&of_json(b.get(), times), "", &mut None);
            LearnedShape::List(Box::new(items.iter().fold(LearnedShape::Unknown, join)))
        }
        Some(b'{') => {
            let fields = serde_json::from_str(value).map_or(vec![], |JsonFields(fields)| fields);
            // The reader refuses a line with a repeated name. Here only the first value counts.
            let mut all: Vec<(String, LearnedShape)> = Vec::with_capacity(fields.len());
            for (name, value) in fields {
                if all.iter().all(|(known, _)| *known != name) {
                    all.push((name, of_json(value.get(), times)));
                }
            }
            LearnedShape::Struct(all)
        }
        Some(b'-' | b'0'..=b'9') => of_number(value),
        _ => LearnedShape::Unknown,
    }
}

/// Returns the shape of a JSON number as it is written. Integers beyond a bigint become decimals of at least 20
/// digits.
fn of_number(text: &str) -> LearnedShape {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        let digits = text.trim_start_matches('-').len();
        let decimal = || u8::try_from(digits).ok().filter(|digits| *digits <= 38);
        return whole_number_shape(text)
            .or_else(|| Some(LearnedShape::Of(DataType::Decimal128(decimal()?.max(20), 0))))
            .unwrap_or(LearnedShape::Text);
    }
    match is_exact(text) && text.parse::<f64>().is_ok_and(f64::is_finite) {
        true => LearnedShape::Of(DataType::Float64),
        false => LearnedShape::Text,
    }
}

fn of_type(t: &DataType) -> LearnedShape {
    match t {
        DataType::Null => LearnedShape::Unknown,
        DataType::List(item) => LearnedShape::List(Box::new(of_type(item.data_type()))),
        DataType::Struct(fields) => {
            LearnedShape::Struct(fields.iter().map(|f| (f.name().clone(), of_type(f.data_type()))).collect())
        }
        DataType::Utf8 => LearnedShape::Text,
        other => LearnedShape::Of(other.clone()),
    }
}

impl LearnedShape {
    fn arrow(&self) -> DataType {
        match self {
            Self::Unknown | Self::Code | Self::Text => DataType::Utf8,
            Self::Of(t) => t.clone(),
            Self::Wide => DataType::Int64,
            Self::List(item) => DataType::List(Arc::new(Field::new("element", item.arrow(), true))),
            Self::Struct(fields) if fields.is_empty() => DataType::Utf8,
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|(name, shape)| Field::new(name, shape.arrow(), true)).collect())
            }
        }
    }

    fn name(&self) -> String {
        let t = self.arrow();
        type_name(&t).unwrap_or_else(|| t.to_string())
    }

    /// Returns the shape that holds both shapes. If only text holds both, `clash` gets the path and the two types.
    fn join_shape(&self, other: &Self, at: &str, clash: &mut Option<(String, String, String)>) -> Self {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (Self::Unknown, b) => b.clone(),
            (a, Self::Unknown) => a.clone(),
            (Self::Code, Self::Text | Self::Code) | (Self::Text, Self::Code) => Self::Text,
            (Self::Code, Self::Of(t)) | (Self::Of(t), Self::Code)
                if matches!(t, DataType::Int64 | DataType::Float64) =>
            {
                Self::Code
            }
            (Self::Wide, Self::Of(DataType::Int64)) | (Self::Of(DataType::Int64), Self::Wide) => Self::Wide,
            (Self::Code, Self::Wide) | (Self::Wide, Self::Code) => Self::Code,
            // Both are numbers, but no number type holds both, so the digits are kept as text without a conflict.
            (Self::Wide, Self::Of(DataType::Float64)) | (Self::Of(DataType::Float64), Self::Wide) => Self::Code,
            (Self::Wide, Self::Of(t)) | (Self::Of(t), Self::Wide) if matches!(t, DataType::Decimal128(..)) => {
                Self::Of(joined_type(&DataType::Int64, t).unwrap_or_else(|| t.clone()))
            }
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.join_shape(b, &format!("{at}[]"), clash))),
            (Self::Struct(a), Self::Struct(b)) => {
                let mut fields = a.clone();
                for (name, shape) in b {
                    match fields.iter_mut().find(|(n, _)| n == name) {
                        Some((_, own)) => *own = own.join_shape(shape, &format!("{at}.{name}"), clash),
                        None => fields.push((name.clone(), shape.clone())),
                    }
                }
                Self::Struct(fields)
            }
            (Self::Of(a), Self::Of(b)) => match joined_type(a, b) {
                Some(t) => Self::Of(t),
                None => self.join_as_text(other, at, clash),
            },
            _ => self.join_as_text(other, at, clash),
        }
    }

    /// Returns text, and records the first conflict.
    fn join_as_text(&self, other: &Self, at: &str, clash: &mut Option<(String, String, String)>) -> Self {
        clash.get_or_insert_with(|| (at.to_owned(), self.name(), other.name()));
        Self::Text
    }
}

/// Returns the common type of two types. It is wider than [`common_type`], because a sample shows only some of the
/// values: whole numbers may belong to a column with fractions, and dates to a column of times.
fn joined_type(a: &DataType, b: &DataType) -> Option<DataType> {
    let set = BTreeSet::from([a, b]);
    let has = |t: &DataType| set.contains(t);
    if has(&DataType::Float64) && has(&DataType::Int64) {
        return Some(DataType::Float64);
    }
    match (a, b) {
        (DataType::Date32, DataType::Timestamp(..)) => Some(b.clone()),
        (DataType::Timestamp(..), DataType::Date32) => Some(a.clone()),
        _ => common_type(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(inferred: &InferredSchema) -> Vec<String> {
        inferred.contract.columns.iter().map(|c| format!("{} {}", c.name, c.hive_type().unwrap())).collect()
    }

    #[test]
    fn texts_are_typed_without_losing_leading_characters() {
        let of = |t: &str| type_name(&of_text(t, true, true).arrow()).unwrap();
        for (text, want) in [
            ("7", "bigint"),
            ("-7", "bigint"),
            ("0", "bigint"),
            ("-0", "double"),
            ("007", "string"),
            ("+7", "string"),
            ("99999999999999999999", "string"),
            ("1.5", "double"),
            ("0.5", "double"),
            ("00.5", "string"),
            ("1e5", "double"),
            (".5", "string"),
            ("1.", "double"),
            ("nan", "string"),
            ("inf", "string"),
            ("TRUE", "boolean"),
            ("yes", "string"),
            ("2024-02-29", "date"),
            ("2023-02-29", "string"),
            ("2024-02-29T10:00:00", "timestamp"),
            ("2024-02-29 10:00:00Z", "timestamptz"),
            ("1.2.3", "string"),
            ("1-2", "string"),
            ("+49170123", "string"),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
    }

    #[test]
    fn nested_json_is_inferred_and_quoted_text_is_not_a_number() {
        let mut inference = SchemaInference::default();
        for (row, line) in [
            r#"{"id":1,"zip":"02134","at":"2024-01-01T00:00:00Z","tags":["a"],"s":{"a":1}}"#,
            r#"{"id":2.5,"zip":null,"at":"2024-01-01","tags":[],"s":{"a":1.5,"b":true},"new":[{"x":1}]}"#,
        ]
        .iter()
        .enumerate()
        {
            inference.add_json("a.jsonl", row as u64 + 1, line);
        }
        let inferred = inference.finish().unwrap();
        assert!(inferred.conflicts.is_empty());
        let mut got = types(&inferred);
        got.sort();
        assert_eq!(
            got,
            [
                "at timestamp",
                "id double",
                "new array<struct<x:bigint>>",
                "s struct<a:double,b:boolean>",
                "tags array<string>",
                "zip string",
            ]
        );
    }

    #[test]
    fn numbers_get_types_that_hold_them_exactly() {
        let of = |lines: &[&str]| {
            let mut inference = SchemaInference::default();
            lines.iter().zip(1..).for_each(|(n, row)| inference.add_json("a", row, &format!("{{\"n\":{n}}}")));
            let json = inference.finish().unwrap().contract.columns[0].hive_type().unwrap().to_string();
            let mut inference = SchemaInference::default();
            lines.iter().zip(1..).for_each(|(n, row)| inference.add_texts("a", row, [("n", *n)]));
            let text = inference.finish().unwrap().contract.columns[0].hive_type().unwrap().to_string();
            (json, text)
        };
        let both = |t: &str| (t.to_owned(), t.to_owned());
        assert_eq!(of(&["1", "9223372036854775807"]), both("bigint"));
        assert_eq!(of(&["9007199254740992", "0.5"]), both("double"));
        assert_eq!(of(&["9007199254740993", "0.5"]), both("string"), "a double does not hold the number");
        assert_eq!(of(&["0.5", "9007199254740993"]), both("string"));
        assert_eq!(of(&["0.12345678901234567"]), both("double"));
        assert_eq!(of(&["1234567890.123456789"]), both("string"));
        assert_eq!(of(&["1e999"]).0, "string");
        assert_eq!(of(&["18446744073709551616"]), ("decimal(20,0)".to_owned(), "string".to_owned()));
        assert_eq!(of(&["1", "123456789012345678901234"]).0, "decimal(24,0)");
        assert_eq!(of(&["9223372036854775807", "18446744073709551616"]).0, "decimal(20,0)");
        assert_eq!(of(&["1", &"9".repeat(39)]).0, "string");
    }

    #[test]
    fn inference_in_parts_equals_inference_of_the_whole() {
        let lines = [r#"{"a":1}"#, r#"{"a":1.5,"b":"x"}"#, r#"{"a":{"c":1}}"#, r#"{"b":null,"d":[]}"#, "no JSON"];
        let learned = |lines: &[&str], first: u64| {
            let mut inference = SchemaInference::default();
            lines.iter().zip(first..).for_each(|(line, row)| inference.add_json("a", row, line));
            inference
        };
        let whole = learned(&lines, 1).finish().unwrap();
        for cut in 0..=lines.len() {
            let mut parts = learned(&lines[..cut], 1);
            parts.append(learned(&lines[cut..], cut as u64 + 1));
            let parts = parts.finish().unwrap();
            assert_eq!((&parts.contract, parts.rows), (&whole.contract, whole.rows), "cut at {cut}");
            assert_eq!(parts.conflicts.len(), 1, "cut at {cut}: {:?}", parts.conflicts);
        }
    }

    #[test]
    fn conflict_names_both_places() {
        let mut inference = SchemaInference::default();
        inference.add_json("a.jsonl", 1, r#"{"s": {"a": 1}}"#);
        inference.add_json("b.jsonl", 9, r#"{"s": {"a": {"deep": 1}}}"#);
        let conflict = &inference.finish().unwrap().conflicts[0];
        assert_eq!(
            conflict.to_string(),
            "`s.a` is bigint at a.jsonl, row 1, and struct<deep:bigint> at b.jsonl, row 9: the column is text"
        );
    }
}
