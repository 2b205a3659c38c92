//! Coercion of values and rows. The table of values comes from Glue Biscuit, the predecessor of these crates, with
//! the correct results where the predecessor wraps, swaps or becomes null silently.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use biscuit_schema::coercion::CoercedRows;
use biscuit_schema::{Coercion, Contract, ContractColumn, DecimalRounding, HiveType, OnError, ReadingRules};

fn hive(t: &str) -> HiveType {
    t.parse().expect("the type is valid")
}

fn one(name: &str, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, array, true)]).expect("the batch is valid")
}

fn contract(t: &str, reading: ReadingRules) -> Contract {
    Contract::new([ContractColumn::of_hive("v", hive(t)).with_reading(reading)]).expect("the contract is valid")
}

/// Returns the value as text, or the code of the fault.
fn value(array: ArrayRef, t: &str, reading: ReadingRules) -> String {
    let coercion =
        Coercion::new(&contract(t, reading.with_on_error(OnError::Quarantine))).expect("the contract has no defaults");
    match coercion.coerce(&one("v", array), "a.jsonl", 1) {
        Err(e) => e.code().to_owned(),
        Ok(CoercedRows { batch, refused, .. }) => match refused.first() {
            Some(row) => row.code.name().to_owned(),
            None => {
                let column = batch.column(0);
                ArrayFormatter::try_new(column, &FormatOptions::default())
                    .expect("the value can be shown")
                    .value(0)
                    .to_string()
            }
        },
    }
}

fn text(s: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![s]))
}

fn long(n: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![n]))
}

fn double(x: f64) -> ArrayRef {
    Arc::new(Float64Array::from(vec![x]))
}

#[test]
fn values_are_coerced_exactly_or_refused() {
    let table: Vec<(ArrayRef, &str, &str)> = vec![
        (Arc::new(Int32Array::from(vec![7])), "bigint", "7"),
        (long(7), "string", "7"),
        (text("abc"), "int", "Unparseable"),
        (text("99999999999"), "int", "Overflow"),
        (text(" 7 "), "int", "7"),
        (text("1.9"), "int", "PrecisionLoss"),
        (text("2.0"), "int", "2"),
        (long(3_000_000_000), "int", "Overflow"),
        (long(300), "tinyint", "Overflow"),
        (double(1.9), "int", "PrecisionLoss"),
        (double(-1.9), "int", "PrecisionLoss"),
        (double(-2.0), "int", "-2"),
        (double(f64::NAN), "int", "NotANumber"),
        (double(1e20), "int", "Overflow"),
        (text("2022-02-04"), "date", "2022-02-04"),
        (text("2022-02-30"), "date", "BadDate"),
        (text("04/02/2022"), "date", "BadDate"),
        (text("2022"), "date", "BadDate"),
        (text("2022-2-4"), "date", "BadDate"),
        (text("2022-02-04T10:00:00Z"), "date", "PrecisionLoss"),
        (text("2022-02-04T00:00:00Z"), "date", "2022-02-04"),
        (text("junk"), "timestamp", "BadTime"),
        (text("2022-02-04T10:00:00.123456Z"), "timestamp", "2022-02-04T10:00:00.123456"),
        (text("2022-02-04T10:00:00.1234567Z"), "timestamp", "PrecisionLoss"),
        (text("123.456"), "decimal(5,2)", "PrecisionLoss"),
        (text("123.45"), "decimal(5,2)", "123.45"),
        (text("99999"), "decimal(5,2)", "Overflow"),
        (long(0), "boolean", "false"),
        (long(1), "boolean", "true"),
        (long(2), "boolean", "NotABoolean"),
        (long(19_000), "date", "NoCoercion"),
        (long(9_007_199_254_740_993), "double", "PrecisionLoss"),
        (double(0.1), "decimal(15,2)", "0.10"),
        (double(12.345), "decimal(15,2)", "PrecisionLoss"),
        (double(1e300), "float", "Overflow"),
        (long(1_486_500_577_000), "timestamp", "2017-02-07T20:49:37"),
        (long(1_486_500_577), "timestamp", "2017-02-07T20:49:37"),
        (double(1_486_500_577.0), "timestamp", "2017-02-07T20:49:37"),
        (text("1486500577691"), "timestamp", "2017-02-07T20:49:37.691"),
        (long(20_240_229), "timestamp", "BadEpoch"),
        (text("yes"), "boolean", "true"),
        (text("2"), "boolean", "NotABoolean"),
    ];
    for (array, t, want) in table {
        assert_eq!(value(array.clone(), t, ReadingRules::default()), want, "{array:?} as {t}");
    }
    let round = ReadingRules::default().with_rounding(DecimalRounding::HalfUp);
    assert_eq!(value(text("123.456"), "decimal(5,2)", round.clone()), "123.46");
    assert_eq!(value(text("2.5"), "int", round.clone()), "3");
    assert_eq!(value(double(12.345), "decimal(15,2)", round), "12.35");
    let form = ReadingRules::default().with_formats(["%d/%m/%Y"]);
    assert_eq!(value(text("04/02/2022"), "date", form), "2022-02-04");
}

