//! Changes of MongoDB documents.

use arrow::util::display::array_value_to_string;
use biscuit_change::{BadRows, ChangeOp, ChangeRecords, DebeziumOptions, DebeziumReader, TablesReader};
use biscuit_core::Result;
use biscuit_schema::Contract;
use serde_json::json;

const CONTRACT: &str = "
    [[columns]]
    name = 'id'
    type = 'string'
    renamed_from = ['_id']
    [[columns]]
    name = 'n'
    type = 'bigint'
    [[columns]]
    name = 'amount'
    type = 'decimal(20,2)'
    [[columns]]
    name = 'at'
    type = 'timestamp'
    [[columns]]
    name = 'address'
    type = 'struct<city:string>'
";

/// Returns an envelope whose message key is `id`; `more` replaces and adds fields.
fn event(op: &str, id: &str, before: Option<&str>, after: Option<&str>, more: &serde_json::Value) -> String {
    let mut value = json!({
        "op": op, "before": before, "after": after,
        "source": {"connector": "mongodb", "db": "shop", "rs": "rs0", "collection": "orders", "ts_ms": 1_700_000_000_000_i64, "ord": 1, "snapshot": "false"},
    });
    let parts = more.as_object().expect("the value is an object").clone();
    for (name, part) in parts {
        match (name.as_str(), part) {
            ("source", serde_json::Value::Object(fields)) => {
                let source = value["source"].as_object_mut().expect("the value is an object");
                fields.into_iter().for_each(|(field, v)| drop(source.insert(field, v)));
            }
            (_, part) => value[name] = part,
        }
    }
    json!({"key": {"id": id}, "value": value}).to_string()
}

fn read_with(options: DebeziumOptions, lines: &[String]) -> Result<ChangeRecords> {
    let mut reader = DebeziumReader::new(options);
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into())?;
    reader.finish()
}

fn options() -> DebeziumOptions {
    DebeziumOptions::default().with_contract(Contract::from_toml(CONTRACT).expect("the contract is valid"))
}

fn read(lines: &[String]) -> Result<ChangeRecords> {
    read_with(options(), lines)
}

fn column(changes: &ChangeRecords, name: &str) -> Vec<String> {
    let of = |batch: &biscuit_change::ChangeBatch| {
        let column = batch.rows.column_by_name(name).expect("the column exists").clone();
        (0..column.len())
            .map(|row| array_value_to_string(&column, row).expect("the value can be shown"))
            .collect::<Vec<_>>()
    };
    changes.batches.iter().flat_map(of).collect()
}

const OID: &str = r#"{"$oid": "596e275826f08b2730779e1f"}"#;

#[test]
fn documents_become_rows_in_every_serialization_mode() {
    let strict = r#"{"_id": {"$oid": "596e275826f08b2730779e1f"}, "n": {"$numberLong": "9007199254740993"}, "amount": {"$numberDecimal": "12.50"}, "at": {"$date": 1709208000123}, "address": {"city": "Bonn", "zip": "53111"}, "more": 1}"#;
    let canonical = r#"{"_id": {"$oid": "596e275826f08b2730779e1f"}, "n": {"$numberInt": "7"}, "amount": {"$numberDecimal": "12.5"}, "at": {"$date": {"$numberLong": "1709208000123"}}, "address": null}"#;
    let relaxed = r#"{"_id": {"$oid": "596e275826f08b2730779e1f"}, "n": 8, "amount": 3, "at": {"$date": "2024-02-29T12:00:00.123Z"}}"#;
    let none = json!({});
    let lines = [strict, canonical, relaxed].map(|document| event("c", OID, None, Some(document), &none));
    let changes = read(&lines).expect("the documents are read");
    assert_eq!(
        (changes.key.as_slice(), changes.order.as_slice()),
        (["id".to_owned()].as_slice(), ["__ts_ms".to_owned(), "__ord".to_owned()].as_slice())
    );
    assert_eq!(column(&changes, "id"), ["596e275826f08b2730779e1f"; 3]);
    assert_eq!(column(&changes, "n"), ["9007199254740993", "7", "8"]);
    assert_eq!(column(&changes, "amount"), ["12.50", "12.50", "3.00"]);
    assert_eq!(column(&changes, "at"), ["2024-02-29T12:00:00.123"; 3]);
    assert_eq!(column(&changes, "address"), ["{city: Bonn}", "", ""]);
    assert_eq!(changes.dropped_columns, ["address.zip", "more"]);
    // The table is named by the database and the collection.
    assert!(read_with(options().with_table("shop.orders"), &lines).expect("the table is read").len() == 3);
    assert_eq!(read_with(options().with_table("shop.other"), &lines).expect("the records are skipped").other_tables, 3);
}

#[test]
fn delete_takes_its_key_from_the_message_key_or_the_document_before() {
    let changes = read(&[event("d", OID, None, None, &json!({}))]).expect("the delete is read");
    assert_eq!(
        (changes.batches[0].ops.as_slice(), column(&changes, "id")),
        ([ChangeOp::Delete].as_slice(), vec!["596e275826f08b2730779e1f".to_owned()])
    );
    // A file of values without message keys.
    let mut alone: serde_json::Value =
        serde_json::from_str(&event("d", "1", Some(r#"{"_id": 4, "n": 1}"#), None, &json!({})))
            .expect("the line is JSON");
    let changes = read(&[alone["value"].take().to_string()]).expect("the delete is read");
    assert_eq!(column(&changes, "id"), ["4"]);
    alone = serde_json::from_str(&event("d", "1", None, None, &json!({}))).expect("the line is JSON");
    assert_eq!(read(&[alone["value"].take().to_string()]).unwrap_err().code(), "MissingImage");
}

#[test]
fn snapshot_rows_are_older_than_every_change() {
    let snapshot = json!({"source": {"snapshot": "true", "ts_ms": 1_800_000_000_000_i64, "ord": 9}});
    let changes = read(&[
        event("r", "1", None, Some(r#"{"_id": 1}"#), &snapshot),
        event("u", "1", None, Some(r#"{"_id": 1}"#), &json!({})),
    ])
    .expect("the records are read");
    assert_eq!(column(&changes, "__ts_ms"), ["0", "1700000000000"]);
    assert_eq!(column(&changes, "__ord"), ["0", "1"]);
}

fn update(updated: &str, more: &serde_json::Value) -> String {
    let mut description = json!({"removedFields": null, "updatedFields": updated, "truncatedArrays": null});
    for (name, part) in more.as_object().expect("the value is an object").clone() {
        description[name] = part;
    }
    event("u", "1", None, None, &json!({"updateDescription": description}))
}

#[test]
fn update_without_a_document_sets_only_the_changed_fields() {
    let changes = read(&[update(r#"{"n": {"$numberInt": "5"}}"#, &json!({"removedFields": ["amount"]}))])
        .expect("the update is read");
    let batch = &changes.batches[0];
    let present = |name: &str| {
        let at = batch.rows.schema().index_of(name).expect("the column exists");
        batch.present[at].as_ref().is_none_or(|present| present.value(0))
    };
    assert_eq!((column(&changes, "n"), column(&changes, "amount")), (vec!["5".to_owned()], vec![String::new()]));
    assert_eq!(
        ["id", "n", "amount", "at", "address"].map(present),
        [true, true, true, false, false],
        "fields that did not change keep their values"
    );
}

#[test]
fn update_inside_of_a_field_requires_the_document() {
    let inside = || update(r#"{"address.city": "Bonn"}"#, &json!({}));
    let cut = update("{}", &json!({"truncatedArrays": [{"field": "tags", "size": 1}]}));
    for line in [inside(), cut] {
        let e = read(&[line]).unwrap_err();
        assert_eq!((e.code(), e.file(), e.row()), ("MissingImage", Some("a.jsonl"), Some(1)), "{e}");
        assert!(e.message().contains("change_streams_update_full"), "{e}");
    }
    let aside =
        read_with(options().with_bad_rows(BadRows::Quarantine), &[inside()]).expect("the record is quarantined");
    assert_eq!((aside.refused[0].code.as_str(), aside.refused[0].row), ("MissingImage", 1));
    // The document was deleted before the connector looked it up: only the delete counts.
    let deleted = [inside(), event("d", "1", None, None, &json!({}))];
    let changes = read(&deleted).expect("the update is ignored");
    assert_eq!((changes.batches[0].ops.as_slice(), changes.ignored), ([ChangeOp::Delete].as_slice(), 1));
    // The delete of another document is irrelevant, with and without message keys.
    let other = event("d", "2", None, None, &json!({}));
    assert_eq!(read(&[inside(), other]).unwrap_err().code(), "MissingImage");
    let value_of = |line: &str| {
        let mut whole: serde_json::Value = serde_json::from_str(line).expect("the line is JSON");
        whole["value"].take().to_string()
    };
    let alone = [value_of(&inside()), value_of(&event("d", "2", Some(r#"{"_id": 2}"#), None, &json!({})))];
    assert_eq!(read(&alone).unwrap_err().code(), "MissingImage");
    // Other updates have their documents, so the delete of this one is still to come.
    let full = [event("u", "2", None, Some(r#"{"_id": 2, "n": 1}"#), &json!({})), inside()];
    let changes = read(&full).expect("the update is ignored");
    assert_eq!((column(&changes, "id"), changes.ignored), (vec!["2".to_owned()], 1));
}

#[test]
fn several_names_of_one_column_are_not_confused_in_updates() {
    let contract =
        "[[columns]]\nname = '_id'\ntype = 'bigint'\n[[columns]]\nname = 'b'\ntype = 'int'\nrenamed_from = ['a']\n";
    let options =
        || DebeziumOptions::default().with_contract(Contract::from_toml(contract).expect("the contract is valid"));
    let removed = update("{}", &json!({"removedFields": ["a"]}));
    let e = read_with(options(), &[removed]).unwrap_err();
    assert!(e.code() == "MissingImage" && e.message().contains("another name of column `b`"), "{e}");
    let both = update(r#"{"B": 5, "b": 7}"#, &json!({}));
    assert_eq!(read_with(options(), &[both]).unwrap_err().code(), "DuplicateColumn");
    assert!(read_with(options(), &[update(r#"{"a": 5}"#, &json!({}))]).is_ok());
}

#[test]
fn numbers_and_strings_as_ids_are_not_merged() {
    let lines = [r#"{"_id": 1}"#, r#"{"_id": "1"}"#].map(|d| event("c", d, None, Some(d), &json!({})));
    let keyed = ["1", "\"1\""].map(|id| event("d", id, None, None, &json!({})));
    let alone = lines.map(|line| {
        let mut whole: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        whole["value"].take().to_string()
    });
    for lines in [alone, keyed] {
        let e = read(&lines).unwrap_err();
        assert_eq!((e.code(), e.row()), ("KeyDrift", Some(2)), "{e}");
    }
}

#[test]
fn invalid_documents_are_refused_with_their_row() {
    let of = |document: &str| read(&[event("c", "1", None, Some(document), &json!({}))]).map(drop).unwrap_err();
    for (document, code) in [
        (r#"{"_id": 1, "#, "InvalidJson"),
        (r#"{"_id": 1, "id": 2}"#, "DuplicateColumn"),
        (r#"{"_id": 1, "at": {"$date": {"$numberLong": "9223372036854775807"}}}"#, "Overflow"),
        (r#"{"_id": 1, "n": {"$numberDecimal": "1.5"}}"#, "PrecisionLoss"),
        (&format!(r#"{{"_id": {}1{}}}"#, "[".repeat(70), "]".repeat(70)), "TooDeep"),
    ] {
        let e = of(document);
        assert_eq!((e.code(), e.file(), e.row()), (code, Some("a.jsonl"), Some(1)), "{document}: {e}");
    }
    let e = read_with(DebeziumOptions::default(), &[event("c", "1", None, Some("{}"), &json!({}))]).unwrap_err();
    assert!(e.code() == "UntypedRecords" && e.message().contains("contract"), "{e}");
}

#[test]
fn collections_of_one_file_are_several_tables() {
    let other = json!({"source": {"collection": "customers"}});
    let lines = [
        event("c", "1", None, Some(r#"{"_id": 1}"#), &json!({})),
        event("c", "1", None, Some(r#"{"_id": 5}"#), &other),
    ];
    let mut reader = TablesReader::debezium(|_| Ok(options()));
    reader.read("a.jsonl", &lines.join("\n").into_bytes().into()).expect("the file is read");
    let tables = reader.finish();
    let found: Vec<_> = tables
        .iter()
        .map(|(table, changes)| (table.to_string(), column(changes.as_ref().expect("the rows are read"), "id")))
        .collect();
    assert_eq!(
        found,
        [("shop.customers".to_owned(), vec!["5".to_owned()]), ("shop.orders".to_owned(), vec!["1".to_owned()])]
    );
}