#[test]
fn columns_match_in_any_letter_case_and_extra_columns_are_reported() {
    let x: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("a.b", x.clone()), ("X", x.clone()), ("y", x)]).unwrap();
    let contract =
        Contract::new([ContractColumn::of_hive("x", hive("bigint")), ContractColumn::of_hive("a.b", hive("bigint"))])
            .unwrap();
    let coerced = Coercion::new(&contract).unwrap().coerce(&batch, "f", 1).unwrap();
    let names: Vec<_> = coerced.batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["x", "a.b"]);
    assert_eq!(coerced.report.renamed.get("X").map(String::as_str), Some("x"));
    assert_eq!(coerced.report.dropped.iter().collect::<Vec<_>>(), ["y"]);
    let both = RecordBatch::try_from_iter([("X", batch.column(0).clone()), ("x", batch.column(0).clone())]).unwrap();
    assert_eq!(Coercion::new(&contract).unwrap().coerce(&both, "f", 1).unwrap_err().code(), "ColumnCase");
}

#[test]
fn nested_fields_are_matched_by_name() {
    let (a, b): (ArrayRef, ArrayRef) = (Arc::new(Int32Array::from(vec![1, 1])), Arc::new(Int32Array::from(vec![2, 2])));
    let fields = StructArray::try_from(vec![("a", a.clone()), ("b", b), ("c", a)]).unwrap();
    let fields = StructArray::new(fields.fields().clone(), fields.columns().to_vec(), Some(vec![true, false].into()));
    let swapped = contract("struct<b:bigint,a:int,d:string>", ReadingRules::default());
    let coerced = Coercion::new(&swapped).unwrap().coerce(&one("v", Arc::new(fields)), "f", 1).unwrap();
    let text = ArrayFormatter::try_new(coerced.batch.column(0), &FormatOptions::default()).unwrap();
    assert_eq!(text.value(0).to_string(), "{b: 2, a: 1, d: }");
    assert!(coerced.batch.column(0).is_null(1));
    assert_eq!(coerced.report.dropped.iter().collect::<Vec<_>>(), ["v.c"]);
    assert_eq!(coerced.report.missing.iter().collect::<Vec<_>>(), ["v.d"]);

    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![Some(300)])]);
    let null = contract("array<tinyint>", ReadingRules::default().with_on_error(OnError::Null));
    let coerced = Coercion::new(&null).unwrap().coerce(&one("v", Arc::new(lists.clone())), "f", 1).unwrap();
    let text = ArrayFormatter::try_new(coerced.batch.column(0), &FormatOptions::default()).unwrap();
    assert_eq!((text.value(0).to_string().as_str(), text.value(1).to_string().as_str()), ("[1, 2]", "[]"));
    assert_eq!(coerced.report.columns["v"].nulled["Overflow"], 1);
    let refused = contract("array<tinyint>", ReadingRules::default().with_on_error(OnError::Quarantine));
    let coerced = Coercion::new(&refused).unwrap().coerce(&one("v", Arc::new(lists)), "f", 1).unwrap();
    assert_eq!((coerced.batch.num_rows(), coerced.refused[0].row), (1, 1));
}

#[test]
fn each_on_error_setting_has_its_effect_and_the_message_names_the_place() {
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("x"), None, Some("3")]));
    let with = |on_error| Coercion::new(&contract("int", ReadingRules::default().with_on_error(on_error))).unwrap();
    let batch = one("v", values);
    let e = with(OnError::Fail).coerce(&batch, "raw/a.csv", 10).unwrap_err();
    assert_eq!(e.to_string(), "Unparseable: a value of column `v` (int) is not of that type (raw/a.csv, row 11)");
    assert_eq!((e.column(), e.row()), (Some("v"), Some(11)));
    let nulled = with(OnError::Null).coerce(&batch, "f", 1).unwrap();
    assert_eq!((nulled.batch.column(0).null_count(), nulled.report.columns["v"].nulled["Unparseable"]), (2, 1));
    let refused = with(OnError::Quarantine).coerce(&batch, "f", 1).unwrap();
    assert_eq!((refused.batch.num_rows(), refused.refused.len(), refused.report.refused), (3, 1, 1));
    assert_eq!(refused.kept, Some(BooleanArray::from(vec![true, false, true, true])));
}

#[test]
fn required_column_has_no_nulls() {
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), None, Some("x")]));
    let required = |on_error| {
        let reading = ReadingRules::default().with_on_error(on_error);
        Coercion::new(
            &Contract::new([ContractColumn::of_hive("v", hive("int")).required().with_reading(reading)]).unwrap(),
        )
        .unwrap()
    };
    let batch = one("v", values);
    assert_eq!(required(OnError::Null).coerce(&batch, "f", 1).unwrap_err().code(), "NullNotAllowed");
    let refused = required(OnError::Quarantine).coerce(&batch, "f", 1).unwrap();
    let codes: Vec<_> = refused.refused.iter().map(|r| (r.row, r.code.name())).collect();
    assert_eq!(codes, [(1, "NullNotAllowed"), (2, "Unparseable")]);
    assert!(!refused.batch.schema().field(0).is_nullable());
    let other = one("w", Arc::new(Int32Array::from(vec![1])));
    assert_eq!(required(OnError::Null).coerce(&other, "f", 1).unwrap_err().code(), "MissingColumn");
}

#[test]
fn defaults_replace_missing_values_but_not_lost_values() {
    let reading = ReadingRules::default().with_default("9").with_on_error(OnError::Null);
    let coercion = Coercion::new(&contract("int", reading)).unwrap();
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), None, Some("x")]));
    let coerced = coercion.coerce(&one("v", values), "f", 1).unwrap();
    assert_eq!(coerced.batch.column(0).as_ref(), &Int32Array::from(vec![Some(1), Some(9), None]) as &dyn Array);
    assert_eq!((coerced.report.columns["v"].defaulted, coerced.report.columns["v"].nulled["Unparseable"]), (1, 1));
    let absent = coercion.coerce(&one("w", text("x")), "f", 1).unwrap();
    assert_eq!(absent.batch.column(0).as_ref(), &Int32Array::from(vec![9]) as &dyn Array);
    let wrong = contract("int", ReadingRules::default().with_default("x"));
    assert_eq!(Coercion::new(&wrong).unwrap_err().code(), "InvalidContract");
}

#[test]
fn extra_columns_are_dropped_kept_or_refused() {
    let batch = RecordBatch::try_from_iter([("v", text("1")), ("w", text("2"))]).unwrap();
    let with = |extra: &str| {
        let contract = format!("extra = '{extra}'\n[[columns]]\nname = 'v'\ntype = 'int'\n");
        Coercion::new(&Contract::from_toml(&contract).unwrap()).unwrap().coerce(&batch, "f", 1)
    };
    assert_eq!(with("drop").unwrap().batch.num_columns(), 1);
    let kept = with("keep").unwrap().batch;
    assert_eq!(kept.schema().field(1).data_type(), &DataType::Utf8);
    let e = with("refuse").unwrap_err();
    assert_eq!(
        e.to_string(),
        "ExtraColumns: the contract does not have `w`; add the columns, or set `extra` to `drop` or `keep` (f)"
    );
}

#[test]
fn columns_are_found_by_their_former_names() {
    let reading = ReadingRules::default().with_renamed_from(["value", "val"]);
    let coercion = Coercion::new(&contract("int", reading)).unwrap();
    let coerced = coercion.coerce(&one("val", text("1")), "f", 1).unwrap();
    assert_eq!(coerced.report.renamed["val"], "v");
    assert!(coerced.report.dropped.is_empty());
}

#[test]
fn without_a_column_the_rows_are_still_counted() {
    let coercion = Coercion::new(&Contract::new([]).unwrap()).unwrap();
    let coerced = coercion.coerce(&one("v", text("1")), "f", 1).unwrap();
    assert_eq!((coerced.batch.num_rows(), coerced.batch.num_columns()), (1, 0));
}
